"""What an import costs: the measurement loads no framework, the command line no torch."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

FRAMEWORKS = ("hydra", "pytorch_lightning", "mlflow", "pandas", "matplotlib")


def loaded(statement: str) -> set[str]:
    """The top-level modules that a fresh process holds after the statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stdout)}


def test_the_package_alone_loads_nothing_heavy():
    assert not loaded("import jne") & {*FRAMEWORKS, "torch", "numpy"}


@pytest.mark.runs
def test_the_measurement_loads_no_framework():
    """Also when it is used."""
    used = """
from jne import ResidualEncoder, jacobian_deviation, jne, jne_ss, mean_deviation, measure
import torch
deviation = jacobian_deviation(ResidualEncoder(4, 3, hidden_width=5), torch.randn(6, 4))
jne(deviation), jne_ss(deviation), mean_deviation(deviation)
measure(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()), torch.randn(6, 4)).jne
"""
    needed = loaded(used)
    assert not needed & set(FRAMEWORKS)
    # Nor anything else that only the extra [full] installs.
    of_extras = modules_of(packages("estimator") | packages("full"))
    assert {"pydantic", "yaml", "omegaconf", "mlflow", "PIL"} <= of_extras
    assert not needed & of_extras


FITTED = """
import json
import numpy as np
from jne import JNERegressor, MeasureJNE, evidence, nonlinear_share
rng = np.random.default_rng(0)
x = rng.standard_normal((60, 4)).astype(np.float32)
y = np.stack([x[:, 0], np.abs(x[:, 1]) + x[:, 2]], axis=1)
model = JNERegressor(hidden_width=8, max_epochs=3, weight_decay=0.0).fit(x[:40], y[:40])
values = {
    "score": model.score(x, y), "jne": model.jne(x).tolist(),
    "p": model.evidence(x[40:], y[40:]).p_fdr.tolist(),
    "share": nonlinear_share(x, y[:, :, None] + rng.standard_normal((60, 2, 3))).share.tolist(),
}
"""


@pytest.mark.runs
def test_the_estimator_needs_no_more_than_its_extra():
    """Fitting, JNE, evidence and share are the same where the rest of [full] is hidden."""
    more = packages("full") - packages("estimator") | {"timm", "torchvision"}  # of open_clip
    assert {"hydra-core", "omegaconf", "mlflow", "open-clip-torch", "nilearn"} <= more
    hiding = HIDING.format(modules=modules_of(more), packages=more)
    code = f"{hiding}\n{FITTED}\nprint(json.dumps(values))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here: dict = {}
    exec(FITTED, here)
    for name, values in json.loads(done.stdout.splitlines()[-1]).items():
        np.testing.assert_allclose(values, here["values"][name], rtol=1e-5, err_msg=name)


HIDING = """
import importlib.abc, importlib.metadata, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())

# torchmetrics and Lightning import a package if there is metadata of it.
from_name = importlib.metadata.Distribution.from_name.__func__
def hidden(cls, name):
    if name.lower().replace("_", "-") in {packages}:
        raise importlib.metadata.PackageNotFoundError(name)
    return from_name(cls, name)
importlib.metadata.Distribution.from_name = classmethod(hidden)
"""


def packages(extra: str) -> set[str]:
    """The packages that pyproject.toml names for an extra."""
    project = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())["project"]
    return {_normal(name) for name in project["optional-dependencies"][extra]} - {"jne"}


def modules_of(names: set[str]) -> set[str]:
    """The top-level modules of these packages."""
    return {
        module
        for module, owners in packages_distributions().items()
        if names & {_normal(owner) for owner in owners}
    }


def _normal(requirement: str) -> str:
    """The name in a requirement, in the spelling of package indexes."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement)[0]).lower()

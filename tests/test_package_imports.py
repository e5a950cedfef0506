"""What an import costs: the measurement loads no framework, the command line no torch."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

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
    extras = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())["project"]
    full = {_normal(name) for name in extras["optional-dependencies"]["full"]}
    assert {"mlflow", "hydra-core", "open-clip-torch"} <= full
    of_full = {
        module
        for module, names in packages_distributions().items()
        if full & {_normal(name) for name in names}
    }
    assert {"pydantic", "yaml", "omegaconf", "mlflow", "PIL"} <= of_full
    assert not needed & of_full


def _normal(requirement: str) -> str:
    """The name in a requirement, in the spelling of package indexes."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement)[0]).lower()

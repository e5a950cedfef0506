import os
import runpy
from pathlib import Path

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from jne import cli  # noqa: F401  (registers the config's resolver)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TINY_COHORT = (
    "data.n_features=64",
    "data.n_train=80",
    "data.n_val=20",
    "data.n_test=20",
    "data.voxels_per_roi=3",
)
TINY = ("encoder.hidden_width=32", "trainer.max_epochs=3")  # with the cohort: a second


def compose_train(output, *overrides: str) -> DictConfig:
    """The config that `python train.py ...` would compose."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(os.path.join(ROOT, "conf"), version_base="1.3"):
        return compose("train", overrides=[f"output={output}", *overrides])


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """An MLflow store already migrated: making one takes seconds, so the tests share one."""
    from jne.tracking import open_store

    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    open_store(uri, "jne", folder / "artifacts")
    return uri


@pytest.fixture
def run_train(tmp_path, store, monkeypatch, capsys):
    """`python train.py OVERRIDES` in this process; returns the run folders it made, in order."""

    def run(*overrides: str) -> list[Path]:
        GlobalHydra.instance().clear()
        script = Path(ROOT) / "train.py"
        cohort = () if "data=arrays" in overrides else TINY_COHORT
        settings = [f"output={tmp_path}", f"tracking.uri={store}", *cohort, *TINY, *overrides]
        settings.sort(key=lambda setting: setting != "-m")
        monkeypatch.setattr("sys.argv", [str(script), *settings])
        before = set(tmp_path.glob("*/*/**/status.json"))
        runpy.run_path(str(script), run_name="__main__")
        made = set(tmp_path.glob("*/*/**/status.json")) - before
        return sorted((path.parent for path in made), key=str)

    return run

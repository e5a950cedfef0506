import atexit
import gc
import logging
import os
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: a thread each, before torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

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


def pytest_collection() -> None:
    gc.disable()  # what is imported now stays: looking for garbage is a quarter of that time


def pytest_collection_finish() -> None:
    gc.enable()


def pytest_sessionfinish() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # pytest and Python look for garbage a dozen times at the end of a process. Where they find
        # none, triton tells of all that was not freed.
        gc.freeze()
        atexit.unregister(gc.unfreeze)
        atexit.register(os.dup2, os.open(os.devnull, os.O_WRONLY), 2)


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


def run_quietly(output: Path, store: str, script: str, *overrides: str) -> list[Path]:
    """`python SCRIPT OVERRIDES` in this process; the results folders it made below `output`."""
    GlobalHydra.instance().clear()
    path = Path(ROOT) / script
    settings = [f"output={output}", f"tracking.uri={store}", *overrides]
    settings.sort(key=lambda setting: setting != "-m")
    before = set(output.rglob("status.json"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [str(path), *settings])
        patch.setattr(logging.getLogger(), "handlers", [])  # Hydra adds the run's log and leaves it
        runpy.run_path(str(path), run_name="__main__")
    made = set(output.rglob("status.json")) - before
    return sorted((status.parent for status in made), key=str)


@contextmanager
def no_figures() -> Iterator[None]:
    """Runs without their figures, most of a tiny run's time, where these are not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jne.plots.draw_run", lambda *_: [])
        yield


@pytest.fixture
def run_script(tmp_path, store):
    """`run_quietly` into a folder of the test's own."""
    return lambda script, *overrides: run_quietly(tmp_path, store, script, *overrides)


@pytest.fixture
def run_train(run_script):
    """`python train.py OVERRIDES` on the tiny cohort and encoder."""

    def run(*overrides: str) -> list[Path]:
        cohort = () if "data=arrays" in overrides else TINY_COHORT
        tiny = () if "~encoder" in overrides else TINY
        return run_script("train.py", *cohort, *tiny, *overrides)

    return run

import atexit
import gc
import os
from contextlib import closing, nullcontext
from functools import cache
from pathlib import Path
from sqlite3 import connect

import pytest
import yaml
from filelock import FileLock
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: a thread each, before torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from helpers import TINY, TINY_COHORT, no_figures, run_quietly

from jne.cli import register_resolvers
from jne.utils.files import make_folder

register_resolvers()
# A session composes hundreds of configs of the same files: each text is parsed once.
_parsed = cache(lambda text: yaml.load(text, Loader=get_yaml_loader()))
_load = OmegaConf.load


def _load_parsed(file):
    """Of Hydra, which gives an open file. It makes its sources anew, so the class is changed."""
    return OmegaConf.create(_parsed(file.read()) or {}) if hasattr(file, "read") else _load(file)


OmegaConf.load = staticmethod(_load_parsed)


def pytest_collection() -> None:
    gc.disable()  # what is imported now stays: looking for garbage is a quarter of that time


def pytest_collection_finish() -> None:
    gc.freeze()  # statsmodels looks for garbage at every correction of p: half a second each
    gc.get_freeze_count = lambda: 1  # every run asks, and counting takes a fifth of a second
    gc.enable()


def pytest_sessionfinish() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # pytest and Python look for garbage a dozen times at the end of a process. Where they find
        # none, triton tells of all that was not freed.
        gc.freeze()
        atexit.unregister(gc.unfreeze)
        atexit.register(os.dup2, os.open(os.devnull, os.O_WRONLY), 2)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """A folder with a migrated MLflow store and a run in it, made once for all workers.

    Both take seconds. A test must not write to them.
    """
    from jne.tracking import open_store

    home = tmp_path_factory.getbasetemp()
    home = home.parent if "PYTEST_XDIST_WORKER" in os.environ else home
    with FileLock(home / "library.lock"):
        if not (home / "library" / "whole").exists():
            folder = make_folder(home / "library")
            uri = f"sqlite:///{folder / 'mlflow.db'}"
            open_store(uri, "jne", folder / "artifacts")
            run_quietly(
                folder / "run", uri, "train.py", *TINY_COHORT, *TINY, "trainer.max_epochs=6"
            )
            (folder / "whole").touch()
    return home / "library"


@pytest.fixture(scope="session")
def store(library, tmp_path_factory):
    """A copy of the library's MLflow store, which the tests of a worker write to."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with closing(connect(library / "mlflow.db")) as original, closing(connect(path)) as copy:
        original.backup(copy)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def finished_run(library):
    """The output of a single run of six epochs; a test must not write to it."""
    return library / "run"


@pytest.fixture
def run_script(tmp_path, store):
    """`run_quietly` into a folder of the test's own; a training run has no figures by default."""

    def run(script: str, *overrides: str, figures: bool = False) -> list[Path]:
        with nullcontext() if figures else no_figures():
            return run_quietly(tmp_path, store, script, *overrides)

    return run


@pytest.fixture
def run_train(run_script):
    """`python train.py OVERRIDES` on the tiny cohort and encoder, without figures by default."""

    def run(*overrides: str, figures: bool = False) -> list[Path]:
        cohort = () if "data=arrays" in overrides else TINY_COHORT
        tiny = () if "~encoder" in overrides else TINY
        return run_script("train.py", *cohort, *tiny, *overrides, figures=figures)

    return run

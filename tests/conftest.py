import atexit
import gc
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: a thread each, before torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from helpers import TINY, TINY_COHORT, no_figures, run_quietly

from jne.cli import register_resolvers

register_resolvers()


def pytest_collection() -> None:
    gc.disable()  # what is imported now stays: looking for garbage is a quarter of that time


def pytest_collection_finish() -> None:
    gc.freeze()  # statsmodels looks for garbage at every correction of p: half a second each
    gc.enable()


def pytest_sessionfinish() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # pytest and Python look for garbage a dozen times at the end of a process. Where they find
        # none, triton tells of all that was not freed.
        gc.freeze()
        atexit.unregister(gc.unfreeze)
        atexit.register(os.dup2, os.open(os.devnull, os.O_WRONLY), 2)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """An MLflow store already migrated: making one takes seconds, so the tests share one."""
    from jne.tracking import open_store

    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    open_store(uri, "jne", folder / "artifacts")
    return uri


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, store):
    """The output of a single run of six epochs; a test must not write to it."""
    output = tmp_path_factory.mktemp("run")
    run_quietly(output, store, "train.py", *TINY_COHORT, *TINY, "trainer.max_epochs=6")
    return output


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

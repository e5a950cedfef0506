"""What the tests share: the tiny cohort, and the scripts run in this process."""

import errno
import json
import logging
import os
import pkgutil
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from jne.data.cells import Cells

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TINY_COHORT = (
    "data.n_features=64",
    "data.n_train=80",
    "data.n_val=20",
    "data.n_test=20",
    "data.voxels_per_roi=3",
)
# With the cohort: a second. One weight decay, where it would be chosen among many.
TINY = ("encoder.hidden_width=32", "trainer.max_epochs=3", "optimizer.weight_decay=0")
RESULT_FILES = (
    "voxels.csv",
    "epochs.csv",
    "summary.json",
    "deviation.npy",
    "gain.npy",
    "jne_ss.npy",
    "predictions.npy",
    "encoder.pt",
)
"""What every training run writes that depends on nothing but its config."""


def small_cells(**settings: Any) -> Cells:
    """A small source of `data=cells`, with other settings where they are given."""
    given = {"name": "cells", "subject": "s", "seed": 0, "alpha": [0, 0.5], "noise_ceiling": [0.5],
             "voxels_per_cell": 6, "noise": "independent", "shared_noise": 0, "n_features": 64,
             "n_train": 90, "n_val": 20, "n_test": 15}  # fmt: skip
    return Cells(**given | settings)


def compose_script(script: str, output: Path, *overrides: str) -> DictConfig:
    """The config that `python SCRIPT.py output=OUTPUT OVERRIDES` would compose."""
    composed = deepcopy(_composed(script, *overrides))
    composed.output = str(output)
    return composed


@cache
def _composed(script: str, *overrides: str) -> DictConfig:
    """Kept, since many tests ask for the same: it takes a sixth of a second."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(os.path.join(ROOT, "conf"), version_base="1.3"):
        return compose(script, overrides=[*overrides])


def compose_train(output, *overrides: str) -> DictConfig:
    """The config that `python train.py ...` would compose."""
    return compose_script("train", output, *overrides)


def run_quietly(output: Path, store: str, script: str, *overrides: str) -> list[Path]:
    """`python SCRIPT OVERRIDES` in this process; the results folders it made below `output`.

    Hydra's own options are given as one word: -m, --config-dir=FOLDER. They alone say whether this
    is a sweep, so Hydra need not compose the config twice, once to look for `hydra.mode`.
    """
    GlobalHydra.instance().clear()
    path = Path(ROOT) / script
    settings = [f"output={output}", f"tracking.uri={store}", *overrides]
    settings.sort(key=lambda setting: not setting.startswith("-"))  # options before overrides
    before = set(output.rglob("status.json"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [str(path), *settings])
        patch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        patch.setattr(logging.getLogger(), "handlers", [])  # Hydra adds the run's log and leaves it
        runpy.run_path(str(path), run_name="__main__")
    made = set(output.rglob("status.json")) - before
    return sorted((status.parent for status in made), key=str)


@contextmanager
def no_figures() -> Iterator[None]:
    """Runs without their figures, most of a tiny run's time, where these are not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jne.training.figures.draw_run", lambda *_: [])
        yield


def only_run(output: Path) -> Path:
    """The folder of the only single run below `output`."""
    (folder,) = (output / "runs").iterdir()
    return folder


def sweep_folder(output: Path) -> Path:
    """The folder of the only sweep below `output`."""
    (folder,) = (output / "sweeps").iterdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of a run's result files."""
    return {name: (folder / name).read_bytes() for name in RESULT_FILES}


def status(folder: Path) -> dict[str, Any]:
    """The content of a run's status.json."""
    return json.loads((folder / "status.json").read_text())


def deny(patch: pytest.MonkeyPatch, function: str, file: str) -> None:
    """Make `function`, such as numpy.load, fail on files of this name as without permission.

    The tests may run as root, whom no permissions stop.
    """
    original = pkgutil.resolve_name(function)

    def denied(path: Any, *arguments: Any, **settings: Any) -> Any:
        if Path(path).name == file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, *arguments, **settings)

    patch.setattr(function, denied)

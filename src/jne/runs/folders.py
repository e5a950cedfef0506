"""The folders that Hydra makes for a run before anybody knows whether it can start."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_new: list[Path] = []  # the folders around that of this run, which were not there before it


class FolderCallback(Callback):
    """Hydra's callback, which remembers what folders Hydra is about to make for a single run."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.run.dir).absolute()
        _new[:] = [path for path in folder.parents if not path.exists()]


def discard_if_empty(folder: Path) -> None:
    """Remove a run's folder, and those around it that were made for it, where they are empty."""
    with suppress(OSError):  # one of them is not empty, or was never made
        for path in (folder, *_new):
            path.rmdir()

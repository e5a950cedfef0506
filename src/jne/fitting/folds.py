"""The encoders of all folds of a data set: each stimulus is tested by one that has not seen it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jne.data.datamodule import StandardisedData
from jne.encoders import KernelRegression, is_linear
from jne.fitting.config import FitConfig
from jne.fitting.fit import Fitted, fit
from jne.fitting.history import read_trained, write_trained
from jne.fitting.readout import refit_readouts
from jne.fitting.stacking import stack_readouts, stackable
from jne.stages import Stages
from jne.utils.progress import say


def fit_folds(
    data: Sequence[StandardisedData],
    settings: FitConfig,
    stages: Stages | None = None,
    *,
    first: int = 0,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    **more: Any,
) -> list[Fitted]:
    """An encoder for each fold of one data set; of a single one, as `fit`.

    Readouts of nonlinear encoders are solved for together: the validation stimuli of all folds
    choose their penalties (`jne.fitting.readout`), or stack them (`jne.fitting.stacking`). Those of
    linear encoders, and of kernel regression, are of a fold alone, as those of baselines.

    first: the fold that is trained first, so that several jobs begin with different ones. on_epoch:
    the names of its values end in the number of the fold, where there are several. more: of `fit`.
    """
    if len(data) == 1:
        return [fit(data[0], settings, stages, on_epoch=on_epoch, **more)]
    fits: dict[int, Fitted] = {}
    for k in np.roll(np.arange(len(data)), -first).tolist():
        say(f"fold {k + 1} of {len(data)}")
        log = on_epoch and partial(_log_fold, on_epoch, f"/fold_{k + 1}")
        fits[k] = fit(data[k], settings, stages, on_epoch=log, solve=False, **more)
    fitted = [fits[k] for k in range(len(data))]
    encoders = [fit_of_fold.encoder for fit_of_fold in fitted]
    alone = is_linear(encoders[0]) or isinstance(encoders[0], KernelRegression)
    if settings.readout == "trained" or alone:
        return fitted
    stacked = settings.readout == "stacked" and all(map(stackable, encoders, data))
    solve = stack_readouts if stacked else refit_readouts

    def write(folder: Path) -> None:
        for k, solved in enumerate(solve(encoders, data)):
            history = fitted[k].history.with_readout(solved)
            write_trained(folder / f"{k}.pt", encoders[k], history)

    if stages is None:
        solved = solve(encoders, data)
        histories = [f.history.with_readout(s) for f, s in zip(fitted, solved, strict=True)]
        identities = [""] * len(data)
    else:
        folder = stages.make("fold_readouts", {"fits": [f.identity for f in fitted]}, write)
        histories = [read_trained(folder / f"{k}.pt", e) for k, e in enumerate(encoders)]
        identities = [f"fold_readouts/{folder.name}/{k}" for k in range(len(data))]
    return [Fitted(*parts) for parts in zip(encoders, histories, identities, strict=True)]


def _log_fold(
    on_epoch: Callable[[dict[str, float]], None], ending: str, row: dict[str, float]
) -> None:
    on_epoch({name if name == "epoch" else f"{name}{ending}": v for name, v in row.items()})

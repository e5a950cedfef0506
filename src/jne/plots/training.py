"""Curves of a training."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jne.plots.style import drawing


def plot_training(run: Any, best_epoch: int | None = None, axes: Any = None) -> Any:
    """The loss of the training and the validation stimuli, and the validation R2, by epoch.

    Parameters
    ----------
    run : Results or DataFrame
        A run, or its table of epochs.
    best_epoch : int, optional
        That whose weights were kept; by default that of the run.
    axes : (2,) array of Axes, optional
        By default those of a new figure.

    Returns
    -------
    (2,) array of Axes
    """
    epochs = run if isinstance(run, pd.DataFrame) else run.epochs
    if best_epoch is None and not isinstance(run, pd.DataFrame):
        best_epoch = run.summary["metrics"].get("train/best_epoch")
    folds = [epochs] if "fold" not in epochs else [fold for _, fold in epochs.groupby("fold")]
    with drawing(axes, 2, figsize=(6.8, 2.6)) as axes:
        left, right = axes
        for k, fold in enumerate(folds):
            number, labels = fold["epoch"], ("train", "validation") if k == 0 else (None, None)
            left.plot(number, fold["train/loss"], color="#0072B2", label=labels[0])
            left.plot(number, fold["val/loss"], color="#D55E00", label=labels[1])
            right.plot(number, fold["val/r2"], color="#D55E00")
        for panel in axes:
            panel.set_xlabel("epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            if best_epoch is not None:
                panel.axvline(best_epoch, color="#999999", lw=0.8, ls="--")
        left.set(ylabel="mean squared error (SD² of response)", title="Loss")
        if best_epoch is not None:
            mark_weights_kept(left, best_epoch, "" if len(folds) == 1 else ", on average")
        left.legend()
        right.set(ylabel="R², all voxels pooled", title="Validation R²")
    return axes


def mark_weights_kept(axes: Axes, best_epoch: int, more: str = "") -> None:
    """Name the line at the best epoch."""
    axes.annotate(
        f"weights kept{more}",
        (best_epoch, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-3, -2),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="top",
        fontsize=7,
        color="#777777",
    )

"""The figures of a training run, drawn from its tables and arrays alone."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jne.columns import axis_label
from jne.plots.regions import drawn_rois, plot_by_roi
from jne.plots.style import COLOURS, OTHER_COLOUR, STYLE, save, short, subplots
from jne.plots.training import mark_weights_kept, plot_training
from jne.roi import ordered

_MAX_LINES = 24  # in one panel
_MAX_COLUMNS = 2000  # pixels a figure can show: if there are more voxels, groups are averaged


def draw_run(
    folder: Path,
    title: str,
    voxels: pd.DataFrame,
    epochs: pd.DataFrame,
    best_epoch: int,
    jne_ss: NDArray | None,
    trajectory: pd.DataFrame | None,
) -> list[Path]:
    """The figures of a run, written into `folder` as PNG and PDF; the PNGs, the overview first.

    voxels, epochs, jne_ss, trajectory: as in the results folder; jne_ss is None where JNE was not
    measured (`jacobian.voxels=none`).
    """
    with matplotlib.rc_context(STYLE):
        figures = {
            "training": training_curves(epochs, best_epoch),
            "r2": r2_distribution(voxels),
        }
        if jne_ss is None:
            figures["rms_deviation_by_roi"] = by_roi(voxels, "rms_deviation")
        else:
            figures["jne_by_roi"] = by_roi(voxels, "jne", "mean_deviation")
            figures["jne_ss"] = jne_ss_map(voxels, jne_ss)
        if trajectory is not None:
            figures["trajectory"] = trajectories(trajectory, best_epoch)
        paths = []
        for name, figure in figures.items():
            figure.suptitle(short(title, 100), x=0.01, ha="left", fontsize=7, color="#555555")
            paths.append(save(figure, folder / f"{name}.png", pdf=True))
        if jne_ss is not None:
            paths.insert(0, save(overview(voxels), folder / "overview.png", dpi=100))
    return paths


def overview(voxels: pd.DataFrame) -> Figure:
    """Mean JNE by ROI as a strip.

    It is low enough for MLflow to show it whole at the top of a run's page: that cuts off what is
    higher than 100 pixels, and fades out above the cut. So the names are above the bars.
    """
    figure, axes = subplots(figsize=(7.6, 0.8))
    means = voxels.groupby("roi", observed=True)["jne"].mean()
    rois, note = drawn_rois(voxels)
    values = [means.get(roi, voxels["jne"].mean()) for roi in rois]
    axes.bar(range(len(rois)), values, color=[COLOURS.get(roi, OTHER_COLOUR) for roi in rois])
    axes.set_ylabel("JNE", fontsize=7, labelpad=2)
    axes.set_title(
        f"mean JNE by ROI{note}; over all voxels JNE {voxels['jne'].mean():.3f}, "
        f"test R² {voxels['r2'].mean():.3f}",
        fontsize=7,
        pad=12,
    )
    axes.xaxis.tick_top()
    axes.tick_params(labelsize=7, length=0, pad=2)
    axes.locator_params(axis="y", nbins=3)
    axes.margins(x=0.01)
    names = [short(roi, 12) or "all" for roi in rois] if len(rois) <= 16 else []
    axes.set_xticks(range(len(names)), names)
    figure.subplots_adjust(left=0.06, right=0.995, bottom=0.08, top=0.68)
    return figure


def training_curves(epochs: pd.DataFrame, best_epoch: int) -> Figure:
    figure, axes = subplots(1, 2, figsize=(6.8, 2.6), layout="constrained")
    plot_training(epochs, best_epoch, axes)
    return figure


def trajectories(table: pd.DataFrame, best_epoch: int) -> Figure:
    """JNE and test R2 by epoch, mean and standard deviation over the followed voxels of each ROI.

    At the right end, apart from the lines, those of the saved encoder. More ROIs than a figure can
    tell apart are drawn as one group.
    """
    rois = ordered(table["roi"])
    groups = rois if 0 < len(rois) <= _MAX_LINES else ["all"]
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(groups)))
    training, final = (table[table["stage"] == stage] for stage in ("training", "final"))
    last = training["epoch"].max() if len(training) else 0
    figure, panels = subplots(1, 2, figsize=(7.6, 3), layout="constrained")
    for panel, column in zip(panels, ("jne", "r2"), strict=True):
        for k, (group, colour) in enumerate(zip(groups, colours, strict=True)):
            lines, points = (
                part if group == "all" else part[part["roi"] == group] for part in (training, final)
            )
            by_epoch = lines.groupby("epoch")[column]
            mean, spread = by_epoch.mean(), by_epoch.std(ddof=0)
            panel.plot(mean.index, mean, color=colour, lw=1.2, label=short(group))
            panel.fill_between(
                mean.index, mean - spread, mean + spread, color=colour, alpha=0.12, lw=0
            )
            panel.errorbar(
                last * (1.06 + 0.1 * k / len(groups)) + 1,
                points[column].mean(),
                points[column].std(ddof=0),
                fmt="o",
                ms=3,
                elinewidth=0.6,
                color=colour,
            )
        panel.axvline(best_epoch, color="#999999", lw=0.8, ls="--")
        panel.axhline(0, color="#999999", lw=0.5)
        panel.set_xlabel("epoch (points: the saved encoder)")
        ticks = panel.get_xticks()
        panel.set_xticks(ticks[(ticks >= 1) & (ticks <= last) & (ticks % 1 == 0)])
    panels[0].set(ylabel=axis_label("jne"), title="JNE by epoch")
    panels[1].set(ylabel="R² on the test stimuli", title="Test R² by epoch")
    mark_weights_kept(panels[0], best_epoch)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        title=f"mean ± SD of\n{len(final)} voxels",
        loc="outside right center",
        ncols=1 + len(groups) // 16,
    )
    return figure


def r2_distribution(voxels: pd.DataFrame) -> Figure:
    figure, axes = subplots(figsize=(4.2, 2.8), layout="constrained")
    r2 = voxels["r2"].dropna()
    if len(r2):
        bins = np.linspace(min(r2.min(), 0), max(r2.max(), 0.01), 41)
        axes.hist(r2, bins, color="#0072B2")
        axes.margins(y=0.15)  # room for the label
        axes.axvline(r2.median(), color="#D55E00", lw=1)
        axes.annotate(
            f"median {r2.median():.3f}",
            (r2.median(), 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            color="#D55E00",
        )
    axes.set(
        xlabel="R² on the test stimuli",
        ylabel="voxels",
        title=f"Prediction accuracy, n = {len(r2)} voxels",
    )
    return figure


def by_roi(voxels: pd.DataFrame, *columns: str) -> Figure:
    """A panel of each of the columns: each voxel by ROI."""
    rois, _ = drawn_rois(voxels.dropna(subset=[columns[0]]))
    size = max(3.6, 1.4 + 0.42 * len(rois)), 2.4 * len(columns)
    figure, axes = subplots(
        len(columns), 1, figsize=size, sharex=True, squeeze=False, layout="constrained"
    )
    for panel, column in zip(axes.flat, columns, strict=True):
        plot_by_roi(voxels, column, panel)
    return figure


def jne_ss_map(voxels: pd.DataFrame, jne_ss: NDArray) -> Figure:
    """JNE-SS: stimuli in rows by their mean, voxels in columns by ROI and then by JNE."""
    figure, axes = subplots(figsize=(6.8, 3.2), layout="constrained")
    rois, note = drawn_rois(voxels)
    if note:
        columns = np.flatnonzero(voxels["roi"].isin(rois))
        voxels, jne_ss = voxels.iloc[columns], jne_ss[:, columns]
    rank = voxels["roi"].map({roi: i for i, roi in enumerate(rois)}).fillna(len(rois))
    measured = np.flatnonzero(voxels["jne"].notna())
    order = measured[np.lexsort((voxels["jne"].iloc[measured], rank.iloc[measured]))]
    axes.set(xlabel="voxels", ylabel="test stimuli", title=f"JNE-SS{note}")
    if not len(order):
        return figure
    group = -(-len(order) // _MAX_COLUMNS)
    starts = np.arange(0, len(order), group)
    image = np.column_stack([jne_ss[:, order[s : s + group]].mean(axis=1) for s in starts])
    image = image[np.argsort(-image.mean(axis=1))]
    positive = image[image > 0]
    norm = LogNorm(*np.percentile(positive, (5, 99.9))) if len(positive) else None
    drawn = axes.imshow(
        np.maximum(image, positive.min() if len(positive) else 0),
        aspect="auto",
        cmap="viridis",
        norm=norm,
        interpolation="nearest",
        extent=(0, len(order), len(image), 0),
    )
    figure.colorbar(drawn, ax=axes, label="(s − μ)² in (SD per SD)²", pad=0.01)
    sizes = rank.iloc[order].value_counts().sort_index()
    edges = np.concatenate([[0], np.cumsum(sizes)])
    for edge in edges[1:-1]:
        axes.axvline(edge, color="white", lw=0.6)
    names = [*map(short, rois), "other"]
    if rois != [""]:
        axes.set_xticks(
            (edges[:-1] + edges[1:]) / 2,
            [names[int(i)] for i in sizes.index],
            rotation=90 if len(sizes) > 12 else 0,
            fontsize=5 if len(sizes) > 30 else None,
        )
        axes.set_xlabel("voxels by ROI, then by JNE")
    axes.set_ylabel("test stimuli by mean JNE-SS")
    return figure

"""Figures of a report, drawn from its tables alone. Each takes one subject's tables."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jne.analysis.reliability import correlation
from jne.analysis.selectivity import WHOLE_BRAIN
from jne.evaluation.tables import N_SPLITS, SubjectTables
from jne.features.images import Images
from jne.plots.panels import name_groups, violins
from jne.plots.style import STYLE, save, subplots

_N_EXAMPLE_ROWS, _N_EXAMPLES = 8, 7  # clusters, images of each
DPI = 150
_MANY = 400  # more points than this are drawn as a density
# Paul Tol's muted scheme, told apart by colour-blind readers
_QUALITATIVE = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777",
)  # fmt: skip
MEASURES = {
    "jne": "JNE",
    "mean_deviation": "mean deviation",
    "jne_l2": "JNE-L2",
    "jne_zscore_l1": "JNE-zscore-L1",
    "jne_zscore_l2": "JNE-zscore-L2",
}

# name: column of the voxel table, label, colour map
MAPS = {
    "r2": ("r2_nonlinear", "R²", "viridis"),
    "jne": ("jne", "JNE", "magma"),
}

CAPTIONS = {
    "map_r2": "R² of the nonlinear encoder on the test stimuli, from 0; negative values are drawn "
    "as 0.",
    "map_jne": "JNE of every voxel that has one, significant or not.",
    "r2_scatter": "R² of the nonlinear against the linear encoder, a point (or a bin) a voxel; r "
    "is Pearson's over voxels.",
    "r2_ceiling": "R² against the noise ceiling of R². Solid line: 100 % of what is explainable; "
    "dashed: 80 %.",
    "jne": "JNE and mean deviation of the analysed voxels, by ROI and by tier; the line is the "
    "median.",
    "pairwise": "How often a voxel of the row's region has a larger JNE than one of the column's. "
    "A dot: significantly more often (one-sided Mann-Whitney, Holm).",
    "variants": "Pearson's r over voxels of JNE, its variants and the mean deviation.",
    "mom": "Mean JNE-SS by region and stimulus cluster (MoM): raw, and from 0 to 1 within each "
    "region. A star: higher inside the cluster than outside (permutation of stimuli, FDR).",
    "embedding": "t-SNE of the test stimuli's features, coloured by cluster.",
    "examples": "The stimuli in the middle of each cluster of the t-SNE, the most nonlinear "
    "cluster first.",
    "reliability": "Left: each voxel's JNE with its 95 % interval over the test stimuli. Right: "
    "JNE of two halves of the test stimuli.",
}


def draw_subject(subject: SubjectTables, images: Images | None, folder: Path) -> dict[str, Path]:
    """All figures of a subject as PNG and PDF; the paths of the PNGs by name, in reading order.

    images: the stimuli, by the names in column `image`; without them no examples are drawn.
    """
    with matplotlib.rc_context(STYLE):
        figures = {
            "r2_scatter": r2_scatter(subject),
            "r2_ceiling": r2_ceiling(subject),
            "jne": jne_by_region(subject),
            "pairwise": pairwise(subject),
            "variants": variants(subject),
            "mom": mom(subject),
            "embedding": embedding(subject),
            "examples": examples(subject, images) if images is not None else None,
            "reliability": reliability(subject),
        }
        return {
            name: save(figure, folder / f"{subject.name}_{name}.png", dpi=DPI, pdf=True)
            for name, figure in figures.items()
            if figure is not None
        }


def map_limit(values: np.ndarray) -> float:
    """The top of a map's colour scale: the 99th percentile, so that no single voxel sets it."""
    finite = values[np.isfinite(values)]
    return max(float(np.percentile(finite, 99)), 1e-6) if len(finite) else 1.0


def _points(panel: Axes, x: np.ndarray, y: np.ndarray, limits: tuple[float, float]) -> None:
    if len(x) > _MANY:
        extent = (*limits, *limits)
        panel.hexbin(x, y, gridsize=40, bins="log", cmap="viridis", mincnt=1, extent=extent, lw=0.1)
    else:
        panel.plot(x, y, ".", ms=3, color="#0072B2", alpha=0.6, rasterized=True)
    panel.set(xlim=limits, ylim=limits, aspect="equal")


def _limits(*values: pd.Series) -> tuple[float, float]:
    everything = pd.concat(values).dropna()
    if everything.empty:
        return 0.0, 1.0
    low, high = min(0.0, everything.min()), max(0.1, everything.max())
    return low - 0.03 * (high - low), high + 0.03 * (high - low)


def r2_scatter(subject: SubjectTables) -> Figure | None:
    if "comparison" not in subject.tables:
        return None
    scored = subject.voxels.dropna(subset=["r2_linear", "r2_nonlinear"])
    limits = _limits(scored["r2_linear"], scored["r2_nonlinear"])
    names = [WHOLE_BRAIN, *subject.rois[:11]]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes = subplots(
        rows,
        columns,
        figsize=(1.7 * columns + 0.3, 1.75 * rows + 0.2),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, name in zip(axes.flat, names, strict=False):
        chosen = scored if name == WHOLE_BRAIN else scored[scored["roi"] == name]
        panel.plot(limits, limits, color="#999999", lw=0.7, zorder=0)
        x, y = chosen["r2_linear"].to_numpy(), chosen["r2_nonlinear"].to_numpy()
        _points(panel, x, y, limits)
        r = correlation(x, y)
        title = "all voxels" if name == WHOLE_BRAIN else name
        panel.set_title(title + (f"  r = {r:.2f}" if np.isfinite(r) else ""), fontsize=7)
    for panel in axes.flat[len(names) :]:
        panel.set_visible(False)
    figure.supxlabel("R², linear encoder", fontsize=8)
    figure.supylabel("R², nonlinear encoder", fontsize=8)
    return figure


def r2_ceiling(subject: SubjectTables) -> Figure | None:
    if subject.voxels.get("noise_ceiling") is None or not subject.voxels["noise_ceiling"].any():
        return None
    labels = [name for name in ("nonlinear", "linear") if f"r2_{name}" in subject.voxels]
    figure, axes = subplots(
        1,
        len(labels),
        figsize=(2.9 * len(labels) + 0.3, 2.9),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    limits = _limits(
        subject.voxels["noise_ceiling"], *(subject.voxels[f"r2_{label}"] for label in labels)
    )
    for panel, label in zip(axes[0], labels, strict=True):
        chosen = subject.voxels.dropna(subset=["noise_ceiling", f"r2_{label}"])
        _points(panel, chosen["noise_ceiling"].to_numpy(), chosen[f"r2_{label}"].to_numpy(), limits)
        for share, style in ((1.0, "-"), (0.8, "--")):
            ends = np.array([0, limits[1]])
            panel.plot(ends, share * ends, style, color="#D55E00", lw=0.9)
        panel.set(xlabel="noise ceiling of R²", title=f"{label} encoder")
    axes[0, 0].set_ylabel("R² on the test stimuli")
    return figure


def jne_by_region(subject: SubjectTables) -> Figure:
    analysed = subject.voxels[subject.voxels["analysed"]]
    analysed = analysed[analysed["roi"].isin(subject.rois)] if subject.rois else analysed
    rois = subject.rois or [""]
    tiers = [name for name in ("PVC", "IVC", "HVC") if (analysed["tier"] == name).any()]
    levels = [("roi", rois)] + ([("tier", tiers)] if tiers else [])
    width = max(2.2, 0.6 + 0.42 * len(rois))
    figure, axes = subplots(
        2,
        len(levels),
        figsize=(width + 0.7 * len(tiers), 4.2),
        width_ratios=[width, 0.7 * len(tiers)][: len(levels)],
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, measure in zip(axes, ("jne", "mean_deviation"), strict=True):
        for panel, (level, names) in zip(row, levels, strict=True):
            violins(panel, [analysed.loc[analysed[level] == n, measure] for n in names], names)
        row[0].set_ylabel(MEASURES[measure])
    for panel, (_, names) in zip(axes[1], levels, strict=True):
        name_groups(panel, names)
    for panel, title in zip(axes[0], ("by ROI", "by tier"), strict=False):
        panel.set_title(title)
    return figure


def pairwise(subject: SubjectTables) -> Figure | None:
    table = subject.tables["pairwise"]
    table = table[table["measure"] == "jne"]
    levels = [(name, table[table["level"] == name]) for name in ("roi", "tier")]
    levels = [(name, rows) for name, rows in levels if len(rows)]
    if not levels:
        return None
    matrices = []
    for name, rows in levels:
        order = list(dict.fromkeys(rows["greater"]))
        wide = rows.pivot(index="greater", columns="lesser", values=["superiority", "significant"])
        share = wide["superiority"].reindex(index=order, columns=order).astype(float)
        dots = wide["significant"].reindex(index=order, columns=order) == True  # noqa: E712
        matrices.append((name, share, dots))
    sizes = [len(share) for _, share, _ in matrices]
    figure, axes = subplots(
        1,
        len(sizes),
        figsize=(1.9 + 0.27 * sum(sizes), 0.9 + 0.27 * max(sizes)),
        width_ratios=sizes,
        squeeze=False,
        layout="constrained",
    )
    for panel, (name, share, dots) in zip(axes[0], matrices, strict=True):
        drawn = panel.imshow(share, cmap="PuOr_r", vmin=0, vmax=1)
        y, x = np.nonzero(dots.to_numpy())
        panel.plot(x, y, "o", ms=3, color="black")
        panel.set_xticks(range(len(share)), share.columns, rotation=90)
        panel.set_yticks(range(len(share)), share.index)
        panel.set_title("ROIs" if name == "roi" else "tiers")
        panel.spines[:].set_visible(False)
    axes[0, 0].set(ylabel="this region ...", xlabel="... above this one")
    figure.colorbar(drawn, ax=axes, label="share of voxel pairs with larger JNE", shrink=0.9)
    return figure


def variants(subject: SubjectTables) -> Figure | None:
    table = subject.tables["variants"]
    if table.empty:
        return None
    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    matrix = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for row in table.itertuples():
        matrix.loc[row.first, row.second] = matrix.loc[row.second, row.first] = row.r
    figure, axes = subplots(
        figsize=(1.9 + 0.5 * len(names), 0.9 + 0.36 * len(names)), layout="constrained"
    )
    drawn = axes.imshow(matrix, cmap="viridis", vmin=min(0.0, matrix.min().min()), vmax=1)
    middle = (drawn.norm.vmin + 1) / 2
    for (i, j), value in np.ndenumerate(matrix.to_numpy()):
        colour = "black" if value > middle else "white"
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    shown = [MEASURES.get(name, name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), shown)
    axes.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes, label="Pearson r over voxels", pad=0.02)
    return figure


def mom(subject: SubjectTables) -> Figure:
    table = subject.tables["mom"]
    preferred = subject.tables["preferences"].query("preferred")
    groups, clusters = [WHOLE_BRAIN, *subject.rois], subject.clusters.names
    figure, axes = subplots(
        1,
        2,
        figsize=(1.9 + 0.6 * len(groups), 1.2 + max(1.6, 0.17 * len(clusters))),
        sharey=True,
        layout="constrained",
    )
    stars = [(groups.index(row.roi), clusters.index(row.cluster)) for row in preferred.itertuples()]
    for panel, column, title, label in zip(
        axes,
        ("mom", "mom_normalised"),
        ("raw", "within each region"),
        ("mean JNE-SS", "from lowest to highest"),
        strict=True,
    ):
        values = table.pivot(index="cluster", columns="roi", values=column)
        values = values.reindex(index=clusters, columns=groups)
        drawn = panel.imshow(values, aspect="auto", cmap="cividis", interpolation="nearest")
        for x, y in stars:
            shade = drawn.norm(values.iloc[y, x])
            colour = "black" if shade > 0.5 else "white"
            panel.text(x, y, "*", ha="center", va="center_baseline", color=colour)
        names = ["all voxels" if group == WHOLE_BRAIN else group for group in groups]
        panel.set_xticks(range(len(groups)), names, rotation=90)
        panel.set_title(title)
        panel.spines[:].set_visible(False)
        figure.colorbar(drawn, ax=panel, label=label, pad=0.02)
    size = 8 if len(clusters) <= 20 else 5
    axes[0].set_yticks(range(len(clusters)), clusters, fontsize=size)
    return figure


def embedding(subject: SubjectTables) -> Figure:
    clusters = subject.clusters
    chosen = clusters.silhouette
    figure, axes = subplots(
        1,
        2 if chosen else 1,
        figsize=(6.6 if chosen else 4.6, 3.2),
        width_ratios=(3, 2) if chosen else None,
        squeeze=False,
        layout="constrained",
    )
    panel = axes[0, 0]
    few = len(clusters.names) <= len(_QUALITATIVE)
    colours = matplotlib.colormaps["turbo"](np.linspace(0, 1, len(clusters.names)))
    for k, name in enumerate(clusters.names):
        points = clusters.embedding[clusters.label == k]
        colour = _QUALITATIVE[k] if few else colours[k]
        panel.plot(*points.T, ".", ms=4, color=colour, label=name, rasterized=True)
        if not few:
            panel.text(*np.median(points, axis=0), str(k + 1), ha="center", va="center", fontsize=6)
    panel.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    if few:
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, handletextpad=0)
    if chosen:
        axes[0, 1].plot(list(chosen), list(chosen.values()), color="#0072B2")
        axes[0, 1].axvline(len(clusters.names), color="#D55E00", lw=0.9)
        axes[0, 1].set(
            xlabel="clusters", ylabel="mean silhouette", title=f"{len(clusters.names)} clusters"
        )
    return figure


def examples(subject: SubjectTables, images: Images) -> Figure:
    table = subject.tables["mom"].query("roi == @WHOLE_BRAIN").sort_values("mom", ascending=False)
    clusters = list(table["cluster"])[:_N_EXAMPLE_ROWS]
    figure, axes = subplots(
        len(clusters),
        _N_EXAMPLES,
        figsize=(6.6, 0.2 + 0.92 * len(clusters)),
        squeeze=False,
        gridspec_kw={"wspace": 0.04, "hspace": 0.06},
    )
    number = {name: i for i, name in enumerate(images.names)}
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    for row, cluster in zip(axes, clusters, strict=True):
        own = subject.stimuli[subject.stimuli["cluster"] == cluster]
        place = own[["x", "y"]].to_numpy()
        nearest = np.argsort(np.linalg.norm(place - np.median(place, axis=0), axis=1))
        for panel, name in zip(row, own["image"].iloc[nearest].astype(str), strict=False):
            image = images.read(number[name])
            image.thumbnail((160, 160))
            panel.imshow(image)
        row[0].set_ylabel(cluster, rotation=0, ha="right", va="center")
    return figure


def reliability(subject: SubjectTables) -> Figure:
    figure, (left, right) = subplots(1, 2, figsize=(6.4, 2.8), layout="constrained")
    analysed = subject.voxels[subject.voxels["analysed"]].sort_values("jne")
    if len(analysed) > 2000:
        analysed = analysed.iloc[np.linspace(0, len(analysed) - 1, 2000).astype(int)]
    rank = np.linspace(0, 100, len(analysed))
    left.fill_between(
        rank, analysed["jne_low"], analysed["jne_high"], color="#0072B2", alpha=0.3, lw=0
    )
    left.plot(rank, analysed["jne"], color="#0072B2", lw=1)
    left.set(xlabel="voxels by JNE (%)", ylabel="JNE", title="95 % interval over stimuli")
    left.set_ylim(bottom=0)
    first, second = analysed["jne_half1"], analysed["jne_half2"]
    limits = _limits(first, second)
    right.plot(limits, limits, color="#999999", lw=0.7, zorder=0)
    _points(right, first.to_numpy(), second.to_numpy(), limits)
    r = correlation(first.to_numpy(), second.to_numpy())
    right.set(
        xlabel="JNE, one half of the stimuli",
        ylabel="JNE, the other half",
        title=f"Split half (one of {N_SPLITS}): r = {r:.3f}",
    )
    return figure

"""JNE-SS by cluster of stimuli: which stimuli is a region most nonlinear for?"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jne.analysis import selectivity
from jne.analysis.selectivity import WHOLE_BRAIN, Clusters
from jne.evaluation.claims import why_unclaimed
from jne.evaluation.sections.base import Section, Tables, by_region, first_names
from jne.evaluation.thumbnails import draw_rows, stimulus_images, without_images
from jne.evaluation.voxels import MAX_SHOWN, SubjectData
from jne.features.images import Images
from jne.plots.style import qualitative, short, subplots
from jne.utils.files import write_array

_MAX_NAMED = 8  # regions in a sentence
_MOST_IN_LEGEND = 10
_N_EXAMPLE_ROWS, _N_EXAMPLES = 8, 7  # clusters, images of each


class Selectivity(Section):
    title = "Which stimuli"
    captions: Mapping[str, str] = {
        "mom": "Mean JNE-SS by region and stimulus cluster (MoM): raw, and scaled from 0 to 1 "
        "within each region. A star marks a cluster with significantly higher JNE-SS inside than "
        "outside (permutation of stimuli, FDR).",
        "embedding": "t-SNE of the features of the test stimuli, coloured by cluster.",
        "examples": "The stimuli nearest the centre of each cluster in the t-SNE, the cluster with "
        "the highest JNE-SS first.",
    }
    regional: Mapping[str, int] = {"mom": MAX_SHOWN}

    def tables(self, data: SubjectData) -> Tables:
        clusters, settings = data.clusters, data.config.selectivity
        columns = np.flatnonzero(data.voxels["analysed"])
        roi = data.analysed["roi"].to_numpy()
        mom = selectivity.mean_over_regions(_moj(data)[:, columns], roi, data.rois)
        jne_ss = data.subject.nonlinear.array("jne_ss")[:, columns]
        by_stimulus = selectivity.mean_over_regions(jne_ss, roi, data.rois)
        return {
            "mom": _long_mom(mom, clusters),
            "preferences": selectivity.preferences(
                by_stimulus.dropna(axis="columns"),
                clusters,
                settings.n_permutations,
                data.config.seed,
                data.config.stats.alpha,
            ),
            "stimuli": data.subject.nonlinear.stimuli.assign(
                cluster=np.asarray(clusters.names)[clusters.label],
                x=clusters.embedding[:, 0],
                y=clusters.embedding[:, 1],
            ),
        }

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        preferred = tables["preferences"].query("preferred").sort_values("p_fdr")
        columns = ["roi", "cluster", "n_stimuli", "inside", "outside", "ratio", "p", "p_fdr"]
        return {"Preferred stimuli": preferred[columns]} if len(preferred) else {}

    def text(self, data: SubjectData, tables: Tables) -> str:
        if tables["preferences"]["preferred"].any():
            return (
                "Clusters for whose stimuli a region is significantly more nonlinear than for the "
                "others: mean JNE-SS inside and outside the cluster, and their ratio."
            )
        return "No region is significantly more nonlinear for one cluster than for the others."

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        figures = {"mom": _mom_matrix(data, tables), "embedding": _embedding(data.clusters)}
        if "image" in tables["stimuli"]:
            with without_images(data.name, "example stimuli"):
                images = stimulus_images(data.subject.nonlinear, tables["stimuli"])
                figures["examples"] = draw_examples(tables["mom"], tables["stimuli"], images)
        return figures

    def write_files(self, data: SubjectData, folder: Path) -> dict[str, str]:
        name = f"moj_{data.file_name}.npy"
        write_array(folder / name, _moj(data).astype(np.float32))
        return {name: "MoJ, the mean JNE-SS by stimulus cluster and voxel, in the order of the "
                      "table of voxels"}  # fmt: skip

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        preferred = tables["preferences"].query("preferred")
        if data.rois:
            preferred = preferred[preferred["roi"] != WHOLE_BRAIN]
        if preferred.empty:
            return ["JNE-SS is not significantly higher for any cluster of stimuli."]
        preferred = preferred.sort_values("ratio", ascending=False)
        reasons = {
            roi: why_unclaimed(data, rows)
            for roi, rows in by_region(data.voxels, list(preferred["roi"].unique()))
        }
        reported = preferred[preferred["roi"].map(reasons) == ""]
        regions = reported["roi"].replace(WHOLE_BRAIN, "all voxels")
        parts = [
            f"{region} ({', '.join(clusters[:3])})"
            for region, clusters in reported["cluster"].groupby(regions, sort=False)
        ]
        without = [roi for roi in preferred["roi"].unique() if reasons[roi]]
        sentences = []
        if parts:
            named = first_names(parts, _MAX_NAMED)
            sentences.append(f"JNE-SS is significantly higher for some stimuli: {named}.")
        if without:
            named = first_names(without, _MAX_NAMED)
            sentences.append(
                f"Of the stimuli of {named} nothing is claimed, where JNE describes the training, "
                f"not the brain ({without[0]}: {reasons[without[0]]})."
            )
        return sentences


def _moj(data: SubjectData) -> NDArray[np.float64]:
    """MoJ (C, V), NaN for voxels without JNE-SS."""
    return selectivity.mean_over_cluster(data.subject.nonlinear.array("jne_ss"), data.clusters)


def _long_mom(mom: pd.DataFrame, clusters: Clusters) -> pd.DataFrame:
    """MoM in long form, raw and min-max normalised: one row per cluster and region."""
    normalised = selectivity.min_max(mom)
    sizes = np.bincount(clusters.label, minlength=len(clusters.names))
    return pd.DataFrame(
        {
            "cluster": np.repeat(clusters.names, mom.shape[1]),
            "n_stimuli": np.repeat(sizes, mom.shape[1]),
            "roi": np.tile(mom.columns, len(mom)),
            "mom": mom.to_numpy().ravel(),
            "mom_normalised": normalised.to_numpy().ravel(),
        }
    )


def _mom_matrix(data: SubjectData, tables: Tables) -> Figure:
    regions, clusters = [WHOLE_BRAIN, *data.shown_rois], data.clusters.names
    preferred = tables["preferences"].query("preferred")
    preferred = preferred[preferred["roi"].isin(regions)]
    figure, axes = subplots(
        1,
        2,
        figsize=(max(3.6, 1.9 + 0.6 * len(regions)), 1.2 + max(1.6, 0.17 * len(clusters))),
        sharey=True,
        layout="constrained",
    )
    stars = [
        (regions.index(region), clusters.index(cluster))
        for region, cluster in zip(preferred["roi"], preferred["cluster"], strict=True)
    ]
    for panel, column, title, label in zip(
        axes,
        ("mom", "mom_normalised"),
        ("raw", "within each region"),
        ("mean JNE-SS", "from lowest to highest"),
        strict=True,
    ):
        values = tables["mom"].pivot(index="cluster", columns="roi", values=column)
        values = values.reindex(index=clusters, columns=regions)
        image = panel.imshow(values, aspect="auto", cmap="cividis", interpolation="nearest")
        for x, y in stars:
            shade = image.norm(values.iloc[y, x])
            colour = "black" if shade > 0.5 else "white"
            panel.text(x, y, "*", ha="center", va="center_baseline", color=colour)
        names = ["all voxels" if name == WHOLE_BRAIN else short(name) for name in regions]
        panel.set_xticks(range(len(regions)), names, rotation=90)
        panel.set_title(title)
        panel.spines[:].set_visible(False)
        figure.colorbar(image, ax=panel, label=label, pad=0.02)
    size = 8 if len(clusters) <= 20 else 5
    axes[0].set_yticks(range(len(clusters)), [short(name) for name in clusters], fontsize=size)
    return figure


def _embedding(clusters: Clusters) -> Figure:
    silhouette = clusters.silhouette
    figure, axes = subplots(
        1,
        2 if silhouette else 1,
        figsize=(6.6 if silhouette else 4.6, 3.2),
        width_ratios=(3, 2) if silhouette else None,
        squeeze=False,
        layout="constrained",
    )
    panel = axes[0, 0]
    few = len(clusters.names) <= _MOST_IN_LEGEND
    colours = qualitative(len(clusters.names))
    for k, name in enumerate(clusters.names):
        positions = clusters.embedding[clusters.label == k]
        panel.plot(*positions.T, ".", ms=4, color=colours[k], label=short(name), rasterized=True)
        if not few:
            centre = np.median(positions, axis=0)
            panel.text(*centre, str(k + 1), ha="center", va="center", fontsize=6)
    panel.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    if few:
        panel.legend(
            handles=panel.lines,  # named, because names that begin with `_` would be left out
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            fontsize=7,
            handletextpad=0,
        )
    if silhouette:
        axes[0, 1].plot(list(silhouette), list(silhouette.values()), color="#0072B2")
        axes[0, 1].axvline(len(clusters.names), color="#D55E00", lw=0.9)
        axes[0, 1].set(
            xlabel="clusters", ylabel="mean silhouette", title=f"{len(clusters.names)} clusters"
        )
    return figure


def draw_examples(mom: pd.DataFrame, stimuli: pd.DataFrame, images: Images) -> Figure:
    """One row per cluster: the images nearest the centre of its stimuli in the embedding.

    mom, stimuli: the tables of this section. Raises InputError where an image cannot be read.
    """
    whole = mom[mom["roi"] == WHOLE_BRAIN].sort_values("mom", ascending=False)
    rows = {}
    for cluster in list(whole["cluster"])[:_N_EXAMPLE_ROWS]:
        members = stimuli[stimuli["cluster"] == cluster]
        position = members[["x", "y"]].to_numpy()
        distance = np.linalg.norm(position - np.median(position, axis=0), axis=1)
        nearest = members["image"].iloc[np.argsort(distance)].astype(str)
        names = list(nearest[:_N_EXAMPLES])
        rows[cluster] = names + [""] * (_N_EXAMPLES - len(names))
    return draw_rows(rows, images)

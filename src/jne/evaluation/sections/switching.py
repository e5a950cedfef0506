"""What switches in the most nonlinear regions: few directions of feature space, and stimuli."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jne.errors import InputError
from jne.evaluation.sections.base import Section, Tables
from jne.evaluation.switched import RegionSwitching, loadings_table, region_switching
from jne.evaluation.thumbnails import draw_rows, stimulus_images, without_images
from jne.evaluation.voxels import SubjectData
from jne.plots.style import qualitative, short, subplots
from jne.utils.progress import say
from jne.utils.spaces import cell_names, grid_of

_N_ENDS = 6  # stimuli at an end, in the table
_N_DRAWN = 4
_N_CORRELATED = 8  # columns of the stimulus table on the page
_NO_PROPERTIES = ("stimulus", "fold")  # numbers that say nothing about a stimulus
_KEYS = ["roi", "direction"]


class Switches(Section):
    title = "What switches?"
    docs = "switching.md"
    captions: Mapping[str, str] = {
        "switching": "Share of the mean squared deviation of a region's Jacobians that lies along "
        "its first three directions of feature space, and how many directions are in use (the "
        "participation ratio).",
        "switching_ends": "The stimuli with the lowest (left) and the highest loadings (right) on "
        "each direction: those at which the response's slope along the direction is farthest from "
        "its mean over stimuli.",
        "switching_cells": "The ends of the first direction again, and where in the image the "
        "deviation of each stimulus's Jacobians comes from: its share by cell, over the square at "
        "the centre that the model sees.",
    }
    headings: Mapping[str, str] = {
        "n_voxels": "voxels",
        "participation_ratio": "directions in use",
        "stability": "stability, halves",
        "in_space": "of its square in that",
        "space": "feature space",
    }

    def tables(self, data: SubjectData) -> Tables:
        try:
            switched = region_switching(data)
        except InputError as error:
            sentence = f"{data.name}: the report does not say what switches ({error})"
            say(sentence, style="yellow", highlight=False)
            return {}
        if switched is None:
            return {}
        run = data.subject.nonlinear
        loadings = loadings_table(switched, run.stimuli)
        return {
            "switching": _by_direction(switched, run.feature_spaces or {}),
            "switching_ends": _ends(loadings),
            "switching_correlations": _correlations(switched, run.stimuli),
            "switching_loadings": loadings,
            "switching_directions": _directions(switched),
        }

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        if not tables:
            return {}
        table, ends = tables["switching"], tables["switching_ends"]
        if "category" in ends:
            categories = ends.groupby([*_KEYS, "end"])["category"].agg(_counted).unstack()
            table = table.merge(categories[["lowest", "highest"]].reset_index(), on=_KEYS)
        page = {"Directions along which Jacobians move": table}
        r = tables["switching_correlations"]
        if len(r):
            largest = r["r"].abs().groupby(r["column"]).max().nlargest(_N_CORRELATED).index
            wide = r.pivot(index=_KEYS, columns="column", values="r")[largest]
            page["Correlations of the loadings with columns of the stimulus table"] = (
                wide.reset_index()
            )
        return page

    def text(self, data: SubjectData, tables: Tables) -> str:
        if not tables:
            return ""
        n = len(tables["switching_loadings"]["stimulus"]) // len(tables["switching"])
        where = "of the first fold, by its encoder," if data.subject.nonlinear.n_folds > 1 else ""
        agreement = ""
        if "agreement" in tables["switching"]:
            agreement = f" Agreement: the same with those of {tables['switching']['with'].iloc[0]}."
        return (
            "Singular value decomposition of the deviations of a region's Jacobians from their "
            f"mean over {n} test stimuli {where} of the nonlinear voxels with the highest z, at "
            "most 50; of the four regions whose nonlinear parts explain most. Stability: how well "
            "the first 1 to 3 directions of half the stimuli agree with those of the other half "
            f"(mean cosine of the principal angles).{agreement} Correlations are Pearson's r over "
            "stimuli."
        ).replace("  ", " ")

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        if not tables:
            return {}
        figures = {"switching": _draw_shares(tables["switching"])}
        ends = tables["switching_ends"]
        if "image" in ends:
            with without_images(data.name, "stimuli at the ends of what switches"):
                images = stimulus_images(data.subject.nonlinear, ends)
                figures["switching_ends"] = draw_rows(_image_rows(ends), images)
                grid = grid_of(data.subject.nonlinear.feature_spaces or ())
                if grid:
                    first = ends[ends["direction"] == 1]
                    figures["switching_cells"] = draw_rows(
                        _image_rows(first), images, _cells(first, grid), "share of deviation"
                    )
        return figures

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        if not tables:
            return []
        first = tables["switching"].query("direction == 1")
        parts = [
            f"{row['participation_ratio']:.1f} in {row['roi']} ({100 * row['share']:.0f} %)"
            for _, row in first.iterrows()
        ]
        return [
            "How many directions of feature space Jacobians move along (participation ratio), and "
            f"what share of their deviation the first one has: {', '.join(parts)}."
        ]

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if not tables:
            return []
        return [
            "Directions are those of the encoder, of voxels that are nonlinear by unseen "
            "responses. One of noise that the encoder has fitted is stable over stimuli, too: "
            "that it is the brain's, only encoders of other seeds or folds can make likely. "
            "Directions of nearly equal share are only found as a set. A region without "
            "evidence is not shown: a linear region has nothing that switches."
        ]


def _by_direction(switched: RegionSwitching, spaces: Mapping[str, slice]) -> pd.DataFrame:
    result, content = switched.switching, []
    for r, roi in enumerate(result.names):
        for k in range(result.share.shape[1]):
            row: dict[str, object] = {
                "roi": roi,
                "n_voxels": switched.n_voxels[roi],
                "participation_ratio": result.participation_ratio[r],
                "direction": k + 1,
                "share": result.share[r, k],
                "stability": result.stability[r, k],
            }
            if switched.agreement is not None:
                row |= {"agreement": switched.agreement[r, k], "with": switched.others}
            if spaces:
                square = np.square(result.directions[r, :, k])
                parts = {name: float(square[columns].sum()) for name, columns in spaces.items()}
                name = max(parts, key=parts.__getitem__)
                row |= {"space": name, "in_space": parts[name]}
            content.append(row)
    return pd.DataFrame(content)


def _ends(loadings: pd.DataFrame) -> pd.DataFrame:
    """The stimuli at both ends of each direction, the farthest first."""
    parts = []
    for _, rows in loadings.groupby(_KEYS, sort=False):
        ordered = rows.sort_values("loading", kind="stable")
        n = min(_N_ENDS, len(rows) // 2)
        for end, chosen in (("lowest", ordered[:n]), ("highest", ordered[::-1][:n])):
            parts.append(chosen.assign(end=end, rank=range(1, n + 1)))
    table = pd.concat(parts, ignore_index=True)
    first = [*_KEYS, "end", "rank"]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def _correlations(switched: RegionSwitching, stimuli: pd.DataFrame) -> pd.DataFrame:
    rows = stimuli.iloc[switched.rows].drop(columns=[*_NO_PROPERTIES], errors="ignore")
    table = {str(name): column.to_numpy() for name, column in rows.items()}
    content = [
        (roi, k + 1, name, r[i, k])
        for name, r in switched.switching.correlations(table).items()
        for i, roi in enumerate(switched.switching.names)
        for k in range(r.shape[1])
    ]
    return pd.DataFrame(content, columns=[*_KEYS, "column", "r"])


def _directions(switched: RegionSwitching) -> pd.DataFrame:
    """A row per feature, as the encoder gets it, and a column per region and direction."""
    return pd.DataFrame(
        {"feature": range(switched.switching.directions.shape[1])}
        | {
            f"{roi} {k + 1}": direction
            for roi, of_roi in zip(
                switched.switching.names, switched.switching.directions, strict=True
            )
            for k, direction in enumerate(of_roi.T)
        }
    )


def _counted(categories: pd.Series) -> str:
    """The most frequent categories with their counts."""
    counts = categories.astype(str).value_counts()[:3]
    return ", ".join(f"{short(str(name))} {n}" for name, n in counts.items())


def _image_rows(ends: pd.DataFrame) -> dict[str, list[str]]:
    """From the lowest loading to the highest, with a gap between; by region and direction."""
    rows = {}
    for (roi, direction), both in ends[ends["rank"] <= _N_DRAWN].groupby(_KEYS, sort=False):
        low, high = (
            [str(name) for name in both.loc[both["end"] == end, "image"]]
            for end in ("lowest", "highest")
        )
        rows[_label(roi, direction)] = [*low, "", *high[::-1]]
    return rows


def _cells(ends: pd.DataFrame, grid: int) -> dict[str, dict[str, NDArray]]:
    """Shares (grid, grid) of the deviation of each image, by region and direction."""
    cells = {}
    for (roi, direction), rows in ends.groupby(_KEYS, sort=False):
        shares = rows[cell_names(grid)].to_numpy().reshape(-1, grid, grid)
        cells[_label(roi, direction)] = dict(zip(rows["image"].astype(str), shares, strict=True))
    return cells


def _label(roi: object, direction: object) -> str:
    return f"{short(str(roi), 20)} {direction}"


def _draw_shares(table: pd.DataFrame) -> Figure:
    """A bar per region, from the first direction to the third."""
    shares = table.pivot(index="roi", columns="direction", values="share")
    rois = list(table["roi"].unique())
    ratios = table.drop_duplicates("roi").set_index("roi")["participation_ratio"]
    figure, axes = subplots(figsize=(4.8, 1.1 + 0.26 * len(rois)), layout="constrained")
    left = np.zeros(len(rois))
    for colour, (direction, part) in zip(
        qualitative(shares.shape[1]), shares.reindex(rois).items(), strict=True
    ):
        axes.barh(rois, part, left=left, height=0.7, color=colour, label=str(direction))
        left += part.to_numpy()
    axes.set_yticks(
        range(len(rois)), [f"{short(roi, 20)}, {ratios[roi]:.1f} in use" for roi in rois]
    )
    axes.set_xlabel("share of the mean squared deviation")
    axes.invert_yaxis()
    axes.legend(title="direction", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure

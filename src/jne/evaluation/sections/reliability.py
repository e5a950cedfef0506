"""How far JNE would move with other test stimuli, and with other seeds of training."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jne.analysis import reliability
from jne.columns import label
from jne.evaluation.sections.base import Section, Tables
from jne.evaluation.voxels import SubjectData
from jne.plots.panels import limits_of, points
from jne.plots.style import subplots
from jne.results.halves import agreement, of_all_voxels, repeats

_MAX_DRAWN = 2000  # voxels in the figure of the intervals


class Reliability(Section):
    title = "Reliability"
    captions: Mapping[str, str] = {
        "reliability": "Left: JNE of each voxel with its 95 % interval over the test stimuli. "
        "Right: JNE from two halves of the test stimuli, one point (or bin) per voxel.",
    }
    headings: Mapping[str, str] = {
        "split_half_r": "split-half r",
        "median_interval_width": "median width of the interval",
        "median_jne": "median JNE",
        "n_seeds": "seeds",
        "r_across_seeds": "r across seeds",
        "median_sd_across_seeds": "median SD across seeds",
    }

    def tables(self, data: SubjectData) -> Tables:
        columns = np.flatnonzero(data.voxels["analysed"])
        jne, seeds = data.analysed["jne"], data.subject.seeds
        row = {
            "n_voxels": len(columns),
            "n_stimuli": len(data.subject.nonlinear.stimuli),
            "split_half_r": _split_half_r(data.analysed),
            "median_interval_width": (
                data.analysed["jne_high"] - data.analysed["jne_low"]
            ).median(),
            "median_jne": jne.median(),
            "n_seeds": 1 + len(seeds),
            "r_across_seeds": np.nan,
            "median_sd_across_seeds": np.nan,
        }
        if seeds:
            maps = [jne.to_numpy(), *(run.voxels["jne"].to_numpy()[columns] for run in seeds)]
            r, spread = reliability.across_seeds(maps)
            row |= {"r_across_seeds": r, "median_sd_across_seeds": float(np.median(spread))}
        tables = {"reliability": pd.DataFrame([row])}
        halves = data.subject.nonlinear.halves
        if halves is not None:
            tables["disjoint_halves"] = agreement(halves, _rois(data.subject.nonlinear.voxels))
        return tables

    def text(self, data: SubjectData, tables: Tables) -> str:
        text = (
            "The mean Jacobian stays fixed; the stimuli over which the standard deviation is taken "
            f"are resampled. The halves are those of the median of {reliability.N_SPLITS} random "
            "splits, by their correlation."
        )
        if "disjoint_halves" in tables:
            text += (
                " Disjoint halves: two encoders, each trained and tested on a half of all stimuli; "
                "Spearman's r over voxels."
            )
        return text

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        return {"reliability": _intervals_and_halves(data.analysed)}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        row = tables["reliability"].iloc[0]
        across_seeds = (
            f" Across {int(row.n_seeds)} seeds of training, r = {row.r_across_seeds:.3f}."
            if np.isfinite(row.r_across_seeds)
            else ""
        )
        findings = [
            f"JNE from two halves of the {int(row.n_stimuli)} test stimuli correlates at "
            f"r = {row.split_half_r:.3f} over voxels.{across_seeds}"
        ]
        if "disjoint_halves" in tables:
            findings += _of_halves(tables["disjoint_halves"])
        return findings

    def scalars(self, tables: Tables) -> dict[str, float]:
        table = tables["reliability"]
        return dict(zip("split_half_r/" + table["subject"], table["split_half_r"], strict=True))


def _rois(voxels: pd.DataFrame) -> pd.Series:
    return voxels["roi"].fillna("").astype(str)


def _of_halves(agreed: pd.DataFrame) -> list[str]:
    """What two encoders of disjoint halves agree on, over all voxels. agreed: of `agreement`."""
    of_all = of_all_voxels(agreed)
    if not of_all:  # too few voxels
        return []
    text = ", ".join(f"{label(name)} {r:.2f}" for name, r in of_all.items())
    sentence = f"Encoders of two disjoint halves of the stimuli agree on voxels at r: {text}."
    if not repeats(of_all):
        sentence += " The map says that there is nonlinearity, not which voxels have it."
    return [sentence]


def _split_half_r(analysed: pd.DataFrame) -> float:
    """The one number of the table, the text and the figure."""
    return reliability.correlation(
        analysed["jne_half1"].to_numpy(), analysed["jne_half2"].to_numpy()
    )


def _intervals_and_halves(analysed: pd.DataFrame) -> Figure:
    figure, (left, right) = subplots(1, 2, figsize=(6.4, 2.8), layout="constrained")
    r = _split_half_r(analysed)
    analysed = analysed.sort_values("jne")
    if len(analysed) > _MAX_DRAWN:
        analysed = analysed.iloc[np.linspace(0, len(analysed) - 1, _MAX_DRAWN).astype(int)]
    rank = np.linspace(0, 100, len(analysed))
    left.fill_between(
        rank, analysed["jne_low"], analysed["jne_high"], color="#0072B2", alpha=0.3, lw=0
    )
    left.plot(rank, analysed["jne"], color="#0072B2", lw=1)
    left.set(xlabel="voxels by JNE (%)", ylabel="JNE", title="95 % interval over stimuli")
    left.set_ylim(bottom=0)
    first, second = analysed["jne_half1"], analysed["jne_half2"]
    limits = limits_of(first, second)
    right.plot(limits, limits, color="#999999", lw=0.7, zorder=0)
    points(right, first.to_numpy(), second.to_numpy(), limits)
    right.set(
        xlabel="JNE, one half of the stimuli",
        ylabel="JNE, the other half",
        title=f"Split half: r = {r:.3f}",
    )
    return figure

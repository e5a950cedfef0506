"""An external test set beside the first: R² and JNE in and out of the training distribution."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from jne.analysis.hierarchy import MIN_VOXELS
from jne.analysis.reliability import correlation
from jne.analysis.selectivity import WHOLE_BRAIN
from jne.analysis.stimulus_sets import set_scores
from jne.data.source import source_class
from jne.data.splits import MIN_TEST_STIMULI
from jne.evaluation.external_test import ExternalTest
from jne.evaluation.sections.base import Section, Tables, by_region
from jne.evaluation.sections.regions import ends
from jne.evaluation.voxels import SubjectData
from jne.plots.panels import limits_of, points
from jne.plots.style import short, subplots

IN, OUT = "in distribution", "out of distribution"
_EVIDENCE = ["nonlinear_z", *ends("validated_share")]
_MEANS = {
    "r2": "r2_nonlinear",
    "r2_ood": "r2_ood",
    "r": "r_nonlinear",
    "r_ood": "r_ood",
    "noise_ceiling": "noise_ceiling",
    "noise_ceiling_ood": "noise_ceiling_ood",
    "jne": "jne",
    "jne_ood": "jne_ood",
}
"""Column of the table: column of the voxel table."""


class OutOfDistribution(Section):
    title = "Out of distribution"
    captions: Mapping[str, str] = {
        "out_of_distribution": "R² and JNE of each analysed voxel on the test stimuli of the "
        "training data (in) and on the external test set (out), one point (or bin) per voxel. "
        "Line: equal values.",
        "out_of_distribution_by_kind": "R², r and JNE of all analysed voxels and the validated "
        "share of all voxels, by kind of stimulus, with 95 % intervals over stimuli. Grey: the "
        "run's own test stimuli.",
    }
    headings: Mapping[str, str] = {
        "r2": "R² in",
        "r": "r in",
        "noise_ceiling": "ceiling in",
        "jne": "JNE in",
        "r_jne": "r of the JNE maps",
        "rho_jne": "Spearman",
        "r_jne_reliable": "r the reliability allows",
        "r_r2": "r of the R² maps",
    }

    def tables(self, data: SubjectData) -> Tables:
        if "jne_ood" not in data.voxels:
            return {}
        rows = [_row(region, chosen) for region, chosen in by_region(data.analysed, data.rois)]
        tables = {"out_of_distribution": pd.DataFrame(rows)}
        if data.external is not None:
            tables["out_of_distribution_by_kind"] = _by_kind(data, data.external)
        return tables

    def text(self, data: SubjectData, tables: Tables) -> str:
        assert data.config.test is not None
        caveat = source_class(data.config.test.get("_target_")).test_caveat
        by_kind = ""
        if "out_of_distribution_by_kind" in tables:
            by_kind = (
                " By kind: R² is of all voxels of a region together, r and JNE are means over "
                "them; intervals (95 %) are over stimuli, by bootstrap, with the encoder and the "
                "noise of the voxels as they are. R² and JNE within a kind are relative to the "
                "mean of its stimuli. z and validated share are of all voxels of a region, by the "
                "responses to these stimuli; the linear part of the encoder, ridge and "
                "least-squares regression are those of the training stimuli."
            )
        return (
            f"Means over the analysed voxels. In: the {len(data.subject.nonlinear.stimuli)} test "
            f"stimuli of the run. Out: {data.config.test['name']}, with the stored encoder; "
            f"nothing was trained on it. {caveat} The JNE maps can correlate no better than their "
            f"reliability allows: the geometric mean of both split-half correlations "
            f"(Spearman-Brown).{by_kind}"
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        if not tables:
            return {}
        figures = {"out_of_distribution": _in_and_out(data.analysed)}
        if "out_of_distribution_by_kind" in tables:
            by_kind = tables["out_of_distribution_by_kind"]
            whole = by_kind[by_kind["roi"] == WHOLE_BRAIN]
            figures["out_of_distribution_by_kind"] = _kinds(whole)
        return figures

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        if not tables:
            return []
        assert data.config.test is not None
        row = tables["out_of_distribution"].iloc[0]
        return [
            f"On {data.config.test['name']}, mean r {row.r_ood:.3f} and R² {row.r2_ood:.3f} (in "
            f"distribution {row.r:.3f} and {row.r2:.3f}); the JNE maps in and out correlate at r = "
            f"{row.r_jne:.2f}, where their reliability allows {row.r_jne_reliable:.2f}."
        ]

    def scalars(self, tables: Tables) -> dict[str, float]:
        if "out_of_distribution" not in tables:
            return {}
        table = tables["out_of_distribution"]
        whole = table[table["roi"] == WHOLE_BRAIN].set_index("subject")
        return {
            f"ood_{name}/{subject}": value
            for name in ("r2_ood", "r_ood", "jne_ood", "r_jne")
            for subject, value in whole[name].items()
        }

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if "out_of_distribution" not in tables:
            return []
        return [
            "JNE is a spread over stimuli. Between two sets of stimuli its level also differs "
            "because the sets are differently diverse; the correlation of the maps does not depend "
            "on the level.",
            "What is nonlinear in the predictions is uncorrelated with linear functions of the "
            "features over the training stimuli, not over others: far from these, z is a little "
            "too large (docs/evaluation.md).",
        ]


def kinds_of(stimuli: pd.DataFrame) -> dict[str, NDArray[np.int64]]:
    """The rows of each category that has enough stimuli, by its name; none without categories."""
    if "category" not in stimuli:
        return {}
    category = stimuli["category"].astype(str).to_numpy()
    rows = {str(kind): np.flatnonzero(category == kind) for kind in np.unique(category)}
    return {kind: members for kind, members in rows.items() if len(members) >= MIN_TEST_STIMULI}


def _by_kind(data: SubjectData, external: ExternalTest) -> pd.DataFrame:
    """Scores of the stimuli of each kind in each region, beside those of the run's own test."""
    run, evidence = data.subject.nonlinear, external.evidence
    sets = {OUT: np.arange(len(external.stimuli))} | kinds_of(external.stimuli)
    validated = {IN: data.evidence}
    if evidence is not None:
        validated |= {kind: evidence.regions(members) for kind, members in sets.items()}
    of_regions = {kind: v.table() for kind, v in validated.items() if v is not None}
    responses, predictions, deviation = map(run.array, ("responses", "predictions", "deviation"))
    n_bootstrap, seed, rows = data.config.stats.n_bootstrap, data.config.seed, []
    for region, chosen in by_region(data.analysed, data.rois):
        v = chosen.index.to_numpy()
        arrays = {IN: (responses[:, v], predictions[:, v], deviation[:, v])}
        arrays |= {kind: external.arrays(members, v) for kind, members in sets.items()}
        for kind, (y, p, s) in arrays.items():
            scores = set_scores(y, p, s, n_bootstrap, seed)
            row: dict[str, object] = {"roi": region, "kind": kind, "n_stimuli": len(y)}
            for name, estimate in scores._asdict().items():
                row |= dict(zip(ends(name), estimate, strict=True))
            if of_regions:
                table = of_regions.get(kind, pd.DataFrame())
                numbers = table.reindex([region], columns=_EVIDENCE).iloc[0]
                row |= dict(zip(_EVIDENCE, numbers, strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def _row(region: str, voxels: pd.DataFrame) -> dict[str, object]:
    both = voxels.dropna(subset=["jne", "jne_ood"])
    row: dict[str, object] = {"roi": region, "n_voxels": len(both)}
    row |= {
        name: voxels[column].mean() if column in voxels else np.nan
        for name, column in _MEANS.items()
    }
    jne, jne_ood = both["jne"].to_numpy(), both["jne_ood"].to_numpy()
    rho = np.nan
    if len(both) >= MIN_VOXELS and np.ptp(jne) > 0 and np.ptp(jne_ood) > 0:
        rho = float(stats.spearmanr(jne, jne_ood).statistic)
    reliable = np.sqrt(
        max(_reliability(both, "jne_half1", "jne_half2"), 0)
        * max(_reliability(both, "jne_half1_ood", "jne_half2_ood"), 0)
    )
    scores = voxels["r2_nonlinear"].to_numpy(), voxels["r2_ood"].to_numpy()
    return row | {
        "r_jne": correlation(jne, jne_ood),
        "rho_jne": rho,
        "r_jne_reliable": reliable,
        "r_r2": correlation(*scores),
    }


def _reliability(voxels: pd.DataFrame, first: str, second: str) -> float:
    """Of a JNE map from all stimuli, by Spearman and Brown's formula from two halves of them."""
    r = correlation(voxels[first].to_numpy(), voxels[second].to_numpy())
    return 2 * r / (1 + r)


def _in_and_out(voxels: pd.DataFrame) -> Figure:
    figure, axes = subplots(1, 2, figsize=(6.4, 2.9), layout="constrained")
    for panel, name, (first, second) in zip(
        axes, ("R²", "JNE"), (("r2_nonlinear", "r2_ood"), ("jne", "jne_ood")), strict=True
    ):
        finite = voxels[[first, second]].dropna()
        limits = limits_of(finite[first], finite[second])
        panel.plot(limits, limits, color="#999999", lw=0.7, zorder=0)
        points(panel, finite[first].to_numpy(), finite[second].to_numpy(), limits)
        r = correlation(finite[first].to_numpy(), finite[second].to_numpy())
        panel.set(
            xlabel=f"{name}, in distribution",
            ylabel=f"{name}, out of distribution",
            title=f"{name}: r = {r:.2f}",
        )
    return figure


def _kinds(table: pd.DataFrame) -> Figure:
    """table: rows of `_by_kind` of one region."""
    panels = {"r2": "R²", "r": "r", "jne": "JNE", "validated_share": "validated share"}
    panels = {name: label for name, label in panels.items() if name in table}
    size = 2.4 * len(panels), 1.0 + 0.24 * len(table)
    figure, axes = subplots(1, len(panels), figsize=size, layout="constrained", sharey=True)
    y = np.arange(len(table))[::-1]
    inside = (table["kind"] == IN).to_numpy()
    for panel, (name, label) in zip(axes, panels.items(), strict=True):
        values, low, high = (table[column] for column in ends(name))
        panel.hlines(y, low, high, color="#777777", lw=1)
        panel.scatter(values, y, s=18, c=np.where(inside, "#999999", "#222222"), zorder=2)
        panel.set(xlabel=label)
    axes[0].set_yticks(
        y, [short(f"{k} ({n})", 30) for k, n in zip(table["kind"], table["n_stimuli"], strict=True)]
    )
    return figure

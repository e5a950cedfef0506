"""The first screen: each region's nonlinearity, and how well it is predicted, in one figure."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jne.analysis import inference
from jne.analysis.selectivity import WHOLE_BRAIN
from jne.columns import label
from jne.evaluation.claims import of_regions, unclaimed_across
from jne.evaluation.sections.base import ALL_SUBJECTS, Section, Tables, by_region
from jne.evaluation.sections.regions import ends, measured_table, regions_of, subjects_mean
from jne.evaluation.voxels import SubjectData
from jne.plots.summary import PREDICTORS, SHARES, summary_figure
from jne.results.evidence import ALL


class Summary(Section):
    title = "Summary"
    headline = True
    captions: Mapping[str, str] = {
        "summary": "By region, in the order of the hierarchy. Nonlinearity: of the signal, the "
        "nonlinear share (filled), and of what is predicted, the share that the encoder has found "
        "(validated share, open), with 95 % intervals over stimuli; in runs without either, median "
        "and quartiles of JNE over the analysed voxels. "
        "Share of nonlinear voxels with Wilson's 95 % interval. Prediction: mean R² over all "
        "voxels, and the mean noise ceiling.",
        "group": "The same for all subjects: one small mark per subject, a line for their mean "
        "(of shares, by random effects: subjects that are measured well weigh more).",
    }
    headings: Mapping[str, str] = {
        "jne_calibrated": "median JNE, calibrated",
        "jne": "median JNE",
        "jne_q25": "quartiles from",
        "jne_q75": "to",
        "nonlinear_share": "nonlinear share",
        "nonlinear_share_low": "95 % from",
        "nonlinear_share_high": "to",
        "validated_share": "validated share",
        "validated_share_low": "95 % from",
        "validated_share_high": "to",
        "share": "share of voxels nonlinear",
        "share_low": "95 % from",
        "share_high": "to",
        "r2_nonlinear": "R² nonlinear",
        "n_subjects": "subjects",
        "n_above": "subjects above their whole brain",
        "sd": "SD over subjects",
    }

    def tables(self, data: SubjectData) -> Tables:
        return {"summary": _by_region(data)}

    def across_subjects(self, tables: Tables) -> Tables:
        return {"summary": _over_subjects(tables["summary"])}

    def text(self, data: SubjectData, tables: Tables) -> str:
        return (
            "Nonlinear share: how much of the signal no linear map of the features explains. "
            "Validated share: how much of what is predicted the nonlinear part of the encoder "
            "alone explains. JNE: how much the encoder's Jacobian changes over stimuli (Gao et "
            "al., NeurIPS 2025). Tiers: steps of the visual hierarchy, PVC (V1), IVC (V2 to V4) "
            "and HVC (areas beyond)."
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        return {"summary": summary_figure([tables["summary"]], data.shown_rois, data.shown_note())}

    def figures_across(self, subjects: Sequence[SubjectData], tables: Tables) -> dict[str, Figure]:
        table = tables["summary"]
        each = [table[table["subject"] == data.name] for data in subjects]
        rois = list(dict.fromkeys(roi for data in subjects for roi in data.shown_rois))
        mean = table[table["subject"] == ALL_SUBJECTS]
        return {"group": summary_figure(each, rois, subjects[0].shown_note(), mean)}

    def findings_across(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        table = tables["summary"]
        across = table[(table["subject"] == ALL_SUBJECTS) & (table["roi"] != WHOLE_BRAIN)]
        across = across[across["n_above"].notna() & (across["n_subjects"] > 1)]
        steady = across[across["n_above"] == across["n_subjects"]]
        if steady.empty:
            return []
        measure = _compared(table)
        if measure == "jne" and (unclaimed := unclaimed_across(subjects, of_regions)):
            return unclaimed
        names = ", ".join(steady.sort_values(measure, ascending=False)["roi"].iloc[:6])
        called = "median JNE" if measure == "jne" else label(measure)
        return [
            f"In every subject, the {called} of {names} is above that of the whole brain "
            f"({len(steady)} of {len(across)} regions)."
        ]


def _by_region(data: SubjectData) -> pd.DataFrame:
    shares = _shares(data)
    rows = []
    for roi, voxels in by_region(data.voxels, data.rois):
        analysed = voxels[voxels["analysed"]]
        row: dict[str, object] = {
            "roi": roi,
            "tier": "" if roi == WHOLE_BRAIN or voxels.empty else voxels["tier"].iloc[0],
            "n_voxels": len(voxels),
            "n_analysed": len(analysed),
        }
        row |= {name: values[roi] for name, values in shares.items()}
        if "nonlinear" in voxels:
            called = voxels["nonlinear"].dropna()
            share = inference.share_interval(int(called.sum()), len(called))
            row |= dict(zip(("share", "share_low", "share_high"), share, strict=True))
        low, middle, high = analysed["jne"].quantile([0.25, 0.5, 0.75])
        row |= {"jne": middle, "jne_q25": low, "jne_q75": high}
        if "jne_calibrated" in analysed:
            row["jne_calibrated"] = analysed["jne_calibrated"].median()
        row |= {name: voxels[name].mean() for name in PREDICTORS if name in voxels}
        rows.append(row)
    return pd.DataFrame(rows)


def _shares(data: SubjectData) -> dict[str, pd.Series]:
    """The columns of the nonlinear and the validated share, by region, where there are these."""
    columns: dict[str, pd.Series] = {}
    shares, evidence = data.subject.nonlinear.region_shares, data.evidence
    for measured, whole, name in (
        (shares, shares.rois if shares else [], "nonlinear_share"),
        (evidence, [ALL], "validated_share"),
    ):
        if measured is not None:
            table = measured_table(measured, regions_of(data, whole)).drop("tier", errors="ignore")
            columns |= {end: table[end].droplevel("level") for end in ends(name)}
    return columns


def _compared(table: pd.DataFrame) -> str:
    """By what regions are above their whole brain: the first that all subjects have."""
    whole = table[table["roi"] == WHOLE_BRAIN]
    return next((name for name in SHARES if name in whole and whole[name].notna().all()), "jne")


def _over_subjects(table: pd.DataFrame) -> pd.DataFrame:
    """Means over subjects, their spread, and in how many a region is above its whole brain."""
    compared = _compared(table)
    whole = table[table["roi"] == WHOLE_BRAIN].set_index("subject")[compared]
    measures = ("share", "jne", "jne_calibrated", *PREDICTORS)
    averaged = [name for name in measures if name in table.columns]
    shares = [name for name in SHARES if name in table.columns]
    rows = []
    for roi, per_subject in table.groupby("roi", sort=False):
        means: dict[str, float] = {}
        for name in shares:
            means |= subjects_mean(per_subject, name)
        above = per_subject[compared] > per_subject["subject"].map(whole)
        rows.append(
            {
                "roi": roi,
                "tier": per_subject["tier"].iloc[0],
                "n_voxels": int(per_subject["n_voxels"].sum()),
                "n_analysed": int(per_subject["n_analysed"].sum()),
                **means,
                **per_subject[averaged].mean(),
                "sd": per_subject["jne"].std(),
                "n_subjects": len(per_subject),
                "n_above": np.nan if roi == WHOLE_BRAIN else int(above.sum()),
            }
        )
    return pd.DataFrame(rows)

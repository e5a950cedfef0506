"""How much of the nonlinearity the encoder has found, by region (docs/evidence.md)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jne.analysis.prediction import holm
from jne.evaluation.sections.base import ALL_SUBJECTS, Section, Tables, p_text
from jne.evaluation.sections.regions import (
    STEP_HEADINGS,
    Regions,
    clear_rises,
    measured_table,
    over_subjects,
    percent,
    range_of_rois,
    regions_of,
    rise,
    rows,
    steps,
    trend,
)
from jne.evaluation.sections.share_figure import Drawn, draw_shares
from jne.evaluation.voxels import MAX_SHOWN, SubjectData
from jne.results.evidence import ALL, RegionEvidence

_SHARE = "validated_share"
_TITLE = "validated share"
_AGAINST_SHARE = Drawn(_SHARE, _TITLE, "nonlinear_share", "nonlinear share", diagonal=True)
_NO_NULL = "JNE has no null in this run: it was not tested on unseen responses (evidence=true)."
_AGAINST_JNE = Drawn(_SHARE, _TITLE, "jne_calibrated", "mean JNE, calibrated")


class Evidence(Section):
    title = "How much of it the encoder has found"
    docs = "evidence.md"
    headline = True
    captions: Mapping[str, str] = {
        "evidence": "Validated share with its 95 % interval: of the variance of unseen responses "
        "that is predicted, what the nonlinear part of the prediction alone explains. Left: of "
        "each region, of each tier and of all voxels (dashed). Right: of each region, against its "
        "nonlinear share where there is one (dashed: equal), else against its calibrated JNE.",
    }
    regional: Mapping[str, int] = {"evidence": MAX_SHOWN}
    headings: Mapping[str, str] = {
        **STEP_HEADINGS,
        "difference": "validated share rises by",
        "n_nonlinear": "nonlinear voxels",
        "voxels_nonlinear": "share of voxels nonlinear",
        "nonlinear_p": "p",
        "jne": "mean JNE",
        "jne_calibrated": "mean JNE, calibrated",
    }

    def tables(self, data: SubjectData) -> Tables:
        evidence = data.evidence
        if evidence is None:
            return {}
        regions = regions_of(data, [ALL])
        table = _by_group(data, evidence, regions)
        return {
            "evidence": table,
            "evidence_steps": steps(evidence, regions, table, _SHARE),
            "evidence_trend": trend(evidence, regions, table, _SHARE),
        }

    def across_subjects(self, tables: Tables) -> Tables:
        if not tables:
            return {}
        return {
            "evidence": over_subjects(tables["evidence"], ["level", "group"], _SHARE),
            "evidence_steps": over_subjects(
                tables["evidence_steps"], ["lower", "upper"], "difference"
            ),
            "evidence_trend": over_subjects(tables["evidence_trend"], ["tiers"], "slope"),
        }

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        if not tables:
            return {}
        titled = {
            "Validated share by region": tables["evidence"].replace({"level": {"roi": "ROI"}}),
            "Rise of the validated share from tier to tier": tables["evidence_steps"],
            "Slope of the validated share over the tiers": tables["evidence_trend"],
        }
        return {title: table for title, table in titled.items() if len(table)}

    def text(self, data: SubjectData, tables: Tables) -> str:
        if not tables:
            return ""
        return (
            "Responses to stimuli that nothing was fitted to are regressed on the linear part of "
            "the encoder's prediction, on that of ridge regression, and on what is nonlinear in "
            "the prediction. Regions are tested over stimuli, by sums over their voxels: noise "
            "that voxels share is not counted twice. z and p: the nonlinear part exists in the "
            "responses (one-sided; Holm over the regions of a level). Voxels: q by "
            f"Benjamini-Hochberg, {data.rate}. JNE: means over analysed voxels."
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        if not tables:
            return {}
        table = tables["evidence"]
        drawn = _AGAINST_JNE
        if "nonlinear_share" in table and rows(table, "roi", "nonlinear_share").size:
            drawn = _AGAINST_SHARE
        figure = draw_shares(table, data.shown_rois, drawn)
        return {} if figure is None else {"evidence": figure}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        if not tables:
            return [_NO_NULL]
        table, whole = tables["evidence"], tables["evidence"].iloc[0]
        counted = (
            f"{whole.n_nonlinear} of {whole.n_voxels} voxels are nonlinear at a false discovery "
            f"rate of {data.rate}"
        )
        if not np.isfinite(whole.nonlinear_p):
            return ["The predictions of the encoder are linear: no nonlinear part can be tested."]
        if whole.nonlinear_p > data.config.stats.alpha:
            if not whole.n_nonlinear:
                return [
                    "No nonlinear part of the prediction exists in unseen responses "
                    f"({p_text(whole.nonlinear_p)}, and no voxel at a false discovery rate of "
                    f"{data.rate}): JNE here describes the training, not the brain."
                ]
            return [
                f"{counted}; over all voxels, the nonlinear part of the prediction does not "
                f"clearly exist in unseen responses ({p_text(whole.nonlinear_p)})."
            ]
        if not np.isfinite(whole.validated_share):
            return [f"{counted}; the encoder predicts too little for a validated share."]
        return [
            f"Of what is predicted of unseen responses, {percent(whole, _SHARE)} is by the "
            f"nonlinear part of the encoder alone (validated share, {p_text(whole.nonlinear_p)})"
            f"{range_of_rois(table, _SHARE)}; {counted}.",
            *rise(tables["evidence_steps"], tables["evidence_trend"], "The validated share"),
        ]

    def findings_across(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if not tables:
            return []
        table = tables["evidence"].query("level == 'brain'")
        across = table[table["subject"] == ALL_SUBJECTS]
        if not (across["n_subjects"] > 1).any():
            return []
        row, alpha = across.iloc[0], subjects[0].config.stats.alpha
        p = table.loc[table["subject"] != ALL_SUBJECTS, "nonlinear_p"].dropna()
        clear = (p < alpha).sum()
        if not clear:
            return [
                "All subjects: in none of them a nonlinear part of the prediction exists in unseen "
                "responses; JNE describes the training, not the brain."
            ]
        return [
            f"All subjects: {percent(row, _SHARE)} of what is predicted is by the "
            f"nonlinear part of the encoder alone (mean of {row['n_subjects']:.0f} subjects), "
            f"which exists in unseen responses in {clear} of {len(p)} (p < {alpha:g})"
            f"{clear_rises(tables['evidence_steps'])}."
        ]

    def scalars(self, tables: Tables) -> dict[str, float]:
        if not tables:
            return {}
        whole = tables["evidence"].query("level == 'brain'")
        each = whole[whole["subject"] != ALL_SUBJECTS]
        return {
            **dict(zip("validated_share/" + whole["subject"], whole[_SHARE], strict=True)),
            **dict(zip("nonlinear_z/" + each["subject"], each["nonlinear_z"], strict=True)),
        }

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if not tables:
            return []
        lines = [
            "What the encoder did not learn is not in the validated share. It is relative to the "
            "features, as the nonlinear share is, but of what is predicted, not of the signal: "
            "where less of the linear part is predicted than of the nonlinear one, it is the "
            "larger of the two. Test stimuli are assumed to be independent draws. q is over the "
            "voxels of the whole brain: in a linear region, the few below it may all be false."
        ]
        if len(subjects) > 1:
            lines.append(
                "The mean over all subjects is that of random effects, with its interval, for the "
                "population that the subjects come from: those that are measured well weigh more."
            )
        return lines


def _by_group(data: SubjectData, evidence: RegionEvidence, regions: Regions) -> pd.DataFrame:
    measured = measured_table(evidence, regions)
    shares = data.subject.nonlinear.region_shares
    if shares is not None:
        of_signal = measured_table(shares, regions_of(data, shares.rois))["nonlinear_share"]
        measured["nonlinear_share"] = of_signal
    voxels = data.voxels.assign(roi=data.voxels["roi"].fillna("").astype(str))
    voxels = voxels[voxels["r2_linear_part"].notna()]
    content = []
    for ((level, name), rois), numbers in zip(
        regions.items(), measured.to_dict("records"), strict=True
    ):
        members = voxels if level == "brain" else voxels[voxels["roi"].isin(rois)]
        n_nonlinear = int((members["nonlinear_p_fdr"] <= data.config.inference.q).sum())
        analysed = members[members["analysed"]]
        content.append(
            {
                "level": level,
                "group": name,
                "n_voxels": len(members),
                **numbers,
                "n_nonlinear": n_nonlinear,
                "voxels_nonlinear": n_nonlinear / len(members) if len(members) else np.nan,
                **analysed[["jne", "jne_calibrated"]].mean(),
            }
        )
    table = pd.DataFrame(content)
    table["p_holm"] = table.groupby("level")["nonlinear_p"].transform(lambda p: holm(p.to_numpy()))
    first = ["level", "group", "n_voxels", _SHARE, f"{_SHARE}_low", f"{_SHARE}_high"]
    tested = ["nonlinear_z", "nonlinear_p", "p_holm", "n_nonlinear", "voxels_nonlinear"]
    others = table.columns.difference([*first, *tested], sort=False)
    return table[[*first, *tested, *others]]

"""When a difference of JNE is a finding about the brain: one rule, which all sections ask.

JNE describes an encoder. It says something about the voxels where

1. the nonlinear part of its prediction exists in unseen responses: the evidence of the ROIs in
   which they lie, together, tested over stimuli at `stats.alpha`. In runs without evidence, the
   encoder predicts them better than a linear model of the same features: the mean of R² minus that
   of ridge regression is above 0 by a one-sided paired t test over voxels;
2. any of them is nonlinear, by unseen responses, in runs with that evidence.
   The rate of false discoveries is that among them alone: where most of a brain is nonlinear, few
   false ones may yet be most of those in a linear region.

The voxels whose R² are compared are as many as are analysed, those with the highest mean of both:
those that are significant for the encoder would favour it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from jne.analysis import prediction
from jne.analysis.hierarchy import MIN_VOXELS
from jne.evaluation.voxels import SubjectData
from jne.results.evidence import RegionEvidence

_REFERENCES = {"r2_ridge": "ridge regression", "r2_linear": "the linear encoder"}
_NOT_THE_BRAIN = "JNE describes the training here, not the brain"


def why_unclaimed(data: SubjectData, voxels: pd.DataFrame) -> str:
    """Why JNE in these rows of `data.voxels` says nothing about the brain; empty where it does."""
    analysed = voxels[voxels["analysed"]]
    if len(analysed) < MIN_VOXELS:
        return f"only {len(analysed)} voxels are analysed"
    alpha = data.config.stats.alpha
    if data.evidence is None:
        reason = _not_above_linear(voxels, len(analysed), alpha)
    else:
        reason = _not_in_unseen_responses(data.evidence, voxels, alpha)
    if reason:
        return reason
    if "nonlinear_p" not in analysed:
        return ""
    tested = analysed[analysed["r2_linear_part"].notna()]
    p = tested["nonlinear_p"].to_numpy(dtype=np.float64)
    if len(tested) and not (prediction.fdr(p) <= data.config.inference.q).any():
        return f"none of {len(tested)} voxels is nonlinear at a false discovery rate of {data.rate}"
    return ""


def _not_in_unseen_responses(evidence: RegionEvidence, voxels: pd.DataFrame, alpha: float) -> str:
    rois = list(voxels["roi"].fillna("").astype(str).unique())
    p = float(evidence.unions({"": rois}).p[0])
    if p < alpha:
        return ""
    if np.isnan(p):
        return "the predictions of the encoder are linear"
    return (
        "the nonlinear part of the prediction does not clearly exist in unseen responses "
        f"(p = {p:.3f})"
    )


def _not_above_linear(voxels: pd.DataFrame, n_voxels: int, alpha: float) -> str:
    """By the R² of so many voxels."""
    names = [name for name in _REFERENCES if name in voxels and voxels[name].notna().any()]
    if not names:
        return (
            "nothing says how well a linear model predicts; baseline=[ridge] or a linear run does"
        )
    both = voxels[["r2_nonlinear", names[0]]].dropna()
    both = both.loc[both.mean(axis=1).nlargest(n_voxels).index]
    if _is_above(both["r2_nonlinear"] - both[names[0]], alpha):
        return ""
    r2, reference = both.mean()
    return (
        f"the encoder does not predict significantly better than {_REFERENCES[names[0]]} "
        f"(mean R² {r2:.3f} and {reference:.3f})"
    )


def _is_above(difference: pd.Series, alpha: float) -> bool:
    values = difference.to_numpy(dtype=np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return bool(values.mean() > max(0.0, stats.t.isf(alpha, len(values) - 1) * error))


def unclaimed(data: SubjectData, voxels: pd.DataFrame) -> list[str]:
    """The sentence that stands in place of a finding about these rows; none where it is claimed."""
    reason = why_unclaimed(data, voxels)
    return [f"{_NOT_THE_BRAIN}: {reason}."] if reason else []


def unclaimed_across(
    subjects: Sequence[SubjectData], rows: Callable[[SubjectData], pd.DataFrame]
) -> list[str]:
    """The sentence in place of a finding over all subjects; none where each of them claims it.

    rows: of `SubjectData.voxels`, what the finding is about.
    """
    reasons = {data.name: why_unclaimed(data, rows(data)) for data in subjects}
    reasons = {name: reason for name, reason in reasons.items() if reason}
    if not reasons:
        return []
    first, *others = reasons
    more = f" and {len(others)} more of {len(subjects)} subjects" if others else ""
    return [
        f"Nothing is claimed over subjects: in {first}{more}, JNE describes the training, not the "
        f"brain ({reasons[first]})."
    ]


def of_regions(data: SubjectData) -> pd.DataFrame:
    """The rows of the voxels in the reported ROIs; all where there are no ROIs."""
    return data.voxels[data.voxels["roi"].isin(data.rois)] if data.rois else data.voxels

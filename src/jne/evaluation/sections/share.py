"""How much of the signal is nonlinear, by region, without an encoder (docs/share.md)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jne.analysis.inference import partial_rank_correlation
from jne.evaluation.sections.base import ALL_SUBJECTS, Section, Tables
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
    steps,
    trend,
)
from jne.evaluation.sections.share_figure import Drawn, draw_shares
from jne.evaluation.voxels import MAX_SHOWN, SubjectData
from jne.results.shares import RegionShares

_SHARE = "nonlinear_share"
_DRAWN = Drawn(_SHARE, "nonlinear share of the signal", "jne", "mean JNE")
_CEILING = "noise_ceiling"
_ALIKE, _APART = 0.7, 0.3  # rank correlations of JNE and the share: from, and below


class Share(Section):
    title = "How nonlinear, without an encoder"
    docs = "share.md"
    headline = True
    captions: Mapping[str, str] = {
        "share": "Nonlinear share of the signal with its 95 % interval. Left: of each region, of "
        "each tier and of all voxels (dashed). Right: of each region, against the mean JNE of its "
        "analysed voxels.",
    }
    regional: Mapping[str, int] = {"share": MAX_SHOWN}
    headings: Mapping[str, str] = {
        "jne": "mean JNE",
        **STEP_HEADINGS,
        "difference": "share rises by",
        "r": "Spearman's r",
    }

    def tables(self, data: SubjectData) -> Tables:
        shares = data.subject.nonlinear.region_shares
        if shares is None or not {"nonlinear_share", "signal_share"} <= set(data.voxels):
            return {}
        regions = regions_of(data, shares.rois)
        share = _by_group(data, shares, regions)
        return {
            "share": share,
            "share_steps": steps(shares, regions, share, _SHARE),
            "share_trend": trend(shares, regions, share, _SHARE),
            "share_jne": _agreement(data),
        }

    def across_subjects(self, tables: Tables) -> Tables:
        if not tables:
            return {}
        return {
            "share": over_subjects(tables["share"], ["level", "group"], _SHARE),
            "share_steps": over_subjects(tables["share_steps"], ["lower", "upper"], "difference"),
            "share_trend": over_subjects(tables["share_trend"], ["tiers"], "slope"),
        }

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        if not tables:
            return {}
        names = {"nonlinear_share": "nonlinear share", "jne": "JNE", _CEILING: "noise ceiling"}
        titled = {
            "Nonlinear share by region": tables["share"].replace({"level": {"roi": "ROI"}}),
            "Rise of the share from tier to tier": tables["share_steps"],
            "Slope of the share over the tiers": tables["share_trend"],
            "The share, JNE and the noise ceiling": (
                tables["share_jne"].replace(names).rename(columns={"p": "p over voxels"})
            ),
        }
        return {title: table for title, table in titled.items() if len(table)}

    def text(self, data: SubjectData, tables: Tables) -> str:
        if not tables:
            return ""
        method = (
            "1 - V_linear / V_signal: how much of what repeats of a stimulus share no linear map "
            "of the features explains. V_linear is that of a regression which predicts each "
            "stimulus without having seen it; regions are ratios of sums over all trained voxels."
        )
        return " ".join([method, *_comparison(tables["share_jne"])])

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        if not tables:
            return {}
        figure = draw_shares(tables["share"], data.shown_rois, _DRAWN)
        return {} if figure is None else {"share": figure}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        if not tables:
            return []
        whole = tables["share"].iloc[0]
        if not np.isfinite(whole.nonlinear_share):
            return [
                "How much of the signal is nonlinear is not known: the signal of all voxels is "
                "not clearly above 0."
            ]
        sentence = (
            f"Of the signal of all voxels, {percent(whole, _SHARE)} is nonlinear in the features, "
            f"without an encoder{range_of_rois(tables['share'], _SHARE)}"
        )
        return [
            f"{sentence}.",
            *rise(tables["share_steps"], tables["share_trend"], "The nonlinear share"),
        ]

    def findings_across(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if not tables:
            return []
        whole = tables["share"].query(f"level == 'brain' and subject == '{ALL_SUBJECTS}'")
        if not (whole["n_subjects"] > 1).any():
            return []
        row = whole.iloc[0]
        return [
            f"All subjects: {percent(row, _SHARE)} of the signal is nonlinear in the features "
            f"(mean of {row['n_subjects']:.0f} subjects), without an encoder"
            f"{clear_rises(tables['share_steps'])}."
        ]

    def scalars(self, tables: Tables) -> dict[str, float]:
        if not tables:
            return {}
        whole = tables["share"].query("level == 'brain'")
        return dict(
            zip("nonlinear_share/" + whole["subject"], whole["nonlinear_share"], strict=True)
        )

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if not tables:
            return []
        lines = [
            "The share is relative to the features: what is linear in other features may be "
            "nonlinear in these. Stimuli are assumed to be independent draws."
        ]
        by_ceiling = [data.name for data in subjects if _signal_source(data) == "noise ceiling"]
        if by_ceiling:
            lines.append(
                f"The data of {', '.join(by_ceiling)} have no repeats: the signal is known from "
                "the noise ceiling, which the intervals take as exact."
            )
        if len(subjects) > 1:
            lines.append(
                "The mean over all subjects is that of random effects, with its interval, for the "
                "population that the subjects come from: those that are measured well weigh more."
            )
        return lines


def _signal_source(data: SubjectData) -> str:
    """What the signal is known from: repeats, noise ceiling, or empty."""
    if "signal_from" not in data.voxels:
        return ""
    sources = [str(name) for name in data.voxels["signal_from"].dropna().unique() if name]
    return sources[0] if sources else ""


def _by_group(data: SubjectData, shares: RegionShares, regions: Regions) -> pd.DataFrame:
    table = measured_table(shares, regions)
    voxels = data.voxels.assign(roi=data.voxels["roi"].fillna("").astype(str))
    voxels = voxels[voxels["signal_share"].notna()]
    content = []
    for ((level, name), rois), numbers in zip(
        regions.items(), table.to_dict("records"), strict=True
    ):
        members = voxels[voxels["roi"].isin(rois)]
        content.append(
            {
                "level": level,
                "group": name,
                "n_voxels": len(members),
                **numbers,
                "jne": members.loc[members["analysed"], "jne"].mean(),
            }
        )
    return pd.DataFrame(content)


def _agreement(data: SubjectData) -> pd.DataFrame:
    """Rank correlations over analysed voxels, and the one of share and JNE given the ceiling."""
    measures = ["nonlinear_share", "jne"]
    pairs: list[tuple[str, str, list[str]]] = [("nonlinear_share", "jne", [])]
    if _CEILING in data.voxels:
        pairs.append(("nonlinear_share", "jne", [_CEILING]))
        pairs += [(measure, _CEILING, []) for measure in measures]
    content = []
    for first, second, given in pairs:
        columns = data.analysed[[first, second, *given]].to_numpy(dtype=np.float64).T
        r, p = partial_rank_correlation(columns[0], columns[1], list(columns[2:]))
        n = int(np.isfinite(columns).all(axis=0).sum())
        row = {"first": first, "second": second, "given": "".join(given), "n_voxels": n}
        content.append({**row, "r": r, "p": p})
    return pd.DataFrame(content)


def _comparison(table: pd.DataFrame) -> list[str]:
    """Whether JNE and the share tell the same story, and where not, why."""
    given = table["given"] != ""
    pair = table[given] if given.any() else table
    r = float(pair["r"].iloc[0])
    if not np.isfinite(r):
        return []
    story = "the same story" if r >= _ALIKE else "partly the same story"
    if r < _APART:
        story = "different stories"
    held = ", the noise ceiling held constant" if given.any() else ""
    sentence = (
        f"JNE, which needs an encoder, and the share tell {story} (Spearman's r {r:.2f} over "
        f"{pair['n_voxels'].iloc[0]} analysed voxels{held})"
    )
    ceiling = table[table["second"] == _CEILING].set_index("first")["r"]
    if r < _ALIKE and len(ceiling) and abs(ceiling["jne"]) > abs(ceiling["nonlinear_share"]):
        sentence += (
            f"; JNE follows the noise ceiling (r {ceiling['jne']:.2f}) more than the share does "
            f"({ceiling['nonlinear_share']:.2f})"
        )
    return [f"{sentence}."]

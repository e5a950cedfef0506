"""How much of the signal is nonlinear, by region, without an encoder (docs/share.md)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from jne.analysis.inference import partial_rank_correlation
from jne.analysis.selectivity import WHOLE_BRAIN
from jne.evaluation.sections.base import ALL_SUBJECTS, Section, Tables
from jne.evaluation.sections.share_figure import ALL_VOXELS, draw_shares
from jne.evaluation.voxels import MAX_SHOWN, SubjectData
from jne.results.shares import SHARE_COLUMNS, RegionShares
from jne.roi import TIERS

_SHARE = SHARE_COLUMNS[:3]
_STEP = ("difference", "difference_low", "difference_high")
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
        "lower": "from",
        "upper": "to tier",
        "difference": "share rises by",
        "difference_low": "95 % from",
        "difference_high": "to",
        "r": "Spearman's r",
        "n_subjects": "subjects",
    }

    def tables(self, data: SubjectData) -> Tables:
        shares = data.subject.nonlinear.region_shares
        if shares is None or not {"nonlinear_share", "signal_share"} <= set(data.voxels):
            return {}
        share = _by_group(data, shares)
        return {
            "share": share,
            "share_steps": _steps(_regions(data, shares), share, shares),
            "share_jne": _agreement(data),
        }

    def across_subjects(self, tables: Tables) -> Tables:
        if not tables:
            return {}
        return {
            "share": _over_subjects(tables["share"], ["level", "group"], _SHARE),
            "share_steps": _over_subjects(tables["share_steps"], ["lower", "upper"], _STEP),
        }

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        if not tables:
            return {}
        names = {"nonlinear_share": "nonlinear share", "jne": "JNE", _CEILING: "noise ceiling"}
        titled = {
            "Nonlinear share by region": tables["share"].replace({"level": {"roi": "ROI"}}),
            "Rise of the share from tier to tier": tables["share_steps"],
            "The share, JNE and the noise ceiling": tables["share_jne"].replace(names),
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
        rois, tiers = (_rows(tables, level).set_index("group") for level in ("roi", "tier"))
        visible = rois.loc[[roi for roi in data.shown_rois if roi in rois.index]]
        if visible.empty:
            return {}
        whole = tables["share"].iloc[:1].set_axis([ALL_VOXELS])
        return {"share": draw_shares(visible, tiers, whole)}

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
            f"Of the signal of all voxels, {_percent(whole)} is nonlinear in the features, "
            "without an encoder"
        )
        rois = _rows(tables, "roi")
        if len(rois) > 1:
            order = rois["nonlinear_share"].to_numpy().argsort()
            low, high = rois.iloc[order[0]], rois.iloc[order[-1]]
            sentence += f": from {_percent(low)} in {low.group} to {_percent(high)} in {high.group}"
        return [f"{sentence}.", *_rise(tables["share_steps"])]

    def findings_across(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if not tables:
            return []
        whole = tables["share"].query(f"level == 'brain' and subject == '{ALL_SUBJECTS}'")
        if not (whole["n_subjects"] > 1).any():
            return []
        share, n = whole.iloc[0][["nonlinear_share", "n_subjects"]]
        sentence = (
            f"All subjects: {_whole(share)} % of the signal is nonlinear in the features (mean of "
            f"{n:.0f} subjects), without an encoder"
        )
        each = tables["share_steps"].query(f"subject != '{ALL_SUBJECTS}'")
        steps = [
            f"from {lower} to {upper} in {(rows['difference_low'] > 0).sum()} of {len(rows)}"
            for (lower, upper), rows in each.groupby(["lower", "upper"], sort=False)
        ]
        return [sentence + (f"; it rises clearly {', '.join(steps)}." if steps else ".")]

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
                "Intervals over all subjects are t intervals of the mean, for the population that "
                "the subjects come from."
            )
        return lines


def _signal_source(data: SubjectData) -> str:
    """What the signal is known from: repeats, noise ceiling, or empty."""
    if "signal_from" not in data.voxels:
        return ""
    sources = [str(name) for name in data.voxels["signal_from"].dropna().unique() if name]
    return sources[0] if sources else ""


def _regions(data: SubjectData, shares: RegionShares) -> dict[tuple[str, str], list[str]]:
    """By level and name, the ROIs of the whole brain, of each reported ROI and of each tier."""
    regions = {("brain", WHOLE_BRAIN): shares.rois}
    regions |= {("roi", roi): [roi] for roi in data.rois}
    tier = data.voxels.drop_duplicates("roi").set_index("roi")["tier"]
    for name in TIERS:
        members = [roi for roi in data.rois if tier[roi] == name]
        if members:
            regions["tier", name] = members
    return regions


def _by_group(data: SubjectData, shares: RegionShares) -> pd.DataFrame:
    regions = _regions(data, shares)
    table = shares.table({f"{level} {name}": rois for (level, name), rois in regions.items()})
    voxels = data.voxels.assign(roi=data.voxels["roi"].fillna("").astype(str))
    voxels = voxels[voxels["signal_share"].notna()]
    rows = []
    for (level, name), rois in regions.items():
        members = voxels[voxels["roi"].isin(rois)]
        rows.append(
            {
                "level": level,
                "group": name,
                "n_voxels": len(members),
                **table.loc[f"{level} {name}"],
                "jne": members.loc[members["analysed"], "jne"].mean(),
            }
        )
    return pd.DataFrame(rows)


def _steps(
    regions: Mapping[tuple[str, str], list[str]], share: pd.DataFrame, shares: RegionShares
) -> pd.DataFrame:
    """Between consecutive tiers that have a share."""
    tiers = list(share.loc[(share["level"] == "tier") & share["nonlinear_share"].notna(), "group"])
    sums = shares.unions({tier: regions["tier", tier] for tier in tiers})
    rows = [
        (tiers[k], tiers[k + 1], *sums.difference(k + 1, k)) for k in range(max(len(tiers) - 1, 0))
    ]
    table = pd.DataFrame(rows, columns=["lower", "upper", *_STEP])
    return table.astype(dict.fromkeys(_STEP, float))


def _agreement(data: SubjectData) -> pd.DataFrame:
    """Rank correlations over analysed voxels, and the one of share and JNE given the ceiling."""
    measures = ["nonlinear_share", "jne"]
    pairs: list[tuple[str, str, list[str]]] = [("nonlinear_share", "jne", [])]
    if _CEILING in data.voxels:
        pairs.append(("nonlinear_share", "jne", [_CEILING]))
        pairs += [(measure, _CEILING, []) for measure in measures]
    rows = []
    for first, second, given in pairs:
        columns = data.analysed[[first, second, *given]].to_numpy(dtype=np.float64).T
        r, p = partial_rank_correlation(columns[0], columns[1], list(columns[2:]))
        n = int(np.isfinite(columns).all(axis=0).sum())
        row = {"first": first, "second": second, "given": "".join(given), "n_voxels": n}
        rows.append({**row, "r": r, "p": p})
    return pd.DataFrame(rows)


def _over_subjects(
    table: pd.DataFrame, keys: list[str], names: tuple[str, str, str]
) -> pd.DataFrame:
    """The mean over subjects of each group, with its t interval where there are several."""
    rows = []
    for key, each in table.dropna(subset=names[0]).groupby(keys, sort=False):
        values = each[names[0]].to_numpy(dtype=np.float64)
        row: dict[str, object] = dict(zip(keys, key, strict=True))
        if "n_voxels" in each:
            row["n_voxels"] = int(each["n_voxels"].sum())
        row["n_subjects"] = len(values)
        rows.append(row | dict(zip(names, _mean_interval(values), strict=True)))
    return pd.DataFrame(rows)


def _mean_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    mean = float(values.mean())
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def _rows(tables: Tables, level: str) -> pd.DataFrame:
    """The groups of a level that have a share."""
    table = tables["share"]
    return table[(table["level"] == level) & table["nonlinear_share"].notna()]


def _whole(value: float) -> str:
    """In percent, without the sign of a zero."""
    text = f"{100 * value:.0f}"
    return "0" if text == "-0" else text


def _percent(row: pd.Series) -> str:
    share, low, high = (_whole(row[name]) for name in _SHARE)
    return f"{share} % [{low}, {high}]"


def _rise(steps: pd.DataFrame) -> list[str]:
    """Whether the share rises from tier to tier, by the intervals of the differences."""
    if steps.empty:
        return []
    clauses: dict[str, list[str]] = {}
    for _, row in steps.iterrows():
        difference, low, high = (float(row[name]) for name in _STEP)
        verb = "does not clearly change"
        if low > 0 or high < 0:
            verb = "rises" if difference > 0 else "falls"
        clauses.setdefault(verb, []).append(
            f"from {row['lower']} to {row['upper']} by {_whole(difference)} percentage points "
            f"[{_whole(low)}, {_whole(high)}]"
        )
    changes = [f"{verb} {' and '.join(where)}" for verb, where in clauses.items()]
    return [f"The nonlinear share {', and '.join(changes)}."]


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

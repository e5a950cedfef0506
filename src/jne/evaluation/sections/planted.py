"""How nonlinear is a voxel? Its JNE against that of planted twins (docs/inference.md)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from jne.analysis.selectivity import WHOLE_BRAIN
from jne.evaluation.claims import of_regions, why_unclaimed
from jne.evaluation.sections.base import Section, Tables, by_group
from jne.evaluation.voxels import MAX_SHOWN, SubjectData
from jne.plots.panels import name_groups
from jne.plots.style import COLOURS, OTHER_COLOUR, subplots

_FOUND = "found_"  # and the planted share in percent
_Z = 1.96  # of a 95 % interval of a mean


class Planted(Section):
    title = "Other nulls: planted twins"
    docs = "inference.md"
    captions: Mapping[str, str] = {
        "planted": "Mean nonlinear share of the explainable variance (95 % interval of the mean), "
        "and the share of voxels that the test would have found, had they been nonlinear by a "
        "known share.",
    }
    regional: Mapping[str, int] = {"planted": MAX_SHOWN}
    headings: Mapping[str, str] = {
        "mean_share": "mean nonlinear share",
        "mean_low": "95 % from",
        "mean_high": "to",
        "median_share": "median",
    }

    def tables(self, data: SubjectData) -> Tables:
        if "planted_share" not in data.voxels:
            return {}
        return {"planted": pd.DataFrame([_row(*r) for r in by_group(data, _estimated(data))])}

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        if not tables:
            return {}
        names = {name: f"found at {_percent(name)}" for name in _levels(tables["planted"])}
        table = tables["planted"].replace({"level": {"roi": "ROI"}})
        return {"Nonlinear share by region": table.rename(columns=names)}

    def text(self, data: SubjectData, tables: Tables) -> str:
        return (
            "Planted twins have the linear part and the noise of a voxel, and a nonlinear part of "
            "known size. A second encoder was trained on them, too. Where their JNE reaches that "
            "of the voxel, among voxels of like linear power, is its nonlinear share; how many "
            "the test finds at a false discovery rate of "
            f"{data.rate} is its power."
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        return {"planted": _figure(data, tables["planted"])} if tables else {}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        if not tables or not np.isfinite(tables["planted"]["mean_share"].iloc[0]):
            return []
        table = tables["planted"]
        whole, level = table.iloc[0], _levels(table)[len(_levels(table)) // 2]
        sentences = [
            "By planted twins, the nonlinear share of the explainable variance is "
            f"{whole.mean_share:.2f} on average (95 % interval {whole.mean_low:.2f} to "
            f"{whole.mean_high:.2f})"
        ]
        rois = table[table["level"] == "roi"].dropna(subset="mean_share")
        if len(rois) > 1 and not why_unclaimed(data, of_regions(data)):
            order = rois["mean_share"].to_numpy().argsort()
            low, high = rois.iloc[order[0]], rois.iloc[order[-1]]
            sentences[0] += (
                f", from {low.mean_share:.2f} in {low.group} to {high.mean_share:.2f} in "
                f"{high.group}"
            )
        sentences[0] += "."
        weakest = rois.iloc[int(rois[level].to_numpy().argmin())] if len(rois) > 1 else whole
        where = f" of {weakest.group}" if weakest.group != WHOLE_BRAIN else ""
        sentences.append(
            f"A voxel{where} with a nonlinear share of {_percent(level)} would have been found "
            f"with probability {weakest[level]:.2f}" + (", the lowest." if where else ".")
        )
        return sentences

    def scalars(self, tables: Tables) -> dict[str, float]:
        if "planted" not in tables:
            return {}
        whole = tables["planted"].query(f"group == '{WHOLE_BRAIN}'")
        return dict(zip("planted_share/" + whole["subject"], whole["mean_share"], strict=True))

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if "planted" not in tables:
            return []
        return [
            "A nonlinear share is of what the features can explain and the encoder has learned; "
            "it is relative to the nonlinear part of the encoder's own predictions, and tends to "
            "be too small where that is large. That of a single voxel is uncertain: see its "
            "interval.",
        ]


def _estimated(data: SubjectData) -> pd.DataFrame:
    return data.analysed[data.analysed["planted_share"].notna()]


def _levels(table: pd.DataFrame) -> list[str]:
    """The columns with the share of voxels found, by what was planted."""
    return [name for name in map(str, table) if name.startswith(_FOUND)]


def _percent(level: str) -> str:
    return f"{level.removeprefix(_FOUND)} %"


def _row(level: str, group: str, voxels: pd.DataFrame) -> dict[str, object]:
    shares = voxels["planted_share"]
    mean, error = float(shares.mean()), float(stats.sem(shares)) if len(shares) > 1 else np.nan
    power = {name: voxels[name].astype(float).mean() for name in _levels(voxels)}
    return {
        "level": level,
        "group": group,
        "n_voxels": len(voxels),
        "mean_share": mean,
        "mean_low": mean - _Z * error,
        "mean_high": mean + _Z * error,
        "median_share": shares.median(),
        **power,
    }


def _figure(data: SubjectData, table: pd.DataFrame) -> Figure:
    names = data.shown_rois or [WHOLE_BRAIN]
    rows = table.set_index("group").loc[names]
    at = np.arange(len(names))
    width = max(5.0, 1.2 + 0.42 * len(names))  # room for the title
    figure, (above, below) = subplots(2, 1, figsize=(width, 4.0), sharex=True, layout="constrained")
    colours = [COLOURS.get(name, OTHER_COLOUR) for name in names]
    mean = rows["mean_share"].to_numpy()
    error = mean - rows["mean_low"].to_numpy()
    above.bar(at, mean, 0.7, color=colours, alpha=0.6)
    above.errorbar(at, mean, error, fmt="none", color="black", lw=0.8)
    above.axhline(0, color="#999999", lw=0.7)
    above.set(ylabel="nonlinear share", title="of the explainable variance (mean, 95 % interval)")
    for level, marker in zip(_levels(rows), "osD^v<>", strict=False):
        below.plot(at, rows[level], marker, ms=4, label=_percent(level))
    below.set(ylim=(-0.03, 1.03), ylabel="share found", title="power, by what was planted")
    below.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
    name_groups(below, names if data.rois else [""])
    return figure

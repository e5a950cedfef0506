"""What nonlinearity is worth out of distribution: R² above ridge regression, and errors by JNE-SS.

Of an external test set, beside the run's own test stimuli.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jne.analysis.hierarchy import MIN_VOXELS
from jne.analysis.nonlinearity import jne_ss
from jne.analysis.selectivity import WHOLE_BRAIN
from jne.analysis.stimulus_sets import estimate, r2_gain, rank_correlation
from jne.evaluation.external_test import ExternalTest
from jne.evaluation.sections.base import Section, Tables, by_region
from jne.evaluation.sections.out_of_distribution import IN, OUT, kinds_of
from jne.evaluation.sections.regions import ends
from jne.evaluation.voxels import MAX_SHOWN, SubjectData
from jne.plots.style import short, subplots

_GAIN, _ERROR = "generalisation", "generalisation_error"
_VALIDATED, _OTHER, _DIFFERENCE = "validated", "other", "difference"
_WITHIN = "within kinds"
_COLOURS = {_VALIDATED: "#D55E00", _OTHER: "#777777"}


class Generalisation(Section):
    title = "Nonlinearity out of distribution"
    captions: Mapping[str, str] = {
        _GAIN: "Left: R² of the encoder minus R² of ridge regression, in and out of distribution, "
        "of the voxels whose nonlinearity is validated and of all others, with 95 % intervals "
        "over stimuli. Right: Spearman's correlation of JNE-SS and squared error over stimuli, in "
        "distribution (grey) and, within kinds, out of it (black), with 95 % intervals.",
    }
    regional: Mapping[str, int] = {_GAIN: MAX_SHOWN}
    headings: Mapping[str, str] = {
        "gain_in": "gain in",
        "gain_in_low": "95 % from",
        "gain_in_high": "to",
        "gain_out": "gain out",
        "gain_out_low": "95 % from",
        "gain_out_high": "to",
        "change": "out less in",
        "change_low": "95 % from",
        "change_high": "to",
        "n_stimuli": "stimuli",
        "rho": "Spearman",
        "rho_low": "95 % from",
        "rho_high": "to",
    }

    def tables(self, data: SubjectData) -> Tables:
        external = data.external
        if external is None or external.evidence is None or "nonlinear" not in data.voxels:
            return {}
        return {_GAIN: _gains(data, external), _ERROR: _errors(data, external)}

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        titled = {_GAIN: "R² of the encoder above ridge regression", _ERROR: "JNE-SS and error"}
        return {titled[name]: table for name, table in tables.items()}

    def text(self, data: SubjectData, tables: Tables) -> str:
        return (
            "Gain: R² of the encoder minus that of ridge regression on the same training stimuli, "
            "of the analysed voxels of a region together. Validated: voxels whose nonlinear part "
            "exists in the run's own test responses (q by Benjamini-Hochberg, "
            f"{data.rate}). Where their gain changes less than that of the others (difference "
            "above 0), the encoder keeps more of its lead there. Intervals (95 %) are by bootstrap "
            "over the stimuli of both sets, which are resampled on their own. Error: the squared "
            "error of a stimulus and its JNE-SS, means over the voxels of a region, correlated "
            "over the stimuli of a kind; within kinds is their weighted mean."
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        return {_GAIN: _figure(tables, data.shown_rois)} if tables else {}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        if not tables:
            return []
        whole, lines = _whole(tables[_GAIN]), []
        if _VALIDATED in whole:
            row = whole[_VALIDATED]
            lines.append(
                f"In the {row.n_voxels:.0f} voxels whose nonlinearity is validated, the encoder's "
                f"R² is above that of ridge regression by {_text(row, 'gain_in')} in distribution "
                f"and by {_text(row, 'gain_out')} out of it{_against_others(whole)}."
            )
        else:
            lines.append("No nonlinearity is validated in enough voxels to compare their gain.")
        rho = _rows(tables[_ERROR], [WHOLE_BRAIN], OUT).iloc[0]
        if np.isfinite(rho["rho"]):
            verb = "does not clearly go"
            if rho["rho_low"] > 0 or rho["rho_high"] < 0:
                verb = "goes" if rho["rho"] > 0 else "goes inversely"
            lines.append(
                f"Out of distribution, JNE-SS of a stimulus {verb} with its error (Spearman "
                f"{_text(rho, 'rho', 2)})."
            )
        return lines

    def scalars(self, tables: Tables) -> dict[str, float]:
        if not tables:
            return {}
        whole = tables[_GAIN][tables[_GAIN]["roi"] == WHOLE_BRAIN]
        return {
            f"ood_{name}_{row['voxels']}/{row['subject']}": row[name]
            for _, row in whole.iterrows()
            for name in ("gain_in", "gain_out")
            if row["voxels"] != _DIFFERENCE
        }

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if not tables:
            return []
        return [
            "The responses in distribution chose the validated voxels, so their gain in is too "
            "large and its change too low: that they keep their gain is a finding, that they lose "
            "some may be this choice. A squared error has the noise of the responses in it, too: "
            "where noise or contrast differ between stimuli, JNE-SS may go with these."
        ]


def _gains(data: SubjectData, external: ExternalTest) -> pd.DataFrame:
    assert external.evidence is not None
    run, evidence = data.subject.nonlinear, external.evidence
    responses, predictions = run.array("responses"), run.array("predictions")
    scored = np.zeros(len(data.voxels), dtype=bool)
    scored[external.trained[evidence.measured]] = True
    n_bootstrap, seed, rows = data.config.stats.n_bootstrap, data.config.seed, []
    usable = data.analysed[scored[data.analysed.index] & data.analysed["nonlinear"].notna()]
    for region, voxels in by_region(usable, data.rois):
        validated = voxels["nonlinear"].astype(bool)
        gains = {}
        for name, chosen in ((_VALIDATED, validated), (_OTHER, ~validated)):
            v = voxels.index[chosen].to_numpy()
            if len(v) < MIN_VOXELS:
                continue
            among = np.searchsorted(external.trained, v)
            own = responses[:, v], predictions[:, v], evidence.ridge_in[:, among]
            y, p, b = (
                array[:, among]
                for array in (external.responses, external.predictions, evidence.ridge)
            )
            gain_in = r2_gain(*own, n_bootstrap, seed)
            gains[name] = gain_in, r2_gain(y, p, b, n_bootstrap, seed + 1)
            rows.append({"roi": region, "voxels": name, "n_voxels": len(v), **_row(*gains[name])})
        if len(gains) == 2:
            pairs = zip(gains[_VALIDATED], gains[_OTHER], strict=True)
            row = _row(*(first - second for first, second in pairs))
            rows.append({"roi": region, "voxels": _DIFFERENCE, "n_voxels": len(voxels), **row})
    columns = [name for measure in ("gain_in", "gain_out", "change") for name in ends(measure)]
    return pd.DataFrame(rows, columns=["roi", "voxels", "n_voxels", *columns])


def _row(gain_in: NDArray[np.float64], gain_out: NDArray[np.float64]) -> dict[str, float]:
    values = {"gain_in": gain_in, "gain_out": gain_out, "change": gain_out - gain_in}
    row: dict[str, float] = {}
    for name, of_resamples in values.items():
        row |= dict(zip(ends(name), estimate(of_resamples), strict=True))
    return row


def _errors(data: SubjectData, external: ExternalTest) -> pd.DataFrame:
    """Spearman's correlation of JNE-SS and squared error over stimuli, by region and kind."""
    run, rows = data.subject.nonlinear, []
    kinds = kinds_of(external.stimuli) or {OUT: np.arange(len(external.stimuli))}
    own = [run.array(name) for name in ("responses", "predictions", "deviation")]
    for region, chosen in by_region(data.analysed, data.rois):
        v = chosen.index.to_numpy()
        pairs = {IN: _jne_and_error(*(array[:, v] for array in own))}
        pairs |= {
            kind: _jne_and_error(*external.arrays(members, v)) for kind, members in kinds.items()
        }
        sets = {kind: [pair] for kind, pair in pairs.items()}
        several = [pairs[kind] for kind in kinds if kind != OUT]
        if several:
            sets[_WITHIN] = several
        for kind, some in sets.items():
            n = sum(len(x) for x, _ in some)
            rho = dict(zip(ends("rho"), rank_correlation(some), strict=True))
            rows.append({"roi": region, "kind": kind, "n_stimuli": n, **rho})
    return pd.DataFrame(rows)


def _jne_and_error(
    responses: NDArray, predictions: NDArray, deviation: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """JNE-SS and squared error of each stimulus (N,), means over voxels that have both.

    JNE-SS is relative to the mean of these stimuli. Arrays of length 0 where no voxel has both.
    """
    usable = np.isfinite(responses).all(axis=0) & np.isfinite(deviation).all(axis=0)
    if not usable.any():
        return np.empty(0), np.empty(0)
    y, f, s = (array[:, usable] for array in (responses, predictions, deviation))
    jne = jne_ss(s).mean(axis=1, dtype=np.float64)
    return jne, np.square(y - f).mean(axis=1, dtype=np.float64)


def _rows(table: pd.DataFrame, regions: Sequence[str], kind: str) -> pd.DataFrame:
    """One row per region; that within kinds in place of that over all of them, where there is."""
    wanted = _WITHIN if kind == OUT and (table["kind"] == _WITHIN).any() else kind
    return table[(table["kind"] == wanted)].set_index("roi", drop=False).loc[list(regions)]


def _text(row: pd.Series, name: str, digits: int = 3) -> str:
    value, low, high = (row[column] for column in ends(name))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _whole(gains: pd.DataFrame) -> dict[str, pd.Series]:
    """The rows of the whole brain, by which voxels they are of."""
    return {str(row["voxels"]): row for _, row in gains[gains["roi"] == WHOLE_BRAIN].iterrows()}


def _against_others(whole: Mapping[str, pd.Series]) -> str:
    """How its change differs from that of the other voxels, for the end of a sentence."""
    if _DIFFERENCE not in whole:
        return ""
    row = whole[_DIFFERENCE]
    verb = "changes as that of the others does, as far as these stimuli can tell"
    if row.change_low > 0 or row.change_high < 0:
        verb = f"{'rises' if row.change > 0 else 'falls'} relative to that of the others"
    return f"; it {verb} (difference of the changes {_text(row, 'change')})"


def _figure(tables: Tables, rois: Sequence[str]) -> Figure:
    whole, errors = _whole(tables[_GAIN]), tables[_ERROR]
    height = max(2.9, 0.9 + 0.2 * (len(rois) + 1))
    figure, (left, right) = subplots(1, 2, figsize=(6.8, height), layout="constrained")
    left.axhline(0, color="#999999", lw=0.7, zorder=0)
    for shift, (name, colour) in zip((-0.04, 0.04), _COLOURS.items(), strict=True):
        if name in whole:
            row, x = whole[name], np.arange(2) + shift
            pairs = zip(ends("gain_in"), ends("gain_out"), strict=True)
            values, low, high = (row[list(pair)].to_numpy(dtype=np.float64) for pair in pairs)
            left.vlines(x, low, high, color=colour, lw=1)
            label = f"{name} ({row['n_voxels']:,.0f} voxels)"
            left.plot(x, values, "-o", ms=4, lw=1, color=colour, label=label)
    left.set_xticks([0, 1], [IN, OUT])
    left.set(xlim=(-0.35, 1.35), ylabel="R² of the encoder - R² of ridge")
    if whole:
        left.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
    names = [WHOLE_BRAIN, *rois]
    y = np.arange(len(names))[::-1]
    right.axvline(0, color="#999999", lw=0.7, zorder=0)
    for shift, kind, colour in ((0.12, IN, "#999999"), (-0.12, OUT, "#222222")):
        rho, rho_low, rho_high = (_rows(errors, names, kind)[column] for column in ends("rho"))
        right.hlines(y + shift, rho_low, rho_high, color=colour, lw=1)
        right.plot(rho, y + shift, "o", ms=3.5, color=colour)
    right.set_yticks(y, ["all voxels", *(short(name, 20) for name in rois)])
    right.set(xlabel="Spearman of JNE-SS and squared error")
    return figure

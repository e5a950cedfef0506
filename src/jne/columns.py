"""The columns of a voxel table: one entry each, which all that writes, reads or shows them reads.

A new metric per voxel is a function in `jne.analysis` and an entry of COLUMNS. With `array` and
`reduce`, train.py computes it; what is computed elsewhere has an entry without these. The run's
table and its reader, xarray, the means by ROI, MLflow, the terminal, the report, its maps and the
names that a user's table may not have all follow from the entry, and so does docs/columns.md.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.analysis import nonlinearity, prediction
from jne.jacobian.variants import DEFAULT, VARIANTS

DATA = "the data"
RUN = "train.py"
BASELINE = "train.py, `baseline`"
PARTITION = "train.py, `baseline=[partition]`"
REPORT = "evaluate.py"
EXTERNAL = "evaluate.py, `test`"

TEXT, BOOLEAN, INDEX = "text", "yes or no", "index"
VARIANCE = "share of the variance"
JACOBIAN = "standard deviations of the response per standard deviation of a feature"
SQUARED = f"({JACOBIAN})²"


@dataclass(frozen=True)
class Column:
    """What there is to know of a column."""

    name: str
    """A word in braces stands for what _PLACES says: one entry describes several columns."""
    label: str
    """In figures, in headings, on the terminal."""
    source: str
    description: str
    unit: str = "1"
    required: bool = False
    """In the results folder of every run."""
    averaged: bool = False
    """Whether rois.csv and MLflow have its mean by ROI."""
    regional: bool = False
    """Whether rois.csv has it of each ROI as a whole, not as a mean over voxels; MLflow, too."""
    cmap: str = ""
    """The colour map of matplotlib that it is drawn in on a brain, from 0 up; empty: it is not."""
    static: bool = False
    """Whether the report has a picture of it on a brain, beside the interactive one."""
    array: str = ""
    """The array that `reduce` takes: predictions (with responses before them), deviation, gain,
    shape or jne_ss, (N, V) each. Of deviations there is one column per variant."""
    reduce: Callable[..., NDArray] | None = None
    """Gives the column, (V,)."""

    @property
    def is_number(self) -> bool:
        return self.unit not in (TEXT, BOOLEAN)

    @property
    def file_name(self) -> str:
        """In the names of maps, which BIDS allows no underscore: r2 for the reported encoder's."""
        return self.name.removesuffix("_nonlinear").replace("_", "")

    def values(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """The numbers (V,) in a table, NaN where a voxel has none."""
        column = table[self.name].astype("Float64")
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


_PLACES = {
    "encoder": "nonlinear|linear",
    "fit": "ridge|kernel|readout",
    "predictor": "nonlinear|linear|ridge|kernel|banded",
}

COLUMNS: tuple[Column, ...] = (
    Column("voxel", "voxel", DATA, "id of the voxel", TEXT, required=True),
    Column("roi", "region", DATA, "ROI of the voxel; empty for none", TEXT, required=True),
    Column("HCP_MMP1", "area", DATA, "area of HCP_MMP1, from which the tiers follow", TEXT),
    Column("noise_ceiling", "noise ceiling", DATA, "the largest R2 that the noise allows",
           VARIANCE, cmap="viridis"),
    Column("ncsnr", "ncsnr", DATA, "standard deviation of the signal over that of the noise"),
    Column("mesh", "mesh", DATA, "mesh of the surface, such as fsaverage5 or fsLR", TEXT),
    Column("hemisphere", "hemisphere", DATA, "left or right", TEXT),
    Column("vertex", "vertex", DATA, "vertex of that hemisphere, counted from 0", INDEX),
    Column("i", "i", DATA, "first index in the volume", INDEX),
    Column("j", "j", DATA, "second index in the volume", INDEX),
    Column("k", "k", DATA, "third index in the volume", INDEX),
    Column("tier", "tier", REPORT, "PVC, IVC or HVC; empty for other regions", TEXT),
    Column("status", "status", RUN, "ok, or why it was not trained on: constant, missing", TEXT,
           required=True),
    Column("analysed", "analysed", REPORT, "whether the voxel enters the tests", BOOLEAN),
    # --- prediction ---
    Column("r2", "R²", RUN, "R2 on the test stimuli", VARIANCE, required=True, averaged=True,
           array="predictions", reduce=prediction.r2_score),
    Column("p", "p", RUN, "p of R2 > 0", required=True),
    Column("p_fdr", "p (FDR)", RUN, "p adjusted by Benjamini-Hochberg", required=True),
    Column("r2_nonlinear", "R²", REPORT, "R2 of the nonlinear encoder on the test stimuli",
           VARIANCE, cmap="viridis", static=True),
    Column("r2_linear", "R² linear", REPORT, "R2 of the linear encoder on the test stimuli",
           VARIANCE, cmap="viridis"),
    Column("r_{encoder}", "r {encoder}", REPORT, "Pearson's r on the test stimuli"),
    Column("p_{encoder}", "p {encoder}", REPORT, "p of R2 > 0"),
    Column("p_fdr_{encoder}", "p (FDR) {encoder}", REPORT, "p adjusted by Benjamini-Hochberg"),
    Column("r2_ridge", "R² ridge", BASELINE, "R2 of ridge regression on the test stimuli",
           VARIANCE, averaged=True, cmap="viridis"),
    Column("r2_kernel", "R² kernel", BASELINE, "R2 of kernel ridge regression on the test stimuli",
           VARIANCE, averaged=True),
    Column("r2_banded", "R² banded", BASELINE, "R2 of banded ridge regression, with a penalty for "
           "each feature space, on the test stimuli", VARIANCE, averaged=True),
    Column("r2_shared", "R² shared", PARTITION, "what is left of `r2_banded` without what each "
           "feature space explains alone", VARIANCE, averaged=True),
    Column("ridge_penalty", "ridge penalty", BASELINE, "penalty of ridge regression"),
    Column("kernel_penalty", "kernel penalty", BASELINE, "penalty of kernel ridge regression"),
    Column("readout_penalty", "readout penalty", RUN, "penalty of the encoder's ridge readout"),
    Column("stack_nonlinear", "stacked, nonlinear", RUN, "with readout=stacked or encoder=kernel: "
           "what the nonlinear part of the readout is multiplied by"),
    Column("stack_linear", "stacked, linear", RUN, "with readout=stacked: 0 where the linear part "
           "is ridge regression, 1 where it is the readout's"),
    Column("{fit}_penalty_end", "end of the {fit} penalty", RUN, "-1 where that penalty is the "
           "smallest of the grid, 1 where it is the largest, else 0"),
    Column("r2_normalised_{predictor}", "R² / ceiling {predictor}", REPORT, "R2 / noise ceiling"),
    Column("r2_ood", "R² out", EXTERNAL, "R2 on the external test set", VARIANCE),
    Column("r_ood", "r out", EXTERNAL, "Pearson's r on the external test set"),
    Column("p_ood", "p out", EXTERNAL, "p of R2 > 0 on the external test set"),
    Column("noise_ceiling_ood", "ceiling out", EXTERNAL, "noise ceiling of the external test set",
           VARIANCE),
    Column("r2_ridge_ood", "R² ridge out", EXTERNAL, "R2 of ridge regression on it", VARIANCE),
    # --- nonlinearity ---
    Column("nonlinear_share", "nonlinear share", RUN, "share of the signal's variance that no "
           "linear map of the features explains", cmap="inferno", static=True, regional=True),
    Column("nonlinear_share_low", "95 % from", RUN, "lower end of its 95 % interval",
           regional=True),
    Column("nonlinear_share_high", "to", RUN, "its upper end", regional=True),
    Column("signal_share", "signal", RUN, "variance of the signal: what repeats of a stimulus "
           "share", VARIANCE, regional=True),
    Column("linear_share", "linear", RUN, "variance of the best linear fit to the features",
           VARIANCE, regional=True),
    Column("signal_from", "signal from", RUN, "what the signal is known from: repeats, or noise "
           "ceiling; empty where it is not", TEXT),
    Column("validated_share", "validated share", RUN, "of the variance of unseen responses that is "
           "predicted, the share that the nonlinear part of the prediction alone explains",
           cmap="inferno", static=True, regional=True),
    Column("validated_share_low", "95 % from", RUN, "lower end of its 95 % interval",
           regional=True),
    Column("validated_share_high", "to", RUN, "its upper end", regional=True),
    Column("nonlinear_z", "z", RUN, "slope of the nonlinear part over its error: standard normal "
           "in linear voxels", regional=True),
    Column("nonlinear_p", "p (nonlinear)", RUN, "p that the nonlinear part of the prediction "
           "exists in unseen responses", regional=True),
    Column("nonlinear_p_fdr", "q (nonlinear)", RUN, "the same, adjusted by Benjamini-Hochberg"),
    Column("nonlinear_in", "nonlinear in", RUN, "with several feature spaces, the one that the "
           "voxel is nonlinear in, interaction or linear; empty where that was not tested", TEXT),
    Column("nonlinear_slope", "slope", RUN, "of unseen responses on the nonlinear part of the "
           "prediction: 1 where that has the right size, 0 where it is noise"),
    Column("nonlinear_slope_error", "error of slope", RUN, "its robust standard error"),
    Column("r2_nonlinear_part", "R² nonlinear part", RUN, "variance of unseen responses that the "
           "nonlinear part of the prediction alone explains", VARIANCE, regional=True),
    Column("r2_linear_part", "R² linear part", RUN, "variance of unseen responses that ridge "
           "regression and the linear part of the prediction explain", VARIANCE, regional=True),
    Column("nonlinear_z_ood", "z out", EXTERNAL, "z on the external test set"),
    Column("nonlinear_p_ood", "p (nonlinear) out", EXTERNAL, "its p"),
    Column("nonlinear_p_fdr_ood", "q (nonlinear) out", EXTERNAL, "the same, adjusted by "
           "Benjamini-Hochberg"),
    Column("validated_share_ood", "validated share out", EXTERNAL, "validated share on the "
           "external test set"),
    Column("validated_share_low_ood", "95 % from", EXTERNAL, "lower end of its 95 % interval"),
    Column("validated_share_high_ood", "to", EXTERNAL, "its upper end"),
    Column("jne", "JNE", RUN, "Jacobian-based nonlinearity evaluation", JACOBIAN, required=True,
           averaged=True, cmap="magma", static=True, array="deviation", reduce=nonlinearity.jne),
    Column("jne_calibrated", "JNE calibrated", RUN, "JNE times the slope of the nonlinear part, at "
           "least 0: that of the part of the encoder's nonlinearity which exists in the responses",
           JACOBIAN, averaged=True, cmap="magma"),
    Column("jne_calibrated_low", "95 % from", RUN, "lower end of its 95 % interval", JACOBIAN),
    Column("jne_calibrated_high", "to", RUN, "its upper end", JACOBIAN),
    Column("jne_low", "95 % from", REPORT, "lower end of the 95 % interval of JNE over the test "
           "stimuli", JACOBIAN),
    Column("jne_high", "to", REPORT, "its upper end", JACOBIAN),
    Column("jne_half1", "JNE, first half", REPORT, "JNE of one half of the test stimuli", JACOBIAN),
    Column("jne_half2", "JNE, second half", REPORT, "JNE of the other half", JACOBIAN),
    Column("jne_ood", "JNE out", EXTERNAL, "JNE on the external test set", JACOBIAN),
    Column("jne_half1_ood", "JNE out, first half", EXTERNAL, "JNE of one half of it", JACOBIAN),
    Column("jne_half2_ood", "JNE out, second half", EXTERNAL, "JNE of the other half", JACOBIAN),
    Column("nonlinear", "nonlinear", REPORT, "1 where a voxel is nonlinear at the false discovery "
           "rate of the report, else 0: by unseen responses; in rois.csv the share of voxels that "
           "are, at 10 %", BOOLEAN, cmap="cividis",
           regional=True),
    Column("mean_deviation", "mean deviation", RUN, "mean of the deviations, whose spread is JNE",
           JACOBIAN, required=True, averaged=True, array="deviation",
           reduce=nonlinearity.mean_deviation),
    Column("rms_deviation", "rms deviation", RUN, "root mean square of the L2 deviations, of all "
           "trained voxels, whichever `jacobian.voxels` asks for", JACOBIAN, averaged=True,
           cmap="magma"),
    Column("mean_deviation_ood", "mean deviation out", EXTERNAL, "on the external test set",
           JACOBIAN),
    Column("gain_change", "change of gain", RUN, "how much the gain of the voxel's Jacobian "
           "changes over stimuli", required=True, cmap="magma", array="gain",
           reduce=nonlinearity.gain_change),
    Column("shape_change", "change of shape", RUN, "how much the direction of the voxel's "
           "Jacobian changes over stimuli", required=True, cmap="magma", array="shape",
           reduce=nonlinearity.shape_change),
    Column("jne_ss_p95", "JNE-SS, 95th percentile", RUN, "95th percentile of JNE-SS over the test "
           "stimuli", SQUARED, required=True, array="jne_ss",
           reduce=lambda jne_ss: np.percentile(jne_ss, 95, axis=0)),
)  # fmt: skip
"""In the order of rois.csv."""


def find(name: str) -> Column | None:
    """The entry of a column, with its own name and label; None for a column of the user's."""
    for entry in COLUMNS:
        match = re.fullmatch(_pattern(entry), name)
        if match:
            places = match.groupdict()
            label = entry.label.format(**places)
            if variant := places.get("variant"):
                other, default = VARIANTS[variant].label, VARIANTS[DEFAULT].label
                label = other if label == default else f"{label}, {other}"
            return replace(entry, name=name, label=label)
    return None


def entry_of(name: str) -> Column:
    """The entry of a column. Raises KeyError where it has none."""
    entry = find(name)
    if entry is None:
        raise KeyError(f"the column {name} needs an entry in jne.columns")
    return entry


def _pattern(entry: Column) -> str:
    pattern = re.sub(r"{(\w+)}", lambda place: f"(?P<{place[1]}>{_PLACES[place[1]]})", entry.name)
    others = "|".join(map(re.escape, VARIANTS.keys() - {DEFAULT}))
    return f"{pattern}(?:_(?P<variant>{others}))?" if entry.array == "deviation" else pattern


def label(name: str) -> str:
    """What figures and tables call a column; one without an entry by its name."""
    entry = find(name)
    return name.replace("_", " ") if entry is None else entry.label


def axis_label(name: str) -> str:
    """A column as an axis calls it: with its unit, below it, where it has one."""
    entry = find(name)
    short = {JACOBIAN: "SD of response per SD of feature", SQUARED: "(SD per SD)²"}
    unit = "" if entry is None else short.get(entry.unit, "")
    return f"{label(name)}\n({unit})" if unit else label(name)


def is_reserved(name: str) -> bool:
    """Whether jne adds a column of this name, so that a user's table may not have it."""
    entry = find(name)
    return entry is not None and entry.source != DATA


def names(table: pd.DataFrame, choose: Callable[[Column], object]) -> list[str]:
    """The columns of a table whose entries are chosen, in the order of COLUMNS."""
    present = list(map(str, table))
    return [
        name
        for entry in COLUMNS
        if choose(entry)
        for name in present
        if re.fullmatch(_pattern(entry), name)
    ]


def matching(name: str, table: pd.DataFrame) -> list[str]:
    """The columns of a table that the entry of this name describes, in the table's order."""
    return names(table, lambda entry: entry.name == name)


def averaged(table: pd.DataFrame) -> list[str]:
    """The columns of a table of which there are means by ROI; of variants there are none."""
    present = set(table)
    return [entry.name for entry in COLUMNS if entry.averaged and entry.name in present]


def regional(table: pd.DataFrame) -> list[str]:
    """The columns of a table that regions have as wholes."""
    return names(table, lambda entry: entry.regional)


def baselines(table: pd.DataFrame) -> list[str]:
    """The columns of a table that hold the test R2 of a baseline: r2_ridge, r2_kernel."""
    return names(table, lambda entry: entry.source == BASELINE and entry.averaged)


def reductions(array: str) -> dict[str, Callable[..., NDArray]]:
    """The columns that are computed from an array (`Column.array`), each by its function."""
    return {entry.name: entry.reduce for entry in COLUMNS if entry.array == array and entry.reduce}


def maps() -> list[Column]:
    """The columns that are drawn on a brain: nonlinearity, then prediction."""
    drawn = [entry for entry in COLUMNS if entry.cmap]
    return sorted(drawn, key=lambda entry: entry.unit == VARIANCE)


def maps_of(table: pd.DataFrame) -> list[Column]:
    """Those of `maps` that a voxel table has values of."""
    return [entry for entry in maps() if entry.name in table and table[entry.name].notna().any()]


def markdown() -> str:
    """The table of docs/columns.md."""
    rows = ["| column | what it is | unit | from |", "| --- | --- | --- | --- |"]
    for entry in COLUMNS:
        name = re.sub(r"{(\w+)}", lambda place: place[1].upper(), entry.name)
        names = f"`{name}`" + (f", `{name}_VARIANT`" if entry.array == "deviation" else "")
        unit = "" if entry.unit == "1" else entry.unit
        rows.append(f"| {names} | {entry.description} | {unit} | {entry.source} |")
    return "\n".join(rows) + "\n"

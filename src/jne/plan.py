"""What would a data set show? `jne plan`: docs/plan.md

What an encoder would find, and whether its map would repeat, is read from a table (plan.csv) of
cohorts with known nonlinearity, between whose settings it interpolates. How exact the nonlinear
share would be, which needs no encoder, follows in closed form.
"""

import csv
import io
import math
import textwrap
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jne.errors import InputError

ALPHA = (0.0, 0.1, 0.3, 0.6)
"""Nonlinear shares of the voxels, a quarter of them each."""
MAPS = ("z", "share", "jne")
NOISE_CORRELATION = {"shared": 0.02, "independent": 0.005}
"""Of the errors of the nonlinear shares of two voxels (python benchmarks/plan.py share)."""
FEATURES = (64, 768)  # with these, too, the table was checked
_AXES = ("n", "test", "ceiling")
_WORDS = {"n": "stimuli to fit", "test": "test stimuli", "ceiling": "noise ceiling"}


class Design(NamedTuple):
    """A data set to be planned; the keys of `jne plan`."""

    n: int
    """Stimuli that the encoder is fitted to; a tenth of them validates."""
    features: int
    ceiling: float
    """Noise ceiling of a single trial: the explainable share of its variance."""
    repeats: int = 1
    """Trials of each stimulus, which are averaged."""
    noise: str = "shared"
    """By voxels; or independent."""
    test: int = 1000
    """Further stimuli, which nothing is fitted to."""
    voxels: int = 100
    """Of a region."""

    @property
    def mean_ceiling(self) -> float:
        """Noise ceiling of the mean over repeats (Spearman & Brown)."""
        return self.repeats * self.ceiling / (1 + (self.repeats - 1) * self.ceiling)


class Table(NamedTuple):
    """The cohorts of one kind of noise."""

    axes: dict[str, NDArray[np.float64]]
    """The settings of n, test and ceiling, in ascending order."""
    worlds: tuple[str, ...]
    rates: NDArray[np.float64]
    """(n, test, ceiling, world, alpha): share of the voxels that are found at q = .1."""
    repeats: NDArray[np.float64]
    """(n, test, ceiling, world, map): Spearman's r of z, validated share, JNE."""


class Forecast(NamedTuple):
    """What a design would show."""

    worlds: tuple[str, ...]
    rates: NDArray[np.float64]
    """(world, alpha): share of the voxels that are found at q = .1; of alpha 0, wrongly."""
    repeats: NDArray[np.float64]
    """(world, map): Spearman's r over voxels of two data sets with other stimuli."""
    share_sd: NDArray[np.float64] | None
    """(alpha,): standard deviation of a voxel's nonlinear share; NaN where it is undefined, as the
    signal is not above 0. None: there are no repeats, or too few stimuli per feature."""
    region_sd: NDArray[np.float64] | None
    """(alpha,): that of a region."""
    beyond: tuple[str, ...]
    """What of the design is outside the table, a sentence each."""


def read_design(words: Sequence[str]) -> Design:
    """From KEY=VALUE words. Raises InputError, which names the key."""
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in Design._fields:
            raise InputError(word, f"write KEY=VALUE; the keys are {', '.join(Design._fields)}")
        values[key] = value
    for key in Design._fields:
        if key not in values and key not in Design._field_defaults:
            raise InputError(key, "is needed, as in jne plan n=9000 features=512 ceiling=.4")
    numbers = {key: _number(key, text) for key, text in values.items() if key != "noise"}
    return _checked(Design(**numbers | {k: v for k, v in values.items() if k == "noise"}))  # type: ignore[arg-type]


def _number(key: str, text: str) -> float:
    try:
        return float(text) if key == "ceiling" else int(text.replace("_", "").replace(",", ""))
    except ValueError:
        kind = "a number, such as .4" if key == "ceiling" else "a whole number, such as 1000"
        raise InputError(key, f"must be {kind}", text) from None


def _checked(design: Design) -> Design:
    if design.noise not in NOISE_CORRELATION:
        raise InputError("noise", f"must be {' or '.join(NOISE_CORRELATION)}", design.noise)
    if not 0 < design.ceiling <= 1:
        raise InputError("ceiling", "must be above 0 and at most 1", design.ceiling)
    for key in ("features", "repeats", "voxels"):
        if getattr(design, key) < 1:
            raise InputError(key, "must be 1 or more", getattr(design, key))
    for key, axis in read_table(design.noise).axes.items():
        value = _position(design)[key]
        if value < axis[0]:
            means = f" ({value:.3f} of the mean of {design.repeats})" if key == "ceiling" else ""
            sentence = f"{_WORDS[key]}{means} below {axis[0]:g} are not in the table"
            raise InputError(key, sentence, getattr(design, key))
    return design


@cache
def read_table(noise: str) -> Table:
    """The table that comes with the package, of one kind of noise."""
    text = files("jne").joinpath("plan.csv").read_text()
    rows = [row for row in csv.DictReader(io.StringIO(text.partition("\n")[2]))
            if row["noise"] == noise]  # fmt: skip
    axes = {name: np.unique([float(row[name]) for row in rows]) for name in _AXES}
    worlds = tuple(sorted({row["world"] for row in rows}))
    shape = (*map(len, axes.values()), len(worlds))
    rates, repeats = np.full((*shape, len(ALPHA)), np.nan), np.full((*shape, len(MAPS)), np.nan)
    for row in rows:
        setting = [int(np.searchsorted(axes[key], float(row[key]))) for key in _AXES]
        place = tuple([*setting, worlds.index(row["world"])])
        rates[place] = [float(row[f"found_{alpha:g}"]) for alpha in ALPHA]
        repeats[place] = [float(row[name]) for name in MAPS]
    return Table(axes, worlds, rates, repeats)


def forecast(design: Design) -> Forecast:
    """Between the cohorts of the table, linear in the logarithms of n, test and ceiling.

    Above the largest settings of the table its values are those of the largest, and `beyond` says
    so. Raises InputError below the smallest.
    """
    table, at = read_table(_checked(design).noise), _position(design)
    beyond = []
    for key, axis in table.axes.items():
        if at[key] > axis[-1]:
            beyond.append(
                f"{key}={at[key]:,.4g} is beyond the table, which ends at {axis[-1]:,g} "
                f"({_WORDS[key]}): its values there are given, a lower bound of what is found and "
                "of r."
            )
    if not FEATURES[0] <= design.features <= FEATURES[1]:
        beyond.append(
            f"features={design.features:,} is beyond the {FEATURES[0]} to {FEATURES[1]} for which "
            "the table was checked."
        )
    sd = share_sd(design)
    spread = NOISE_CORRELATION[design.noise]
    region = math.sqrt((1 + (design.voxels - 1) * spread) / design.voxels)
    return Forecast(
        table.worlds,
        interpolate(table, table.rates, at),
        interpolate(table, table.repeats, at),
        None if sd is None else np.where(_signal_is_seen(design, 1), sd, np.nan),
        None if sd is None else np.where(_signal_is_seen(design, region), sd * region, np.nan),
        tuple(beyond),
    )


def _position(design: Design) -> dict[str, float]:
    return {"n": design.n, "test": design.test, "ceiling": design.mean_ceiling}


def interpolate(table: Table, values: NDArray, at: dict[str, float]) -> NDArray[np.float64]:
    """values: of the table. at: n, test and ceiling. The last two axes stay."""
    for key, axis in table.axes.items():
        x = min(at[key], axis[-1])
        k = int(np.clip(np.searchsorted(axis, x), 1, len(axis) - 1))
        weight = math.log(x / axis[k - 1]) / math.log(axis[k] / axis[k - 1])
        values = (1 - weight) * values[k - 1] + weight * values[k]
    return values


def share_sd(design: Design) -> NDArray[np.float64] | None:
    """Standard deviation of a voxel's nonlinear share, of ALPHA, for normal signal and noise.

    The share is 1 - L / S. Of responses of unit variance S is the noise ceiling c of their mean,
    L = c (1 - alpha), and e = 1 - c the noise. At a stimulus, with linear signal f, signal s and
    response y, S has the derivative y^2 - w, w being the noise that repeats show, and L has
    f (2 y - f). To this L adds the pairs of stimuli whose residuals meet in the leave-one-out
    predictions (docs/share.md). All stimuli count.

    Returns
    -------
    (alpha,) array, or None without repeats or with fewer than two stimuli per feature.
    """
    n = design.n + design.test
    if design.repeats == 1 or n < 2 * design.features:
        return None
    signal = design.mean_ceiling
    linear, nonlinear = signal * (1 - np.array(ALPHA)), signal * np.array(ALPHA)
    unexplained = nonlinear + 1 - signal
    # Also the covariance of the two derivatives
    of_linear = 2 * np.square(linear) + 4 * linear * unexplained
    ratio, leverage = linear / signal, design.features / n
    pairs = 2 * leverage / (1 - leverage) ** 2 * np.square(unexplained)
    of_signal = _signal_variance(design)
    variance = (1 - 2 * ratio) * of_linear + np.square(ratio) * of_signal + pairs
    return np.sqrt(variance / n) / signal


def _signal_variance(design: Design) -> float:
    """n times the variance of S: of y^2 - w."""
    signal, noise = design.mean_ceiling, 1 - design.mean_ceiling
    of_noise = 2 * noise**2 * design.repeats / (design.repeats - 1)
    return 2 * signal**2 + 4 * signal * noise + of_noise


def _signal_is_seen(design: Design, scale: float) -> bool:
    """Whether S is above 0 by twice its error, which is `scale` of a voxel's."""
    error = math.sqrt(_signal_variance(design) / (design.n + design.test))
    return design.mean_ceiling > 2 * scale * error


def report(design: Design) -> str:
    """What `jne plan` prints."""
    result = forecast(design)
    lines = [
        _title(design),
        "",
        _row("nonlinear share of the signal", [f"{alpha:g}" for alpha in ALPHA]),
        "with an encoder: share of voxels with nonlinear_p_fdr <= .1",
        *_rows_of_worlds(result.worlds, result.rates),
        "without one: standard deviation of nonlinear_share",
        *_share_rows(design, result),
        "",
        _row("does the map repeat? Spearman's r", ["z", "share", "JNE"]),
        *_rows_of_worlds(result.worlds, result.repeats),
    ]
    if result.share_sd is not None and np.isfinite(result.share_sd).all():
        spread = np.var(ALPHA)
        repeat = spread / (spread + np.square(result.share_sd).mean())
        lines.append(_row("  without an encoder (Pearson's r)", ["", f"{repeat:.2f}"]))
    notes = [textwrap.fill(note, 88) for note in _notes(design, result)]
    return "\n".join([*lines, "", *notes])


def _title(design: Design) -> str:
    ceiling = f"noise ceiling {design.ceiling:g}"
    if design.repeats > 1:
        ceiling += f" of a trial, {design.mean_ceiling:.2f} of the mean of {design.repeats}"
    return (
        f"{design.n:,} stimuli to fit, {design.test:,} to test, {design.features:,} features;\n"
        f"{ceiling}; {design.noise} noise"
    )


def _notes(design: Design, result: Forecast) -> list[str]:
    """What the answer rests on, and where it is beyond that."""
    axes = read_table(design.noise).axes
    n, test, ceiling = (", ".join(f"{x:,g}" for x in axes[key]) for key in _AXES)
    notes = [
        f"Read between simulated cohorts of n {n}; test {test}; ceiling {ceiling}: two per world, "
        "18 voxels per share and ceiling, so a rate has a standard error of up to .08, and r of "
        ".1. In them a quarter of the voxels is linear (0: found wrongly), and a quarter each has "
        "a share of .1, .3 and .6; r is of all of them, in other stimuli.",
        "Voxels share 14 (cells) or 20 (few) nonlinear functions. Where hardly two have the same "
        "(many, only with shared noise), an encoder learns much less: docs/plan.md.",
        *result.beyond,
    ]
    if result.share_sd is not None:
        notes.append(
            "With repeats, take nonlinear_share for how much is nonlinear: no encoder limits it."
        )
    return notes


def _share_rows(design: Design, result: Forecast) -> list[str]:
    if result.share_sd is None or result.region_sd is None:
        return [f"  none: {_why_no_share(design)}"]
    return [
        _row("  of a voxel", [_deviation(sd) for sd in result.share_sd]),
        _row(f"  of a region of {design.voxels:,}", [_deviation(sd) for sd in result.region_sd]),
    ]


def _rows_of_worlds(worlds: Sequence[str], values: NDArray) -> list[str]:
    """values: (world, column)."""
    return [
        _row(f"  world {world}", [f"{value:.2f}" for value in row])
        for world, row in zip(worlds, values, strict=True)
    ]


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name:<36}" + "".join(f"{cell:>8}" for cell in cells)


def _deviation(sd: float) -> str:
    return "-" if math.isnan(sd) else f"{sd:.3f}"


def _why_no_share(design: Design) -> str:
    if design.repeats == 1:
        return "it needs repeats (repeats=2), or a noise ceiling that is known"
    return (
        f"it needs two stimuli per feature; take {(design.n + design.test) // 2:,} principal "
        "components or fewer"
    )

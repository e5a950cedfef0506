"""Betas z-scored within runs or sessions and averaged over the repeats of each image, in memory.

N distinct images, V voxels, U units. A unit, which is a run or a session, is what a voxel is
standardised over and must vary in.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.analysis.repeats import RepeatNoise, RepeatSums
from jne.utils.blocks import even_blocks

VOXELS_AT_ONCE = 512  # their trials in float64, and what is computed of them, stay in the cache


@dataclass(frozen=True)
class _Session:
    """The images of a session, and which of its trials show them."""

    units: slice
    """Of the U units, those of the session."""
    unit: NDArray[np.int64]
    """(n_trials,), the unit of each trial."""
    kept: slice | NDArray[np.int64]
    """The trials of images that are averaged; the others are standardised with them."""
    row: NDArray[np.int64]
    """(n_kept,), the image of each of them."""
    rows: NDArray[np.int64]
    """(n_rows,), the images: rows of the means."""
    repeats: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    """Of the first time an image is shown, the second, and so on: which of `rows`, which trials, of
    those that are kept."""


class Repeats:
    """When each image was shown.

    trials: one row per trial, ordered by session: session, run, row (of the image, -1 for one that
    is not averaged). unit: (n,), the unit of each trial, from 0 in the order of sessions.
    """

    def __init__(self, trials: pd.DataFrame, unit: NDArray[np.int64]) -> None:
        self.numbers = [int(number) for number in np.unique(trials["session"])]
        """Of the sessions."""
        row = trials["row"].to_numpy()
        self.presentations = np.zeros((row.max() + 1, unit.max() + 1))
        """(N, U), how often each image was shown in each unit."""
        np.add.at(self.presentations, (row[row >= 0], unit[row >= 0]), 1)
        inside = [(trials["session"] == number).to_numpy() for number in self.numbers]
        self.sessions = [_session(row[trial], unit[trial]) for trial in inside]


def _session(row: NDArray[np.int64], unit: NDArray[np.int64]) -> _Session:
    kept: slice | NDArray[np.int64] = slice(None)
    if row.min() < 0:
        kept = np.flatnonzero(row >= 0)
    row = row[kept]
    order = np.argsort(row, kind="stable")
    rows, first, count = np.unique(row[order], return_index=True, return_counts=True)
    repeats = []
    for repeat in range(count.max(initial=0)):
        again = np.flatnonzero(count > repeat)
        repeats.append((again, order[first[again] + repeat]))
    return _Session(slice(unit.min(), unit.max() + 1), unit, kept, row, rows, repeats)


def units_of(trials: pd.DataFrame, zscore: str) -> NDArray[np.int64]:
    """The unit of each trial (n_trials,), from 0 in the order of sessions.

    trials: ordered by session; columns session and run. zscore: `run`, or else a session is a unit.
    """
    keys = ["session", "run"] if zscore == "run" else ["session"]
    return np.asarray(trials.groupby(keys).ngroup(), dtype=np.int64)


class Means:
    """The means over the valid trials of each image in the sessions that were added.

    Of few voxels: the computation is many times faster where their trials stay in the cache.
    """

    def __init__(
        self,
        repeats: Repeats,
        n_voxels: int,
        dtype: type[np.floating] = np.float32,
        *,
        squares: bool = False,
        noise: bool = False,
    ) -> None:
        """squares, noise: whether to keep what `squares` and `kept_repeats` need."""
        n_images, n_units = repeats.presentations.shape
        self._repeats = repeats
        self.values = np.zeros((n_images, n_voxels), dtype=dtype)
        """(N, V), 0 where no trial is valid."""
        self.valid = np.zeros((n_units, n_voxels), dtype=bool)
        """(U, V), whether a voxel was finite and not constant in a unit."""
        self.squares = np.zeros(n_voxels) if squares else None
        """(V,), the sum of squares over all valid trials."""
        self._noise = _BlockSquares(self.n_shown.astype(np.int64), n_voxels) if noise else None

    def add(self, number: int, betas: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add the next session.

        number: from 0, of the session; those before it were added. betas: (n_trials, V),
        standardised. valid: (units of the session, V).
        """
        session = self._repeats.sessions[number]
        start, end = session.units.start, session.units.stop
        self.valid[start:end] = valid
        if not len(session.rows):
            return
        presentations = self._repeats.presentations[session.rows]
        betas = betas[session.kept]
        if not valid.all():
            betas = np.where(valid[session.unit[session.kept] - start], betas, 0)
        (_, once), *more = session.repeats
        total = betas[once].astype(np.float64)
        for again, trials in more:
            total[again] += betas[trials]
        before = count_valid(presentations[:, :start], self.valid[:start])
        count = before + count_valid(presentations[:, start:end], valid)
        total += before * self.values[session.rows]
        np.divide(total, count, out=total, where=count > 0)  # elsewhere it is 0
        self.values[session.rows] = total
        if self.squares is not None:
            self.squares += np.square(betas, dtype=np.float64).sum(axis=0)
        if self._noise is not None:
            self._noise.add(session.row, betas)

    def kept_repeats(self) -> RepeatNoise | None:
        """What repeats say of the noise, NaN for voxels with invalid units; None without any."""
        assert self._noise is not None
        return self._noise.finish(self.values, np.asarray(self.valid.all(axis=0)))

    @property
    def n_shown(self) -> NDArray[np.float64]:
        """(N,), how often each image was shown."""
        return self._repeats.presentations.sum(axis=1)

    @property
    def count(self) -> NDArray[np.float64]:
        """The number of valid trials of each image: (N, V), or (N, 1) where all are valid."""
        return count_valid(self._repeats.presentations, self.valid)


class _BlockSquares:
    """`RepeatSums` of trials that come session by session, without a second array (N, V)."""

    def __init__(self, count: NDArray[np.int64], n_voxels: int) -> None:
        self._sums = RepeatSums.zero(count, n_voxels)
        # The variance of n trials is the sum of their squares, less n times that of their mean,
        # over n - 1
        several = count > 1
        of_trials = np.divide(1, count - 1, out=np.zeros(len(count)), where=several)
        of_means = np.divide(of_trials, count, out=np.zeros(len(count)), where=several)
        in_block = np.eye(len(self._sums.of_trials))[self._sums.block].T  # (B, N)
        self._weights = np.concatenate([in_block * of_trials, in_block * of_means])
        self._squares = np.zeros((len(self._weights), n_voxels), dtype=np.float32)

    def add(self, row: NDArray[np.int64], betas: NDArray[np.float32]) -> None:
        """Trials (n, V) of a session, those of invalid units 0, and the image of each, (n,)."""
        self._squares += self._weights[:, row].astype(np.float32) @ np.square(betas)

    def finish(self, means: NDArray, valid: NDArray[np.bool_]) -> RepeatNoise | None:
        """means: (N, V). valid: (V,), whether all trials of a voxel are."""
        sums = self._sums
        weights = (self._weights * sums.count).astype(np.float32)
        of_trials, of_means = np.split(self._squares - weights @ np.square(means), 2)
        sums.of_trials[:] = np.maximum(of_trials, 0)
        sums.of_means[:] = np.maximum(of_means, 0)
        sums.n_repeated[valid] = (sums.count > 1).sum()
        return sums.finish()


def count_valid(
    presentations: NDArray[np.float64], valid: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The number of valid trials of each image, from `presentations` (N, U) and `valid` (U, V).

    (N, V), or (N, 1) where every unit is valid in every voxel.
    """
    count = presentations.sum(axis=1)[:, None]
    some_invalid = ~valid.all(axis=0)  # few voxels, and a product over all would take long
    if some_invalid.any():
        count = np.repeat(count, valid.shape[1], axis=1)
        count[:, some_invalid] = presentations @ valid[:, some_invalid].astype(np.float64)
    return count


def standardise(
    betas: NDArray[np.float32], unit: NDArray[np.int64], *, zscore: bool = True, ddof: int = 0
) -> NDArray[np.bool_]:
    """Z-score betas (n_trials, V) in place within each unit; with zscore=False leave them.

    Returns (units of the session, V): whether a voxel was finite and not constant in a unit. ddof:
    of the standard deviation.
    """
    groups = [_as_slice(np.flatnonzero(unit == number)) for number in np.unique(unit)]
    valid = np.empty((len(groups), betas.shape[1]), dtype=bool)
    for v in even_blocks(betas.shape[1], VOXELS_AT_ONCE):
        for u, group in enumerate(groups):
            raw = betas[group, v]
            largest, smallest = raw.max(axis=0), raw.min(axis=0)  # NaN where one is NaN
            finite = np.isfinite(largest) & np.isfinite(smallest)
            valid[u, v] = finite & (largest > smallest)
            if not zscore:
                continue
            values = raw.astype(np.float64)
            values[:, ~finite] = 0
            values -= values.mean(axis=0)
            spread = np.sqrt(np.square(values).sum(axis=0) / max(len(values) - ddof, 0))
            values /= np.where(spread > 0, spread, 1)
            betas[group, v] = values
    return valid


def _as_slice(indices: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """The same indices as a slice, which NumPy takes without a copy, where they are consecutive."""
    if indices[-1] - indices[0] + 1 == len(indices):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices

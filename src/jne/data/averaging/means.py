"""Betas z-scored within runs or sessions and averaged over the repeats of each image, in memory.

N distinct images, V voxels, U units. A unit, which is a run or a session, is what a voxel is
standardised over and must vary in.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from jne.analysis.repeats import RepeatNoise, RepeatSums, blocks_of
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
    """(n_kept,), the image of each of them: a row of the means."""
    new: tuple[NDArray[np.int64], NDArray[np.int64]]
    """The images that are shown for the first time, and once: their trials are their means so far.
    Which rows, which trials, of those that are kept."""
    rows: NDArray[np.int64]
    """(n_rows,), the other images."""
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
        earlier = np.zeros(len(self.presentations), dtype=bool)
        self.sessions: list[_Session] = []
        for trial in inside:
            self.sessions.append(_session(row[trial], unit[trial], earlier))
            earlier[self.sessions[-1].row] = True

    @cached_property
    def noise_weights(self) -> "_NoiseWeights":
        return _NoiseWeights(self)


def _session(
    row: NDArray[np.int64], unit: NDArray[np.int64], earlier: NDArray[np.bool_]
) -> _Session:
    """earlier: (N,), whether an earlier session shows an image."""
    kept: slice | NDArray[np.int64] = slice(None)
    if row.min() < 0:
        kept = np.flatnonzero(row >= 0)
    row = row[kept]
    order = np.argsort(row, kind="stable")
    rows, first, count = np.unique(row[order], return_index=True, return_counts=True)
    only = (count == 1) & ~earlier[rows]
    new = rows[only], order[first[only]]
    rows, first, count = rows[~only], first[~only], count[~only]
    repeats = []
    for repeat in range(count.max(initial=0)):
        again = np.flatnonzero(count > repeat)
        repeats.append((again, order[first[again] + repeat]))
    return _Session(slice(unit.min(), unit.max() + 1), unit, kept, row, new, rows, repeats)


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
        self._noise = _BlockSquares(repeats.noise_weights, n_voxels) if noise else None

    def add(self, number: int, betas: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add the next session.

        number: from 0, of the session; those before it were added. betas: (n_trials, V),
        standardised. valid: (units of the session, V).
        """
        session = self._repeats.sessions[number]
        start, end = session.units.start, session.units.stop
        self.valid[start:end] = valid
        betas = betas[session.kept]
        if not valid.all():
            betas = np.where(valid[session.unit[session.kept] - start], betas, 0)
        rows, trials = session.new
        self.values[rows] = betas[trials]
        if len(session.rows):
            self._average(session, betas)
        if self.squares is not None:
            self.squares += np.square(betas, dtype=np.float64).sum(axis=0)
        if self._noise is not None:
            self._noise.add(number, betas)

    def _average(self, session: _Session, betas: NDArray[np.float32]) -> None:
        """Images with several trials by now. betas: of the trials that are kept."""
        (_, once), *more = session.repeats
        total = betas[once].astype(np.float64)
        for again, trials in more:
            total[again] += betas[trials]
        presentations, earlier = self._repeats.presentations, slice(session.units.start)
        before = count_valid(presentations, self.valid, session.rows, earlier)
        count = before + count_valid(presentations, self.valid, session.rows, session.units)
        means = self.values[session.rows].astype(np.float64)
        means *= before
        total += means
        total /= np.maximum(count, 1)  # where there are none it is 0
        self.values[session.rows] = total

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


class _NoiseWeights:
    """By what squares are multiplied for `RepeatSums`, of any voxels.

    The variance of n trials is the sum of their squares, less n times that of their mean, over
    n - 1. Of 2 B weights an image has two that are not 0, so a dense product would be nearly all of
    the averaging.
    """

    def __init__(self, repeats: Repeats) -> None:
        self.count = repeats.presentations.sum(axis=1).astype(np.int64)
        block, n = blocks_of(len(self.count)), len(self.count)
        several = self.count > 1
        of_trials = np.divide(1, self.count - 1, out=np.zeros(n), where=several)
        of_means = np.divide(of_trials, self.count, out=np.zeros(n), where=several)
        rows, columns = np.concatenate([block, block + block.max() + 1]), np.tile(np.arange(n), 2)
        values = np.concatenate([of_trials, of_means])
        whole = csr_array((values, (rows, columns)), shape=(2 * (block.max() + 1), n))
        of_sessions = [whole[:, session.row] for session in repeats.sessions]
        self.of_trials: list[Any] = [weights.astype(np.float32) for weights in of_sessions]
        """Of each session, (2 B, n_kept) float32."""
        self.of_images: Any = (whole * self.count).tocsr().astype(np.float32)
        """(2 B, N) float32"""


class _BlockSquares:
    """`RepeatSums` of trials that come session by session, without a second array (N, V)."""

    def __init__(self, weights: _NoiseWeights, n_voxels: int) -> None:
        self._weights = weights
        self._sums = RepeatSums.zero(weights.count, n_voxels)
        self._squares = np.zeros((weights.of_images.shape[0], n_voxels), dtype=np.float32)

    def add(self, number: int, betas: NDArray[np.float32]) -> None:
        """Trials (n_kept, V) of a session, those of invalid units 0."""
        self._squares += self._weights.of_trials[number] @ np.square(betas)

    def finish(self, means: NDArray, valid: NDArray[np.bool_]) -> RepeatNoise | None:
        """means: (N, V). valid: (V,), whether all trials of a voxel are."""
        sums = self._sums
        of_trials, of_means = np.split(
            self._squares - self._weights.of_images @ np.square(means), 2
        )
        sums.of_trials[:] = np.maximum(of_trials, 0)
        sums.of_means[:] = np.maximum(of_means, 0)
        sums.n_repeated[valid] = (sums.count > 1).sum()
        return sums.finish()


def count_valid(
    presentations: NDArray[np.float64],
    valid: NDArray[np.bool_],
    rows: NDArray[np.int64] | slice = slice(None),
    units: slice = slice(None),
) -> NDArray[np.float64]:
    """The number of valid trials of each image, from `presentations` (N, U) and `valid` (U, V).

    (N, V), or (N, 1) where every unit is valid in every voxel. rows, units: some of N and of U.
    """
    valid = valid[units]
    count = presentations[rows, units].sum(axis=1)[:, None]
    some_invalid = ~valid.all(axis=0)  # few voxels, and a product over all would take long
    if some_invalid.any():
        count = np.repeat(count, valid.shape[1], axis=1)
        counted = valid[:, some_invalid].astype(np.float64)
        count[:, some_invalid] = presentations[rows, units] @ counted
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
            if zscore:
                betas[group, v], valid[u, v] = _zscored(betas[group, v], ddof)
            else:
                largest, smallest = betas[group, v].max(axis=0), betas[group, v].min(axis=0)
                valid[u, v] = np.isfinite(largest) & np.isfinite(smallest) & (largest > smallest)
    return valid


def _zscored(
    betas: NDArray[np.float32], ddof: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(n, V), 0 for voxels that are not finite or constant; (V,), for which of them it is not."""
    values = betas.astype(np.float64)
    with np.errstate(invalid="ignore"):
        values -= values.mean(axis=0)
        spread = np.sqrt(np.square(values).sum(axis=0) / max(len(values) - ddof, 0))
    # The float64 sum of equal float32 numbers is exact, so the spread of constants is exactly 0;
    # of what is not finite it is NaN.
    valid = spread > 0
    if not valid.all():
        values[:, ~valid] = 0
        spread[~valid] = 1
    values /= spread
    return values, valid


def _as_slice(indices: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """The same indices as a slice, which NumPy takes without a copy, where they are consecutive."""
    if indices[-1] - indices[0] + 1 == len(indices):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices

"""Betas averaged over the repeats of each image, one session at a time.

N distinct images, V voxels, U units. A unit, which is a run or a session, is what a voxel is
standardised over and must vary in. Each session is read, z-scored and added to the means on disk,
so memory stays that of one session, and an interrupted preparation continues with the session that
it was at. Below the folder of the data:

    responses.npy     (N, V) float32: the means so far
    state.npz         what else is known of the sessions that are done
    rows_K.npy        the new means of session K's images, while they replace the old ones
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.analysis.noise_ceiling import ncsnr_from_sums
from jne.utils.blocks import voxel_blocks
from jne.utils.files import atomic_file, write_array
from jne.utils.progress import stage_progress


@dataclass
class Standardised:
    """The trials of a session, as they are averaged."""

    values: NDArray[np.float32]
    """(n_trials, V)."""
    valid: NDArray[np.bool_]
    """(units of the session, V): whether a voxel was finite and not constant in a unit."""
    saturated: NDArray[np.int64]
    """(V,): the number of trials at an end of the int16 range."""


@dataclass
class Averaged:
    """What is known of the sessions that are done, besides the means themselves."""

    valid: NDArray[np.bool_]
    """(U, V): whether a voxel was finite and not constant in a unit."""
    squares: NDArray[np.float64]
    """(V,): the sum of squares over all valid trials."""
    saturated: NDArray[np.int64]
    """(V,): the number of trials at an end of the int16 range."""
    done: int = 0
    """The number of sessions."""

    @classmethod
    def load(cls, path: Path) -> "Averaged":
        with np.load(path, allow_pickle=False) as saved:
            return cls(saved["valid"], saved["squares"], saved["saturated"], int(saved["done"]))

    def save(self, path: Path) -> None:
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **vars(self))


def units_of(trials: pd.DataFrame, zscore: str) -> NDArray[np.int64]:
    """The unit of each trial (n_trials,), from 0 in the order of sessions.

    trials: ordered by session; columns session and run. zscore: `run`, or else a session is a unit.
    """
    keys = ["session", "run"] if zscore == "run" else ["session"]
    return np.asarray(trials.groupby(keys).ngroup(), dtype=np.int64)


def average_repeats(
    folder: Path,
    trials: pd.DataFrame,
    unit: NDArray[np.int64],
    n_images: int,
    n_voxels: int,
    read_session: Callable[[int, NDArray[np.int64]], Standardised],
) -> Averaged:
    """Write the mean of each image's valid trials to responses.npy, 0 where there is none.

    A session's new means are first written to a file of their own and then replace the old ones, so
    that a session which is repeated after a kill gives the same means.

    trials: one row per trial, ordered by session: session, row (of the image in the means). unit:
    as of `units_of`. read_session: function of a session's number and its trials' units.
    """
    path, state_path = folder / "responses.npy", folder / "state.npz"
    sessions = np.unique(trials["session"])
    if state_path.exists():
        state = Averaged.load(state_path)
    else:
        np.lib.format.open_memmap(path, "w+", np.float32, (n_images, n_voxels)).flush()
        state = Averaged(
            valid=np.zeros((unit.max() + 1, n_voxels), dtype=bool),
            squares=np.zeros(n_voxels),
            saturated=np.zeros(n_voxels, dtype=np.int64),
        )
    means = np.load(path, mmap_mode="r+")
    shown = count_repeats(trials, unit, n_images)
    in_session = [(trials["session"] == session).to_numpy() for session in sessions]
    rows = [np.unique(trials.loc[inside, "row"]) for inside in in_session]
    for rows_path in folder.glob("rows_*.npy"):
        k = int(rows_path.stem.removeprefix("rows_"))
        if k < state.done:  # killed while these means were replacing the old ones
            _replace(means, rows[k], rows_path)
        else:  # killed before the state was saved
            rows_path.unlink()
    with stage_progress() as progress:
        task = progress.add_task(
            "betas", total=len(sessions), unit="sessions", completed=state.done
        )
        for k in range(state.done, len(sessions)):
            units, row = unit[in_session[k]], trials.loc[in_session[k], "row"].to_numpy()
            session = read_session(int(sessions[k]), units)
            state.valid[units.min() : units.max() + 1] = session.valid
            state.saturated += session.saturated
            rows_path = folder / f"rows_{k}.npy"
            write_array(rows_path, _updated_means(means, shown, session.values, units, row, state))
            del session  # the next one takes its place in memory
            state.done = k + 1
            state.save(state_path)
            _replace(means, rows[k], rows_path)
            progress.update(task, advance=1)
    return state


def count_repeats(
    trials: pd.DataFrame, unit: NDArray[np.int64], n_images: int
) -> NDArray[np.float64]:
    """How often each image was shown in each unit: (N, U)."""
    shown = np.zeros((n_images, unit.max() + 1))
    np.add.at(shown, (trials["row"].to_numpy(), unit), 1)
    return shown


def count_valid(shown: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The number of valid trials of each image: (N, V) from `shown` (N, U) and `valid` (U, V)."""
    count = np.repeat(shown.sum(axis=1)[:, None], valid.shape[1], axis=1)
    some_invalid = ~valid.all(axis=0)  # few voxels, and a product over all would take long
    count[:, some_invalid] = shown @ valid[:, some_invalid].astype(np.float64)
    return count


def mark_missing(
    folder: Path, shown: NDArray[np.float64], averaged: Averaged, test: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Set the means without any valid trial to NaN; measure the noise.

    shown: (N, U) as of `count_repeats`. test: (N,), the test images. Returns two arrays (V,): the
    ncsnr computed from all trials, and the mean of 1 / (number of valid trials) over test images,
    NaN where a test image has none.
    """
    means = np.load(folder / "responses.npy", mmap_mode="r+")
    n_voxels = means.shape[1]
    ncsnr, inverse = np.empty(n_voxels), np.empty(n_voxels)
    for v in voxel_blocks(n_voxels):
        count = count_valid(shown, averaged.valid[:, v])  # (N, v)
        missing = count == 0
        block = np.array(means[:, v])
        ncsnr[v] = ncsnr_from_sums(
            count, np.where(missing, 0, block).astype(np.float64), averaged.squares[v]
        )
        inverse[v] = (1 / np.where(missing, np.nan, count))[test].mean(axis=0)
        if missing.any():
            block[missing] = np.nan
            means[:, v] = block
    means.flush()
    return ncsnr, inverse


def standardise(
    betas: NDArray[np.float32], unit: NDArray[np.int64], *, zscore: bool = True, ddof: int = 0
) -> NDArray[np.bool_]:
    """Z-score betas (n_trials, V) in place within each unit; with zscore=False leave them.

    Returns (units of the session, V): whether a voxel was finite and not constant in a unit. ddof:
    of the standard deviation.
    """
    groups = [unit == number for number in np.unique(unit)]
    valid = np.empty((len(groups), betas.shape[1]), dtype=bool)
    for v in voxel_blocks(betas.shape[1]):
        for u, group in enumerate(groups):
            values = betas[group, v].astype(np.float64)
            finite = np.isfinite(values).all(axis=0)
            values[:, ~finite] = 0
            valid[u, v] = finite & (np.ptp(values, axis=0) > 0)
            if zscore:
                spread = values.std(axis=0, ddof=ddof)
                scale = np.where(spread > 0, spread, 1)
                betas[group, v] = (values - values.mean(axis=0)) / scale
    return valid


def _updated_means(
    means: NDArray[np.float32],
    shown: NDArray[np.float64],
    values: NDArray[np.float32],
    unit: NDArray[np.int64],
    row: NDArray[np.int64],
    state: Averaged,
) -> NDArray[np.float32]:
    """The means (n_rows, V) of the images in a session, once that session is added to them.

    means: (N, V) without it. values: (n_trials, V), standardised; overwritten. unit, row:
    (n_trials,), of each trial. state: without it, but with its `valid`; its squares are added.
    """
    start, end = unit.min(), unit.max() + 1
    order = np.argsort(row, kind="stable")
    rows, first = np.unique(row[order], return_index=True)
    for v in voxel_blocks(values.shape[1]):
        valid = state.valid[:, v]
        z = np.where(valid[unit], values[:, v], 0).astype(np.float64)
        state.squares[v] += np.square(z).sum(axis=0)
        before = count_valid(shown[rows, :start], valid[:start])
        total = before * means[rows, v] + np.add.reduceat(z[order], first, axis=0)
        count = before + count_valid(shown[rows, start:end], valid[start:end])
        # The first rows of the betas take the result: a second copy would double the memory.
        values[: len(rows), v] = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return values[: len(rows)]


def _replace(means: np.memmap, rows: NDArray[np.int64], rows_path: Path) -> None:
    """Put the new means of a file into their rows, and delete the file."""
    means[rows] = np.load(rows_path, mmap_mode="r")
    means.flush()
    rows_path.unlink()

"""Betas averaged over the repeats of each image, one session at a time.

N distinct images, S sessions, V voxels. Each session is read, z-scored and added to the means on
disk, so memory stays that of one session, and an interrupted preparation continues with the session
that it was at. Below the folder of the data:

    responses.npy     (N, V) float32: the means so far
    state.npz         what else is known of the sessions that are done
    rows_K.npy        the new means of session K's images, while they replace the old ones
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.analysis.noise_ceiling import ncsnr_from_sums
from jne.data.nsd.spaces import Session
from jne.utils.blocks import voxel_blocks
from jne.utils.files import atomic_file, write_array
from jne.utils.progress import stage_progress


@dataclass
class Averaged:
    """What is known of the sessions that are done, besides the means themselves."""

    valid: NDArray[np.bool_]
    """(S, V): whether a voxel was finite and not constant in a session."""
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


def average_repeats(
    folder: Path,
    trials: pd.DataFrame,
    n_images: int,
    n_voxels: int,
    read_session: Callable[[int, int], Session],
    zscore: Literal["run", "session", "none"],
) -> Averaged:
    """Write the mean of each image's valid z-scored trials to responses.npy, 0 where there is none.

    A session's new means are first written to a file of their own and then replace the old ones, so
    that a session which is repeated after a kill gives the same means.

    trials: one row per trial, ordered by session: session, run, row (of the image in the means).
    read_session: function of a session's number and its number of trials.
    """
    path, state_path = folder / "responses.npy", folder / "state.npz"
    sessions = np.unique(trials["session"])
    if state_path.exists():
        state = Averaged.load(state_path)
    else:
        np.lib.format.open_memmap(path, "w+", np.float32, (n_images, n_voxels)).flush()
        state = Averaged(
            valid=np.zeros((len(sessions), n_voxels), dtype=bool),
            squares=np.zeros(n_voxels),
            saturated=np.zeros(n_voxels, dtype=np.int64),
        )
    means = np.load(path, mmap_mode="r+")
    shown = count_repeats(trials, n_images)
    for rows_path in folder.glob("rows_*.npy"):
        k = int(rows_path.stem.removeprefix("rows_"))
        if k < state.done:  # killed while these means were replacing the old ones
            _replace(means, np.flatnonzero(shown[:, k]), rows_path)
        else:  # killed before the state was saved
            rows_path.unlink()
    with stage_progress() as progress:
        task = progress.add_task(
            "betas", total=len(sessions), unit="sessions", completed=state.done
        )
        for k in range(state.done, len(sessions)):
            session = trials[trials["session"] == sessions[k]]
            betas, saturated = read_session(int(sessions[k]), len(session))
            state.valid[k] = _standardise(betas, session["run"].to_numpy(), zscore)
            rows_path = folder / f"rows_{k}.npy"
            write_array(rows_path, _updated_means(means, shown, betas, session["row"], state))
            del betas  # the next session's take its place in memory
            state.saturated += saturated
            state.done = k + 1
            state.save(state_path)
            _replace(means, np.flatnonzero(shown[:, k]), rows_path)
            progress.update(task, advance=1)
    return state


def count_repeats(trials: pd.DataFrame, n_images: int) -> NDArray[np.float64]:
    """How often each image was shown in each session: (N, S)."""
    _, session = np.unique(trials["session"], return_inverse=True)
    shown = np.zeros((n_images, session.max() + 1))
    np.add.at(shown, (trials["row"], session), 1)
    return shown


def mark_missing(
    folder: Path, shown: NDArray[np.float64], averaged: Averaged, test: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Set the means without any valid trial to NaN; measure the noise.

    shown: (N, S) as of `count_repeats`. test: (N,), the test images. Returns two arrays (V,): the
    ncsnr computed from all trials, and the mean of 1 / (number of valid trials) over test images,
    NaN where a test image has none.
    """
    means = np.load(folder / "responses.npy", mmap_mode="r+")
    n_voxels = means.shape[1]
    ncsnr, inverse = np.empty(n_voxels), np.empty(n_voxels)
    for v in voxel_blocks(n_voxels):
        count = shown @ averaged.valid[:, v].astype(np.float64)  # (N, v)
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


def _standardise(
    betas: NDArray[np.float32], run: NDArray[np.int64], zscore: str
) -> NDArray[np.bool_]:
    """Z-score betas (n_trials, V) in place. Returns which voxels were finite and varied: (V,).

    They must vary in every run, or, unless `zscore` is run, in the session.
    """
    valid: NDArray[np.bool_] = np.all(np.isfinite(betas), axis=0)
    groups = [run == number for number in np.unique(run)] if zscore == "run" else [slice(None)]
    for v in voxel_blocks(betas.shape[1]):
        for group in groups:
            values = betas[group, v].astype(np.float64)
            valid[v] &= np.ptp(values, axis=0) > 0
            if zscore != "none":
                spread = values.std(axis=0)
                scale = np.where(spread > 0, spread, 1)
                betas[group, v] = (values - values.mean(axis=0)) / scale
    return valid


def _updated_means(
    means: NDArray[np.float32],
    shown: NDArray[np.float64],
    betas: NDArray[np.float32],
    row: pd.Series,
    state: Averaged,
) -> NDArray[np.float32]:
    """The means (n_rows, V) of the images in a session, once that session is added to them.

    means: (N, V) without it. betas: (n_trials, V), standardised; overwritten. row: (n_trials,), of
    each trial's image. state: without it, but with its `valid`; its squares are added.
    """
    k = state.done
    order = np.argsort(row.to_numpy(), kind="stable")
    rows, first = np.unique(row.to_numpy()[order], return_index=True)
    for v in voxel_blocks(betas.shape[1]):
        valid = state.valid[k, v]
        z = np.where(valid, betas[:, v], 0).astype(np.float64)
        state.squares[v] += np.square(z).sum(axis=0)
        before = shown[rows, :k] @ state.valid[:k, v].astype(np.float64)
        total = before * means[rows, v] + np.add.reduceat(z[order], first, axis=0)
        count = before + np.outer(shown[rows, k], valid)
        # The first rows of the betas take the result: a second copy would double the memory.
        betas[: len(rows), v] = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return betas[: len(rows)]


def _replace(means: np.memmap, rows: NDArray[np.int64], rows_path: Path) -> None:
    """Put the new means of a file into their rows, and delete the file."""
    means[rows] = np.load(rows_path, mmap_mode="r")
    means.flush()
    rows_path.unlink()

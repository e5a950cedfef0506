"""Trials averaged over the repeats of each stimulus, streamed, in a way that survives a kill.

N stimuli, V voxels. Stimuli are read one after the other. Below the folder of the data:

    responses.npy     (N, V) float32: the means; NaN where no repeat is finite
    state.npz         the sums over all stimuli that are done, and their number
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jne.analysis.repeats import RepeatSums
from jne.data.averaging.sums import TrialSums, VoxelNoise, save_arrays
from jne.utils.files import new_memmap
from jne.utils.progress import stage_progress

_PER_STATE = 500  # stimuli between two saved states
_BETWEEN = [field.name for field in fields(RepeatSums)]


@dataclass
class Sums(TrialSums):
    """Of the stimuli that are done."""

    n_invalid: NDArray[np.int64]
    """Trials that are NaN or infinite, which no sum has."""
    inverse: NDArray[np.float64]
    """1 / number of trials, summed over test stimuli; infinite where one has none."""
    between: RepeatSums
    """What repeats say of the noise."""
    done: int = 0
    """The number of stimuli."""

    @classmethod
    def zero(cls, count: NDArray[np.int64], n_voxels: int) -> "Sums":
        """count: (N,), how often each stimulus was shown."""
        n, repeats, n_invalid = (np.zeros(n_voxels, dtype=np.int64) for _ in range(3))
        total, squares, within, inverse = (np.zeros(n_voxels) for _ in range(4))
        between = RepeatSums.zero(count, n_voxels)
        return cls(n, total, squares, within, repeats, n_invalid, inverse, between)

    @classmethod
    def load(cls, path: Path) -> "Sums":
        with np.load(path, allow_pickle=False) as saved:
            between = RepeatSums(**{name: saved[f"between_{name}"] for name in _BETWEEN})
            names = (name for name in saved.files if not name.startswith("between_"))
            arrays = {name: saved[name] for name in names if name != "done"}
            return cls(**arrays, between=between, done=int(saved["done"]))

    def save(self, path: Path) -> None:
        between = {f"between_{name}": getattr(self.between, name) for name in _BETWEEN}
        own = {name: value for name, value in vars(self).items() if name != "between"}
        save_arrays(path, own | between)

    def add(self, trials: NDArray[np.float64], test: bool) -> NDArray[np.float64]:
        """Add the trials (k, V) of the next stimulus; return their mean (V,), NaN where none."""
        finite = np.isfinite(trials)
        count = finite.sum(axis=0)
        trials = np.where(finite, trials, 0)
        total = trials.sum(axis=0)
        mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        self.n += count
        self.n_invalid += len(trials) - count
        self.total += total
        self.squares += np.square(trials).sum(axis=0)
        within = np.where(finite, np.square(trials - mean), 0).sum(axis=0)
        self.within += within
        self.between.add(np.array([self.done]), within[None], count[None])
        self.repeats += np.maximum(count - 1, 0)
        if test:
            with np.errstate(divide="ignore"):
                self.inverse += 1 / count
        self.done += 1
        return mean

    def finish(self, n_test: int) -> VoxelNoise:
        """n_test: the number of test stimuli."""
        missing = np.isinf(self.inverse)  # a test stimulus without a finite trial
        inverse = np.where(missing, np.nan, self.inverse / n_test)
        repeats = self.between.finish()
        noise = np.empty((0, len(self.n)), np.float32) if repeats is None else repeats.noise
        return VoxelNoise(self.n_invalid, self.ncsnr(), inverse, noise)


def average_repeats(
    folder: Path,
    count: NDArray[np.int64],
    is_test: NDArray[np.bool_],
    n_voxels: int,
    read: Callable[[int], NDArray[np.float64]],
) -> VoxelNoise:
    """Write the mean over the finite trials of each stimulus to responses.npy.

    If an earlier call was killed, continue with the stimuli after its last saved state; those are
    computed again from the same trials, so the result is the same.

    count: (N,), how often each stimulus was shown. is_test: (N,). read: gives the trials (k, V) of
    stimulus i.
    """
    path, state = folder / "responses.npy", folder / "state.npz"
    n_stimuli = len(is_test)
    if state.exists():
        sums = Sums.load(state)
    else:
        sums = Sums.zero(count, n_voxels)
        new_memmap(path, (n_stimuli, n_voxels), np.float32).flush()
        sums.save(state)
    with stage_progress() as progress:
        task = progress.add_task("betas", total=n_stimuli, unit="stimuli", completed=sums.done)
        while sums.done < n_stimuli:
            # Mapped anew each time: what was written does not stay in this process's memory.
            means = np.load(path, mmap_mode="r+")
            for i in range(sums.done, min(sums.done + _PER_STATE, n_stimuli)):
                means[i] = sums.add(read(i), bool(is_test[i]))
            means.flush()
            sums.save(state)
            progress.update(task, completed=sums.done)
    return sums.finish(int(is_test.sum()))

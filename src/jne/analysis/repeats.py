"""What repeats of a stimulus say: how much of the variance over stimuli is signal.

The variance of the mean responses over stimuli is that of the signal plus that of the noise in the
means. The noise of a mean over n repeats is the variance between them over n: subtracting it leaves
the variance of the signal, unbiased, whatever the noise depends on (Sahani & Linden 2002). So that
its error can be found later without the repeats, the noise is kept for blocks of stimuli.

N stimuli, V voxels, B blocks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jne.utils.blocks import voxel_blocks

N_BLOCKS = 64
_PER_BLOCK = 4  # stimuli, at least
_NOMINAL_SIGNAL = 0.2  # of the variance of single trials, for the weights alone


@dataclass(frozen=True)
class RepeatNoise:
    """What there is to subtract from the variance of the mean responses.

    With y the mean responses, the variance of the signal is

        (sum_i weight[i] (y[i] - mean(y))^2  -  sum_b noise[b]) / N.
    """

    block: NDArray[np.int64]
    """(N,), from 0 to B - 1."""
    weight: NDArray[np.float64]
    """(N,), with mean 1: all equal where all stimuli have repeats, or none."""
    noise: NDArray[np.float32]
    """(B, V), in squared units of the responses; NaN where a voxel has no repeats."""


@dataclass(frozen=True)
class Moments:
    """Of the trials that are there."""

    count: NDArray[np.int64]
    """(N, V)"""
    total: NDArray[np.float64]
    """(N, V)"""
    mean: NDArray[np.float64]
    """(N, V), 0 where there is no trial."""
    squares: NDArray[np.float64]
    """(N, V, R), the square of each trial around its mean; 0 where it is missing."""


def moments(trials: NDArray) -> Moments:
    """Of trials (N, V, R), NaN where one is missing.

    In float64, whatever the trials are: float16 ends at 65,504, and counts in steps of 4 at 5,000.
    """
    trials = np.asarray(trials, dtype=np.float64)
    present = np.isfinite(trials)
    count = present.sum(axis=2)
    total = np.where(present, trials, 0).sum(axis=2)
    mean = total / np.maximum(count, 1)
    squares = np.where(present, np.square(trials - mean[:, :, None]), 0)
    return Moments(count, total, mean, squares)


def blocks_of(n_stimuli: int) -> NDArray[np.int64]:
    """The block of each stimulus (N,): always the same for N, and unrelated to their order."""
    n_blocks = max(min(N_BLOCKS, n_stimuli // _PER_BLOCK), 1)
    return np.random.default_rng(0).permutation(n_stimuli) % n_blocks


@dataclass
class RepeatSums:
    """Sums over the stimuli of each block of the variance between their repeats."""

    count: NDArray[np.int64]
    """(N,), how often each stimulus was shown. One that was shown once has the noise of the others,
    on average."""
    block: NDArray[np.int64]
    """(N,)"""
    of_trials: NDArray
    """(B, V): the variance of a single trial."""
    of_means: NDArray
    """(B, V): the variance of the mean over the repeats."""
    n_repeated: NDArray[np.int64]
    """(V,), stimuli with several valid trials."""
    lone: NDArray[np.int64]
    """(V,), stimuli that were shown several times and have one valid trial only."""

    @classmethod
    def zero(
        cls, count: NDArray[np.int64], n_voxels: int, block: NDArray[np.int64] | None = None
    ) -> "RepeatSums":
        """block: None for those of `blocks_of`."""
        block = blocks_of(len(count)) if block is None else block
        of_trials, of_means = np.zeros((2, block.max() + 1, n_voxels))
        n_repeated, lone = np.zeros((2, n_voxels), dtype=np.int64)
        return cls(count, block, of_trials, of_means, n_repeated, lone)

    def add(self, stimuli: NDArray[np.int64], within: NDArray, valid: NDArray) -> None:
        """Add stimuli (n,), all of them in one call, or one after the other.

        within: (n, V), the sum of squares of the valid trials around their mean. valid: (n, V), how
        many these are.
        """
        repeated = valid > 1
        variance = np.divide(within, valid - 1, out=np.zeros(within.shape), where=repeated)
        blocks, row = np.unique(self.block[stimuli], return_inverse=True)
        within_block = np.eye(len(blocks))[row].T
        self.of_trials[blocks] += within_block @ variance
        self.of_means[blocks] += within_block @ (variance / np.maximum(valid, 1))
        self.n_repeated += repeated.sum(axis=0)
        self.lone += (valid[self.count[stimuli] > 1] == 1).sum(axis=0)

    def finish(self) -> RepeatNoise | None:
        """None where no stimulus has repeats."""
        several = self.count > 1
        if not several.any():
            return None
        weight = _weights(self.count)
        repeated = weight[several][0]
        alone = weight[self.count == 1].sum() + repeated * self.lone
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = repeated * self.of_means + alone / self.n_repeated * self.of_trials
        noise[:, self.n_repeated == 0] = np.nan
        return RepeatNoise(self.block, weight, noise.astype(np.float32))


def repeats_of(trials: NDArray, block: NDArray[np.int64] | None = None) -> RepeatNoise | None:
    """From trials (N, V, R), NaN where one is missing. None where no stimulus has repeats.

    block: (N,), None for those of `blocks_of`.
    """
    count = np.isfinite(trials).any(axis=1).sum(axis=1)
    if not (count > 1).any():
        return None
    parts = []
    for v in voxel_blocks(trials.shape[1]):
        some = moments(trials[:, v])
        sums = RepeatSums.zero(count, some.count.shape[1], block)
        sums.add(np.arange(len(count)), some.squares.sum(axis=2), some.count)
        parts.append(sums.finish())
    whole = [part for part in parts if part is not None]
    noise = np.concatenate([part.noise for part in whole], axis=1)
    return RepeatNoise(whole[0].block, whole[0].weight, noise)


def kept_repeats(count: NDArray, noise: NDArray[np.float32]) -> RepeatNoise | None:
    """From `RepeatNoise.noise` of all voxels, kept for blocks of them; None where it is empty.

    count: (N,), how often each stimulus was shown.
    """
    return RepeatNoise(blocks_of(len(count)), _weights(count), noise) if len(noise) else None


def ceiling_weights(scored: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`RepeatNoise.weight` where a noise ceiling of the scored stimuli (N,) stands for repeats."""
    return scored * (len(scored) / scored.sum())


def _weights(count: NDArray) -> NDArray[np.float64]:
    """`RepeatNoise.weight` of the least variance at a nominal signal, where some have no repeats.

    The variance of the signal can be found from the repeated stimuli alone, or from all, with the
    noise of the repeated ones. Neither is biased; the weight depends on the counts alone.
    """
    repeated, single = count > 1, count == 1
    n, n_repeated, n_single = len(count), repeated.sum(), single.sum()
    if not n_single:
        return repeated * (n / n_repeated)
    inverse, noise = (1 / count[repeated]).mean(), 1 - _NOMINAL_SIGNAL
    of_repeated = 2 * (_NOMINAL_SIGNAL + noise * inverse) ** 2 / n_repeated
    of_single = 2 / n_single
    of_noise = 2 * noise**2 / (count[repeated] - 1).sum()
    share = (of_single + (1 - inverse) * of_noise) / (
        of_repeated + of_single + (1 - inverse) ** 2 * of_noise
    )
    return repeated * (share * n / n_repeated) + single * ((1 - share) * n / n_single)

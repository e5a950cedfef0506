"""Linear twins (`control=twins`): for every voxel a made-up one that is linear by construction.

    twin = c * ridge prediction of the voxel + out-of-fold ridge residuals of the voxel, permuted

c makes the twin as predictable as the voxel: a ridge prediction is shrunk, and the residuals
contain its error. One permutation of the stimuli serves all voxels: the noise keeps its
distribution and its correlations between voxels, and loses its tie to the stimulus. The encoder is
trained on voxels and twins together, so what its hidden layers learn from nonlinear voxels reaches
the twins as it reaches linear voxels. docs/inference.md says what follows from that.

N stimuli, D features, V' trained voxels, T twins.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.data.datamodule import EncodingData
from jne.data.responses import Twins
from jne.encoders.ridge import OutOfFoldRidge, RidgeSolver
from jne.training.baseline import baseline_columns
from jne.training.config import ControlConfig
from jne.training.readout import cross_validation
from jne.utils.blocks import voxel_blocks
from jne.utils.files import atomic_array
from jne.utils.progress import stage_progress

_VOXELS_AT_ONCE = 2**12


def make_twins(data: EncodingData, control: ControlConfig, seed: int, path: Path) -> Twins:
    """Twins of the trained voxels, written to `path` as a memory-mapped array (N, T).

    Ridge regression is fitted to training and validation stimuli; the penalties are those of the
    baseline. The residuals of these stimuli are permuted among them, those of the test stimuli
    among themselves. Voxels with twins and permutations depend on `seed` alone.
    """
    parts = TwinParts(data, control, seed)

    def columns(block: slice) -> list[Tensor]:
        return [linear + noise for linear, noise in parts.of(block)]

    return write_twins(data, parts.voxels, control.draws, columns, path, "linear twins")


class TwinParts:
    """The two parts of each twin: c * ridge prediction, and permuted residuals."""

    def __init__(self, data: EncodingData, control: ControlConfig, seed: int) -> None:
        self.data = data
        self.voxels = _with_twins(data.n_trained, control.share, seed)
        """(K,), which of the V' trained voxels have twins."""
        self.rows = np.concatenate([data.rows["train"], data.rows["val"]])
        """The stimuli that ridge regression is fitted to."""
        test = data.rows["test"]
        self._receivers = np.concatenate([self.rows, test])
        self._orders = [_order(self.rows, test, [seed, draw]) for draw in range(control.draws)]
        penalty = baseline_columns(["ridge"], data)["ridge_penalty"][self.voxels]
        self._penalty = torch.from_numpy(penalty)
        self._features = data.features - data.features[self.rows].mean(dim=0)
        self._solver = RidgeSolver(self._features[self.rows])
        self._out_of_fold = OutOfFoldRidge(self._features[self.rows], cross_validation(data))

    def of(self, block: slice) -> list[tuple[Tensor, Tensor]]:
        """Linear part and noise, (N, v) each, of the voxels `block` of the K; one pair a draw."""
        rows, penalty = self.rows, self._penalty[block]
        responses = _columns(self.data, self.voxels[block])
        mean = responses[rows].mean(dim=0)
        centred = responses - mean
        fitted = self._features @ self._solver.weights(centred[rows], penalty)
        residuals = centred - fitted
        predict = partial(self._out_of_fold.predict, penalty=penalty)
        residuals[rows] = centred[rows] - predict(centred[rows])
        left = residuals[rows].square().sum(dim=0) / centred[rows].square().sum(dim=0)
        error = fitted[rows] - predict(fitted[rows])
        pairs = []
        for order in self._orders:
            noise = torch.empty_like(residuals)
            noise[self._receivers] = residuals[order]
            noise_error = noise[rows] - predict(noise[rows])
            scale = _scale(fitted[rows], noise[rows], error, noise_error, left)
            pairs.append((scale * fitted + mean, noise))
        return pairs


def write_twins(
    data: EncodingData,
    voxels: NDArray[np.int64],
    n_draws: int,
    columns: Callable[[slice], list[Tensor]],
    path: Path,
    title: str,
) -> Twins:
    """Standardise made-up voxels and write them to `path`, block after block.

    columns: function of a slice of the K voxels that returns `n_draws` arrays (N, v) in the units
    of the standardised responses.
    """
    n_voxels = len(voxels)
    n_twins = n_draws * n_voxels
    mean, scale = torch.empty(n_twins), torch.empty(n_twins)
    shape = (len(data.features), n_twins)
    with stage_progress() as progress, atomic_array(path, shape, "<f4") as array:
        task = progress.add_task(title, total=n_voxels, unit="voxels")
        # Of a subset, a block spans more columns of the responses
        at_once = max(round(_VOXELS_AT_ONCE * n_voxels / data.n_trained), 1)
        for block in voxel_blocks(n_voxels, at_once):
            for draw, twin in enumerate(columns(block)):
                chosen = slice(draw * n_voxels + block.start, draw * n_voxels + block.stop)
                train = twin[data.rows["train"]]
                mean[chosen], scale[chosen] = train.mean(dim=0), train.std(dim=0, correction=0)
                array[:, chosen] = (twin - mean[chosen]) / scale[chosen]
            progress.update(task, completed=block.stop)
    owner = np.tile(voxels, n_draws)
    return Twins(
        voxels,
        n_draws,
        np.load(path, mmap_mode="r"),
        data.response_mean[owner] + mean * data.response_scale[owner],
        scale * data.response_scale[owner],
    )


def _scale(
    signal: Tensor, noise: Tensor, error: Tensor, noise_error: Tensor, left: Tensor
) -> Tensor:
    """The c (V,) at which ridge regression leaves the share `left` (V,) of c * signal + noise.

    signal, noise: (N, V). error, noise_error: what out-of-fold predictions leave of each, which is
    linear in the responses, so that c solves a quadratic equation. 1 where there is no solution
    between 1/2 and 2: there is no signal to be scaled.
    """
    square = error.square().sum(dim=0) - left * signal.square().sum(dim=0)
    half = (error * noise_error).sum(dim=0) - left * (signal * noise).sum(dim=0)
    constant = noise_error.square().sum(dim=0) - left * noise.square().sum(dim=0)
    root = (half.square() - square * constant).clamp(min=0).sqrt()
    roots = torch.stack([(-half - root) / square, (-half + root) / square])
    nearest = roots.gather(0, (roots - 1).abs().argmin(dim=0, keepdim=True))[0]
    return torch.where((nearest > 0.5) & (nearest < 2), nearest, torch.ones(()))


def _with_twins(n_trained: int, share: float, seed: int) -> NDArray[np.int64]:
    """Which voxels get twins: all, or a random subset, ascending."""
    n = max(round(share * n_trained), 1)
    if n == n_trained:
        return np.arange(n_trained)
    return np.sort(np.random.default_rng(seed).choice(n_trained, n, replace=False))


def _order(rows: NDArray, test: NDArray, seed: list[int]) -> NDArray[np.int64]:
    """The stimuli whose residuals the stimuli [rows, test] get."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(rows), rng.permutation(test)])


def _columns(data: EncodingData, voxels: NDArray[np.int64]) -> Tensor:
    """The responses (N, v) of some trained voxels to all stimuli."""
    span = slice(int(voxels[0]), int(voxels[-1]) + 1)
    return data.responses.block(np.arange(len(data.features)), span)[:, voxels - span.start]

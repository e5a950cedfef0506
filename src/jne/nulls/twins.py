"""Linear twins (`control=twins`): for every voxel a surrogate that is linear by construction.

    twin = c * ridge prediction of the voxel + out-of-fold ridge residuals of the voxel, permuted

c makes the twin as predictable as the voxel: a ridge prediction is shrunk, and the residuals
contain its error. One permutation of the stimuli serves all voxels: the noise keeps its
distribution and its correlations between voxels, and loses its tie to the stimulus. The encoder is
trained on voxels and twins together, so what its hidden layers learn from nonlinear voxels reaches
the twins as it reaches linear voxels. docs/inference.md says what follows from that.

N stimuli, D features, V' trained voxels, T twins.
"""

from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.data.datamodule import EncodingData
from jne.data.folds import cross_validation
from jne.data.responses import Twins
from jne.encoders.ridge import RidgeCV
from jne.fitting.baseline import baseline_columns
from jne.nulls.config import ControlConfig
from jne.stages import Stages
from jne.utils.blocks import voxel_blocks
from jne.utils.files import atomic_array
from jne.utils.progress import stage_progress
from jne.utils.reading import reading

_FACTS = "twins.npz"
_VOXELS_AT_ONCE = 2**12


class TwinParts:
    """The two parts of each linear twin: c * ridge prediction, and permuted residuals."""

    def __init__(
        self, data: EncodingData, control: ControlConfig, seed: int, stages: Stages
    ) -> None:
        """data: without twins. Nothing is computed before it is needed."""
        self.data, self.stages = data, stages
        self.n_draws, self._seed = control.draws, seed
        self.voxels = _with_twins(data.n_trained, control.share, seed)
        """(K,), which of the V' trained voxels have twins."""
        self.rows = np.concatenate([data.rows["train"], data.rows["val"]])
        """The stimuli that ridge regression is fitted to."""
        self.identity = {"data": data.identity, "share": control.share, "seed": seed}

    def twins(self) -> Twins:
        """Twins of the voxels, a stage.

        Ridge regression is fitted to training and validation stimuli; the penalties are those of
        the baseline. The residuals of these stimuli are permuted among them, those of the test
        stimuli among themselves. Voxels with twins and permutations depend on the seed alone.
        """
        data, n_draws, n_voxels = self.data, self.n_draws, len(self.voxels)

        def write(folder: Path) -> None:
            n_twins = n_draws * n_voxels
            mean, scale = torch.empty(n_twins), torch.empty(n_twins)
            shape = (len(data.features), n_twins)
            with (
                stage_progress() as progress,
                atomic_array(folder / "responses.npy", shape, "<f4") as array,
            ):
                task = progress.add_task("linear twins", total=n_voxels, unit="voxels")
                # Of a subset, a block spans more columns of the responses
                at_once = max(round(_VOXELS_AT_ONCE * n_voxels / data.n_trained), 1)
                for block in voxel_blocks(n_voxels, at_once):
                    for draw, (linear, noise) in enumerate(self._parts(block)):
                        twin = linear + noise
                        chosen = slice(draw * n_voxels + block.start, draw * n_voxels + block.stop)
                        train = twin[data.rows["train"]]
                        mean[chosen] = train.mean(dim=0)
                        scale[chosen] = train.std(dim=0, correction=0)
                        array[:, chosen] = (twin - mean[chosen]) / scale[chosen]
                    progress.update(task, completed=block.stop)
            np.savez(folder / _FACTS, mean=mean.numpy(), scale=scale.numpy())

        about = {**self.identity, "draws": n_draws}
        folder = self.stages.make("twins", about, write)
        with reading(folder, ""), np.load(folder / _FACTS, allow_pickle=False) as saved:
            return Twins(
                self.voxels,
                n_draws,
                np.load(folder / "responses.npy", mmap_mode="r"),
                torch.from_numpy(saved["mean"]),
                torch.from_numpy(saved["scale"]),
                f"twins/{folder.name}",
            )

    def _parts(self, block: slice) -> list[tuple[Tensor, Tensor]]:
        """Linear part and noise, (N, v) each, of the voxels `block` of the K; one pair a draw."""
        rows, penalty = self.rows, self._ridge.penalty[block]
        responses = _columns(self.data, self.voxels[block])
        mean = responses[rows].mean(dim=0)
        centred = responses - mean
        fitted = self._ridge.features @ self._ridge.regression.weights(centred[rows], penalty)
        residuals = centred - fitted
        predict = partial(self._ridge.regression.predict_left_out, penalty=penalty)
        residuals[rows] = centred[rows] - predict(centred[rows])
        unexplained = residuals[rows].square().sum(dim=0) / centred[rows].square().sum(dim=0)
        error = fitted[rows] - predict(fitted[rows])
        test = self.data.rows["test"]
        receivers = np.concatenate([rows, test])
        pairs = []
        for draw in range(self.n_draws):
            noise = torch.empty_like(residuals)
            noise[receivers] = residuals[_order(rows, test, [self._seed, draw])]
            noise_error = noise[rows] - predict(noise[rows])
            scale = _scale(fitted[rows], noise[rows], error, noise_error, unexplained)
            pairs.append((scale * fitted + mean, noise))
        return pairs

    @cached_property
    def _ridge(self) -> "_Ridge":
        penalty = baseline_columns(["ridge"], self.data, self.stages)["ridge_penalty"]
        features = self.data.features - self.data.features[self.rows].mean(dim=0)
        regression = RidgeCV(features[self.rows], cross_validation(self.data))
        return _Ridge(torch.from_numpy(penalty[self.voxels]), features, regression)


class _Ridge(NamedTuple):
    penalty: Tensor
    """(K,)"""
    features: Tensor
    """(N, D), centred by the stimuli that the regression is of."""
    regression: RidgeCV


def _scale(
    signal: Tensor, noise: Tensor, error: Tensor, noise_error: Tensor, unexplained: Tensor
) -> Tensor:
    """The c (V,) at which ridge regression leaves the share `unexplained` of c * signal + noise.

    signal, noise: (N, V). unexplained: (V,). error, noise_error: what out-of-fold predictions leave
    of each, which is linear in the responses, so that c solves a quadratic equation. 1 where there
    is no solution between 1/2 and 2: there is no signal to be scaled.
    """
    square = error.square().sum(dim=0) - unexplained * signal.square().sum(dim=0)
    half = (error * noise_error).sum(dim=0) - unexplained * (signal * noise).sum(dim=0)
    constant = noise_error.square().sum(dim=0) - unexplained * noise.square().sum(dim=0)
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

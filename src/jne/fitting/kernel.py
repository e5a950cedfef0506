"""Kernel ridge regression, stacked on ridge regression: what `encoder=kernel` is solved for.

r: the prediction of ridge regression from the features. k: that of kernel ridge regression with the
kernel exp(-|x - x'|^2 / (width * d)), d the mean squared distance between two stimuli. Each voxel
has a penalty for either. The encoder is r + w (k - r), with w for each voxel the one by which left
out stimuli are best predicted, between LEAST_NONLINEAR and 1.

Nothing but the last layer depends on the responses, so all is chosen in a cross-validation over
training and validation stimuli (`jne.data.folds.cross_validation`).

N training and validation stimuli, D features, V' trained voxels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jne.data.datamodule import StandardisedData
from jne.data.folds import cross_validation
from jne.encoders.kernel import KernelRegression
from jne.encoders.ridge import RidgeCV
from jne.errors import InputError
from jne.fitting.readout import LEAST_NONLINEAR, RidgeReadout
from jne.utils.blocks import voxel_blocks
from jne.utils.machine import memory_bytes
from jne.utils.progress import stage_progress

_VOXELS_AT_ONCE = 2**11
# Float32 arrays (N, N) at a time: the kernel, its copy, and what five folds and all stimuli make
_ARRAYS = 12
_MOST_TO_CHOOSE = 2000  # stimuli, that a width is chosen by


def check_kernel_memory(data: StandardisedData, key: str) -> None:
    """Raise InputError, naming `key`, where kernels of N x N do not fit this machine's memory."""
    n = len(data.rows["train"]) + len(data.rows["val"])
    needed = 4 * (_ARRAYS * n**2 + 2 * n * data.n_outputs)
    if needed > memory_bytes() / 2:
        raise InputError(
            key,
            f"needs about {needed / 2**30:.0f} GB for {n} stimuli and {data.n_outputs} voxels, "
            f"more than half of this machine's memory; leave it out",
            value="kernel",
        )


@torch.no_grad()
def solve_kernel(encoder: KernelRegression, data: StandardisedData) -> RidgeReadout:
    """Give the encoder its centres and weights.

    The penalties that it returns are those of the kernel, the loss is that of left out stimuli, and
    both slopes of a stacked readout are w.
    """
    rows = np.concatenate([data.rows["train"], data.rows["val"]])
    splits, x = cross_validation(data), data.features[rows]
    mean = x.mean(dim=0)
    distance = 2 * float(x.var(dim=0, correction=0).sum())  # the mean square of all pairs
    squares = torch.cdist(x, x).square_()
    ridge = RidgeCV(x - mean, splits)
    blocks = [*voxel_blocks(data.n_outputs, _VOXELS_AT_ONCE)]

    def responses(voxels: slice) -> tuple[Tensor, Tensor]:
        """Centred, (N, v), and their mean."""
        y = data.responses.block(rows, voxels)
        offset = y.mean(dim=0)
        return y - offset, offset

    def best(widths: Sequence[float]) -> float:
        """By some of the stimuli of the first split: all voxels together choose."""
        step = -(-len(x) // _MOST_TO_CHOOSE)
        others, left_out = (of_split[::step] for of_split in splits[0])
        few = np.concatenate([others, left_out])
        split = np.split(np.arange(len(few)), [len(others)])
        of_few = squares[few][:, few]
        kernels = [
            RidgeCV(_centred(of_few, width * distance)[0], [(split[0], split[1])], kernel=True)
            for width in widths
        ]
        losses = np.zeros(len(widths))
        for voxels, of_ridge in zip(blocks, linear, strict=True):
            y, _ = responses(voxels)
            r = ridge.predict_left_out(y, of_ridge)[few]
            for k, kernel in enumerate(kernels):
                losses[k] += float(_stack(y[few], r, kernel).loss.sum())
            progress.advance(task, len(widths) * (voxels.stop - voxels.start))
        return widths[int(np.argmin(losses))]

    widths = encoder.widths
    n_passes = 1 if len(widths) == 1 else 1 + len(widths)
    with stage_progress() as progress:
        task = progress.add_task(
            "kernel regression", total=n_passes * data.n_outputs, unit="voxels"
        )
        linear = [ridge.choose(responses(v)[0]).penalty for v in blocks]
        width = best(widths) if len(widths) > 1 else widths[0]
        centred, column_means = _centred(squares, width * distance)
        kernel = RidgeCV(centred, splits, kernel=True)
        linear_part = (x - mean) @ torch.linalg.lstsq(x - mean, centred).solution
        noise_at = kernel.noise(centred - linear_part)
        encoder.resize(len(x))
        encoder.place(x, 2 / (width * distance))
        parts = []
        for voxels, of_ridge in zip(blocks, linear, strict=True):
            y, offset = responses(voxels)
            stacked = _stack(y, ridge.predict_left_out(y, of_ridge), kernel)
            w, penalty = stacked.w, stacked.penalty
            dual = w * kernel.weights(y, penalty)
            path = (1 - w) * ridge.weights(y, of_ridge)
            encoder.readout.weight[voxels], encoder.linear_path.weight[voxels] = dual.T, path.T
            encoder.readout.bias[voxels] = offset - column_means @ dual - mean @ path
            noise = w.square() * noise_at(penalty.to(w))
            parts.append(
                [x.float().numpy() for x in (penalty, stacked.end, stacked.loss, w, noise)]
            )
            progress.advance(task, voxels.stop - voxels.start)
    penalties, ends, losses, slopes, noises = map(np.concatenate, zip(*parts, strict=True))
    return RidgeReadout(penalties, ends, float(losses.mean()), slopes, slopes, noises)


class _Stacked(NamedTuple):
    """Of v voxels, each (v,)."""

    w: Tensor
    penalty: Tensor
    """Of the kernel."""
    end: Tensor
    loss: Tensor
    """Mean squared error of the stimuli that the kernel's splits leave out."""


def _stack(y: Tensor, r: Tensor, kernel: RidgeCV) -> _Stacked:
    """y: (N, v), centred. r: what ridge regression predicts of left out stimuli, (N, v)."""
    penalty, end, _ = kernel.choose(y)
    k = kernel.predict_left_out(y, penalty)
    rows = k[:, 0].isfinite()
    y, r, k = y[rows], r[rows], k[rows]
    line = k - r
    w = ((y - r) * line).sum(dim=0) / line.square().sum(dim=0)
    w = w.nan_to_num(0).clamp(LEAST_NONLINEAR, 1)
    return _Stacked(w, penalty, end, (y - r - w * line).square().mean(dim=0))


def _centred(squares: Tensor, distance: float) -> tuple[Tensor, Tensor]:
    """exp(-squares / distance), (N, N), with rows and columns of mean 0; what was their mean."""
    kernel = squares.div(-distance).exp_()
    means = kernel.mean(dim=0)
    return kernel.sub_(means).sub_(means[:, None]).add_(means.mean()), means

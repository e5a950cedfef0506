"""The ridge readout: after training, the last layer is solved for, with a penalty for each voxel.

Early stopping is one compromise between quiet and noisy voxels. With a penalty of its own, each
voxel takes from the trained hidden layers what its noise allows. N stimuli, H width of the last
hidden layer, V' trained voxels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.data.datamodule import EncodingData
from jne.encoders.ridge import fit_ridge
from jne.errors import InputError
from jne.utils.blocks import voxel_blocks
from jne.utils.progress import stage_progress

N_FOLDS = 5
_VOXELS_AT_ONCE = 2**14  # a block takes about 2 GB at 9,000 stimuli


@dataclass(frozen=True)
class RidgeReadout:
    """What the refit finds, beside the weights."""

    penalty: NDArray[np.float32]
    """(V',), the penalty of each voxel."""
    loss: float
    """Mean squared error of the validation stimuli over all voxels, before the last refit to
    training and validation stimuli together."""


def is_readout_alone(encoder: nn.Module) -> bool:
    """Whether there is nothing to train before the readout, as with encoder=ridge."""
    return isinstance(encoder, nn.Linear)


def refit_readout(encoder: nn.Module, data: EncodingData) -> RidgeReadout:
    """Replace the weights of the encoder's last layer by those of ridge regression.

    The penalty of a voxel has the smallest error on the validation stimuli (if there is nothing
    before the readout, in a cross-validation over training and validation stimuli). The weights are
    fitted to training and validation stimuli together. Features are those that enter the last
    layer; a layer with a bias has centred features and responses.

    Raises InputError where the encoder does not end in a linear layer.
    """
    readout, hidden = _last_layer(encoder, data)
    folds = cross_validation(data) if is_readout_alone(encoder) else validation_fold(data)
    rows = np.concatenate([data.rows["train"], data.rows["val"]])
    bias = readout.bias
    # The mean of the rows that a penalty is chosen by must not shift what it is judged on.
    centre = slice(None) if folds.min() >= 0 else folds < 0
    mean = hidden[centre].mean(dim=0) if bias is not None else torch.zeros(hidden.shape[1])
    penalty = np.empty(data.n_trained, dtype=np.float32)
    loss = np.empty(data.n_trained)
    with stage_progress() as progress, torch.no_grad():
        task = progress.add_task("ridge readout", total=data.n_trained, unit="voxels")
        for voxels in voxel_blocks(data.n_trained, _VOXELS_AT_ONCE):
            responses = data.responses.block(rows, voxels)
            offset = responses[centre].mean(dim=0) if bias is not None else torch.zeros(())
            fitted = fit_ridge(hidden - mean, responses - offset, folds)
            readout.weight[voxels] = fitted.weights.T
            if bias is not None:
                bias[voxels] = offset - mean @ fitted.weights
            penalty[voxels], loss[voxels] = fitted.penalty, fitted.loss
            progress.update(task, completed=voxels.stop)
    return RidgeReadout(penalty, float(loss.mean()))


def validation_fold(data: EncodingData) -> NDArray[np.int64]:
    """The folds of training and validation stimuli: the former only train, the latter validate."""
    sizes = [len(data.rows["train"]), len(data.rows["val"])]
    return np.repeat([-1, 0], sizes)


def cross_validation(data: EncodingData) -> NDArray[np.int64]:
    """Folds of training and validation stimuli, of equal size and at random."""
    n = len(data.rows["train"]) + len(data.rows["val"])
    return np.random.default_rng(0).permutation(np.arange(n) % N_FOLDS)


def _last_layer(encoder: nn.Module, data: EncodingData) -> tuple[nn.Linear, Tensor]:
    """The linear layer whose output is the encoder's, and what enters it (N, H).

    N: training stimuli, then validation stimuli.
    """
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        calls.append((layer, inputs[0], output))

    layers = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)]
    entered = []
    encoder.to("cpu").eval()
    with _hooks(layers, keep), torch.no_grad():
        for rows in _row_blocks(np.concatenate([data.rows["train"], data.rows["val"]])):
            calls.clear()
            result = encoder(data.features[rows])
            last = [call for call in calls if call[2] is result]
            if len(last) != 1:
                raise InputError(
                    "readout=ridge needs an encoder that ends in a torch.nn.Linear, and this one "
                    "does not; set readout=trained"
                )
            entered.append(last[0][1])
    return last[0][0], torch.cat(entered)

"""The ridge readout: after training, the last layer is solved for, with a penalty for each voxel.

Early stopping is one compromise between quiet and noisy voxels. With a penalty of its own, each
voxel takes from the trained hidden layers what its noise allows. N stimuli, D features, H width of
the last hidden layer, V' trained voxels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from jne.data.datamodule import StandardisedData
from jne.data.folds import cross_validation, untested, validation_split
from jne.encoders import is_linear
from jne.encoders.ridge import RidgeCV, RidgeFit, RidgeSolver, fit_together
from jne.errors import InputError
from jne.utils.blocks import voxel_blocks
from jne.utils.progress import stage_progress

# Of the variance of what a readout with a linear path is solved from: the hidden layer's. The other
# nine tenths are the features'. A voxel that is linear then loses nothing to the hidden layer.
HIDDEN_SHARE = 0.1
# The least slope of a nonlinear part: its direction survives, for unseen responses to test.
LEAST_NONLINEAR = 0.01
_VOXELS_AT_ONCE = 2**14
_ROWS_AT_ONCE = 2**11


@dataclass(frozen=True)
class RidgeReadout:
    """What the refit finds, beside the weights."""

    penalty: NDArray[np.float32]
    """(V',), the penalty of each voxel."""
    end: NDArray[np.float32]
    """(V',), which of them are at an end of the grid, as `RidgeFit.end`."""
    loss: float
    """Mean squared error over all voxels and the validation stimuli, at these penalties, before the
    weights were fitted to the validation stimuli, too."""
    stack_linear: NDArray[np.float32] | None = None
    """(V',), a of a stacked readout (`jne.fitting.stacking`)."""
    stack_nonlinear: NDArray[np.float32] | None = None
    """(V',), b of it."""
    nonlinear_noise: NDArray[np.float32] | None = None
    """(V',), the mean square of its nonlinear part if responses were noise of variance 1."""


def refit_readout(encoder: nn.Module, data: StandardisedData) -> RidgeReadout:
    """Replace the weights of the encoder's last layer by those of ridge regression.

    A voxel's penalty has the smallest error on the validation stimuli; for a linear encoder, whose
    hidden layers cannot fit the training stimuli better than the features do, in a cross-validation
    over training and validation stimuli. The weights are
    then fitted to training and validation stimuli together. Where the encoder has a linear path,
    this is done from the last hidden layer and the features, scaled so that HIDDEN_SHARE of the
    variance is the hidden layer's.

    A layer with a bias has centred features and responses. Raises InputError where the encoder does
    not end in a linear layer.
    """
    (solved,) = refit_readouts([encoder], [data])
    return solved


@torch.no_grad()
def refit_readouts(
    encoders: Sequence[nn.Module], data: Sequence[StandardisedData]
) -> list[RidgeReadout]:
    """As `refit_readout`, of the encoders of all folds of one data set.

    A voxel's penalty in a fold, as a ratio to the variance of its inputs, has the smallest error on
    the validation stimuli of all folds, each predicted from its own fold's training stimuli, but
    for those that the fold tests.
    """
    folds = [_Fold(*fold) for fold in zip(encoders, data, strict=True)]
    used = [[untested(fold.rows, part) for fold in folds] for part in data]
    ridges, n_outputs = [fold.ridge for fold in folds], data[0].n_outputs
    with stage_progress() as progress:
        task = progress.add_task("ridge readout", total=n_outputs, unit="voxels")
        for voxels in voxel_blocks(n_outputs, max(_VOXELS_AT_ONCE // len(folds), 1)):
            responses = [fold.responses(voxels) for fold in folds]
            centred = [values - offset for values, offset in responses]
            fits = fit_together(ridges, centred, used)
            for fold, (values, offset), fitted in zip(folds, responses, fits, strict=True):
                fold.write(voxels, values, offset, fitted)
            progress.update(task, completed=voxels.stop)
    return [fold.solved() for fold in folds]


class _Fold:
    """An encoder whose readout is solved for, and the data that it is of."""

    def __init__(self, encoder: nn.Module, data: StandardisedData) -> None:
        self._data, n_train = data, len(data.rows["train"])
        self.rows = np.concatenate([data.rows["train"], data.rows["val"]])
        crossed = is_linear(encoder)
        splits = cross_validation(data) if crossed else validation_split(data)
        self._readout, hidden = last_layer(encoder, data, self.rows)
        self._path = getattr(encoder, "linear_path", None)
        self._n_hidden, self._scale = hidden.shape[1], 1.0
        features = data.features[self.rows]
        # The mean of the stimuli that choose a penalty must not shift what they are predicted from.
        self._centre = slice(None if crossed else n_train)
        inputs = hidden
        if self._path is not None:
            self._scale = hidden_scale(hidden[self._centre], features[self._centre])
            inputs = torch.cat([hidden * self._scale, features], dim=1)
        self._mean = self._offset(inputs)
        inputs = inputs - self._mean
        self.ridge = RidgeCV(inputs, splits)
        self._penalty, self._end = np.empty((2, data.n_outputs), dtype=np.float32)
        self._loss = np.empty(data.n_outputs)
        self._validation = None
        if crossed:  # other stimuli than those of validation chose the penalties, too
            centred = self._readout.bias is not None
            self._validation = _ValidationError(inputs, n_train, centred)

    def _offset(self, values: Tensor) -> Tensor:
        if self._readout.bias is None:
            return torch.zeros(values.shape[1])
        return values[self._centre].mean(dim=0)

    def responses(self, voxels: slice) -> tuple[Tensor, Tensor]:
        """To training, then validation stimuli (N, v); what to subtract before a fit, (v,)."""
        values = self._data.responses.block(self.rows, voxels)
        return values, self._offset(values)

    def write(self, voxels: slice, responses: Tensor, offset: Tensor, fitted: RidgeFit) -> None:
        """The weights of v voxels, and what they leave of their responses."""
        weights = fitted.weights
        self._readout.weight[voxels] = self._scale * weights[: self._n_hidden].T
        if self._path is not None:
            self._path.weight[voxels] = weights[self._n_hidden :].T
        if self._readout.bias is not None:
            self._readout.bias[voxels] = offset - self._mean @ weights
        self._penalty[voxels], self._end[voxels] = fitted.penalty, fitted.end
        self._loss[voxels] = fitted.loss
        if self._validation is not None:
            penalty = torch.from_numpy(fitted.penalty)
            self._loss[voxels] = self._validation.evaluate(responses, penalty)

    def solved(self) -> RidgeReadout:
        return RidgeReadout(self._penalty, self._end, float(self._loss.mean()))


class _ValidationError:
    """How well ridge regression on the training stimuli alone predicts the validation stimuli."""

    def __init__(self, inputs: Tensor, n_train: int, centred: bool) -> None:
        """inputs: (N, D'), of the training stimuli, then of the validation stimuli."""
        self._n_train, self._centred = n_train, centred
        inputs = inputs - self._offset(inputs)
        self._solver, self._val = RidgeSolver(inputs[:n_train]), inputs[n_train:]

    def _offset(self, values: Tensor) -> Tensor:
        return values[: self._n_train].mean(dim=0) if self._centred else torch.zeros(())

    def evaluate(self, responses: Tensor, penalty: Tensor) -> NDArray[np.float32]:
        """Mean squared error (v,) of responses (N, v), at a penalty (v,) for each voxel."""
        responses = responses - self._offset(responses)
        predictions = self._val @ self._solver.weights(responses[: self._n_train], penalty)
        return (responses[self._n_train :] - predictions).square().mean(dim=0).numpy()


def hidden_scale(hidden: Tensor, features: Tensor, share: float = HIDDEN_SHARE) -> float:
    """What to multiply the hidden layer by, for `share` of the variance of both together."""
    ratio = features.var(dim=0).sum() / hidden.var(dim=0).sum()
    return float((share / (1 - share) * ratio).sqrt())


def output_layers(
    encoder: nn.Module, data: StandardisedData, key: str, value: str, otherwise: str
) -> list[str]:
    """Names of the linear layers whose outputs add up to the encoder's: a readout, a linear path.

    Raises InputError where there are none: `value` of the config key needs them, `otherwise` does
    not.
    """
    readout, _ = last_layer(encoder, data, data.rows["val"][:2], key, value, otherwise)
    outputs = {readout, getattr(encoder, "linear_path", None)}
    return [name for name, module in encoder.named_modules() if module in outputs]


def freeze_linear_path(encoder: nn.Module) -> None:
    """Set the encoder's linear path, if it has one, to 0 while the hidden layers are trained.

    Hidden layers that are trained beside a linear path, which takes what is linear, learn worse
    features of what is not (docs/notes/encoders.md).
    """
    path = getattr(encoder, "linear_path", None)
    if path is not None:
        nn.init.zeros_(path.weight)
        path.requires_grad_(False)


def last_layer(
    encoder: nn.Module,
    data: StandardisedData,
    rows: NDArray[np.int64],
    key: str = "readout",
    value: str = "ridge",
    otherwise: str = "trained",
) -> tuple[nn.Linear, Tensor]:
    """The encoder's readout, and what enters it (n, H) at the stimuli `rows`.

    The readout is the nn.Linear whose output, alone or plus that of a linear path, is the result.
    """
    training = encoder.training
    encoder.to("cpu").eval()
    with torch.no_grad():
        parts = _readout(encoder, data.features[rows[:2]])
        if parts is None:
            raise InputError(
                key,
                f"needs an encoder that ends in a torch.nn.Linear, and this one does not; set "
                f"{key}={otherwise}",
                value,
            )
        blocks = range(0, len(rows), _ROWS_AT_ONCE)
        features = [data.features[rows[start : start + _ROWS_AT_ONCE]] for start in blocks]
        entered = torch.cat([_input(encoder, *parts, block) for block in features])
    encoder.train(training)
    return parts[0], entered


def _readout(encoder: nn.Module, features: Tensor) -> tuple[nn.Linear, int] | None:
    """The readout, and how often it is called; None where the encoder does not end in one."""
    calls: list[tuple[nn.Linear, Tensor]] = []
    path = getattr(encoder, "linear_path", None)

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        calls.append((layer, inputs[0]))

    layers = [m for m in encoder.modules() if isinstance(m, nn.Linear) and m is not path]
    with _hooks([layer.register_forward_hook(keep) for layer in layers]):
        result = encoder(features)
    if not calls or not _is_output_of(*calls[-1], path, features, result):
        return None
    readout = calls[-1][0]
    return readout, sum(layer is readout for layer, _ in calls)


class _ReachedReadout(Exception):
    """The encoder has come to its readout."""


def _input(encoder: nn.Module, readout: nn.Linear, n_calls: int, features: Tensor) -> Tensor:
    """What enters the readout (n, H). It is not computed itself: (n, V) is larger than all else."""
    entered: list[Tensor] = []

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        entered.append(inputs[0])
        if len(entered) == n_calls:
            raise _ReachedReadout

    with _hooks([readout.register_forward_pre_hook(stop)]), suppress(_ReachedReadout):
        encoder(features)
    return entered[-1]


def _is_output_of(
    layer: nn.Linear, h: Tensor, path: nn.Linear | None, features: Tensor, result: Tensor
) -> bool:
    expected = nn.functional.linear(h, layer.weight, layer.bias)
    if path is not None:
        expected = expected + path(features)
    return expected.shape == result.shape and torch.allclose(expected, result, 1e-4, 1e-5)


@contextmanager
def _hooks(handles: list[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""Training on few components of the responses in place of many voxels, with the same loss.

The mean squared error of voxels depends on their responses Y (N, V) through Y Y' alone. So the
encoder can be trained on any Z (N, K) with

    Z Z' / K = Y Y' / V,   K at most N,

and is as good for voxels as it is for components: a readout w (K, H) of Z stands for W = Y' C of Y,
where Z' C = w, and then

    mean_v |h W_v - Y_v|^2 = mean_k |h w_k - Z_k|^2   for every h (N, H).

Z is the Cholesky factor of Y Y', its columns mixed by an orthogonal matrix (random signs, then a
cosine transform). Every component is then a mixture of all voxels, of a variance near 1. Adam,
which scales the gradient of each weight by itself and so is not invariant to rotations, treats such
components as it treats voxels (docs/encoders.md).

N training stimuli, n validation stimuli, D features, H width of the last hidden layer, V trained
voxels, K components.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.linalg import lapack, solve_triangular
from torch import nn
from torch.nn.functional import mse_loss

from jne.data.datamodule import Batch, StandardisedData
from jne.errors import InputError
from jne.fitting.module import EncodingModule
from jne.stages import Stages
from jne.utils.blocks import voxel_blocks
from jne.utils.files import atomic_file
from jne.utils.machine import memory_bytes
from jne.utils.progress import stage_progress
from jne.utils.reading import reading

_FILE = "components.npz"
_MANY_VOXELS, _PER_STIMULUS = 10_000, 4
_ROWS_AT_ONCE = 2**9  # of the square of products, half of which on its diagonal is for nothing
_RANK_TOLERANCE = 1e-6  # of a stimulus's squared responses: what float32 products leave uncertain


@dataclass(frozen=True)
class Components:
    """Z, the components of the training responses, and those of the validation responses."""

    train: NDArray[np.float32]
    """Z, (N, K)."""
    val: NDArray[np.float32]
    """(n, K), of the part of the validation responses that a readout of Z can predict."""
    val_outside: float
    """The mean square of the other part: what to add to a validation loss."""
    val_variance: float
    """The variance over validation stimuli, mean over voxels."""
    independent: NDArray[np.int64]
    """(K,), training stimuli whose rows of Z are linearly independent."""
    n_voxels: int


def train_on_components(space: str, readout: str, data: StandardisedData, followed: bool) -> bool:
    """Whether to train on components. space: as of `trainer.response_space`.

    `auto` does for a readout that is solved for, from 10,000 voxels and four per training stimulus,
    unless voxels are `followed` from epoch to epoch (`jacobian.trajectory`). Raises InputError
    where they are, and `space` is components.
    """
    if space == "components" and followed:
        raise InputError(
            "jacobian.trajectory",
            "needs the voxels' own readout at every epoch; set trainer.response_space=voxels",
        )
    if space != "auto":
        return space == "components"
    needed = max(_MANY_VOXELS, _PER_STIMULUS * len(data.rows["train"]))
    return readout != "trained" and not followed and data.n_outputs >= needed


def response_components(data: StandardisedData, stages: Stages | None) -> Components:
    """The components of the standardised responses, computed once where there is a store.

    Raises InputError where Y Y' does not fit the memory.
    """
    if stages is None:
        return _compute(data)

    def write(folder: Path) -> None:
        with atomic_file(folder / _FILE) as temporary, open(temporary, "wb") as file:
            np.savez(file, **asdict(_compute(data)))

    about = {"data": data.identity, "split": [len(rows) for rows in data.rows.values()]}
    path = stages.make("components", about, write) / _FILE
    with reading(path, ""), np.load(path, allow_pickle=False) as saved:
        return Components(
            saved["train"],
            saved["val"],
            float(saved["val_outside"]),
            float(saved["val_variance"]),
            saved["independent"],
            int(saved["n_voxels"]),
        )


def _check_memory(data: StandardisedData) -> None:
    n = len(data.rows["train"])
    needed = 4 * 8 * n**2
    if needed > memory_bytes():
        raise InputError(
            "trainer.response_space",
            f"needs about {needed / 2**30:.0f} GB for {n} "
            f"training stimuli, more than this machine has; set trainer.response_space=voxels",
            value="components",
        )


def _compute(data: StandardisedData) -> Components:
    _check_memory(data)
    n_train, n_voxels = len(data.rows["train"]), data.n_outputs
    products, square, variance = _products(data)
    # The upper triangle, as LAPACK counts, of what has its lower triangle filled in C's order
    factor, order, rank, _ = lapack.dpstrf(
        products[:n_train].T, tol=_RANK_TOLERANCE * np.diagonal(products).max(), overwrite_a=1
    )
    order = order - 1
    independent = order[:rank]
    triangle = np.triu(factor)[:rank]  # (K, N): its transpose is the factor, stimuli in `order`
    val = solve_triangular(triangle[:, :rank], products[n_train:, independent].T, trans="T").T
    outside = square - np.square(val).sum()
    scale = np.sqrt(rank / n_voxels)
    train = np.empty((n_train, rank), dtype=np.float32)
    for start in range(0, n_train, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        train[order[rows]] = scale * _mixed(triangle[:, rows].T)
    size = len(val) * n_voxels
    return Components(
        train,
        (scale * _mixed(val)).astype(np.float32),
        outside / size,
        variance / size,
        independent,
        n_voxels,
    )


def _mixed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns (m, K) mixed by an orthogonal matrix, each with a share of all."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], values.shape[1])
    return dct(values * signs, norm="ortho", axis=1)


def _products(data: StandardisedData) -> tuple[NDArray[np.float64], float, float]:
    """Products of the responses, from one pass over them.

    Returns (N + n, N): the lower triangle of Y Y', and the products of validation with training
    responses. Then the sum of squares of the validation responses, before and after their mean
    over stimuli is subtracted.
    """
    rows, n_train = np.concatenate([data.rows["train"], data.rows["val"]]), len(data.rows["train"])
    products = np.zeros((len(rows), n_train))
    square = variance = 0.0
    with stage_progress() as progress:
        task = progress.add_task("response components", total=data.n_outputs, unit="voxels")
        for voxels in voxel_blocks(data.n_outputs):
            responses = data.responses.block(rows, voxels)
            for start in range(0, n_train, _ROWS_AT_ONCE):
                columns = slice(start, min(start + _ROWS_AT_ONCE, n_train))
                products[start:, columns] += (responses[start:] @ responses[columns].T).numpy()
            val = responses[n_train:].double()
            square += float(val.square().sum())
            variance += float(val.sub_(val.mean(dim=0)).square_().sum())
            progress.update(task, completed=voxels.stop)
    return products, square, variance


def component_data(data: StandardisedData, components: Components) -> StandardisedData:
    """The data with responses (N, K) to training and validation stimuli; NaN for test stimuli."""
    values = np.full((len(data.features), components.train.shape[1]), np.nan, dtype=np.float32)
    values[data.rows["train"]], values[data.rows["val"]] = components.train, components.val
    return data.with_responses(values)


class ComponentModule(EncodingModule):
    """An encoder whose outputs are components. Its validation loss and R2 are the voxels'."""

    components: Components

    def validation_step(self, batch: Batch) -> None:
        features, responses, _ = batch
        loss = mse_loss(self(features), responses) + self.components.val_outside
        r2 = 1 - loss / self.components.val_variance
        for name, value in (("val/loss", loss), ("val/r2", r2)):
            self.log(name, value, on_step=False, on_epoch=True, batch_size=len(features))

    def on_validation_epoch_end(self) -> None:
        pass


def copy_hidden(source: nn.Module, target: nn.Module, outputs: list[str]) -> None:
    """Copy all weights but those of the layers named `outputs`."""
    skipped = tuple(f"{name}." if name else "" for name in outputs)
    values = {k: v for k, v in source.state_dict().items() if not k.startswith(skipped)}
    target.load_state_dict(target.state_dict() | values)


@torch.no_grad()
def copy_outputs(
    source: nn.Module,
    target: nn.Module,
    outputs: list[str],
    data: StandardisedData,
    components: Components,
) -> None:
    """Give the layers named `outputs` of voxels what those of components stand for.

    That is W = Y' C for all weights and biases w (K, .), where Z' C = w.
    """
    trained = {
        f"{name}.{key}" if name else key: value
        for name in outputs
        for key, value in source.get_submodule(name).state_dict().items()
    }
    weights = [value.cpu().double().reshape(len(value), -1) for value in trained.values()]
    z = torch.from_numpy(components.train[components.independent]).double()
    of_rows = torch.linalg.solve(z.T, torch.cat(weights, dim=1)).float()
    parts = of_rows.split([value.shape[1] for value in weights], dim=1)
    rows = data.rows["train"][components.independent]
    state = target.state_dict()
    for voxels in voxel_blocks(data.n_outputs):
        responses = data.responses.block(rows, voxels)
        for (name, value), c in zip(trained.items(), parts, strict=True):
            state[name][voxels] = (responses.T @ c).reshape(-1, *value.shape[1:])

"""Ridge regression beside every run, or kernel ridge regression: what any encoder has to beat.

Both are fitted to training and validation stimuli, with a penalty per voxel chosen by
cross-validation, and scored on the test stimuli. They depend on the data alone, so they
are a stage. N stimuli, D features, V' trained voxels.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.analysis.prediction import r2_score
from jne.data.datamodule import EncodingData, StandardisedData
from jne.data.folds import N_FOLDS, cross_validation
from jne.encoders import KernelRegression
from jne.encoders.ridge import PENALTIES, RidgeCV
from jne.fitting.kernel import check_kernel_memory, solve_kernel
from jne.jacobian.resumable import ResumableArrays
from jne.stages import Stages
from jne.utils.blocks import voxel_blocks
from jne.utils.progress import stage_progress

_VOXELS_AT_ONCE = 2**14
_FILE = "baseline.npy"
"""(_N_COLUMNS + k n, V'): R2, penalty, end of its grid, and k predictions of the n test stimuli."""
_N_COLUMNS = 3
_N_PREDICTIONS = {"ridge": 2, "kernel": 1}


def baseline_columns(
    kinds: Sequence[str], data: EncodingData, stages: Stages
) -> dict[str, NDArray[np.float32]]:
    """Columns (V',) for the voxel table: r2_KIND, the test R2, KIND_penalty and KIND_penalty_end.

    kinds: `ridge`, from the features; `kernel`, as encoder=kernel, and refused by InputError where
        its kernels do not fit the memory. Others are of `jne.fitting.banded`.
    """
    columns: dict[str, NDArray[np.float32]] = {}
    for kind in (kind for kind in kinds if kind in _N_PREDICTIONS):
        tables = [_stage(kind, part, stages) for part in data.parts]
        r2, penalty, end = np.array([table[:_N_COLUMNS] for table in tables]).swapaxes(0, 1)
        if len(tables) > 1:
            n_tests = [len(part.rows["test"]) for part in data.parts]
            first = [table[_N_COLUMNS:][:n] for table, n in zip(tables, n_tests, strict=True)]
            r2 = np.array([r2_of_parts(data, first)])
        with np.errstate(divide="ignore"):
            mean = np.exp(np.log(penalty).mean(axis=0)) if len(tables) > 1 else penalty[0]
        columns |= {
            f"r2_{kind}": r2[0],
            f"{kind}_penalty": mean,
            f"{kind}_penalty_end": np.trunc(end.mean(axis=0)),
        }
    return columns


def r2_of_parts(
    data: EncodingData, predictions: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """R2 (V',) over all test stimuli. predictions: (n, V') of each of the parts of the data."""
    result, of_all = np.empty(data.n_trained, dtype=np.float32), data.in_order(predictions)
    for voxels in voxel_blocks(data.n_trained, _VOXELS_AT_ONCE):
        truth = data.responses.block(data.rows["test"], voxels).numpy()
        result[voxels] = r2_score(truth, of_all[:, np.arange(voxels.start, voxels.stop)])
    return result


def linear_predictions(
    data: StandardisedData, stages: Stages | None = None
) -> list[NDArray[np.float32]]:
    """Predictions of the test stimuli by ridge regression, and by least squares, (n, V') each.

    stages: a store, from which they are memory-mapped; for EncodingData.
    """
    if stages is not None:
        assert isinstance(data, EncodingData)
        of_parts = [np.split(_stage("ridge", part, stages)[_N_COLUMNS:], 2) for part in data.parts]
        return [data.in_order(predictions) for predictions in zip(*of_parts, strict=True)]
    return np.split(_computed("ridge", data)[_N_COLUMNS:], 2)


def ridge_penalties(
    data: StandardisedData, stages: Stages | None = None
) -> NDArray[np.float32] | None:
    """Those of `baseline_columns`, and their ends of the grid, (2, V'), of data without folds.

    None without a store, in which they would be kept.
    """
    if stages is None or not isinstance(data, EncodingData):
        return None
    return np.array(_stage("ridge", data, stages)[1:_N_COLUMNS])


def external_predictions(
    features: Tensor, data: EncodingData, stages: Stages
) -> list[NDArray[np.float32]]:
    """Predictions of other stimuli by ridge regression, and by least squares, (n, V') each.

    Ridge regression with the penalties of `baseline_columns`. features: (n, D), standardised as
    those of the data, which have no folds.
    """
    penalty = torch.from_numpy(np.array(_stage("ridge", data, stages)[1]))
    rows = np.concatenate([data.rows["train"], data.rows["val"]])
    mean = data.features[rows].mean(dim=0)
    predict = RidgeCV(data.features[rows] - mean, ()).predictor(features - mean)
    predictions = np.empty((2, len(features), data.n_trained), dtype=np.float32)
    for voxels in voxel_blocks(data.n_trained, _VOXELS_AT_ONCE):
        responses = data.responses.block(rows, voxels)
        offset = responses.mean(dim=0)
        responses -= offset
        of_block = predict(responses, penalty[voxels])
        for of_kind, values in zip(predictions, of_block, strict=True):
            of_kind[:, voxels] = values + offset
    return list(predictions)


def _stage(kind: str, data: EncodingData, stages: Stages) -> NDArray[np.float32]:
    """What is in _FILE, memory-mapped."""
    about = {"data": data.identity, "kind": kind, "penalties": PENALTIES, "folds": N_FOLDS}
    folder = stages.make("baseline", about, partial(_write, kind=kind, data=data))
    array: NDArray[np.float32] = np.load(folder / _FILE, mmap_mode="r")
    return array


def _write(folder: Path, kind: str, data: EncodingData) -> None:
    """Ridge regression is continued after a kill."""
    if kind == "kernel":
        check_kernel_memory(data, "baseline")
    _computed(kind, data, folder / _FILE)


def _computed(kind: str, data: StandardisedData, path: Path | None = None) -> NDArray[np.float32]:
    """What _FILE holds; without a path in memory."""
    shape = _N_COLUMNS + _N_PREDICTIONS[kind] * len(data.rows["test"]), data.n_trained
    files = None if path is None else {kind: path}
    with ResumableArrays([kind], files, shape, np.float32, kind) as arrays:
        (_fill if kind == "ridge" else _fill_kernel)(arrays, data)
    return arrays.results()[kind]


def _fill(arrays: ResumableArrays, data: StandardisedData) -> None:
    (table,) = arrays.arrays.values()
    rows, test = np.concatenate([data.rows["train"], data.rows["val"]]), data.rows["test"]
    mean = data.features[rows].mean(dim=0)
    ridge = RidgeCV(data.features[rows] - mean, cross_validation(data))
    predict = ridge.predictor(data.features[test] - mean)
    with stage_progress() as progress:
        task = progress.add_task("ridge regression", total=data.n_trained, unit="voxels")
        for unit, voxels in enumerate(voxel_blocks(data.n_trained, _VOXELS_AT_ONCE)):
            if unit >= arrays.done:
                responses = data.responses.block(rows, voxels)
                offset = responses.mean(dim=0)
                responses -= offset
                chosen = ridge.choose(responses)
                predictions = predict(responses, chosen.penalty)
                table[_N_COLUMNS:, voxels] = torch.cat(predictions) + offset
                table[1:_N_COLUMNS, voxels] = chosen.penalty, chosen.end
                _score(table, data, voxels)
                arrays.advance(unit + 1)
            progress.update(task, completed=voxels.stop)


def _fill_kernel(arrays: ResumableArrays, data: StandardisedData) -> None:
    (table,) = arrays.arrays.values()
    encoder = KernelRegression(data.n_features, data.n_trained)
    solved = solve_kernel(encoder, data)
    with torch.no_grad():
        table[_N_COLUMNS:] = encoder(data.features[data.rows["test"]])
    table[1:_N_COLUMNS] = solved.penalty, solved.end
    for voxels in voxel_blocks(data.n_trained, _VOXELS_AT_ONCE):
        _score(table, data, voxels)


def _score(table: NDArray[np.float32], data: StandardisedData, voxels: slice) -> None:
    """Write R2 of the first of the predictions."""
    truth = data.responses.block(data.rows["test"], voxels).numpy()
    table[0, voxels] = r2_score(truth, table[_N_COLUMNS:][: len(truth), voxels])

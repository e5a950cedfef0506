"""Banded ridge regression: a penalty for each feature space, and what each space explains alone.

By himalaya (Dupré la Tour et al. 2022, https://doi.org/10.1016/j.neuroimage.2022.119728), whose
random search over the ratios of penalties (Nunez-Elizalde et al. 2019) is run in pieces, so that it
can be continued after a kill. Fitted and scored as ridge regression (`jne.fitting.baseline`).
N stimuli, n of them tested, D features, K spaces, V' trained voxels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.data.datamodule import EncodingData
from jne.data.folds import N_FOLDS, cross_validation
from jne.encoders.ridge import PENALTIES
from jne.errors import InputError
from jne.fitting.baseline import r2_of_parts
from jne.jacobian.resumable import ResumableArrays
from jne.stages import Stages
from jne.utils.blocks import voxel_blocks
from jne.utils.progress import stage_progress

BANDED, PARTITION = "banded", "partition"
_SAMPLES = 20  # ratios of penalties, for each space beyond the first; himalaya's tutorials take 20
_AT_ONCE = 5  # of them
_VOXELS_AT_ONCE = 2**14
_BATCH = {"n_targets_batch": 2**11, "n_alphas_batch": 4}  # bounds what himalaya holds at a time
_FILE = "banded.npy"
"""(1 + n + K n, V'): the score of cross-validation, the predictions of the n test stimuli, and what
each space adds to them."""


@dataclass(frozen=True)
class Banded:
    """What banded ridge regression says of the trained voxels."""

    columns: dict[str, NDArray[np.float32]]
    """Columns (V',) of the voxel table."""
    of_spaces: dict[str, NDArray[np.float32]]
    """Columns (K, V') of the table of spaces."""


def check_banded(kinds: Sequence[str]) -> None:
    """Raise InputError where a kind of baseline needs himalaya, which is not installed."""
    for kind in kinds:
        if kind in (BANDED, PARTITION) and find_spec("himalaya") is None:
            raise InputError("baseline", 'needs himalaya: pip install "jne[banded]"', value=kind)


def fit_banded(kinds: Sequence[str], data: EncodingData, stages: Stages) -> Banded:
    """What the kinds of baseline that are of feature spaces say; of others, and of none, nothing.

    banded: r2_banded, the test R2, and r2_split, its parts (product measure), which add up to it.
        What is lost to a wrong mean of the predictions is shared by all spaces equally.
    partition: r2_unique, by how much the test R2 falls without a space, and r2_shared, what is left
        of r2_banded without the unique parts of all spaces.

    Raises InputError where there is one feature space.
    """
    columns: dict[str, NDArray[np.float32]] = {}
    of_spaces: dict[str, NDArray[np.float32]] = {}
    kinds = [kind for kind in kinds if kind in (BANDED, PARTITION)]
    if not kinds:
        return Banded(columns, of_spaces)
    if data.feature_spaces is None:
        raise InputError(
            "baseline",
            "is of several feature spaces, and these data have one; choose several, such as "
            "features=[clip_vit_b32,timm], or leave it out",
            value=kinds[0],
        )
    spaces = list(data.feature_spaces)
    every = _tables(data, spaces, stages)
    columns["r2_banded"] = r2 = _r2(data, every)
    if BANDED in kinds:
        of_spaces["r2_split"] = _split(data, every, len(spaces))
    if PARTITION in kinds:
        others = [[other for other in spaces if other != space] for space in spaces]
        unique = np.stack([r2 - _r2(data, _tables(data, some, stages)) for some in others])
        of_spaces["r2_unique"] = unique
        columns["r2_shared"] = r2 - unique.sum(axis=0)
    return Banded(columns, of_spaces)


def _totals(data: EncodingData, tables: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The predictions (n, V') in the tables of each of the parts of the data."""
    n_tests = [len(part.rows["test"]) for part in data.parts]
    return [table[1 : 1 + n] for table, n in zip(tables, n_tests, strict=True)]


def _r2(data: EncodingData, tables: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return r2_of_parts(data, _totals(data, tables))


def _split(
    data: EncodingData, tables: Sequence[NDArray[np.float32]], n_spaces: int
) -> NDArray[np.float32]:
    """The product measure of each space, (K, V'), which adds up to R2."""
    total = data.in_order(_totals(data, tables))
    of_parts = [
        np.split(table[1 + len(part.rows["test"]) :], n_spaces)
        for table, part in zip(tables, data.parts, strict=True)
    ]
    added = [data.in_order(values, centred=True) for values in zip(*of_parts, strict=True)]
    result = np.empty((n_spaces, data.n_trained), dtype=np.float32)
    with _himalaya():
        from himalaya.scoring import r2_score_split

        for voxels in voxel_blocks(data.n_trained):
            some = np.arange(voxels.start, voxels.stop)
            truth = data.responses.block(data.rows["test"], voxels).double()
            mean = truth.mean(dim=0)
            truth -= mean
            by_space = torch.from_numpy(np.stack([values[:, some] for values in added])).double()
            by_space -= by_space.mean(dim=1, keepdim=True)
            # What no space predicts, the mean response above all, is shared by all equally
            rest = torch.from_numpy(total[:, some]).double() - mean - by_space.sum(dim=0)
            split = r2_score_split(truth, by_space + rest / n_spaces)
            split[:, ~truth.any(dim=0)] = torch.nan  # a constant response has no R2
            result[:, voxels] = split.numpy()
    return result


def _tables(data: EncodingData, spaces: Sequence[str], stages: Stages) -> list[NDArray[np.float32]]:
    """What is in _FILE, of each of the parts of the data, memory-mapped. spaces: those to use."""
    tables = []
    for part in data.parts:
        about = {"data": part.identity, "spaces": list(spaces), "samples": _SAMPLES}
        about |= {"penalties": PENALTIES, "folds": N_FOLDS, "himalaya": version("himalaya")}
        folder = stages.make("banded", about, partial(_write, data=part, spaces=spaces))
        tables.append(np.load(folder / _FILE, mmap_mode="r"))
    return tables


def _write(folder: Path, data: EncodingData, spaces: Sequence[str]) -> None:
    """It is continued after a kill."""
    shape = 1 + (1 + len(spaces)) * len(data.rows["test"]), data.n_trained
    with ResumableArrays([BANDED], {BANDED: folder / _FILE}, shape, np.float32, BANDED) as arrays:
        _fill(arrays, data, spaces)


def _fill(arrays: ResumableArrays, data: EncodingData, spaces: Sequence[str]) -> None:
    """Keep, for each voxel, the predictions of the ratios that cross-validation scores best."""
    (table,) = arrays.arrays.values()
    assert data.feature_spaces is not None
    columns = [data.feature_spaces[name] for name in spaces]
    rows, test = np.concatenate([data.rows["train"], data.rows["val"]]), data.rows["test"]
    mean = data.features[rows].mean(dim=0)
    search = _Search(
        [data.features[rows][:, c] - mean[c] for c in columns],
        [data.features[test][:, c] - mean[c] for c in columns],
        cross_validation(data),
    )
    blocks = [*voxel_blocks(data.n_trained, _VOXELS_AT_ONCE)]
    title = "banded ridge" if len(spaces) > 1 else f"ridge, {spaces[0]}"
    with stage_progress() as progress, _himalaya():
        ratios = _ratios(len(spaces))
        pieces = np.array_split(ratios, -(-len(ratios) // _AT_ONCE))
        units = [*product(blocks, pieces)]
        task = progress.add_task(title, total=len(units), unit="pieces")
        for unit, (voxels, piece) in enumerate(units):
            if unit >= arrays.done:
                responses = data.responses.block(rows, voxels)
                offset = responses.mean(dim=0)
                score, added = search.best(responses - offset, piece)
                predicted = np.concatenate([(added.sum(dim=0) + offset)[None], added]).reshape(
                    -1, len(offset)
                )
                better = np.ones(len(score), dtype=bool)
                if piece is not pieces[0]:
                    better = score > table[0, voxels]
                table[1:, voxels] = np.where(better, predicted, table[1:, voxels])
                table[0, voxels] = np.where(better, score, table[0, voxels])
                arrays.advance(unit + 1)
            progress.update(task, completed=unit + 1)


class _Search:
    """himalaya's random search, from features or, where these are more than stimuli, from kernels.

    Both give the same predictions.
    """

    def __init__(
        self,
        features: Sequence[Tensor],
        test: Sequence[Tensor],
        splits: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    ) -> None:
        """features: (N, d) of each space; test: (n, d); both centred. splits: of the N stimuli."""
        n, width = len(features[0]), sum(space.shape[1] for space in features)
        size = sum(float(space.square().sum()) for space in features) / n / len(features)
        self._settings: dict[str, Any] = {
            "alphas": size * torch.tensor(PENALTIES),  # of the mean of spaces, at any ratio
            "cv": splits,
            "progress_bar": False,
            **_BATCH,
        }
        self._features, self._test = features, test
        self._kernels = None
        if n < width:
            self._kernels = torch.stack([space @ space.T for space in features])
            self._test = [at @ space.T for at, space in zip(test, features, strict=True)]

    def best(
        self, responses: Tensor, ratios: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], Tensor]:
        """The best scores (v,) of some ratios, and what each space adds to predictions, (K, n, v).

        responses: (N, v), centred.
        """
        from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search
        from himalaya.ridge import solve_group_ridge_random_search

        settings = {"n_iter": torch.from_numpy(ratios), **self._settings}
        weights: Sequence[Tensor]  # (d, v) of each space, or the dual ones, (N, v)
        if self._kernels is None:
            _, joint, scores = solve_group_ridge_random_search(
                self._features, responses, return_weights=True, **settings
            )
            weights = joint.split([space.shape[1] for space in self._features])
        else:
            deltas, dual, scores = solve_multiple_kernel_ridge_random_search(
                self._kernels, responses, return_weights="dual", **settings
            )
            weights = [dual * delta.exp() for delta in deltas]
        added = [at @ w for at, w in zip(self._test, weights, strict=True)]
        return scores.max(dim=0).values.numpy(), torch.stack(added)


def _ratios(n_spaces: int) -> NDArray[np.float64]:
    """Weights of the spaces, (n_samples, K), on the simplex; equal in the first sample.

    As himalaya draws them.
    """
    from himalaya.kernel_ridge import generate_dirichlet_samples

    if n_spaces == 1:
        return np.ones((1, 1))
    ratios = np.asarray(
        generate_dirichlet_samples(
            _SAMPLES * (n_spaces - 1), n_spaces, concentration=[0.1, 1.0], random_state=0
        )
    )
    ratios[0] = 1 / n_spaces
    return ratios


@contextmanager
def _himalaya() -> Iterator[None]:
    """himalaya with PyTorch in this block: its backend is one of the whole process."""
    from himalaya.backend import get_backend, set_backend

    before = get_backend()
    set_backend("torch")
    try:
        yield
    finally:
        set_backend(before)

"""How nonlinear an encoder is at the test stimuli, per voxel.

A new metric per voxel is a function in `jne.analysis` and an entry of `jne.columns`. N test
stimuli, V voxels, of which V' were trained on.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from jne.analysis import nonlinearity
from jne.columns import reductions
from jne.data.datamodule import EncodingData
from jne.encoders import HasResidualChain, is_linear_layer
from jne.errors import InputError, keys_below
from jne.jacobian import (
    GAIN_SHAPE,
    SETTINGS,
    check_computable,
    in_space,
    jacobian_deviation,
    rms_deviation,
    variant_column,
    variant_file,
)
from jne.jacobian.rms import root_mean_square
from jne.jacobian.variants import DEFAULT
from jne.measuring.config import JacobianConfig
from jne.measuring.scores import Scores
from jne.utils.files import atomic_array
from jne.utils.progress import stage_progress

Compute = Callable[..., None]
"""Takes the arguments of `deviations`, and writes what it writes."""

MEASURED = "measured.npy"
_L2 = "l2"
_FEW = 4096  # voxels, whose Jacobians cost about as much as the (H, H) matrix of rms_deviation
"""File of the deviations of the chosen voxels, while a run is written."""


@dataclass(frozen=True)
class Nonlinearity:
    """How nonlinear the encoder is at the test stimuli."""

    deviation: NDArray[np.float32] | None
    """(N, V), memory-mapped; NaN for voxels that were not trained on or not asked for. None with
    `jacobian.voxels=none`."""
    jne_ss: NDArray[np.float32] | None
    """(N, V), memory-mapped; None with `jacobian.voxels=none`."""
    columns: dict[str, NDArray]
    """(V,) each: those of `jne.columns` of deviation (for each variant), gain, shape and
    jne_ss."""
    seconds: float
    spaces: dict[str, dict[str, NDArray]] = field(default_factory=dict)
    """Of every feature space: columns (V,) of deviation, gain and shape, by the same names."""

    @property
    def jne(self) -> NDArray:
        """(V,)"""
        return self.columns["jne"]

    @property
    def mean_deviation(self) -> NDArray:
        """(V,)"""
        return self.columns["mean_deviation"]


def measure_nonlinearity(
    encoders: Sequence[nn.Module],
    data: EncodingData,
    scores: Scores,
    settings: JacobianConfig,
    alpha: float,
    folder: Path,
    compute: Compute | None = None,
) -> Nonlinearity:
    """Deviations of the Jacobians over the test stimuli, and from them JNE, JNE-SS and the rest.

    Writes deviation.npy, gain.npy and jne_ss.npy into `folder`, (N, V) float32, and
    deviation_VARIANT.npy for every other variant. If an earlier attempt was killed, continues from
    its last block. With `jacobian.voxels=none` there are no arrays, and of the columns all but
    rms_deviation are NaN.

    encoders: of each of `data.parts`; a deviation is from the mean Jacobian over the test stimuli
    of the stimulus's own part. alpha: significant below this, for `jacobian.voxels=significant`.
    compute: in place of `deviations`, where they were computed before (`jne.training.shards`).
    Raises InputError, naming the key, where the Jacobians cannot be computed with these settings.
    """
    compute = compute or deviations
    start = time.monotonic()
    if settings.voxels == "none":
        columns = {name: np.full(len(data.voxel_status), np.nan) for name in _unmeasured(settings)}
        spaces: dict[str, dict[str, NDArray]] = {space: {} for space in feature_spaces(data)}
        _add_rms_deviation(columns, spaces, encoders, data, settings, {})
        return Nonlinearity(None, None, columns, time.monotonic() - start, spaces)
    files = {v: variant_file(folder / "deviation.npy", v) for v in array_names(data, settings)}
    files |= {name: folder / f"{name}.npy" for name in GAIN_SHAPE}
    chosen = chosen_outputs(data, scores, settings, alpha)
    arrays = _arrays(encoders, data, chosen, settings, files, compute)
    columns = _columns(arrays, settings)
    spaces = {}
    for space in feature_spaces(data):
        inside = {name: arrays[in_space(name, space)] for name in _whole_names(data, settings)}
        spaces[space] = _columns(inside, settings)
    deviation = arrays[DEFAULT]
    with atomic_array(folder / "jne_ss.npy", deviation.shape, np.float32) as jne_ss:
        nonlinearity.jne_ss(deviation, out=jne_ss)
        columns |= {name: metric(jne_ss) for name, metric in reductions("jne_ss").items()}
    if (_L2 in arrays and _l2_gives_rms(settings)) or all(map(_has_rms_deviation, encoders)):
        _add_rms_deviation(columns, spaces, encoders, data, settings, arrays)
    # As large as the others, and all that is asked of them is in the columns
    for name in {*files} - {*settings.variants, "gain"}:
        files[name].unlink()
    jne_ss = np.load(folder / "jne_ss.npy", mmap_mode="r")
    return Nonlinearity(deviation, jne_ss, columns, time.monotonic() - start, spaces)


def feature_spaces(data: EncodingData) -> dict[str, slice]:
    """The data's spaces by name; empty where there is only one."""
    return data.feature_spaces or {}


def array_names(data: EncodingData, settings: JacobianConfig) -> list[str]:
    """Names of the arrays that `deviations` writes."""
    names = _whole_names(data, settings)
    return [*names, *(in_space(name, space) for space in feature_spaces(data) for name in names)]


def _whole_names(data: EncodingData, settings: JacobianConfig) -> list[str]:
    return [*_variants(data, settings), *GAIN_SHAPE]


def _variants(data: EncodingData, settings: JacobianConfig) -> list[str]:
    """What the pass over the Jacobians computes: with L2, few voxels need no other pass for rms."""
    few = data.n_trained <= _FEW and _l2_gives_rms(settings) and _L2 not in settings.variants
    return [*settings.variants, _L2] if few else [*settings.variants]


def _l2_gives_rms(settings: JacobianConfig) -> bool:
    """Whether L2 deviations are of all voxels, and exact."""
    return settings.voxels == "all" and settings.precision == "float32"


def _columns(arrays: Mapping[str, NDArray], settings: JacobianConfig) -> dict[str, NDArray]:
    """(V,) each, of the arrays (N, V) of `_whole_names`."""
    columns = {
        variant_column(name, variant): metric(arrays[variant])
        for variant in settings.variants
        for name, metric in reductions("deviation").items()
    }
    return columns | {
        name: metric(arrays[array])
        for array in GAIN_SHAPE
        for name, metric in reductions(array).items()
    }


def _unmeasured(settings: JacobianConfig) -> list[str]:
    """The names of the columns of the arrays that are not measured."""
    of_variants = [variant_column(n, v) for v in settings.variants for n in reductions("deviation")]
    return of_variants + [n for array in (*GAIN_SHAPE, "jne_ss") for n in reductions(array)]


def _has_rms_deviation(encoder: nn.Module) -> bool:
    return isinstance(encoder, HasResidualChain) or is_linear_layer(encoder)


def check_measurable(encoder: nn.Module, data: EncodingData, settings: JacobianConfig) -> None:
    """Raise InputError where `measure_nonlinearity` will refuse the encoder or the settings.

    Before hours of training. Which voxels will be significant is not known: a single one must do.
    """
    if settings.voxels == "none" and not _has_rms_deviation(encoder):
        raise InputError(
            "jacobian.voxels",
            "leaves rms_deviation alone, for which this encoder lacks a residual_chain; choose "
            "all, significant or ROIs",
            value="none",
        )
    if settings.voxels == "significant":
        chosen = np.arange(1)
    else:
        chosen = chosen_outputs(data, None, settings, np.nan)
    if not len(chosen):
        return
    with keys_below("jacobian", SETTINGS):
        check_computable(
            encoder,
            data.split("test")[0],
            variant=_variants(data, settings),
            voxels=None if len(chosen) == data.n_outputs else chosen,
            precision=settings.precision,
            device=settings.device,
            max_memory_gb=settings.max_memory_gb,
        )


def chosen_outputs(
    data: EncodingData, scores: Scores | None, settings: JacobianConfig, alpha: float
) -> NDArray[np.int64]:
    """The encoder's outputs that `jacobian.voxels` asks for: indices into the V' trained voxels.

    scores: needed for the significant ones alone.
    """
    if settings.voxels == "all":
        return np.arange(data.n_trained)
    if settings.voxels == "significant":
        assert scores is not None
        return np.flatnonzero(scores.columns["p_fdr"] < alpha)
    if settings.voxels == "none":
        return np.arange(0)
    rois = data.prepared.voxels["roi"]
    return np.flatnonzero(rois.iloc[data.kept].isin(settings.voxels))


def _arrays(
    encoders: Sequence[nn.Module],
    data: EncodingData,
    chosen: NDArray[np.int64],
    settings: JacobianConfig,
    files: Mapping[str, Path],
    compute: Compute,
) -> dict[str, NDArray[np.float32]]:
    """The arrays (N, V) of `files`, by variant or GAIN_SHAPE, memory-mapped; NaN if not chosen."""
    # First an array of the chosen voxels; of some voxels only, it is scattered into one of all.
    every_voxel = len(chosen) == len(data.voxel_status)
    target = files[DEFAULT].with_name(MEASURED)
    if len(chosen):
        compute(encoders, data, chosen, settings, target)
    arrays = {}
    for name, final in files.items():
        measured = variant_file(target, name)
        if every_voxel:
            measured.replace(final)
        else:
            shape = (len(data.rows["test"]), len(data.voxel_status))
            with atomic_array(final, shape, np.float32) as array:
                array[:] = np.nan
                if len(chosen):
                    array[:, data.kept[chosen]] = np.load(measured, mmap_mode="r")
            measured.unlink(missing_ok=True)
        arrays[name] = np.load(final, mmap_mode="r")
    return arrays


def _add_rms_deviation(
    columns: dict[str, NDArray],
    spaces: Mapping[str, dict[str, NDArray]],
    encoders: Sequence[nn.Module],
    data: EncodingData,
    settings: JacobianConfig,
    arrays: Mapping[str, NDArray],
) -> None:
    """To `columns`, and to those of every space; from L2 deviations, where they are in `arrays`."""
    if _L2 in arrays and _l2_gives_rms(settings):
        names = [in_space(_L2, space) for space in spaces] or [_L2]
        of_blocks = {
            space: root_mean_square(arrays[name])
            for space, name in zip(spaces or ("",), names, strict=True)
        }
    else:
        of_blocks = _rms_deviation(encoders, data, settings)
    squares = sum(np.square(rms, dtype=np.float64) for rms in of_blocks.values())
    columns["rms_deviation"] = np.sqrt(squares).astype(np.float32)
    for space, of_space in spaces.items():
        of_space["rms_deviation"] = of_blocks[space]


def _rms_deviation(
    encoders: Sequence[nn.Module], data: EncodingData, settings: JacobianConfig
) -> dict[str, NDArray[np.float32]]:
    """(V,), of all trained voxels, whichever `jacobian.voxels` asks for: by space, or a single."""
    spaces = feature_spaces(data) or {"": slice(None)}
    squares = {space: np.zeros(data.n_trained) for space in spaces}
    with stage_progress() as progress:
        task = progress.add_task("rms deviation", total=len(data.rows["test"]), unit="stimuli")
        done = 0
        for encoder, part in zip(encoders, data.parts, strict=True):
            features = part.split("test")[0]

            def advance(share: float, n: int = len(features), before: int = done) -> None:
                progress.update(task, completed=before + share * n)

            of_part = rms_deviation(
                encoder.to("cpu").eval(),
                features,
                device=settings.device,
                progress=advance,
                spaces=spaces,
            )
            done += len(features)
            for space, rms in of_part.items():
                squares[space] += len(features) * np.square(rms, dtype=np.float64)
            progress.update(task, completed=done)  # a linear encoder's takes no step
    n = len(data.rows["test"])
    return {
        space: data.all_voxels(np.sqrt(total / n).astype(np.float32))
        for space, total in squares.items()
    }


def deviations(
    encoders: Sequence[nn.Module],
    data: EncodingData,
    chosen: NDArray[np.int64],
    settings: JacobianConfig,
    path: Path,
    shard: tuple[int, int] | None = None,
) -> None:
    """Write the deviations of some of the encoders' outputs to `path`, other arrays beside it.

    encoders: of each of `data.parts`. shard: as of `jacobian_deviation`.
    """
    parts = data.parts
    numbers = range(1, len(parts) + 1)
    folds = (
        [path] if len(parts) == 1 else [path.with_stem(f"fold_{k}_{path.stem}") for k in numbers]
    )
    for encoder, part, file in zip(encoders, parts, folds, strict=True):
        _deviations(encoder, part, chosen, settings, file, shard)
    if len(parts) == 1 or not folds[0].exists():  # this shard has no voxels
        return
    for name in array_names(data, settings):
        files = [variant_file(file, name) for file in folds]
        arrays = [np.load(file, mmap_mode="r") for file in files]
        shape = len(data.rows["test"]), arrays[0].shape[1]
        with atomic_array(variant_file(path, name), shape, arrays[0].dtype) as whole:
            for part, array in zip(parts, arrays, strict=True):
                whole[np.searchsorted(data.rows["test"], part.rows["test"])] = array
        for file in files:
            file.unlink()


def _deviations(
    encoder: nn.Module,
    data: EncodingData,
    chosen: NDArray[np.int64],
    settings: JacobianConfig,
    path: Path,
    shard: tuple[int, int] | None,
) -> None:
    features = data.split("test")[0]
    with stage_progress() as progress:
        task = progress.add_task("Jacobians", total=len(features), unit="stimuli")
        with keys_below("jacobian", SETTINGS):
            jacobian_deviation(
                encoder.to("cpu").eval(),
                features,
                variant=_variants(data, settings),
                voxels=None if len(chosen) == data.n_outputs else chosen,
                precision=settings.precision,
                device=settings.device,
                max_memory_gb=settings.max_memory_gb,
                path=path,
                progress=lambda done: progress.update(task, completed=done * len(features)),
                gain_shape=True,
                spaces=feature_spaces(data),
                shard=shard,
            )

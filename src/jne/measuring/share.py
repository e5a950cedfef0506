"""The nonlinear share of the signal of every voxel and region, of which no encoder is needed.

It depends on the data alone, so it is a stage. All stimuli count, whatever their split.
"""

from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from jne.analysis.leave_one_out import DECISIVE, LeaveOneOut
from jne.analysis.repeats import RepeatNoise, blocks_of, ceiling_weights
from jne.data.datamodule import EncodingData
from jne.errors import InputError, keys_below
from jne.results.shares import SHARE_COLUMNS, SHARES, RegionShares, share_columns
from jne.stages import Stages, digest_of
from jne.utils.blocks import even_blocks
from jne.utils.files import write_array, write_json
from jne.utils.plain import read_json
from jne.utils.progress import say, stage_progress

_VOXELS_AT_ONCE = 512
_FILE, _LEVERAGE = "columns.npy", "leverage.json"


class ShareConfig(BaseModel):
    """conf/train.yaml, `share`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_components: int | None = Field(ge=1)
    """Regress on so many principal components of the features; None: on all features."""


@dataclass(frozen=True)
class MeasuredShare:
    """Of V' trained voxels."""

    source: str
    """Where the variance of the signal comes from: repeats, or noise ceiling."""
    columns: dict[str, NDArray]
    """(V',) each, by their names in `jne.columns`."""
    regions: RegionShares
    caveat: str
    """A sentence on its intervals; empty where they are right."""


def measure_share(
    data: EncodingData, settings: ShareConfig, stages: Stages
) -> MeasuredShare | None:
    """The nonlinear shares of the trained voxels, of their ROIs and of all; None without a signal.

    The variance of the signal comes from repeats, else from the column `noise_ceiling`. Where there
    is neither, and where the stimuli are too few for the features, one sentence says so.

    Shuffled data have no share.
    """
    if data.identity["order"] is not None:
        return None
    repeats, source = data.prepared.repeats, "repeats"
    ceiling = None
    if repeats is None:
        if "noise_ceiling" not in data.prepared.voxels:
            return None
        source = "noise ceiling"
        ceiling = data.prepared.voxels["noise_ceiling"].to_numpy(dtype=np.float64)[data.kept]
        scored = np.zeros(len(data.features), dtype=bool)
        scored[data.rows["test"]] = True
        block, weight = blocks_of(len(scored)), ceiling_weights(scored)
        repeats = RepeatNoise(block, weight, np.zeros((block.max() + 1, 0), dtype=np.float32))
    noise = np.ascontiguousarray(repeats.noise if ceiling is None else ceiling)
    groups = data.belonging.groups
    about = {
        "data": data.identity,
        "signal": source,
        "noise": sha256(noise.data).hexdigest(),
        "rois": digest_of(data.prepared.voxels["roi"].astype(str).tolist()),
        "n_components": settings.n_components,
        "files": [_FILE, _LEVERAGE],
        **({} if groups is None else {"groups": sha256(groups.data).hexdigest()}),
    }
    write = partial(
        _write, data=data, repeats=repeats, ceiling=ceiling, n_components=settings.n_components
    )
    try:
        with keys_below("share", ("n_components",)):
            if (settings.n_components or data.n_features) > len(data.features) // 2:
                _left_out(data, repeats, settings.n_components)  # or refused
            folder = stages.make("share", about, write)
    except InputError as error:
        if error.key != "share.n_components" or settings.n_components is not None:
            raise
        say(f"no nonlinear share: {error}", style="yellow", soft_wrap=True)
        return None
    n_decisive, caveat = read_json(folder / _LEVERAGE)["n_decisive"], ""
    if n_decisive:
        caveat = (
            f"nonlinear share: {n_decisive} of {len(data.features)} stimuli decide alone what is "
            f"fitted to them (leverage above {DECISIVE:g}), as where one alone drives a feature; "
            f"its intervals are too narrow, so leave such features out"
        )
    columns: dict[str, NDArray] = dict(zip(SHARE_COLUMNS, np.load(folder / _FILE), strict=True))
    return MeasuredShare(source, columns, RegionShares.load(folder / SHARES), caveat)


def _left_out(data: EncodingData, repeats: RepeatNoise, n_components: int | None) -> LeaveOneOut:
    """Groups are left out together, but the blocks by which intervals come may cut them."""
    return LeaveOneOut(data.features, repeats.block, n_components, data.belonging.groups)


def _write(
    folder: Path,
    data: EncodingData,
    repeats: RepeatNoise,
    ceiling: NDArray[np.float64] | None,
    n_components: int | None,
) -> None:
    left_out = _left_out(data, repeats, n_components)
    rois = data.prepared.voxels["roi"].fillna("").astype(str).to_numpy()[data.kept]
    names, roi_of = np.unique(rois, return_inverse=True)
    sets = left_out.sets(len(names))
    scale = data.response_scale.numpy()
    table = np.empty((len(SHARE_COLUMNS), data.n_trained), dtype=np.float32)
    with stage_progress() as progress:
        task = progress.add_task("nonlinear share", total=data.n_trained, unit="voxels")
        for voxels in even_blocks(data.n_trained, _VOXELS_AT_ONCE):
            noise = repeats.noise
            if ceiling is None:
                noise = noise[:, data.kept[voxels]] / scale[voxels] ** 2
            sums = left_out.sums(
                data.responses.block(left_out.order, voxels),
                RepeatNoise(repeats.block, repeats.weight, noise),
                None if ceiling is None else ceiling[voxels],
                sets,
                roi_of[voxels],
            )
            table[:, voxels] = list(share_columns(sums).values())
            progress.update(task, completed=voxels.stop)
    write_array(folder / _FILE, table)
    write_json(folder / _LEVERAGE, {"n_decisive": left_out.n_decisive})
    RegionShares([str(name) for name in names], sets.finish()).save(folder / SHARES)

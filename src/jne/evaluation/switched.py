"""What switches in the most nonlinear regions of a run: `jne.switching` of its encoders."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from jne.analysis.selectivity import WHOLE_BRAIN
from jne.errors import keys_below
from jne.evaluation.claims import why_unclaimed
from jne.evaluation.voxels import SubjectData
from jne.jacobian import SETTINGS, jacobian_deviation
from jne.jacobian.switching import FEWEST_STIMULI, Switching, switching
from jne.results import Results
from jne.utils.spaces import grid_of

N_DIRECTIONS = 3
MIN_NONLINEAR = 3
"""Nonlinear voxels of a region."""
# So that it costs seconds: 3 s a region, of a core, with 768 features and 1,024 hidden units
_MOST_REGIONS, _MOST_VOXELS, _MOST_STIMULI, _MOST_OTHERS = 4, 50, 300, 4


@dataclass(frozen=True)
class RegionSwitching:
    """What switches in R regions at n test stimuli, by the first k directions."""

    switching: Switching
    rows: NDArray[np.int64]
    """(n,), which of the run's test stimuli."""
    n_voxels: dict[str, int]
    """By region, how many of its nonlinear voxels were taken, those with the highest z."""
    agreement: NDArray[np.float64] | None
    """(R, k), with the directions of other encoders, the mean over these; None where there are
    none."""
    others: str
    """What these encoders are."""
    by_cell: dict[str, NDArray[np.float64]]
    """By cell of the image, (R, n): the share of each stimulus's deviation that lies in it, summed
    over the region's voxels. Empty where the run's feature spaces are not cells."""


def switching_regions(data: SubjectData) -> dict[str, NDArray[np.int64]]:
    """The rows of nonlinear voxels, of the regions in which their nonlinear parts explain most.

    Without ROIs, all voxels are the region. A region is left out where JNE says nothing about the
    brain, and with too few such voxels.
    """
    if "nonlinear" not in data.voxels:
        return {}
    voxels, rois = data.voxels.reset_index(drop=True), data.rois
    if not rois:
        voxels, rois = voxels.assign(roi=WHOLE_BRAIN), [WHOLE_BRAIN]
    nonlinear = voxels[voxels["nonlinear"].fillna(False) & voxels["analysed"]]
    explained = nonlinear.groupby("roi")["r2_nonlinear_part"].sum().reindex(rois, fill_value=0)
    regions: dict[str, NDArray[np.int64]] = {}
    for roi in explained.sort_values(ascending=False, kind="stable").index:
        members = nonlinear[nonlinear["roi"] == roi].nlargest(_MOST_VOXELS, "nonlinear_z")
        if len(members) < MIN_NONLINEAR or why_unclaimed(data, voxels[voxels["roi"] == roi]):
            continue
        regions[str(roi)] = np.sort(members.index.to_numpy())
        if len(regions) == _MOST_REGIONS:
            break
    return {roi: regions[roi] for roi in rois if roi in regions}


def region_switching(data: SubjectData) -> RegionSwitching | None:
    """What switches in these regions; None where there is none, or where stimuli are too few.

    In folds, the first encoder at the stimuli that it is tested on. Raises InputError where an
    encoder may not be read, and where the memory is too small.
    """
    run, regions = data.subject.nonlinear, switching_regions(data)
    rows = _some(run.fold_rows[0])
    if not regions or len(rows) < max(FEWEST_STIMULI, 2 * N_DIRECTIONS + 2):
        return None
    trained = np.flatnonzero(data.voxels["status"] == "ok")
    outputs = {roi: np.searchsorted(trained, members) for roi, members in regions.items()}

    def of_encoder(run: Results, fold: int, rows: NDArray[np.int64]) -> Switching:
        x = run.array("features")[rows]
        return _switching(run.encoder(data.config.trust, fold), x, outputs, data)

    first = of_encoder(run, 1, rows)
    others: list[Switching] = []
    if run.n_folds > 1:
        for fold, fold_rows in list(enumerate(run.fold_rows, start=1))[1 : 1 + _MOST_OTHERS]:
            if len(fold_rows) >= len(rows) // 2:
                others.append(of_encoder(run, fold, _some(fold_rows)))
    else:
        others += [of_encoder(seed, 1, rows) for seed in data.subject.seeds[:_MOST_OTHERS]]
    agreement = None
    if others:
        agreement = np.mean([first.agreement(other) for other in others], axis=0)
    n_voxels = {roi: len(members) for roi, members in regions.items()}
    kind = f"{'fold' if run.n_folds > 1 else 'seed'}{'s' if len(others) > 1 else ''}"
    by_cell: dict[str, NDArray[np.float64]] = {}
    if grid_of(run.feature_spaces or ()):
        by_cell = _by_space(run, rows, outputs, data)
    return RegionSwitching(first, rows, n_voxels, agreement, f"{len(others)} other {kind}", by_cell)


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Evenly spaced ones of too many."""
    n = min(len(rows), _MOST_STIMULI)
    return rows[np.linspace(0, len(rows) - 1, n).round().astype(int)]


def _switching(
    encoder: nn.Module, x: NDArray, outputs: Mapping[str, NDArray], data: SubjectData
) -> Switching:
    jacobian = data.config.jacobian
    with keys_below("jacobian", SETTINGS):
        return switching(
            encoder,
            np.array(x),
            outputs,
            min(N_DIRECTIONS, x.shape[1]),
            device=jacobian.device,
            max_memory_gb=jacobian.max_memory_gb,
            verbose=0,
        )


def _by_space(
    run: Results, rows: NDArray[np.int64], outputs: Mapping[str, NDArray], data: SubjectData
) -> dict[str, NDArray[np.float64]]:
    """(R, n) by feature space: its part of the first encoder's deviations (L1), as shares."""
    encoder, x = run.encoder(data.config.trust, 1), np.array(run.array("features")[rows])
    spaces, jacobian = run.feature_spaces or {}, data.config.jacobian
    regions = []
    for voxels in outputs.values():
        with keys_below("jacobian", SETTINGS):
            deviation = jacobian_deviation(
                encoder,
                x,
                variant=["l1"],
                voxels=voxels,
                device=jacobian.device,
                max_memory_gb=jacobian.max_memory_gb,
                spaces=spaces,
            )
        sums = {name: array.sum(axis=1, dtype=np.float64) for name, array in deviation.items()}
        regions.append({name: sums[f"l1_{name}"] / sums["l1"] for name in spaces})
    return {name: np.stack([shares[name] for shares in regions]) for name in spaces}


def loadings_table(switched: RegionSwitching, stimuli: pd.DataFrame) -> pd.DataFrame:
    """A row per region, direction and stimulus: its loading, and its deviation's shares by cell.

    stimuli: of the run, all of them.
    """
    rows = stimuli.iloc[switched.rows]
    columns = [name for name in ("stimulus", "category", "image") if name in stimuli]
    parts = []
    for r, roi in enumerate(switched.switching.names):
        for k in range(switched.switching.share.shape[1]):
            part = rows[columns].assign(roi=roi, direction=k + 1)
            shares = {name: share[r] for name, share in switched.by_cell.items()}
            parts.append(part.assign(loading=switched.switching.loadings[r, :, k], **shares))
    table = pd.concat(parts, ignore_index=True)
    return table[["roi", "direction", *columns, "loading", *switched.by_cell]]

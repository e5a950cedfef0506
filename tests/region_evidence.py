"""Evidence for runs that were never trained, of simulated arrays: evidence.npz, the columns."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from finished_run import CONSTANT, N_STIMULI, N_VOXELS

from jne.analysis.evidence import evidence_of
from jne.measuring.evidence import MeasuredEvidence, _columns
from jne.results import Results
from jne.results.evidence import ALL, EVIDENCE, RegionEvidence


class Simulated(NamedTuple):
    """Of n stimuli and V' voxels with evidence, (n, V') each."""

    responses: np.ndarray
    prediction: np.ndarray
    nonlinear: np.ndarray
    ridge: np.ndarray
    least: np.ndarray


def simulated(strength: np.ndarray, seed: int = 0, n: int = N_STIMULI) -> Simulated:
    """Responses with a linear part of unit variance, noise, and a nonlinear part of this size.

    strength: (V',); the encoder predicts a nonlinear part of unit variance in every voxel.
    """
    rng = np.random.default_rng(seed)
    linear, nonlinear, noise = rng.standard_normal((3, n, len(strength)))
    nonlinear += 0.5 * rng.standard_normal((n, 1))  # what voxels share
    fits = (linear + size * rng.standard_normal(linear.shape) for size in (0.3, 0.6))
    responses = linear + strength * nonlinear + 0.4 * noise
    return Simulated(responses, 0.9 * linear + nonlinear, nonlinear, *fits)


def region_evidence(arrays: Simulated, roi: np.ndarray) -> MeasuredEvidence:
    """roi: (V',)."""
    names, sets = np.unique(roi.astype(str), return_inverse=True)
    *others, ridge, least = arrays
    voxels, sums = evidence_of(*others, [ridge, least], sets, len(names))
    return MeasuredEvidence(_columns(voxels), RegionEvidence([*map(str, names), ALL], sums))


def with_evidence(
    run: Results, strength: dict[str, float], seed: int = 0
) -> tuple[Results, Simulated]:
    """The run with the evidence of nonlinear parts of these sizes in its ROIs, and its arrays."""
    kept = np.delete(np.arange(N_VOXELS), CONSTANT)
    voxels = run.voxels.copy()
    roi = voxels["roi"].to_numpy()[kept]
    arrays = simulated(np.array([strength[name] for name in roi]), seed)
    measured = region_evidence(arrays, roi)
    jne = voxels["jne"].to_numpy()[kept]
    for name, values in {**measured.columns, **measured.calibrated(jne)}.items():
        voxels.loc[kept, name] = values
    voxels.to_csv(Path(run.path, "voxels.csv"), index=False)
    measured.regions.save(Path(run.path, EVIDENCE))
    return Results(run.path), arrays

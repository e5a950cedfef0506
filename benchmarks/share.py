"""Is the nonlinear share right? Against cohorts in which it is known; what it costs; macaque V4.

python benchmarks/share.py cohorts WORLD NOISE N D COHORTS [weak] [test]
    WORLD: cells (data=cells) or other, which has gates, absolute values, products and steps of
    latents. NOISE: independent, shared, dependent, heavy or signal (its spread follows the signal).
    weak: half of the linear signal lies in features of low variance. test: only 600 stimuli have
    three repeats, the others one; without, all have three. 12 cells of alpha and noise ceiling (of
    a trial), 30 voxels each. By cell: the mean share of its voxels, its share as a region, and how
    often the 95 % intervals hold the truth; Spearman's r with alpha over all voxels.
python benchmarks/share.py many N COHORTS     # as many features as N / 2, and more: components
python benchmarks/share.py size               # 226,000 voxels, 9,000 stimuli, 768 features
python benchmarks/share.py v4 FOLDER          # v4_210325: from pixels, by number of components
python benchmarks/share.py figure RUN FILE    # docs/images/share.png, from the folder of
    # python train.py data=cells data.noise=correlated data.n_repeats=3

Seeds from 1000: none was used while developing.
"""

import sys
import time
from copy import deepcopy
from functools import cache
from itertools import product
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from jne import Results, nonlinear_share
from jne.analysis.leave_one_out import LeaveOneOut
from jne.analysis.repeats import RepeatNoise, blocks_of, repeats_of
from jne.analysis.share_sums import Share
from jne.data.planted import _N_LATENT, N_GATES, FeatureSpace, Gates
from jne.errors import InputError
from jne.plots.style import STYLE, save, subplots

ALPHA, CEILING, PER_CELL, N_REPEATED = (0.0, 0.1, 0.3, 0.6), (0.15, 0.4, 0.7), 30, 600
CELLS = np.array(list(product(ALPHA, CEILING)))
N_FACTORS, SHARED = 10, 0.6
FIRST_SEED = 1000


def cells_world(n: int, d: int, weak: bool, rng: np.random.Generator) -> tuple[NDArray, ...]:
    """Features, signal, the latent that noise may depend on and the true shares, of data=cells.

    data=cells sets its gates by a sample of 8,192 stimuli, so a share is near alpha, not alpha: it
    is measured, without noise, on 60,000 stimuli.
    """
    space = FeatureSpace(d, rng)
    gates = Gates(space, rng)
    _, latent = space.draw(n, rng)
    if weak:
        raise SystemExit("weak: of the other world")
    alpha = np.repeat(CELLS[:, 0], PER_CELL)
    gate_of = rng.integers(N_GATES, size=len(alpha))
    same_weights = deepcopy(rng)
    signal = gates.responses(latent, alpha, gate_of, rng)
    latents, whitened = _population(d)
    population = gates.responses(latents, alpha, gate_of, same_weights)
    linear = np.square(whitened.T @ population).sum(axis=0)  # around the mean
    truth = 1 - linear / len(latents) / population.var(axis=0)
    return space.features(latent), signal, latent[:, N_GATES], truth


@cache
def _population(d: int) -> tuple[NDArray, NDArray]:
    """The latents of 60,000 stimuli that drive voxels, and an orthonormal basis of them."""
    space = FeatureSpace(d, np.random.default_rng(0))  # draws do not depend on its rotation
    latents = space.draw(60_000, np.random.default_rng(1))[1][:, :_N_LATENT]
    return latents, np.linalg.qr(latents - latents.mean(axis=0))[0]


NONLINEAR = (
    lambda u, v: np.maximum(u - 0.5, 0),
    lambda u, v: np.abs(u),
    lambda u, v: u * v,
    lambda u, v: np.sign(u) * (np.abs(u) > 0.7),
)


LATENTS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy": lambda rng, shape: rng.standard_t(5, shape) * np.sqrt(3 / 5),
}
"""Of mean 0 and variance 1."""


def other_world(
    n: int,
    d: int,
    weak: bool,
    rng: np.random.Generator,
    n_kinds: int = len(NONLINEAR),
    n_functions: int | None = None,
    latents: str = "normal",
) -> tuple[NDArray, ...]:
    """40 strong latents and d - 40 weak ones, mixed. Voxels have nonlinear functions of two.

    n_kinds: the first of NONLINEAR. n_functions: of how many functions of latents each voxel has
    one; None: of all that there are, so that hardly two voxels have the same. latents: of LATENTS.
    """
    n_strong = 40
    draw = LATENTS[latents]
    reference = draw(np.random.default_rng(7), (400_000, 2))
    fits = []
    for function in NONLINEAR:
        values = function(*reference.T)
        design = np.column_stack([np.ones(len(reference)), reference])
        weights = np.linalg.lstsq(design, values, rcond=None)[0]
        fits.append((weights, (values - design @ weights).std()))
    strong, faint = draw(rng, (n, n_strong)), draw(rng, (n, d - n_strong))
    scaled = np.column_stack([strong * np.linspace(2, 1, n_strong), 0.15 * faint])
    features = scaled @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    alpha = np.repeat(CELLS[:, 0], PER_CELL)
    pool = [
        (*rng.choice(n_strong, 2, replace=False), rng.integers(n_kinds))
        for _ in range(n_functions or 0)
    ]
    signal = np.empty((n, len(alpha)))
    for v, share in enumerate(alpha):
        weights = rng.standard_normal(n_strong)
        linear = strong @ (weights / np.linalg.norm(weights))
        if weak:
            weights = rng.standard_normal(d - n_strong)
            linear = np.sqrt(0.5) * (linear + faint @ (weights / np.linalg.norm(weights)))
        if pool:
            i, j, k = pool[rng.integers(len(pool))]
        else:
            i, j = rng.choice(n_strong, 2, replace=False)
            k = rng.integers(n_kinds)
        weights, spread = fits[k]
        z = strong[:, [i, j]]
        rest = NONLINEAR[k](*z.T) - weights[0] - z @ weights[1:]
        signal[:, v] = np.sqrt(1 - share) * linear + np.sqrt(share) * rest / spread
    return features, signal, strong[:, 5], alpha


WORLDS = {"cells": cells_world, "other": other_world}


def noise_of(
    kind: str, signal: NDArray, latent: NDArray, n_repeats: int, rng: np.random.Generator
) -> NDArray:
    """Noise (N, V, R) of unit variance."""
    shape = (*signal.shape, n_repeats)
    if kind == "heavy":
        return rng.standard_t(3, shape) / np.sqrt(3)
    noise = rng.standard_normal(shape)
    if kind == "shared":
        loadings = rng.standard_normal((N_FACTORS, signal.shape[1]))
        loadings /= np.linalg.norm(loadings, axis=0)
        factors = rng.standard_normal((len(signal), n_repeats, N_FACTORS)) @ loadings
        noise = np.sqrt(1 - SHARED) * noise + np.sqrt(SHARED) * factors.swapaxes(1, 2)
    elif kind in ("dependent", "signal"):
        cause = latent[:, None] if kind == "dependent" else signal
        spread = np.exp(0.6 * cause)
        noise *= (spread / np.sqrt(np.square(spread).mean(axis=0)))[:, :, None]
    return noise


def shares(features: NDArray, trials: NDArray, set_of: NDArray) -> tuple[Share, Share]:
    """Of voxels, and of sets of them."""
    repeats = repeats_of(trials)
    assert repeats is not None
    z = torch.from_numpy((features - features.mean(axis=0)) / features.std(axis=0))
    left_out = LeaveOneOut(z, repeats.block)
    sets = left_out.sets(set_of.max() + 1)
    mean = torch.from_numpy(np.nanmean(trials, axis=2)[left_out.order]).float()
    voxels = left_out.sums(mean, repeats, None, sets, set_of)
    return voxels.shares(), sets.finish().shares()


def cohorts(
    world: str, kind: str, n: int, d: int, n_cohorts: int, *, weak: bool = False, test: bool = False
) -> None:
    cell = np.repeat(np.arange(len(CELLS)), PER_CELL)
    alpha, ceiling = CELLS[cell].T
    errors, regions, inside, region_inside, correlation = [], [], [], [], []
    for seed in range(FIRST_SEED, FIRST_SEED + n_cohorts):
        rng = np.random.default_rng(seed)
        features, signal, latent, truth = WORLDS[world](n, d, weak, rng)
        noise = noise_of(kind, signal, latent, 3, rng)
        trials = signal[:, :, None] + np.sqrt(1 / ceiling - 1)[:, None] * noise
        if test:
            trials[N_REPEATED:, :, 1:] = np.nan
        voxel, region = shares(features, trials, cell)
        holds = (voxel.low <= truth) & (truth <= voxel.high)
        by_cell = [cell == k for k in range(len(CELLS))]
        of_cell = np.array([truth[chosen].mean() for chosen in by_cell])  # voxels of equal signal
        errors.append([np.nanmean((voxel.share - truth)[chosen]) for chosen in by_cell])
        inside.append([holds[chosen].mean() for chosen in by_cell])
        regions.append(region.share - of_cell)
        region_inside.append((region.low <= of_cell) & (of_cell <= region.high))
        defined = np.isfinite(voxel.share)
        correlation.append(stats.spearmanr(voxel.share[defined], alpha[defined]).statistic)
    words = [world, kind, f"N {n} D {d}", *(["weak"] if weak else []), *(["test"] if test else [])]
    print(f"{' '.join(words)}, {n_cohorts} cohorts; ceilings .15 .4 .7 of alpha 0 / .1 / .3 / .6")
    rows = {"error, voxels": errors, "error, region": regions, "voxels inside": inside,
            "regions inside": region_inside}  # fmt: skip
    for name, values in rows.items():
        mean = np.mean(np.array(values, dtype=float), axis=0).reshape(len(ALPHA), len(CEILING))
        text = " / ".join(" ".join(f"{value:6.3f}" for value in row) for row in mean)
        print(f"  {name:14} {text}   all {mean.mean():.3f}")
    print(f"  Spearman's r with alpha over all voxels: {np.mean(correlation):.3f}", flush=True)


def many_features(n: int, n_cohorts: int) -> None:
    """What the share is relative to, where features are too many: the first components."""
    for ratio, components in ((0.5, None), (2, n // 2), (2, n // 4), (10, n // 2), (10, n // 4)):
        d, cell = int(ratio * n), np.repeat(np.arange(len(CELLS)), PER_CELL)
        ceiling, found = CELLS[cell, 1], []
        for seed in range(FIRST_SEED, FIRST_SEED + n_cohorts):
            rng = np.random.default_rng(seed)
            features, signal, latent, _ = other_world(n, d, False, rng)
            noise = noise_of("independent", signal, latent, 3, rng)
            trials = signal[:, :, None] + np.sqrt(1 / ceiling - 1)[:, None] * noise
            try:
                share = nonlinear_share(features, trials, n_components=components).share
            except InputError as error:
                print(error)
                break
            found.append([np.nanmean(share[cell == k]) for k in range(len(CELLS))])
        if found:
            mean = np.mean(found, axis=0).reshape(len(ALPHA), len(CEILING))
            text = " / ".join(" ".join(f"{value:5.2f}" for value in row) for row in mean)
            print(f"D = {ratio:g} N, components {components}: {text}", flush=True)


def size(n_voxels: int = 226_000, n: int = 9_000, d: int = 768, at_once: int = 512) -> None:
    """Seconds, beside those of one product of the rotated features and the responses."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n, d, generator=generator)
    start = time.perf_counter()
    block = blocks_of(n)
    left_out = LeaveOneOut(features, block)
    sets = left_out.sets(10)
    decomposition = time.perf_counter() - start
    responses = torch.randn(n, at_once, generator=generator)
    seconds = {"product": 0.0, "share": 0.0}
    noise = np.zeros((block.max() + 1, at_once), dtype=np.float32)
    repeats, set_of = RepeatNoise(block, np.ones(n), noise), np.arange(at_once) * 10 // at_once
    for _ in range(-(-n_voxels // at_once)):
        some = responses.clone()
        start = time.perf_counter()
        left_out._basis.T @ some
        middle = time.perf_counter()
        left_out.sums(some, repeats, None, sets, set_of).shares()
        seconds["product"] += middle - start
        seconds["share"] += time.perf_counter() - middle
    print(f"{n_voxels} voxels, {n} stimuli, {d} features: decomposition {decomposition:.1f} s, ")
    print(f"  one product {seconds['product']:.1f} s, shares {seconds['share']:.1f} s")


def v4(folder: Path) -> None:
    """The share from pixels (28 x 28), by number of components; regions: all units."""
    images, trials = read_v4(folder)
    for n_components in (20, 50, 100, 150, 200, 300):
        share = nonlinear_share(images, trials, n_components=n_components)
        whole = 1 - share.linear.sum() / share.signal.sum()
        inside = np.isfinite(share.share)
        print(
            f"{n_components:4} components: share of all units {whole:.3f}; "
            f"median of {inside.sum()} units {np.nanmedian(share.share):.2f}, of their intervals "
            f"[{np.nanmedian(share.low):.2f}, {np.nanmedian(share.high):.2f}]"
        )


def read_v4(folder: Path) -> tuple[NDArray, NDArray]:
    """Grey images of 28 x 28 pixels (N, 784), and spike counts (N, V, R)."""
    return read_images(folder), np.load(folder / "responses_raw.npy").swapaxes(0, 1)


def read_images(folder: Path) -> NDArray:
    pictures = []
    with ZipFile(folder / "images.zip") as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".jpg")):
            with archive.open(name) as file:
                grey = Image.open(file).convert("L").resize((28, 28), Image.Resampling.BOX)
                pictures.append(np.asarray(grey, dtype=np.float64).ravel())
    return np.array(pictures)


def figure(run: Path, file: Path) -> None:
    """The share and JNE of voxels by what was planted, at each noise ceiling of a trial."""
    voxels = Results(run).voxels
    trial = np.square(voxels["ncsnr"])
    voxels["ceiling"] = np.round(trial / (1 + trial), 2)
    with rc_context(STYLE):
        drawn, (left, right) = subplots(1, 2, figsize=(6.4, 2.9))
        for shift, (ceiling, rows) in zip(
            (-0.012, 0, 0.012), voxels.groupby("ceiling"), strict=True
        ):
            colour = ScalarMappable(cmap="viridis").cmap(0.15 + ceiling)
            groups = rows.groupby("alpha")
            for panel, name in ((left, "nonlinear_share"), (right, "jne")):
                mean, spread = groups[name].mean(), groups[name].std()
                panel.errorbar(
                    mean.index + shift, mean, spread, fmt="o", ms=4, lw=1.2, color=colour,
                    label=f"{ceiling:g}",
                )  # fmt: skip
        left.axline((0, 0), slope=1, color="0.6", lw=0.8, zorder=0)
        left.set(title="without an encoder", ylabel="nonlinear share")
        right.set(title="with one: JNE", ylabel="JNE")
        right.legend(title="noise ceiling", frameon=False, loc="upper left")
        for panel in (left, right):
            panel.set_xlabel("planted nonlinear share")
            panel.set_xticks(list(ALPHA))
        save(drawn, file)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["cohorts", world, kind, n, d, k, *words]:
            cohorts(world, kind, int(n), int(d), int(k), weak="weak" in words, test="test" in words)
        case ["many", n, k]:
            many_features(int(n), int(k))
        case ["size"]:
            size()
        case ["figure", run, file]:
            figure(Path(run), Path(file))
        case ["v4", folder]:
            v4(Path(folder))
        case _:
            raise SystemExit(__doc__)

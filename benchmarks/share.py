"""Is the nonlinear share right? Against cohorts in which it is known; what it costs; macaque V4.

python benchmarks/share.py cohorts WORLD NOISE N D COHORTS [weak] [test]
    WORLD: cells (data=cells) or other, which has gates, absolute values, products and steps of
    latents; or one of jne.simulation.worlds. NOISE: independent, shared, dependent, heavy or signal
    (its spread follows the signal). weak: half of the linear signal lies in features of low
    variance. test: only 600 stimuli have three repeats, the others one; without, all have three.
    12 cells of alpha and noise ceiling (of a trial), 30 voxels each. By cell: the mean share of its
    voxels, its share as a region, and how often the 95 % intervals hold the truth; Spearman's r
    with alpha over all voxels.
python benchmarks/share.py many N COHORTS     # as many features as N / 2, and more: components
python benchmarks/share.py size               # 226,000 voxels, 9,000 stimuli, 768 features
python benchmarks/share.py v4 FOLDER          # v4_210325: from pixels, by number of components
python benchmarks/share.py figure RUN FILE    # docs/images/share.png, from the folder of
    # python train.py data=cells data.noise=correlated data.n_repeats=3

Seeds from 1000: none was used while developing.
"""

import sys
import time
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
from jne.errors import InputError
from jne.plots.style import STYLE, save, subplots
from jne.simulation import worlds
from jne.simulation.worlds import noise_of

ALPHA, CEILING, PER_CELL, N_REPEATED = (0.0, 0.1, 0.3, 0.6), (0.15, 0.4, 0.7), 30, 600
CELLS = np.array(list(product(ALPHA, CEILING)))
FIRST_SEED = 1000


WORLDS = worlds.WORLDS | {"cells": worlds.gates, "other": worlds.functions}


def draw(world: str, n: int, d: int, rng: np.random.Generator, **more: bool) -> worlds.Draw:
    """Stimuli of a world, its voxels those of CELLS. more: of the other world."""
    return WORLDS[world](n, d, np.repeat(CELLS[:, 0], PER_CELL), rng, rng, **more)


def shares(features: NDArray, trials: NDArray, set_of: NDArray) -> tuple[Share, Share]:
    """Of voxels, and of sets of them."""
    repeats = repeats_of(trials)
    assert repeats is not None
    spread = features.std(axis=0)  # 0 of a rectified feature that no stimulus drives
    z = torch.from_numpy((features - features.mean(axis=0)) / np.where(spread > 0, spread, 1))
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
        more = {"weak": True} if weak else {}
        features, signal, latent, truth = draw(world, n, d, rng, **more)
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
            features, signal, latent, _ = draw("other", n, d, rng)
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

"""Is the evidence of unseen responses right, and what does it find?

python benchmarks/evidence.py cohorts WORLD NOISE COHORTS [N_TRAIN [N_FEATURES]]
    WORLD: cells (that of data=cells), few (gates, absolute values and products of latents), skewed
    or heavy (few, of skewed or heavy-tailed latents). NOISE: independent, shared, dependent, heavy
    or signal (its spread follows the signal). 12 cells of nonlinear share (0, .1, .3, .6) and noise
    ceiling (.15, .4, .7), of 30 voxels each; default settings. With the first 100, 300 and with
    1,000 test stimuli. Seeds from 5000: none was used while developing.
python benchmarks/evidence.py size [VOXELS [N_TEST]]    # seconds, beside a product of that size
python benchmarks/evidence.py folds WORLD NOISE COHORTS [N]   # every stimulus tested, in 5 folds
python benchmarks/evidence.py v4 FOLDER [READOUT [LAYER]]   # v4_201025: pixels, layers; 5 folds
python benchmarks/evidence.py kernel ...                # cohorts, folds or v4 with encoder=kernel
python benchmarks/evidence.py linear FOLDER LAYER SETS  # V4's units made linear: p < .05?
python benchmarks/evidence.py figure FILE               # docs/images/evidence.png: one cohort
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import decay
import numpy as np
import share
import torch
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import RidgeCV

from jne import jacobian_deviation, jne
from jne.analysis.evidence import Evidence, evidence_of
from jne.analysis.evidence_sums import EvidenceSums
from jne.analysis.prediction import r2_score
from jne.data.datamodule import StandardisedData
from jne.data.folds import Belonging
from jne.fitting.baseline import linear_predictions
from jne.fitting.fit import fit
from jne.fitting.folds import fit_folds
from jne.fitting.history import History
from jne.measuring.evidence import nonlinear_part
from jne.plots.style import STYLE, save, subplots
from jne.utils.progress import without_progress

FIRST_SEED, N_TEST, RATE = 5000, 1000, 0.1
SETTINGS = decay.settings("auto", 256)
KERNEL = {"_target_": "jne.encoders.KernelRegression"}
CELL = np.repeat(np.arange(len(share.CELLS)), share.PER_CELL)
ALPHA, CEILING = share.CELLS[CELL].T
LINEAR = [k for k, (alpha, _) in enumerate(share.CELLS) if alpha == 0]


class Folds(NamedTuple):
    """(n, V): responses, predictions, their nonlinear part, ridge and least squares; JNE (V,);
    the variance of the nonlinear part that is noise (V,)."""

    y: NDArray
    f: NDArray
    g: NDArray
    r: NDArray
    o: NDArray
    jne: NDArray
    noise: NDArray

    def evidence(self, sets: NDArray, n_sets: int) -> tuple[Evidence, EvidenceSums]:
        arrays = self.y, self.f, self.g, [self.r, self.o], sets, n_sets
        return evidence_of(*arrays, crossed=self.noise)


class Cohort:
    """One cohort, trained with the default settings."""

    def __init__(self, data: StandardisedData, **optimizer: float) -> None:
        """optimizer: its keys that are not the default."""
        self.data = data
        update = {"optimizer": SETTINGS.optimizer | optimizer}
        with without_progress():
            self.fitted = fit(data, SETTINGS.model_copy(update=update))
        features, responses = data.split("test")
        self.responses = responses.numpy()
        with torch.no_grad():
            self.prediction = self.fitted.encoder(features).numpy()
        self.linear = linear_predictions(data)
        self.ridge = self.linear[0]
        everything = np.arange(data.n_trained)
        self.nonlinear = nonlinear_part(self.fitted.encoder, data)[:, everything]

    def evidence(self, n: int, sets: NDArray) -> tuple[Evidence, EvidenceSums]:
        """From the first n test stimuli."""
        arrays = (self.responses, self.prediction, self.nonlinear)
        linear = [array[:n] for array in self.linear]
        return evidence_of(*(array[:n] for array in arrays), linear, sets, int(sets.max()) + 1)

    def jne(self) -> NDArray[np.float64]:
        features = self.data.split("test")[0][:100]
        return jne(jacobian_deviation(self.fitted.encoder, features))


def cohorts(world: str, noise: str, n_cohorts: int, n_train: int, n_features: int) -> None:
    sizes = (100, 300, N_TEST)
    results: dict[int, list[tuple[Evidence, EvidenceSums]]] = {n: [] for n in sizes}
    gains, rho, start = [], [], time.monotonic()
    for seed in range(FIRST_SEED, FIRST_SEED + n_cohorts):
        data = decay.cohort(world, noise, seed, n_train, N_TEST, n_features)
        cohort = Cohort(data)
        for n in sizes:
            results[n].append(cohort.evidence(n, CELL))
        gain = r2_score(cohort.responses, cohort.prediction) - r2_score(
            cohort.responses, cohort.ridge
        )
        gains.append(by_cell(gain))
        value = cohort.jne()
        rho.append([spearman(value, ALPHA, CEILING == level) for level in share.CEILING])
    seconds = (time.monotonic() - start) / n_cohorts
    print(
        f"{world}, {noise} noise, N {n_train}, D {n_features}, {n_cohorts} cohorts, "
        f"{seconds:.0f} s each; ceilings .15 .4 .7 of alpha 0 / .1 / .3 / .6"
    )
    print(f"  R2 - ridge       {grid(np.mean(gains, axis=0), 3)}")
    print(f"  Spearman(alpha, JNE) at ceilings {np.mean(rho, axis=0).round(2)}")
    for n in sizes:
        report(n, results[n])


def report(n: int, results: list[tuple[Evidence, EvidenceSums]]) -> None:
    voxels = [v for v, _ in results]
    p, z, q = (np.array([getattr(v, name) for v in voxels]) for name in ("p", "z", "p_fdr"))
    linear = np.isin(CELL, LINEAR)
    of_regions = np.array([sums.p for _, sums in results])[:, LINEAR]
    each = [q_of <= RATE for q_of in q]
    fdp = [(found & linear).sum() / max(found.sum(), 1) for found in each]
    shares = [v.share for v in voxels]
    holds = np.array([(v.low <= 0) & (v.high >= 0) for v in voxels])
    defined = np.isfinite(shares)
    regions = [sums.share() for _, sums in results]
    region_holds = np.array([(s.low <= 0) & (s.high >= 0) for s in regions])[:, LINEAR]
    small = np.where(np.isnan(p), np.nan, p < 0.05)
    mean = np.array([np.nanmean(np.array(shares)[:, k == CELL]) for k in range(len(share.CELLS))])
    inside = np.nanmean(np.where(defined, holds, np.nan)[:, linear])
    follows = [spearman(s, ALPHA, np.ones(len(s), dtype=bool)) for s in shares]
    ceiling = [[spearman(s, CEILING, alpha == ALPHA) for alpha in share.ALPHA] for s in shares]
    rows = {
        "linear voxels": f"mean z {cells_of(z)}; p < .05 {cells_of(small)}",
        "linear regions": f"p < .05 {(of_regions < 0.05).mean(axis=0).round(2)}, all "
        f"{(of_regions < 0.05).mean():.3f}; intervals hold 0 {region_holds.mean():.3f}",
        "q = .1": f"false {np.mean(fdp):.3f}; {grid(by_cell(np.mean(each, axis=0)), 2)}",
        "share": f"{grid(mean, 3)}; undefined {1 - defined.mean():.3f}; intervals hold 0 "
        f"{inside:.3f}",
        "Spearman": f"alpha and share {np.mean(follows):.2f}; ceiling and share at equal alpha "
        f"{np.nanmean(ceiling, axis=0).round(2)}",
    }
    print(f"  n {n}")
    for name, text in rows.items():
        print(f"    {name}: {text}", flush=True)


def by_cell(values: NDArray) -> NDArray:
    return np.array([values[..., k == CELL].mean() for k in range(len(share.CELLS))])


def cells_of(values: NDArray) -> str:
    return " ".join(f"{np.nanmean(values[:, k == CELL]):.3f}" for k in LINEAR)


def grid(values: NDArray, digits: int) -> str:
    rows = values.reshape(len(share.ALPHA), len(share.CEILING))
    return " / ".join(" ".join(f"{value:.{digits}f}" for value in row) for row in rows)


def spearman(x: NDArray, y: NDArray, chosen: NDArray) -> float:
    chosen = chosen & np.isfinite(x)
    return float(stats.spearmanr(x[chosen], y[chosen]).statistic)


def size(n_voxels: int, n: int) -> None:
    """The evidence of a whole brain in ten regions."""
    rng = np.random.default_rng(0)
    y, f, g = rng.standard_normal((3, n, n_voxels), dtype=np.float32)
    ridge, sets = f + g, rng.integers(0, 10, n_voxels)
    a = torch.ones(4096, 4096)
    start = time.perf_counter()
    a @ a
    rate = 2 * 4096**3 / (time.perf_counter() - start)
    start, cpu = time.perf_counter(), time.process_time()
    evidence_of(y, f, g, [ridge, ridge + y], sets, 10)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"{n_voxels} voxels, {n} stimuli: {seconds:.1f} s, {cpu:.1f} s of a core "
          f"({rate / 1e9:.0f} GFLOP/s)")  # fmt: skip


def in_folds(
    features: NDArray,
    responses: NDArray,
    seed: int,
    batch_size: int | None = 256,
    readout: str = "stacked",
    **optimizer: float,
) -> Folds:
    """Every stimulus is tested once, by one of 5 encoders; the default settings."""
    update = {"optimizer": SETTINGS.optimizer | optimizer, "readout": readout}
    settings = SETTINGS.model_copy(update=update)
    every, parts = np.arange(len(features)), []
    for rest, test in Belonging().folds(every, 5, seed):
        train, val = Belonging().folds(rest, 10, seed)[0]
        rows = {"train": rest[train], "val": rest[val], "test": test}
        parts.append(StandardisedData(features, responses, rows, batch_size=batch_size, seed=seed))
    settings = settings.model_copy(update={"seed": seed})
    with without_progress():
        fits = fit_folds(parts, settings)
    y, f, g, r, o = (np.empty(responses.shape, dtype=np.float32) for _ in range(5))
    deviation = np.empty(responses.shape)
    for part, fitted in zip(parts, fits, strict=True):
        rows, (x, of_test) = part.rows["test"], part.split("test")
        y[rows] = of_test
        with torch.no_grad():
            f[rows] = fitted.encoder(x)
        g[rows] = nonlinear_part(fitted.encoder, part)[:, np.arange(responses.shape[1])]
        r[rows], o[rows] = linear_predictions(part)
        deviation[rows] = jacobian_deviation(fitted.encoder, x)
    power = History.of_folds([fitted.history for fitted in fits]).nonlinear_noise
    power = np.inf if power is None else power
    return Folds(y, f, g, r, o, jne(deviation), np.square(y - f).mean(axis=0) * power)


def folds(world: str, noise: str, n_cohorts: int, n: int) -> None:
    """All stimuli are trained and tested on."""
    results, gains, rho = [], [], []
    for seed in range(FIRST_SEED, FIRST_SEED + n_cohorts):
        data = decay.cohort(world, noise, seed, n - decay.N_VAL, 2, decay.N_FEATURES)
        rows = np.concatenate([data.rows["train"], data.rows["val"]])
        found = in_folds(data.features.numpy()[rows], data.responses[rows].numpy(), seed)
        results.append(found.evidence(CELL, len(share.CELLS)))
        gains.append(by_cell(r2_score(found.y, found.f) - r2_score(found.y, found.r)))
        rho.append([spearman(found.jne, ALPHA, CEILING == level) for level in share.CEILING])
    print(f"{world}, {noise} noise, {n} stimuli in 5 folds, {n_cohorts} cohorts")
    print(f"  R2 - ridge       {grid(np.mean(gains, axis=0), 3)}")
    print(f"  Spearman(alpha, JNE) at ceilings {np.mean(rho, axis=0).round(2)}")
    z = np.array([voxels.z for voxels, _ in results])
    spread = [np.nanvar(z[:, k == CELL]) for k in LINEAR]
    print(f"  variance of z, linear voxels at ceilings .15 .4 .7: {np.round(spread, 2)}")
    report(n, results)


def v4(root: Path, readout: str, layers: Sequence[str]) -> None:
    """Evidence of five folds together, each with its own encoder, twice: does it repeat?"""
    responses = np.load(root / "responses.npy").T.astype(np.float32)
    for layer in layers:
        features, repeats = v4_features(root, layer), []
        for seed in (FIRST_SEED, FIRST_SEED + 1):
            found = in_folds(features, responses, seed, None, readout, lr=1e-4)
            sets = np.zeros(responses.shape[1], dtype=np.int64)
            voxels, sums = found.evidence(sets, 1)
            of_all, of_ridge = sums.share(), r2_score(found.y, found.r)
            gain = r2_score(found.y, found.f) - of_ridge
            print(
                f"{layer:6}: R2 of ridge {of_ridge.mean():.3f}, encoder {gain.mean():+.4f}, "
                f"smallest unit {gain.min():+.3f}; {(voxels.p_fdr <= RATE).sum()} of "
                f"{len(sets)} nonlinear; slope {np.nanmedian(voxels.slope):.2f}; share "
                f"{of_all.share[-1]:.3f} [{of_all.low[-1]:.3f}, {of_all.high[-1]:.3f}]",
                flush=True,
            )
            repeats.append((found.jne, voxels.z, voxels.share, gain))
        agree = [spearman(a, b, np.isfinite(b)) for a, b in zip(*repeats, strict=True)]
        print(f"  other folds and seeds, Spearman of JNE, z, share, gain {np.round(agree, 2)}")


def linear_units(root: Path, layer: str, n_sets: int) -> None:
    """Units as V4's, but linear: ridge regression's prediction plus its residuals, permuted."""
    features = v4_features(root, layer)
    responses = np.load(root / "responses.npy").T
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    penalties = np.geomspace(10, 1e5, 20)
    signal = RidgeCV(penalties, alpha_per_target=True).fit(x, responses).predict(x)
    for seed in range(FIRST_SEED, FIRST_SEED + n_sets):
        order = np.random.default_rng(seed).permutation(len(x))  # the noise of all units together
        made = (signal + (responses - signal)[order]).astype(np.float32)
        found = in_folds(features, made, seed, None, lr=1e-4)
        voxels, sums = found.evidence(np.zeros(made.shape[1], dtype=np.int64), 1)
        print(
            f"{layer} {seed}: z {voxels.z.mean():+.2f} +- {voxels.z.std():.2f}; p < .05 "
            f"{(voxels.p < 0.05).mean():.3f}, of all units together {sums.p[-1]:.3f}",
            flush=True,
        )


def v4_features(root: Path, layer: str) -> NDArray[np.float32]:
    if layer != "pixels":
        of_layers = np.load(root / "features.npy", mmap_mode="r")
        return np.asarray(of_layers[:, int(layer) - 1], np.float32)
    images = share.read_images(root)
    u, s, _ = np.linalg.svd(images - images.mean(axis=0), full_matrices=False)
    # Rotated: to z-score the components themselves would whiten them
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((150, 150)))[0]
    return ((u[:, :150] * s[:150]) @ rotation).astype(np.float32)


def figure(file: Path) -> None:
    """The validated share and JNE of voxels by what was planted, at each noise ceiling."""
    cohort = Cohort(decay.cohort("few", "shared", FIRST_SEED, 8000, N_TEST))
    voxels, _ = cohort.evidence(N_TEST, CELL)
    with rc_context(STYLE):
        drawn, panels = subplots(1, 2, figsize=(6.4, 2.9))
        for shift, ceiling in zip((-0.012, 0, 0.012), share.CEILING, strict=True):
            colour = ScalarMappable(cmap="viridis").cmap(0.15 + ceiling)
            for panel, values in zip(panels, (voxels.share, cohort.jne()), strict=True):
                cells = [values[(alpha == ALPHA) & (ceiling == CEILING)] for alpha in share.ALPHA]
                panel.errorbar(
                    np.array(share.ALPHA) + shift, [np.nanmean(c) for c in cells],
                    [np.nanstd(c) for c in cells], fmt="o", ms=4, lw=1.2, color=colour,
                    label=f"{ceiling:g}",
                )  # fmt: skip
        panels[0].axline((0, 0), slope=1, color="0.6", lw=0.8, zorder=0)
        panels[0].set(title="unseen responses", ylabel="validated share")
        panels[1].set(title="the encoder alone", ylabel="JNE")
        panels[1].legend(title="noise ceiling", frameon=False, loc="upper left")
        for panel in panels:
            panel.set_xlabel("planted nonlinear share")
            panel.set_xticks(list(share.ALPHA))
        save(drawn, file)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["kernel"]:
        SETTINGS = SETTINGS.model_copy(update={"encoder": KERNEL})
        arguments = arguments[1:]
    match arguments:
        case ["cohorts", world, noise, k, *more]:
            numbers = [*map(int, more), *(decay.N_TRAIN, decay.N_FEATURES)[len(more) :]]
            cohorts(world, noise, int(k), *numbers)
        case ["folds", world, noise, k, *more]:
            folds(world, noise, int(k), *map(int, more or [2250]))
        case ["size", *more]:
            size(*([*map(int, more), *(226_000, 1000)[len(more) :]]))
        case ["v4", folder, *more]:
            v4(Path(folder), *(more[:1] or ["stacked"]), more[1:] or ("pixels", "1", "7", "12"))
        case ["linear", folder, layer, k]:
            linear_units(Path(folder), layer, int(k))
        case ["figure", file]:
            figure(Path(file))
        case _:
            raise SystemExit(__doc__)

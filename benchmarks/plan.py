"""The table of `jne plan`: what is found in cohorts in which the nonlinearity is known.

python benchmarks/plan.py                   # src/jne/plan.csv; settings that it has are skipped
python benchmarks/plan.py check WORLD NOISE N D [PAIRS]    # other seeds: planned, and measured
python benchmarks/plan.py levels            # each level of the table from its neighbours
python benchmarks/plan.py share WORLD NOISE N D COHORTS   # SD of nonlinear shares, likewise

Each setting of n, noise and world is one pair of cohorts: the same voxels, disjoint stimuli and
noise; 256 features. 20 cells of nonlinear share (0, .1, .3, .6) and noise ceiling of the (mean)
responses (.05 to .9), of 18 voxels each; p is adjusted within a ceiling. Default settings; a tenth
of n validates. Seeds of the table from 6000, of the checks from 7000: none was used while
developing.
"""

import csv
import io
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import decay
import evidence
import numpy as np
import share
from numpy.typing import NDArray
from scipy import stats

from jne import plan
from jne.analysis.prediction import fdr
from jne.data.datamodule import StandardisedData
from jne.utils.files import atomic_file

CEILING, TEST = (0.05, 0.15, 0.4, 0.7, 0.9), (100, 300, 1000, 3000)
N, N_FEATURES = (500, 2000, 1000, 4000), 256
SETTINGS = [
    *product(N, ("shared", "independent"), ("few", "cells")),
    *product(N, ("shared",), ("many",)),  # hardly two voxels have the same function
]
FIRST_SEED, CHECK_SEED, RATE = 6000, 7000, 0.1
TABLE = Path(__file__).parents[1] / "src" / "jne" / "plan.csv"
COMMENT = "# python benchmarks/plan.py, seeds from 6000; docs/plan.md"


def set_cells(ceilings: Sequence[float], voxels_per_cell: int) -> tuple[NDArray, NDArray, NDArray]:
    """Cell, nonlinear share and noise ceiling of each voxel of the cohorts from here on."""
    share.CELLS = np.array(list(product(share.ALPHA, ceilings)))
    share.PER_CELL = voxels_per_cell
    cell = np.repeat(np.arange(len(share.CELLS)), voxels_per_cell)
    return cell, *share.CELLS[cell].T


def pair(
    world: str, noise: str, n: int, d: int, seed: int, ceiling: NDArray
) -> list[StandardisedData]:
    """Two cohorts with the same voxels, of these noise ceilings, and disjoint stimuli."""
    rng, size = np.random.default_rng(seed), n + max(TEST)
    features, signal, latent, _ = decay.WORLDS[world](2 * size, d, False, rng)
    trial = share.noise_of(noise, signal, latent, 1, rng)[..., 0]
    responses = signal + np.sqrt(1 / ceiling - 1) * trial
    train, val, test = np.split(np.arange(size), [n - n // 10, n])
    rows = {"train": train, "val": val, "test": test}
    return [
        StandardisedData(x.astype(np.float32), y.astype(np.float32), rows, batch_size=256, seed=0)
        for x, y in zip(np.split(features, 2), np.split(responses, 2), strict=True)
    ]


def measure(
    world: str, noise: str, n: int, d: int, seed: int,
    tests: Sequence[int] = TEST, ceilings: Sequence[float] = CEILING,
) -> list[dict[str, object]]:  # fmt: skip
    """A row for each number of test stimuli and ceiling."""
    _, alpha, ceiling_of = set_cells(ceilings, 18)
    cohorts = [evidence.Cohort(data) for data in pair(world, noise, n, d, seed, ceiling_of)]
    jne, rows = [cohort.jne() for cohort in cohorts], []
    together = np.zeros(len(alpha), dtype=np.int64)
    evidences = {k: [cohort.evidence(k, together)[0] for cohort in cohorts] for k in tests}
    for n_test, ceiling in product(tests, ceilings):
        voxels = ceiling == ceiling_of
        tested = evidences[n_test]
        found = np.mean([fdr(e.p[voxels]) <= RATE for e in tested], axis=0)
        z = [np.where(np.isnan(e.z), 0, e.z)[voxels] for e in tested]  # NaN: a linear encoder
        rates = {f"found_{a:g}": found[alpha[voxels] == a].mean() for a in share.ALPHA}
        repeats = {
            "z": repeat(*z),
            "share": repeat(*(e.share[voxels] for e in tested)),
            "jne": repeat(*(value[voxels] for value in jne)),
        }
        setting = {"world": world, "noise": noise, "n": n, "test": n_test}
        rounded = {name: f"{x:.3f}" for name, x in (rates | repeats).items()}
        rows.append(setting | {"ceiling": ceiling} | rounded)
    return rows


def repeat(x: NDArray, y: NDArray) -> float:
    """Spearman's r; 0 where there is nothing to order: most voxels have no value, or the same."""
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if both.mean() < 0.5 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


def table() -> None:
    rows: list[dict[str, object]] = []
    if TABLE.exists():
        rows += csv.DictReader(TABLE.read_text().splitlines()[1:])
    have = {(int(row["n"]), row["noise"], row["world"]) for row in rows}
    for seed, (n, noise, world) in enumerate(SETTINGS, start=FIRST_SEED):
        if (n, noise, world) in have:
            continue
        start = time.monotonic()
        rows += measure(world, noise, n, N_FEATURES, seed)
        print(f"{n} {noise} {world}: {time.monotonic() - start:.0f} s", flush=True)
        file = io.StringIO()
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with atomic_file(TABLE) as path:
            path.write_text(f"{COMMENT}\n{file.getvalue()}")


def check(world: str, noise: str, n: int, d: int, n_pairs: int) -> None:
    """What is measured, at settings between those of the table, beside what each world plans."""
    tests, ceilings = (200, 700), (0.07, 0.1, 0.25, 0.55, 0.8)  # none is in the table
    seeds = range(CHECK_SEED, CHECK_SEED + n_pairs)
    pairs = [measure(world, noise, n, d, seed, tests, ceilings) for seed in seeds]
    names = [*(f"found_{alpha:g}" for alpha in plan.ALPHA[1:]), *plan.MAPS]
    measured = np.mean([[[float(row[k]) for k in names] for row in rows] for rows in pairs], axis=0)
    print(f"{world}, {noise} noise, N {n}, D {d}, {n_pairs} pairs: {', '.join(names)}")
    settings = list(product(tests, ceilings))
    for (n_test, ceiling), row in zip(settings, measured, strict=True):
        print(f"  test {n_test} ceiling {ceiling:4}: {' '.join(f'{x:5.2f}' for x in row)}")
    plans = [plan.forecast(plan.Design(n, d, c, noise=noise, test=k)) for k, c in settings]
    for k, planning in enumerate(plans[0].worlds):
        planned = [np.concatenate([p.rates[k, 1:], p.repeats[k]]) for p in plans]
        error = measured - planned
        parts = {"found": error[:, :3], **dict(zip(plan.MAPS, error.T[3:], strict=True))}
        text = (f"{name} {e.mean():+.2f} ({abs(e).mean():.2f})" for name, e in parts.items())
        print(f"  measured less planned by {planning}, mean (absolute): {'; '.join(text)}")


def levels() -> None:
    """The error of interpolation: of inner levels, from the others, by key."""
    for key, k in (("n", 0), ("test", 1), ("ceiling", 2)):
        errors: dict[str, list[NDArray]] = {"found": [], "r": []}
        for noise in ("shared", "independent"):
            table = plan.read_table(noise)
            for level in range(1, len(table.axes[key]) - 1):
                axes = table.axes | {key: np.delete(table.axes[key], level)}
                places = product(*(range(len(axis)) for axis in table.axes.values()))
                for place in (place for place in places if place[k] == level):
                    at = {name: table.axes[name][i] for name, i in zip(axes, place, strict=True)}
                    for name, values in (("found", table.rates[..., 1:]), ("r", table.repeats)):
                        shorter = table._replace(axes=axes)
                        expected = plan.interpolate(shorter, np.delete(values, level, axis=k), at)
                        errors[name].append((values[place] - expected).ravel())
        every = {name: np.concatenate(values) for name, values in errors.items()}
        text = (
            f"{name} {e.mean():+.3f}, absolute {abs(e).mean():.3f}" for name, e in every.items()
        )
        print(f"{key}: mean error of {'; '.join(text)}")


def shares(world: str, noise: str, n: int, d: int, n_cohorts: int) -> None:
    """Three repeats; regions of 30 voxels of a cell."""
    ceilings = (0.15, 0.4, 0.7)
    cell, _, ceiling = set_cells(ceilings, 30)
    errors, regions = [], []
    for seed in range(CHECK_SEED, CHECK_SEED + n_cohorts):
        rng = np.random.default_rng(seed)
        features, signal, latent, truth = share.WORLDS[world](n, d, False, rng)
        scale = np.sqrt(1 / ceiling - 1)[:, None]
        trials = signal[:, :, None] + scale * share.noise_of(noise, signal, latent, 3, rng)
        voxel, region = share.shares(features, trials, cell)
        errors.append(voxel.share - truth)
        regions.append(region.share - [truth[cell == k].mean() for k in range(len(share.CELLS))])
    square = np.square(errors)
    sd = np.sqrt([np.nanmean(square[:, cell == k]) for k in range(len(share.CELLS))])
    of_regions = np.sqrt(np.square(regions).mean(axis=0))
    at = [plan.Design(n - 100, d, c, 3, noise, 100, share.PER_CELL) for c in ceilings]
    planned = np.ravel([plan.share_sd(design) for design in at], order="F")
    correlation = (share.PER_CELL * np.square(of_regions / sd) - 1) / (share.PER_CELL - 1)
    print(f"{world}, {noise} noise, N {n}, D {d}, {n_cohorts} cohorts: ceilings of alpha 0 / ...")
    for name, values in (("planned", planned), ("measured", sd), ("regions", of_regions)):
        print(f"  SD {name:8} {grid(values)}")
    print(f"  correlation of the errors of two voxels of a region {correlation.mean():.3f}")


def grid(values: NDArray) -> str:
    rows = values.reshape(len(share.ALPHA), -1)
    return " / ".join(" ".join(f"{value:.3f}" for value in row) for row in rows)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            table()
        case ["check", world, noise, n, d, *more]:
            check(world, noise, int(n), int(d), int((more or ["1"])[0]))
        case ["levels"]:
            levels()
        case ["share", world, noise, n, d, k]:
            shares(world, noise, int(n), int(d), int(k))
        case _:
            raise SystemExit(__doc__)

"""The p of R2 > 0: how often it is too small under the null, and its power.

python benchmarks/significance.py                 # all parts, about five minutes on two cores
python benchmarks/significance.py calibration 1e6 # a part, with the tests per cell of the table

calibration  share of p below a level, divided by the level: 1 is exact, below 1 conservative
candidates   the same for other ways to a p of fine resolution
power        the t test, the bootstrap with 200 and with 20,000 resamples, and a test of
             Pearson's r, which is what a permutation of the stimuli tests

Two nulls. `shuffled`: predictions of a ridge regression that was fitted to shuffled responses.
`R2 = 0`: a signal x with variance a2, y = x + noise, yhat = x + error, where the error's variance
is such that the expected R2 is 0: the hardest case, at the boundary of the null.
"""

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from jne.analysis.prediction import bootstrap_p, bootstrap_r2, fdr, pearson_r, t_test_p

SIZES = (50, 120, 515, 1000)
LEVELS = (0.05, 1e-3, 1e-4, 1e-5)
SIGNALS = (0.05, 0.3)
BLOCK = 1000  # fits the cache

Shape = Callable[[NDArray], NDArray]
SHAPES: dict[str, Shape] = {  # of a standard normal variable; mean 0 and variance 1 again
    "Gaussian": lambda z: z,
    "heavy-tailed": lambda z: z * np.abs(z) / np.float32(np.sqrt(3)),  # kurtosis 11.7
    "skewed": lambda z: (z * z - 1) / np.float32(np.sqrt(2)),  # skewness 2.8
    "skewed, signal opposite": lambda z: (z * z - 1) / np.float32(np.sqrt(2)),
}


def at_zero(
    rng: np.random.Generator, n: int, v: int, shape: str
) -> Iterator[tuple[str, NDArray, NDArray]]:
    """Responses and predictions (n, v) with an expected R2 of 0, for each share of signal."""
    signal, error, noise = rng.standard_normal((3, n, v), dtype=np.float32)
    noise = SHAPES[shape](noise)
    if shape.endswith("opposite"):
        signal, error = -SHAPES[shape](signal), -SHAPES[shape](error)
    for a2 in SIGNALS:
        # The 1 / n is what the mean of the test responses takes from their variance.
        a, b, h = np.sqrt(np.array([a2, 1 - a2, max(a2 - 1 / n, 0)], dtype=np.float32))
        yield f"R2 = 0, a2 {a2}", a * signal + b * noise, a * signal + h * error


def shuffled(
    rng: np.random.Generator, n: int, v: int, shape: str
) -> Iterator[tuple[str, NDArray, NDArray]]:
    n_train, n_features = 300, 50
    features = rng.standard_normal((n_train + n, n_features))
    train, test = features[:n_train], features[n_train:]
    penalty = 3000 * np.eye(n_features)
    hat = test @ np.linalg.solve(train.T @ train + penalty, train.T)
    responses = SHAPES[shape](rng.standard_normal((n_train + n, v), dtype=np.float32))
    yield "shuffled", responses[n_train:], hat.astype(np.float32) @ responses[:n_train]


def share_below(
    test: Callable[[NDArray, NDArray], NDArray], n: int, shape: str, n_tests: int, *nulls: Callable
) -> dict[str, NDArray]:
    """Share of p below LEVELS, over LEVELS, by null."""
    counts: dict[str, NDArray] = {}
    rng = np.random.default_rng([n, list(SHAPES).index(shape)])
    for _ in range(-(-n_tests // BLOCK)):
        for null in nulls:
            for name, y, yhat in null(rng, n, BLOCK, shape):
                found = [(test(y, yhat) < level).mean() for level in LEVELS]
                counts[name] = counts.get(name, 0) + np.array(found) / LEVELS
    return {name: count / -(-n_tests // BLOCK) for name, count in counts.items()}


def calibration(n_tests: int) -> None:
    print(f"t test: share of p below the level / level, {n_tests:.0e} tests per row")
    print(f"{'N':>5} {'null':<15} {'responses':<24}" + "".join(f"{lv:>8.0e}" for lv in LEVELS))
    for shape in SHAPES:
        for n in SIZES:
            for name, shares in share_below(t_test_p, n, shape, n_tests, shuffled, at_zero).items():
                print(f"{n:>5} {name:<15} {shape:<24}" + "".join(f"{s:8.2f}" for s in shares))


def normal_tail(y: NDArray, yhat: NDArray) -> NDArray:
    """z = R2 / sd, with the sd that the bootstrap of R2 has as the resamples increase."""
    r2, sd = _r2_and_sd(y, yhat)
    return stats.norm.sf(r2 / sd)


def log_scale(y: NDArray, yhat: NDArray) -> NDArray:
    """The normal tail of -log(1 - R2), which has no upper bound and is less skewed."""
    r2, sd = _r2_and_sd(y, yhat)
    return stats.norm.sf(-np.log(1 - r2) * (1 - r2) / sd)


def hall(y: NDArray, yhat: NDArray) -> NDArray:
    """The t test with Hall's correction for skewness (1992)."""
    centred = (y - y.mean(axis=0)).astype(np.float64)
    reduction = centred**2 - (y - yhat) ** 2
    n = len(y)
    t = np.sqrt(n - 1) * reduction.mean(axis=0) / reduction.std(axis=0)
    g = stats.skew(reduction) / np.sqrt(n)
    return stats.t.sf(t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6, n - 1)


def _r2_and_sd(y: NDArray, yhat: NDArray) -> tuple[NDArray, NDArray]:
    centred = (y - y.mean(axis=0)).astype(np.float64)
    variance, squared = np.square(centred).mean(axis=0), np.square(y - yhat, dtype=np.float64)
    r2 = 1 - squared.mean(axis=0) / variance
    influence = (squared - (1 - r2) * centred**2) / variance
    return r2, influence.std(axis=0) / np.sqrt(len(y))


def candidates(n_tests: int) -> None:
    print(f"candidates, R2 = 0: share of p below the level / level, {n_tests:.0e} tests per row")
    tests = (("t test", t_test_p), ("t, Hall", hall), ("z of R2", normal_tail),
             ("z of log", log_scale))  # fmt: skip
    for n in (120, 515):
        for shape in ("Gaussian", "heavy-tailed"):
            for label, test in tests:
                for name, shares in share_below(test, n, shape, n_tests, at_zero).items():
                    row = "".join(f"{share:8.2f}" for share in shares)
                    print(f"{n:>5} {name:<15} {shape:<13} {label:<9}{row}")


def power(_: int) -> None:
    print("power: yhat = x, y = x + Gaussian noise, 2000 voxels (20,000 resamples: 200 voxels)")
    print(
        "    N  R2     p < .001: t test, 20,000 resamples, r    q < .05 with 95 % null: t test, 200"
    )
    rng = np.random.default_rng(0)
    v, few = 2000, 200
    for n in SIZES:
        for a2 in (0.05, 0.1, 0.2, 0.4):
            x, noise = rng.standard_normal((2, n, v))
            yhat = np.sqrt(a2) * x
            y = yhat + np.sqrt(1 - a2) * noise
            p, coarse = t_test_p(y, yhat), bootstrap_p(bootstrap_r2(y, yhat, 200))
            fine = bootstrap_p(bootstrap_r2(y[:, :few], yhat[:, :few], 20_000))
            r = pearson_r(y, yhat)
            p_r = stats.t.sf(r * np.sqrt((n - 2) / (1 - r**2)), n - 2)
            null = rng.random(19 * v)
            null_200 = (np.floor(null * 201) + 1) / 201
            print(
                f"{n:>5}  {a2:<5} {(p < 1e-3).mean():>16.3f}{(fine < 1e-3).mean():>18.3f}"
                f"{(p_r < 1e-3).mean():>9.3f}"
                f"{(fdr(np.r_[p, null])[:v] < 0.05).mean():>20.3f}"
                f"{(fdr(np.r_[coarse, null_200])[:v] < 0.05).mean():>14.3f}"
            )


PARTS = {"calibration": calibration, "candidates": candidates, "power": power}

if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word in PARTS]
    numbers = [float(word) for word in sys.argv[1:] if word not in PARTS]
    for part in words or PARTS:
        start = time.perf_counter()
        PARTS[part](int(numbers[0]) if numbers else 100_000)
        print(f"{part}: {time.perf_counter() - start:.0f} s\n", flush=True)

"""Is JNE stepped by the grid of penalties, and how many voxels are at an end of it?

python benchmarks/penalties.py steps [WIDTH]
python benchmarks/penalties.py many

steps: 600 voxels that are alike in all but chance, linear, of which a tenth of 1,200 stimuli (512
features) validate. Prints what of the variance of JNE follows from the nearest penalty of a grid in
half decades (a factor), from a smooth (cubic) function of log penalty, and from the factor in what
that leaves: the largest of five grids, shifted against each other, beside what as many levels
explain of noise. Then the largest gap between neighbours of the middle 90 % of JNE.
many: 500 voxels, a signal of .02 to .1 of their variance, 20,000 features that are alike or whose
variances fall as a power law, 1,200 stimuli, of which a tenth validate: the shares of voxels at
either end of the grid, and the mean R2 of 300 others.
"""

import sys

import numpy as np
import torch
from numpy.typing import NDArray

from jne import JNERegressor
from jne.analysis.nonlinearity import jne
from jne.analysis.prediction import r2_score
from jne.encoders.ridge import RidgeCV
from jne.fitting import fit as fitting
from jne.fitting.readout import RidgeReadout
from jne.jacobian import jacobian_deviation

SEEDS = (0, 1, 2)


def explained(values: NDArray, levels: NDArray) -> float:
    """The share of the variance of values (V,) between levels (V,)."""
    means = np.zeros(len(values))
    for level in np.unique(levels):
        means[levels == level] = values[levels == level].mean()
    return float(means.var() / values.var())


def steps(width: int) -> None:
    solved: list[RidgeReadout] = []
    refit = fitting.refit_readout

    def kept(*arguments: object) -> RidgeReadout:
        solved.append(refit(*arguments))  # type: ignore[arg-type]
        return solved[-1]

    fitting.refit_readout = kept  # type: ignore[assignment]
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((1500, 512))
        y = x @ rng.standard_normal((512, 600)) / 512**0.5 + 0.9 * rng.standard_normal((1500, 600))
        model = JNERegressor(hidden_width=width, random_state=seed).fit(x[:1200], y[:1200])
        features = (x[1200:] - x[:1200].mean(0)) / x[:1200].std(0)
        deviation = jacobian_deviation(model.encoder_, torch.tensor(features[:100]).float())
        values = jne(deviation)
        r2 = r2_score(y[1200:], model.predict(x[1200:])).mean()
        exponent = np.log10(solved[-1].penalty.astype(np.float64))
        left = values - np.polyval(np.polyfit(exponent, values, 3), exponent)
        grids = [np.round(2 * exponent + shift) for shift in np.arange(5) / 5]
        chance = np.mean([explained(rng.permutation(left), grids[0]) for _ in range(200)])
        middle = np.sort(values)[30:-30]
        print(
            f"seed {seed}: R2 {r2:.3f}, JNE {values.mean():.3f} (SD {values.std():.3f}); "
            f"{len(np.unique(exponent))} penalties, log10 {exponent.mean():.2f} "
            f"(SD {exponent.std():.2f}); of the variance of JNE: "
            f"factor {explained(values, grids[0]):.2f}, cubic {1 - left.var() / values.var():.2f}, "
            f"factor in what is left {max(explained(left, grid) for grid in grids):.3f} "
            f"(of noise {chance:.3f}), which is {left.var() / values.var():.2f} of it; "
            f"largest gap {np.diff(middle).max() / values.std():.2f} SD",
            flush=True,
        )


def many() -> None:
    n_features, n, n_voxels = 20_000, 1500, 500
    splits = [(np.arange(1080), np.arange(1080, 1200))]
    for power in (0.0, 1.0):
        rng = np.random.default_rng(0)
        # As much variance as z-scored columns have, whose rotation would change nothing below
        scale = np.arange(1, n_features + 1) ** (-power / 2)
        scale *= (n_features / np.square(scale).sum()) ** 0.5
        x = rng.standard_normal((n, n_features), dtype=np.float32) * scale.astype(np.float32)
        signal = x @ rng.standard_normal((n_features, n_voxels), dtype=np.float32)
        signal /= n_features**0.5
        share = rng.uniform(0.02, 0.1, n_voxels)
        y = share**0.5 * signal + (1 - share) ** 0.5 * rng.standard_normal((n, n_voxels))
        features, responses = torch.tensor(x), torch.tensor(y).float()
        fit = RidgeCV(features[:1200], splits).fit(responses[:1200])
        r2 = r2_score(y[1200:], (features[1200:] @ fit.weights).numpy())
        print(
            f"variances of features j^-{power:g}: largest {(fit.end > 0).mean():.2f}, smallest "
            f"{(fit.end < 0).mean():.2f}, median penalty {np.median(fit.penalty):.3g}, "
            f"mean R2 {r2.mean():.4f}",
            flush=True,
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["steps", *width]:
            steps(int(width[0]) if width else 256)
        case ["many"]:
            many()
        case _:
            sys.exit(__doc__)

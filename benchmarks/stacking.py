"""readout=stacked: what it gains on readout=ridge. docs/notes/encoders.md

python benchmarks/stacking.py cohorts NOISE SEED ...    # functions of jne.simulation.worlds
python benchmarks/stacking.py v4 FOLDER_OF_v4_201025 pixels      # or a layer, 1 to 12; five folds
python benchmarks/stacking.py v4 FOLDER_OF_v4_201025 12 tuned

Each row: R2 minus that of r, mean over voxels and worst voxel (cohorts: worst cell). Cohorts:
Spearman's r of alpha and JNE; JNE of linear voxels at ceilings .15, .4, .7. V4: median of b.
"""

import sys
from copy import deepcopy
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr
from share import CELLS, PER_CELL, draw, noise_of
from torch import Tensor

from jne import JNERegressor, jacobian_deviation
from jne.analysis.nonlinearity import jne
from jne.data.datamodule import StandardisedData
from jne.data.folds import cross_validation
from jne.encoders.ridge import RidgeCV
from jne.estimator.parameters import checked
from jne.fitting.fit import fit
from jne.fitting.stacking import stack_readout
from jne.utils.progress import without_progress


def r2(y: NDArray, f: NDArray) -> NDArray:
    return 1 - np.square(y - f).sum(axis=0) / np.square(y - y.mean(axis=0)).sum(axis=0)


@torch.no_grad()
def compare(x: NDArray, y: NDArray, rows: dict[str, NDArray], **settings: object) -> dict:
    """Train; predictions of the test stimuli (n, V), in the units of y, by name; JNE; b."""
    parameters = checked(JNERegressor(**settings).get_params(deep=False))
    data = StandardisedData(x, y.astype(np.float32), rows, batch_size=parameters.batch_size, seed=0)
    with without_progress(), torch.enable_grad():
        encoder = fit(data, parameters.config()).encoder
    after = deepcopy(encoder)
    with without_progress():
        stack = stack_readout(after, data)
    at = data.features[data.rows["test"]]
    outputs = {"ridge": ridge(data, at), "encoder": encoder(at), "stacked": after(at)}
    scale, mean = data.response_scale, data.response_mean
    measured = {name: (f * scale + mean).numpy() for name, f in outputs.items()}
    of = {"encoder": encoder, "stacked": after}
    return {
        "f": measured,
        "jne": {k: jne(jacobian_deviation(e, at[:150])) for k, e in of.items()},
        "b": stack.stack_nonlinear,
    }


def ridge(data: StandardisedData, at: Tensor) -> Tensor:
    """What ridge regression from training and validation stimuli predicts."""
    rows = np.concatenate([data.rows["train"], data.rows["val"]])
    x, y = data.features[rows], data.responses[rows]
    fitted = RidgeCV(x - x.mean(dim=0), cross_validation(data)).fit(y - y.mean(dim=0))
    return y.mean(dim=0) + (at - x.mean(dim=0)) @ fitted.weights


def cohorts(noise: str, seeds: list[int]) -> None:
    alpha, ceiling = CELLS[np.repeat(np.arange(len(CELLS)), PER_CELL)].T
    rows = dict(zip(("train", "val", "test"), np.split(np.arange(3250), [2000, 2250]), strict=True))
    for seed in seeds:
        rng = np.random.default_rng(seed)
        x, signal, latent, _ = draw("other", 3250, 384, rng)
        error = noise_of(noise, signal, latent, 1, rng)[:, :, 0]
        y = signal + np.sqrt(1 / ceiling - 1) * error
        result, at = compare(x, y, rows, weight_decay=0.01), y[rows["test"]]
        for name, values in result["jne"].items():
            gain = r2(at, result["f"][name]) - r2(at, result["f"]["ridge"])
            worst, rank = (
                gain.reshape(len(CELLS), -1).mean(axis=1).min(),
                spearmanr(values, alpha)[0],
            )
            linear = [values[(alpha == 0) & (ceiling == c)].mean() for c in (0.15, 0.4, 0.7)]
            print(
                f"{noise} {seed} {name:8} {gain.mean():+.4f} {worst:+.4f}; r {rank:.2f}; JNE of "
                f"linear voxels {np.round(linear, 3)}",
                flush=True,
            )


def v4(folder: Path, features: str, tuned: bool) -> None:
    y = np.load(folder / "responses.npy").T
    x = (
        pixels(folder)
        if features == "pixels"
        else np.load(folder / "features.npy")[:, int(features) - 1]
    )
    settings = {"lr": 1e-4, "batch_size": None}
    if tuned:
        settings |= {"weight_decay": 0.01, "patience": 20, "hidden_width": 256}
    order, results, tests = np.random.default_rng(0).permutation(len(y)), [], []
    for k, test in enumerate(np.split(order, 5)):
        rest = np.setdiff1d(order, test, assume_unique=True)
        rest = np.random.default_rng([0, k]).permutation(rest)
        rows = {"train": np.sort(rest[:840]), "val": np.sort(rest[840:]), "test": np.sort(test)}
        results.append(compare(x, y, rows, **settings))
        tests.append(y[rows["test"]])
    at = np.concatenate(tests)
    score = {
        name: r2(at, np.concatenate([result["f"][name] for result in results]))
        for name in results[0]["f"]
    }
    for name in ("encoder", "stacked"):
        gain = score[name] - score["ridge"]
        print(
            f"{features} {name:8} ridge {score['ridge'].mean():.4f} {gain.mean():+.4f} "
            f"{gain.min():+.4f}; b {np.median([result['b'] for result in results]):.2f}"
        )


def pixels(folder: Path) -> NDArray:
    """150 components of 28 x 28 pixels, rotated so that z-scoring does not whiten them."""
    pictures = []
    with ZipFile(folder / "images.zip") as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".jpg")):
            with archive.open(name) as file:
                small = Image.open(file).convert("RGB").resize((28, 28), Image.Resampling.BOX)
                pictures.append(np.asarray(small, dtype=np.float64).ravel())
    u, s, _ = np.linalg.svd(np.array(pictures) - np.mean(pictures, axis=0), full_matrices=False)
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((150, 150)))[0]
    return (u[:, :150] * s[:150]) @ rotation


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["cohorts", noise, *seeds]:
            cohorts(noise, [int(seed) for seed in seeds])
        case ["v4", folder, features, *words]:
            v4(Path(folder), features, "tuned" in words)
        case _:
            raise SystemExit(__doc__)

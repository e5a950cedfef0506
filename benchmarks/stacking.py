"""An encoder stacked on ridge regression: what it gains. docs/notes/encoders.md

python benchmarks/stacking.py cohorts NOISE SEED ...    # other_world of benchmarks/share.py
python benchmarks/stacking.py v4 FOLDER_OF_v4_201025 pixels      # or a layer, 1 to 12; five folds
python benchmarks/stacking.py v4 FOLDER_OF_v4_201025 12 tuned

r: ridge regression. l, g: the best linear approximation of the encoder's prediction over stimuli,
and what it leaves. Stacked: r + a (l - r) + b g; a and b (V,) are from the validation stimuli.
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
from share import CELLS, PER_CELL, noise_of, other_world
from torch import Tensor, nn

from jne import JNERegressor, jacobian_deviation
from jne.analysis.nonlinearity import jne
from jne.data.datamodule import StandardisedData
from jne.data.folds import cross_validation
from jne.encoders.ridge import RidgeCV, RidgeSolver
from jne.estimator.parameters import checked
from jne.fitting.fit import fit
from jne.fitting.readout import last_layer
from jne.utils.progress import without_progress

HIDDEN_SHARE = 0.3
N_SWEEPS = 100


class Parts:
    """r, l and g of a readout at the penalties of ridge regression, as linear maps of [h, x, 1]."""

    def __init__(self, h: Tensor, x: Tensor, y: Tensor, penalty: Tensor) -> None:
        """Fitted to n stimuli: hidden layer (n, H), features (n, D), responses (n, V)."""
        mean_h, mean_x, self.offset = h.mean(dim=0), x.mean(dim=0), y.mean(dim=0)
        h, x, y = h - mean_h, x - mean_x, y - self.offset
        ratio = x.var(dim=0).sum() / h.var(dim=0).sum()
        scale = (HIDDEN_SHARE / (1 - HIDDEN_SHARE) * ratio).sqrt()
        both = RidgeSolver(torch.cat([h * scale, x], dim=1)).weights(y, penalty)
        self.readout, path = scale * both[: h.shape[1]], both[h.shape[1] :]
        of_hidden = torch.linalg.lstsq(x.double(), h.double()).solution
        self.vanishing = (of_hidden @ self.readout.double()).float()  # g's linear approximation
        self.linear = path + self.vanishing
        self.ridge = RidgeSolver(x).weights(y, penalty)
        self.mean_h, self.mean_x = mean_h, mean_x

    def predict(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """r, l and g, (m, V) each."""
        h, x = h - self.mean_h, x - self.mean_x
        g = h @ self.readout - x @ self.vanishing
        return self.offset + x @ self.ridge, self.offset + x @ self.linear, g

    def write(self, encoder: nn.Module, a: Tensor, b: Tensor) -> None:
        """Make the encoder's last layer and linear path those of r + a (l - r) + b g."""
        path = (1 - a) * self.ridge + a * self.linear - b * self.vanishing
        encoder.readout.weight[:], encoder.linear_path.weight[:] = (b * self.readout).T, path.T
        encoder.readout.bias[:] = self.offset - self.mean_h @ (b * self.readout)
        encoder.readout.bias -= self.mean_x @ path


def regress(y: NDArray, x: list[NDArray]) -> tuple[NDArray, NDArray, NDArray]:
    """Slopes and HC3 errors (K, V) of y (n, V) on K regressors and a constant; residuals (n, V)."""
    y, c = y - y.mean(axis=0), np.stack([v - v.mean(axis=0) for v in x]).astype(float)
    size = c.std(axis=1) + 1e-30
    c /= size[:, None]
    inverse = np.linalg.pinv(np.einsum("knv,jnv->vkj", c, c), rcond=1e-8, hermitian=True)
    pulls = np.einsum("vkj,jnv->knv", inverse, c)
    slope = np.einsum("knv,nv->kv", pulls, y)
    rest = y - np.einsum("kv,knv->nv", slope, c)
    free = 1 - 1 / len(y) - np.einsum("knv,knv->nv", pulls, c)
    error = np.sqrt(np.square(pulls * rest / free).sum(axis=1))
    return slope / size, error / size, rest


def pooled(b: NDArray, error: NDArray, x: NDArray, rest: NDArray, zeros: bool) -> NDArray:
    """The mean of slopes (V,), 0 or more, given those of all voxels.

    They are normal around m with variance t, or, with `zeros`, 0 in some voxels. m is shrunk by its
    error over stimuli. x, rest: (n, V), the regressor and the residuals.
    """
    usable = error > 0
    b, square, x, rest = b[usable], error[usable] ** 2, x[:, usable], rest[:, usable]
    share, t, z = 1.0, 0.0, np.ones(len(b))
    m = (b / square).sum() / (1 / square).sum()
    for sweep in range(2 * N_SWEEPS):  # first as if none were 0
        w = z / (square + t)
        m = (w * b).sum() / w.sum()
        moment = w**2 / np.maximum(z, 1e-9)
        t = max(0.0, (moment * (np.square(b - m) - square)).sum() / moment.sum())
        if zeros and sweep >= N_SWEEPS:
            share, m = 0.5 if sweep == N_SWEEPS else z.mean(), max(m, 0.0)
            other = np.exp(-0.5 * np.square(b - m) / (square + t)) / np.sqrt(square + t)
            none = np.exp(-0.5 * np.square(b) / square) / np.sqrt(square)
            z = share * other / (share * other + (1 - share) * none + 1e-300)
    share, w = z.mean(), z / (square + t)
    x = x - x.mean(axis=0)
    pull = (x * rest / np.square(x).sum(axis=0) * w).sum(axis=1) / w.sum()
    m = max(m, 0.0) * max(0.0, 1 - np.square(pull).sum() / max(m**2, 1e-30))
    mean = z * np.maximum((b * t + m * square) / (square + t), 0)
    own = np.maximum(0, 1 - square / np.square(b)) * (b > 0)
    result = np.zeros(len(usable))
    result[usable] = mean * (share + (1 - share) * own)
    return result


@torch.no_grad()
def stacked(encoder: nn.Module, data: StandardisedData) -> tuple[Parts, NDArray, NDArray]:
    """Its parts, fitted to training and validation stimuli; a and b (V,)."""
    train, val = data.rows["train"], data.rows["val"]
    rows, n = np.concatenate([train, val]), len(train)
    h, x, y = last_layer(encoder, data, rows)[1], data.features[rows], data.responses[rows]
    ridge = RidgeCV(x - x.mean(dim=0), cross_validation(data)).fit(y - y.mean(dim=0))
    penalty = torch.from_numpy(ridge.penalty)
    r, line, g = (v.numpy() for v in Parts(h[:n], x[:n], y[:n], penalty).predict(h[n:], x[n:]))
    slopes, errors, rest = regress(y[n:].numpy() - r, [line - r, g])
    a = pooled(slopes[0], errors[0], line - r, rest, zeros=False).clip(0, 1)
    return Parts(h, x, y, penalty), a, pooled(slopes[1], errors[1], g, rest, zeros=True)


def r2(y: NDArray, f: NDArray) -> NDArray:
    return 1 - np.square(y - f).sum(axis=0) / np.square(y - y.mean(axis=0)).sum(axis=0)


@torch.no_grad()
def compare(x: NDArray, y: NDArray, rows: dict[str, NDArray], **settings: object) -> dict:
    """Train; predictions of the test stimuli (n, V), in the units of y, by name; JNE; b."""
    parameters = checked(JNERegressor(**settings).get_params(deep=False))
    data = StandardisedData(x, y.astype(np.float32), rows, batch_size=parameters.batch_size, seed=0)
    with without_progress(), torch.enable_grad():
        encoder = fit(data, parameters.config()).encoder
    parts, a, b = stacked(encoder, data)
    after = deepcopy(encoder)
    a_, b_ = (torch.from_numpy(v).float() for v in (a, b))
    parts.write(after, a_, b_)
    at = data.features[rows["test"]]
    r, line, g = parts.predict(last_layer(encoder, data, rows["test"])[1], at)
    torch.testing.assert_close(after(at), r + a_ * (line - r) + b_ * g, atol=1e-4, rtol=1e-3)
    outputs = {"ridge": r, "encoder": encoder(at), "stacked": after(at)}
    scale, mean = data.response_scale, data.response_mean
    measured = {name: (f * scale + mean).numpy() for name, f in outputs.items()}
    of = {"encoder": encoder, "stacked": after}
    return {
        "f": measured,
        "jne": {k: jne(jacobian_deviation(e, at[:150])) for k, e in of.items()},
        "b": b,
    }


def cohorts(noise: str, seeds: list[int]) -> None:
    alpha, ceiling = CELLS[np.repeat(np.arange(len(CELLS)), PER_CELL)].T
    rows = dict(zip(("train", "val", "test"), np.split(np.arange(3250), [2000, 2250]), strict=True))
    for seed in seeds:
        rng = np.random.default_rng(seed)
        x, signal, latent, _ = other_world(3250, 384, False, rng)
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

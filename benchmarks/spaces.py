"""In which feature space is a voxel nonlinear? And along which directions do Jacobians switch?

python benchmarks/spaces.py assign ENCODER WORLD N_TRAIN SEEDS
    Two feature spaces of 64 features each. Voxels are linear in both, or nonlinear in A alone, in B
    alone or in a product of the two: four functions each. As in data=cells they are in cells of
    nonlinear share (.1, .3, .6) and noise ceiling (.15, .4, .7), of 25 voxels each, with noise that
    voxels share; 1,000 test stimuli. ENCODER: residual (the default settings) or kernel
    (encoder=kernel). WORLD: cells (gates of data=cells; products of two of their Gaussian latents)
    or one of jne.simulation.worlds (products of two linear drives). Prints the confusion table of
    what was planted and what `SpaceEvidence.assigned` says, of the voxels of alpha .3 and ceiling
    .4, then of all. SEEDS: 7000,7001. Seeds from 7000: none was used while developing.

python benchmarks/spaces.py switch N_TRAIN SEEDS
    Voxels of data=cells with one, two or three gates, half of the signal, at a noise ceiling of .4:
    mean cosine of the principal angles between the first directions of `jne.switching` and those of
    the gates, and its stability.

python benchmarks/spaces.py time VOXELS
    Seconds of a core of `jne.switching`, k 8, N 500, D 768, H 1024: of so many voxels and of twice
    as many, and what follows for 20,000.
"""

import itertools
import sys
import time
from typing import NamedTuple

import decay
import numpy as np
import torch
from numpy.typing import NDArray

from jne import ResidualEncoder, switching
from jne.analysis.evidence_spaces import space_evidence_of
from jne.data.datamodule import StandardisedData
from jne.data.planted import N_GATES, N_LATENT, FeatureSpace, Gates
from jne.fitting.baseline import linear_predictions
from jne.fitting.fit import fit
from jne.measuring.evidence import space_parts
from jne.simulation.worlds import WORLDS, noise_of
from jne.utils.progress import without_progress

D, PER_CELL, N_VAL, N_TEST, N_FUNCTIONS = 64, 25, 250, 1000, 4
KERNEL = {"_target_": "jne.encoders.KernelRegression"}
SPACES = {"A": slice(0, D), "B": slice(D, 2 * D)}
KINDS = ("linear", "A", "B", "interaction")
CELLS = [(0, 0.0, c) for c in (0.15, 0.4, 0.7)]
CELLS += list(itertools.product((1, 2, 3), (0.1, 0.3, 0.6), (0.15, 0.4, 0.7)))
KIND, ALPHA, CEILING = np.repeat(np.array(CELLS), PER_CELL, axis=0).T
KIND = KIND.astype(int)
CHOSEN = np.isin(ALPHA, (0, 0.3)) & (CEILING == 0.4)


class Parts(NamedTuple):
    """Features of both spaces (n, D); a linear drive (n, V); functions (n, 4) of each kind."""

    features: list[NDArray]
    linear: NDArray
    functions: list[NDArray]


def cells(n: int, rng: np.random.Generator) -> Parts:
    features, linear, functions, latents = [], [], [], []
    for _ in SPACES:
        space = FeatureSpace(D, rng)
        gates = Gates(space, rng)
        _, latent = space.draw(n, rng)
        linear.append(gates.responses(latent, np.zeros(len(KIND)), 0 * KIND, rng))
        chosen = rng.choice(N_GATES, N_FUNCTIONS, replace=False)
        functions.append(gates.responses(latent, np.ones(N_FUNCTIONS), chosen, rng))
        features.append(space.features(latent))
        latents.append(latent[:, rng.choice(np.arange(N_GATES, N_LATENT), N_FUNCTIONS, False)])
    return Parts(features, sum(linear) / np.sqrt(2), [*functions, latents[0] * latents[1]])


def of_world(world: str, n: int, rng: np.random.Generator) -> Parts:
    alpha = np.repeat([0.0, 0.0, 1.0], [len(KIND), N_FUNCTIONS, N_FUNCTIONS])
    draws = [WORLDS[world](n, D, alpha, rng, rng) for _ in SPACES]
    ends = [len(KIND), len(KIND) + N_FUNCTIONS]
    linear, drives, functions = zip(
        *(np.split(draw.signal, ends, axis=1) for draw in draws), strict=True
    )
    features = [draw.features for draw in draws]
    return Parts(features, sum(linear) / np.sqrt(2), [*functions, drives[0] * drives[1]])


def cohort(world: str, n_train: int, seed: int) -> StandardisedData:
    n, rng = n_train + N_VAL + N_TEST, np.random.default_rng(seed)
    features, linear, functions = cells(n, rng) if world == "cells" else of_world(world, n, rng)
    nonlinear = np.zeros_like(linear)
    for kind, of_kind in enumerate(functions, start=1):
        which = rng.integers(N_FUNCTIONS, size=(kind == KIND).sum())
        nonlinear[:, kind == KIND] = of_kind[:, which]
    signal = np.sqrt(1 - ALPHA) * linear + np.sqrt(ALPHA) * nonlinear
    noise = noise_of("shared", signal, features[0][:, 0], 1, rng)[..., 0]
    responses = signal + np.sqrt(1 / CEILING - 1) * noise
    return as_data(np.hstack(features), responses, n_train)


def assign(encoder: str, world: str, n_train: int, seeds: list[int]) -> None:
    settings = decay.settings("auto", 256)
    if encoder == "kernel":
        settings = settings.model_copy(update={"encoder": KERNEL})
    tables = np.zeros((2, len(KINDS), len(KINDS)))
    for seed in seeds:
        start = time.monotonic()
        data = cohort(world, n_train, seed)
        with without_progress():
            fitted = fit(data, settings)
        features, responses = data.split("test")
        with torch.no_grad():
            prediction = fitted.encoder(features).numpy()
        parts = space_parts(fitted.encoder, data, SPACES)
        linear = linear_predictions(data)
        voxels = space_evidence_of(responses.numpy(), prediction, parts, linear, SPACES, len(KIND))
        given = np.array([KINDS.index(name) for name in voxels.assigned()])
        for table, chosen in zip(tables, (CHOSEN, KIND >= 0), strict=True):
            np.add.at(table, (KIND[chosen], given[chosen]), 1)
        right = (given == KIND)[CHOSEN].mean()
        print(f"seed {seed}: {right:.3f} right, {time.monotonic() - start:.0f} s", flush=True)
    for what, table in zip(("alpha .3, ceiling .4", "all cells"), tables, strict=True):
        print(
            f"{encoder}, {world}, N {n_train}, {len(seeds)} cohorts, {what}: "
            f"rows planted, columns given"
        )
        print(" " * 12 + "".join(f"{name:>12}" for name in KINDS))
        for name, row in zip(KINDS, table / table.sum(axis=1, keepdims=True), strict=True):
            print(f"{name:12}" + "".join(f"{value:12.3f}" for value in row))
        print(f"right: {np.trace(table) / table.sum():.3f}")


def switch(n_train: int, seeds: list[int]) -> None:
    """The gates of a voxel are the first of 6, so that voxels share them."""
    n_gates = np.repeat([1, 2, 3], 40)
    for seed in seeds:
        rng, n = np.random.default_rng(seed), n_train + N_VAL + N_TEST
        space = FeatureSpace(2 * D, rng)
        gates = Gates(space, rng)
        _, latent = space.draw(n, rng)
        signal = gates.responses(latent, np.zeros(len(n_gates)), 0 * n_gates, rng)
        units = gates.responses(latent, np.ones(6), np.arange(6), rng)
        chosen = [rng.choice(6, m, replace=False) for m in n_gates]
        nonlinear = np.stack([units[:, c].sum(axis=1) / np.sqrt(len(c)) for c in chosen], axis=1)
        signal = np.sqrt(0.5) * (signal + nonlinear)
        noise = noise_of("shared", signal, latent[:, 0], 1, rng)[..., 0]
        responses = signal + np.sqrt(1 / 0.4 - 1) * noise
        data = as_data(space.features(latent), responses, n_train)
        with without_progress():
            fitted = fit(data, decay.settings("auto", 256))
        result = switching(fitted.encoder, data.split("test")[0], k=3)
        # d(latent) / d(standardised feature)
        truth = (space.rotation / space.scale)[:, :6] * data.feature_scale.numpy()[:, None]
        for m in (1, 2, 3):
            rows = np.flatnonzero(n_gates == m)
            cosine = [
                np.linalg.svd(
                    np.linalg.qr(truth[:, chosen[v]])[0].T @ result.directions[v, :, :m],
                    compute_uv=False,
                ).mean()
                for v in rows
            ]
            stable = result.stability[rows, m - 1]
            print(
                f"seed {seed}, N {n_train}, {m} gates: cosine with the truth "
                f"{np.mean(cosine):.3f}, least {np.min(cosine):.3f}; halves "
                f"{stable.mean():.3f}, least {stable.min():.3f}; "
                f"participation ratio {np.median(result.participation_ratio[rows]):.2f}",
                flush=True,
            )


def as_data(features: NDArray, responses: NDArray, n_train: int) -> StandardisedData:
    train, val, test = np.split(np.arange(len(features)), [n_train, n_train + N_VAL])
    return StandardisedData(
        features.astype(np.float32),
        responses.astype(np.float32),
        {"train": train, "val": val, "test": test},
        batch_size=256,
        seed=0,
    )


def seconds(n_voxels: int) -> None:
    taken = []
    for n in (n_voxels, 2 * n_voxels):
        torch.manual_seed(0)
        encoder, x = ResidualEncoder(768, n, hidden_width=1024).eval(), torch.randn(500, 768)
        start = time.process_time()
        switching(encoder, x)
        taken.append(time.process_time() - start)
        print(f"{n} voxels: {taken[-1]:.0f} s of a core", flush=True)
    of_voxel = (taken[1] - taken[0]) / n_voxels
    whole = taken[0] + (20_000 - n_voxels) * of_voxel
    print(f"{1e3 * of_voxel:.1f} ms a voxel; so of 20,000 {whole / 60:.1f} minutes of a core")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["assign", encoder, world, n_train, seeds]:
            assign(encoder, world, int(n_train), [int(seed) for seed in seeds.split(",")])
        case ["switch", n_train, seeds]:
            switch(int(n_train), [int(seed) for seed in seeds.split(",")])
        case ["time", n_voxels]:
            seconds(int(n_voxels))
        case _:
            sys.exit(__doc__)

"""In which feature space is a voxel nonlinear? And along which directions do Jacobians switch?

python benchmarks/spaces.py assign WORLD N_TRAIN SEEDS
    Two feature spaces of 192 features. 90 voxels are linear in both, 90 nonlinear in A alone, 90 in
    B alone, 90 in a product of the two; alpha .3, noise ceiling .4, noise that voxels share, 1,000
    test stimuli. WORLD: cells (gates of data=cells; products of two of their latents) or one of
    jne.simulation.worlds (products of two linear drives). Prints the confusion table of what was
    planted and what `SpaceEvidence.assigned` says. SEEDS: 7000,7001. Seeds from 7000: none was used
    while developing.
"""

import sys
import time
from collections.abc import Mapping

import decay
import numpy as np
import torch
from numpy.typing import NDArray

from jne.analysis.evidence_spaces import space_evidence_of
from jne.data.datamodule import StandardisedData
from jne.data.planted import N_GATES, N_LATENT, FeatureSpace, Gates
from jne.fitting.baseline import linear_predictions
from jne.fitting.fit import fit
from jne.measuring.evidence import space_parts
from jne.simulation.worlds import WORLDS, noise_of
from jne.utils.progress import without_progress

D, PER_KIND, N_VAL, N_TEST, N_FUNCTIONS = 64, 210, 250, 1000, 5
ALPHA, CEILING = 0.3, 0.4
SPACES = {"A": slice(0, D), "B": slice(D, 2 * D)}
KINDS = ("linear", "A", "B", "A x B")
KIND = np.repeat(np.arange(len(KINDS)), PER_KIND)


def cells(n: int, rng: np.random.Generator) -> tuple[list[NDArray], Mapping[str, NDArray]]:
    """Features of both spaces; linear drives (n, V) and what is nonlinear, of each kind."""
    features, linear, nonlinear = [], [], {}
    latents = []
    which = rng.integers(N_FUNCTIONS, size=len(KIND))
    for name in "AB":
        space = FeatureSpace(D, rng)
        gates = Gates(space, rng)
        _, latent = space.draw(n, rng)
        none, all_ = np.zeros(len(KIND)), np.ones(PER_KIND)
        gate = rng.choice(N_GATES, N_FUNCTIONS, replace=False)[which]
        linear.append(gates.responses(latent, none, gate, rng))
        nonlinear[name] = gates.responses(latent, all_, gate[:PER_KIND], rng)
        features.append(space.features(latent))
        latents.append(latent[:, :N_LATENT] / gates.latent_spread)
    pairs = rng.integers(N_GATES, N_LATENT, size=(2, N_FUNCTIONS))  # Gaussian latents
    pair = pairs[:, which[:PER_KIND]]
    nonlinear["A x B"] = latents[0][:, pair[0]] * latents[1][:, pair[1]]
    return features, {"linear": (linear[0] + linear[1]) / np.sqrt(2), **nonlinear}


def of_world(
    world: str, n: int, rng: np.random.Generator
) -> tuple[list[NDArray], Mapping[str, NDArray]]:
    """As `cells`, of another world."""
    alpha = np.repeat([0.0, 0.0, 1.0], [len(KIND), N_FUNCTIONS, PER_KIND])
    draws = [WORLDS[world](n, D, alpha, rng, rng) for _ in SPACES]
    linear, drives, nonlinear = zip(
        *(np.split(draw.signal, [len(KIND), len(KIND) + N_FUNCTIONS], axis=1) for draw in draws),
        strict=True,
    )
    product = (drives[0] * drives[1])[:, rng.integers(N_FUNCTIONS, size=PER_KIND)]
    parts = {"A": nonlinear[0], "B": nonlinear[1], "A x B": product}
    return [draw.features for draw in draws], {
        "linear": (linear[0] + linear[1]) / np.sqrt(2), **parts
    }  # fmt: skip


def cohort(world: str, n_train: int, seed: int) -> StandardisedData:
    n, rng = n_train + N_VAL + N_TEST, np.random.default_rng(seed)
    features, parts = cells(n, rng) if world == "cells" else of_world(world, n, rng)
    signal = parts["linear"].copy()
    for kind, name in enumerate(KINDS[1:], start=1):
        signal[:, kind == KIND] *= np.sqrt(1 - ALPHA)
        signal[:, kind == KIND] += np.sqrt(ALPHA) * parts[name]
    noise = noise_of("shared", signal, features[0][:, 0], 1, rng)[..., 0]
    responses = signal + np.sqrt(1 / CEILING - 1) * noise
    train, val, test = np.split(np.arange(n), [n_train, n_train + N_VAL])
    return StandardisedData(
        np.hstack(features).astype(np.float32),
        responses.astype(np.float32),
        {"train": train, "val": val, "test": test},
        batch_size=256,
        seed=0,
    )


def assign(world: str, n_train: int, seeds: list[int]) -> None:
    table = np.zeros((len(KINDS), len(KINDS)))
    for seed in seeds:
        start = time.monotonic()
        data = cohort(world, n_train, seed)
        with without_progress():
            fitted = fit(data, decay.settings("auto", 256))
        features, responses = data.split("test")
        with torch.no_grad():
            prediction = fitted.encoder(features).numpy()
        parts = space_parts(fitted.encoder, data, SPACES)
        voxels = space_evidence_of(
            responses.numpy(), prediction, parts, linear_predictions(data), SPACES, len(KIND)
        )
        names = {"linear": 0, "A": 1, "B": 2, "interaction": 3}
        given = np.array([names[name] for name in voxels.assigned()])
        np.add.at(table, (KIND, given), 1)
        seconds = time.monotonic() - start
        print(f"seed {seed}: {(given == KIND).mean():.3f} right, {seconds:.0f} s", flush=True)
    print(f"{world}, N {n_train}, {len(seeds)} cohorts: rows planted, columns given")
    print(" " * 8 + "".join(f"{name:>9}" for name in KINDS))
    for name, row in zip(KINDS, table / table.sum(axis=1, keepdims=True), strict=True):
        print(f"{name:8}" + "".join(f"{value:9.3f}" for value in row))
    print(f"right: {np.trace(table) / table.sum():.3f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["assign", world, n_train, seeds]:
            assign(world, int(n_train), [int(seed) for seed in seeds.split(",")])
        case _:
            sys.exit(__doc__)

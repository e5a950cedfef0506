"""Do the default training settings find what is nonlinear, on data of any making?

python benchmarks/decay.py WORLD NOISE SEEDS [WIDTH [VOXELS_PER_CELL]]
    WORLD: cells (that of data=cells), few (gates, absolute values and products of latents; each
    voxel has one of 20 such functions) or many (steps, too, and hardly two voxels have the same
    function). NOISE: independent, shared, dependent or heavy. SEEDS: 2000,2001. 12 cells of
    nonlinear share (0, .1, .3, .6) and noise ceiling (.15, .4, .7), of 30 voxels each; 2,000
    training, 250 validation and 300 test stimuli, 384 features.

For weight_decay=0, .01 and auto: seconds, epochs, the decay, the validation loss of the encoder
that is kept, R2, Spearman's r of alpha and JNE at each ceiling (the bars: .1 .65 .85), and the
smallest of 12 cells of R2 minus that of ridge regression (the bar: -.005). Seeds from 2000: none
was used while developing.
"""

import sys
import time
from functools import partial

import numpy as np
import share
import torch
from scipy.stats import spearmanr

from jne import jacobian_deviation, jne
from jne.analysis.prediction import r2_score
from jne.data.datamodule import StandardisedData
from jne.fitting.config import FitConfig, TrainerConfig
from jne.fitting.fit import fit
from jne.simulation.worlds import functions, gates, noise_of
from jne.utils.progress import without_progress

N_TRAIN, N_VAL, N_TEST, N_FEATURES, N_JACOBIANS = 2000, 250, 300, 384, 100
WORLDS = {
    "cells": gates,
    "few": partial(functions, n_kinds=3, n_functions=20),
    "many": functions,
    "skewed": partial(functions, n_kinds=3, n_functions=20, latents="skewed"),
    "heavy": partial(functions, n_kinds=3, n_functions=20, latents="heavy"),
}
RIDGE = {"_target_": "jne.encoders.RidgeRegression", "bias": True}


def cohort(
    world: str, noise: str, seed: int, n_train: int = N_TRAIN, n_test: int = N_TEST,
    n_features: int = N_FEATURES,
) -> StandardisedData:  # fmt: skip
    n, rng = n_train + N_VAL + n_test, np.random.default_rng(seed)
    alpha = np.repeat(share.CELLS[:, 0], share.PER_CELL)
    features, signal, latent, _ = WORLDS[world](n, n_features, alpha, rng, rng)
    ceiling = np.repeat(share.CELLS[:, 1], share.PER_CELL)
    of_trials = noise_of(noise, signal, latent, 1, rng)[..., 0]
    responses = signal + np.sqrt(1 / ceiling - 1) * of_trials
    train, val, test = np.split(np.arange(n), [n_train, n_train + N_VAL])
    return StandardisedData(
        features.astype(np.float32),
        responses.astype(np.float32),
        {"train": train, "val": val, "test": test},
        batch_size=256,
        seed=0,
    )


def settings(decay: float | str, width: int) -> FitConfig:
    """As composed by train.py."""
    encoder = {
        "_target_": "jne.encoders.ResidualEncoder", "hidden_width": width, "n_hidden": 3,
        "bias": True, "linear_path": True, "activation": "relu", "placement": "both",
    }  # fmt: skip
    adam = {"_target_": "torch.optim.Adam", "lr": 1e-3, "weight_decay": decay, "fused": True}
    trainer = TrainerConfig(
        max_epochs=512, patience=8, batch_size=256, precision="32-true", accelerator="cpu",
        checkpoint_seconds=5,
    )  # fmt: skip
    return FitConfig(encoder=encoder, optimizer=adam, readout="stacked", trainer=trainer, seed=0)


def compare(world: str, noise: str, seed: int, width: int) -> None:
    data = cohort(world, noise, seed)
    cell = np.repeat(np.arange(len(share.CELLS)), share.PER_CELL)
    alpha, ceiling = share.CELLS[cell].T
    features, responses = data.split("test")

    def score(encoder: torch.nn.Module) -> np.ndarray:
        return r2_score(responses.numpy(), encoder(features).detach().numpy())

    with without_progress():
        ridge = fit(data, settings(0.0, width).model_copy(update={"encoder": RIDGE}))
    of_ridge = score(ridge.encoder)
    print(
        f"{world}, {noise} noise, seed {seed}, width {width}, {len(cell)} voxels: "
        f"ridge R2 {of_ridge.mean():.4f}, validation loss {ridge.history.best_loss:.4f}"
    )
    for decay in (0.0, 0.01, "auto"):
        start = time.process_time()
        with without_progress():
            fitted = fit(data, settings(decay, width))
        seconds, history = time.process_time() - start, fitted.history
        gain = score(fitted.encoder) - of_ridge
        smallest = min(gain[cell == k].mean() for k in range(len(share.CELLS)))
        value = jne(jacobian_deviation(fitted.encoder, features[:N_JACOBIANS]))
        rho = [
            spearmanr(alpha[ceiling == level], value[ceiling == level]).statistic
            for level in share.CEILING
        ]
        chosen = "" if history.weight_decay is None else f" {history.weight_decay:g}"
        print(
            f"  {f'{decay}{chosen}':12} {seconds:4.0f} s {len(history.epochs):4} epochs  "
            f"loss {history.best_loss:.4f}  R2 {(gain + of_ridge).mean():.4f}  "
            f"JNE {' '.join(f'{r:5.2f}' for r in rho)}  smallest {smallest:+.4f}",
            flush=True,
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case [world, noise, seeds, *more]:
            if more[1:]:
                share.PER_CELL = int(more[1])
            for number in seeds.split(","):
                compare(world, noise, int(number), int(more[0]) if more else 256)
        case _:
            sys.exit(__doc__)

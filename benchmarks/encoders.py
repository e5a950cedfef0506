"""Do encoders predict better than ridge regression, and does JNE find the planted nonlinearity?

python benchmarks/encoders.py cells independent 2000 2 3                # seeds 2 and 3
python benchmarks/encoders.py cells correlated 2000 2 3 --decay=0.01     # in place of auto
python benchmarks/encoders.py v4 FOLDER_OF_v4_201025                    # split seeds 0, 1, 2
python benchmarks/encoders.py cost

cells: 12 cells of nonlinear share alpha and noise ceiling (data=cells). For each seed it prints
the mean over the voxels of a cell of R2 minus that of ridge regression, before and after the ridge
readout, the mean JNE by alpha, and Spearman's correlation of alpha and JNE at each ceiling.
cost: the ridge baseline and the ridge readout of a whole brain (226,000 voxels, 8,000 training and
1,000 validation stimuli), from one block of voxels, beside the products of a training epoch.
v4: macaque V4, layer 7 (experiment=v4): mean R2 of ridge, the linear and the nonlinear encoder.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from scipy.stats import spearmanr
from sklearn.model_selection import KFold

from jne.analysis.nonlinearity import jne
from jne.analysis.prediction import r2_score
from jne.cli import register_resolvers
from jne.data.datamodule import EncodingData
from jne.data.folds import N_FOLDS
from jne.data.prepared import prepare
from jne.encoders.ridge import RidgeCV
from jne.fitting.baseline import baseline_columns
from jne.fitting.fit import fit
from jne.jacobian import jacobian_deviation
from jne.stages import Stages
from jne.training.config import check_config
from jne.utils.machine import peak_memory_gb

CONF = str(Path(__file__).parents[1] / "conf")
N_JACOBIANS = 100


def run(folder: Path, *overrides: str) -> pd.DataFrame:
    """The voxel table with r2_ridge, r2_trained, r2 and jne."""
    with initialize_config_dir(CONF, version_base="1.3"):
        config, source = check_config(compose("train", [f"output={folder}", *overrides]))
    data = EncodingData(
        prepare(source, folder / "prepared"), batch_size=config.trainer.batch_size, seed=config.seed
    )
    table = data.prepared.voxels.iloc[data.kept].copy()
    table["r2_ridge"] = baseline_columns(["ridge"], data, Stages(folder / "stages"))["r2_ridge"]
    features, responses = data.split("test")
    for readout, column in (("trained", "r2_trained"), ("ridge", "r2")):
        encoder = config.encoder | {"linear_path": readout == "ridge"}
        start = time.monotonic()
        settings = config.model_copy(update={"encoder": encoder, "readout": readout})
        fitted = fit(data, settings)
        seconds = time.monotonic() - start
        predictions = fitted.encoder(features).detach().numpy()
        table[column] = r2_score(responses.numpy(), predictions)
    table["jne"] = jne(jacobian_deviation(fitted.encoder, features[:N_JACOBIANS]))
    print(f"  {len(fitted.history.epochs)} epochs, {seconds:.0f} s with the readout")
    return table


def cells(noise: str, n_train: int, seeds: list[int], more: list[str]) -> None:
    for seed in seeds:
        print(f"{noise} noise, {n_train} training stimuli, seed {seed} {' '.join(more)}")
        with tempfile.TemporaryDirectory() as folder:
            table = run(
                Path(folder),
                "data=cells",
                f"data.noise={noise}",
                f"data.seed={seed}",
                f"seed={seed}",
                f"data.n_train={n_train}",
                f"data.n_val={max(n_train // 8, 250)}",
                *more,
            )
        by_cell = table.groupby(["alpha", "noise_ceiling"])
        for column in ("r2_trained", "r2"):
            gain = (
                (table[column] - table["r2_ridge"])
                .groupby([table["alpha"], table["noise_ceiling"]])
                .mean()
            )
            print(f"  {column} - r2_ridge: smallest {gain.min():+.4f} at {gain.idxmin()}")
            print(gain.unstack().round(4).to_string())
        print("  JNE")
        print(by_cell["jne"].mean().unstack().round(3).to_string())
        rho = {
            ceiling: spearmanr(chosen["alpha"], chosen["jne"])[0]
            for ceiling, chosen in table.groupby("noise_ceiling")
        }
        print(
            "  Spearman(alpha, JNE):", {c: round(float(r), 3) for c, r in rho.items()}, flush=True
        )


def v4(root: str, more: list[str]) -> None:
    rows = []
    for seed in (0, 1, 2):
        row = {"split seed": seed}
        for encoder in ("linear", "nonlinear"):
            with tempfile.TemporaryDirectory() as folder:
                table = run(
                    Path(folder),
                    "experiment=v4",
                    *more,
                    f"data.root={root}",
                    "data.layer=7",
                    f"data.split_seed={seed}",
                    f"encoder={encoder}",
                )
            row["ridge"] = table["r2_ridge"].mean()
            row[f"{encoder}, trained"] = table["r2_trained"].mean()
            row[encoder] = table["r2"].mean()
        rows.append(row)
        print(pd.DataFrame(rows).round(4).to_string(index=False), flush=True)


def cost() -> None:
    n_train, n_val, n_features, width, n_voxels, block = 8000, 1000, 768, 1024, 226_000, 2**14
    n = n_train + n_val
    a = torch.randn(4096, 4096)
    a @ a
    start = time.monotonic()
    for _ in range(3):
        a @ a
    rate = 3 * 2 * 4096**3 / (time.monotonic() - start)
    weights = n_features * width + 2 * width**2 + width * n_voxels
    epoch = 6 * n_train * weights / rate
    print(f"product rate {rate / 1e9:.0f} GFLOP/s; products of an epoch: {epoch:.0f} s")
    responses = torch.randn(n, block)
    for name, inputs, splits in (
        (
            "ridge baseline",
            torch.randn(n, n_features),
            list(KFold(N_FOLDS).split(np.arange(n))),
        ),
        (
            "ridge readout",
            torch.randn(n, width + n_features),
            [(np.arange(n_train), np.arange(n_train, n))],
        ),
    ):
        start = time.monotonic()
        ridge = RidgeCV(inputs, splits)
        once = time.monotonic() - start
        ridge.fit(responses)
        whole = once + (time.monotonic() - start - once) * n_voxels / block
        print(
            f"{name}: {whole:.0f} s for {n_voxels} voxels, {whole / epoch:.1f} times the products"
        )
    print(f"peak memory {peak_memory_gb():.1f} GB")


if __name__ == "__main__":
    register_resolvers()
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    given = [a for a in sys.argv[1:] if a.startswith("--decay=")]
    more = [a.replace("--decay", "optimizer.weight_decay") for a in given]
    match arguments:
        case ["cells", noise, n_train, *seeds]:
            cells(noise, int(n_train), [int(seed) for seed in seeds], more)
        case ["v4", root]:
            v4(root, more)
        case ["cost"]:
            cost()
        case _:
            sys.exit(__doc__)

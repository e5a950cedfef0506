"""Do encoders trained on components of the responses equal those trained on the voxels themselves?

python benchmarks/response_space.py cells independent [OVERRIDE ...]
python benchmarks/response_space.py cells correlated [OVERRIDE ...]
python benchmarks/response_space.py v4 FOLDER_OF_v4_201025 [OVERRIDE ...]

cells, v4: training with seeds 0, 1 and 2 in either space (trainer.response_space) on the same data.
cells are 1,000 training stimuli and 4,800 voxels. v4 are 4,000 voxels made of the 89 neurons:
each a mean of three drawn with replacement, a tenth of its variance independent noise. Prints, per
space, means over seeds of R2 and JNE; then how far two runs are apart, for seeds of one space and
for the spaces, whatever the seed. How much faster: benchmarks/train_whole_brain.py.
"""

import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from scipy.stats import spearmanr

from jne.analysis.nonlinearity import jne
from jne.analysis.prediction import r2_score
from jne.cli import register_resolvers
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.fitting.fit import fit
from jne.jacobian import jacobian_deviation
from jne.training.config import check_config

CONF = str(Path(__file__).parents[1] / "conf")
SEEDS, SPACES = (0, 1, 2), ("voxels", "components")
N_JACOBIANS, EVERY = 100, 5


def run(folder: Path, seed: int, space: str, overrides: list[str]) -> pd.DataFrame:
    """R2 of all voxels, JNE of every fifth."""
    words = [f"output={folder}", f"seed={seed}", f"trainer.response_space={space}", *overrides]
    with initialize_config_dir(CONF, version_base="1.3"):
        config, source = check_config(compose("train", words))
    prepared = prepare(source, folder / "prepared")
    data = EncodingData(prepared, batch_size=config.trainer.batch_size, seed=seed)
    start = time.monotonic()
    fitted = fit(data, config)
    seconds = time.monotonic() - start
    features, responses = data.split("test")
    with torch.no_grad():
        predictions = fitted.encoder(features).numpy()
    table = prepared.voxels.iloc[data.kept].copy()
    table["r2"] = r2_score(responses.numpy(), predictions)
    some = np.arange(0, len(table), EVERY)
    deviation = jacobian_deviation(fitted.encoder, features[:N_JACOBIANS], voxels=some)
    table["jne"] = np.nan
    table.iloc[some, -1] = jne(deviation)
    history = fitted.history
    losses = history.epochs["val/loss"]
    print(
        f"  {space} seed {seed}: R2 {table['r2'].mean():.4f}, JNE {table['jne'].mean():.4f}, best "
        f"of {len(losses)} epochs {history.best_epoch} (val {losses.min():.4f}), {seconds:.0f} s",
        flush=True,
    )
    return table


def compare(overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            (space, seed): run(Path(folder), seed, space, overrides)
            for seed in SEEDS
            for space in SPACES
        }
    measured = runs["voxels", 0]["jne"].notna().to_numpy()
    rows = []
    for name, pairs in (
        ("seeds, voxels", [(("voxels", a), ("voxels", b)) for a, b in _pairs()]),
        ("seeds, components", [(("components", a), ("components", b)) for a, b in _pairs()]),
        ("spaces", list(itertools.product(*([(s, k) for k in SEEDS] for s in SPACES)))),
    ):
        row: dict[str, object] = {"between": name}
        for column in ("r2", "jne"):
            values = [[runs[key][column].to_numpy()[measured] for key in pair] for pair in pairs]
            row[f"{column}: mean difference"] = np.mean([b.mean() - a.mean() for a, b in values])
            row[f"{column}: rms per voxel"] = np.mean([np.std(b - a) for a, b in values])
            row[f"{column}: r"] = np.mean([np.corrcoef(a, b)[0, 1] for a, b in values])
        rows.append(row)
    print(pd.DataFrame(rows).round(4).to_string(index=False))
    if "alpha" in runs["voxels", 0]:
        for space in SPACES:
            table = pd.concat([runs[space, seed][measured] for seed in SEEDS])
            rho = {
                ceiling: round(float(spearmanr(cell["alpha"], cell["jne"])[0]), 3)
                for ceiling, cell in table.groupby("noise_ceiling")
            }
            print(f"{space}: Spearman(alpha, JNE) by ceiling {rho}")


def _pairs() -> list[tuple[int, int]]:
    return list(itertools.combinations(SEEDS, 2))


def v4(root: Path, overrides: list[str]) -> None:
    rng = np.random.default_rng(0)
    neurons = np.load(root / "responses.npy").astype(np.float32)
    neurons = (neurons - neurons.mean(1, keepdims=True)) / neurons.std(1, keepdims=True)
    voxels = neurons[rng.integers(len(neurons), size=(4000, 3))].mean(axis=1)
    voxels += voxels.std(1, keepdims=True) / 3 * rng.standard_normal(voxels.shape)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "responses.npy"), voxels.astype(np.float32))
        Path(folder, "features.npy").symlink_to(root / "features.npy")
        compare(["experiment=v4", f"data.root={folder}", *overrides])


def main(arguments: list[str]) -> None:
    match arguments:
        case ["cells", noise, *overrides]:
            size = ["data.voxels_per_cell=400", "data.n_train=1000", "data.n_val=250"]
            compare(["data=cells", f"data.noise={noise}", *size, *overrides])
        case ["v4", root, *overrides]:
            v4(Path(root), overrides)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    register_resolvers()
    main(sys.argv[1:])

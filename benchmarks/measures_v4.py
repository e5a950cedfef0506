"""What do the measures of simulation=measures say of macaque V4?

python benchmarks/measures_v4.py FOLDER_OF_v4_201025    # from pixels, and from layers 1, 7 and 12
python benchmarks/measures_v4.py FOLDER_OF_v4_210325    # from 100 components of pixels; repeats

Median over units of each measure and how many units are nonlinear at q = .1; Spearman's r between
two splits of the stimuli, each with its own encoder, and with JNE. With repeats, the validated
share of all units together beside their share.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from evidence import v4_features
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from scipy.stats import spearmanr
from share import read_v4

from jne.cli import register_resolvers
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.simulation.candidates import MEASURES, FittedCohort, Measured, measured
from jne.stages import Stages
from jne.training.config import check_config
from jne.utils.progress import without_progress

CONF = str(Path(__file__).parents[1] / "conf")
FIRST_SEED = 9000
WITH_REPEATS = "nonlinear_share"


def fitted(features: NDArray, responses: NDArray, seed: int, folder: Path) -> FittedCohort:
    """A session with a split and an encoder of this seed; features (N, D)."""
    np.save(folder / "features.npy", np.asarray(features, dtype=np.float32))
    np.save(folder / "responses.npy", responses)
    n = len(features)
    settings = [
        "experiment=v4", "data.layer=null", "data.transpose_responses=false",
        f"data.root={folder}", f"data.split_seed={seed}", f"seed={seed}", f"output={folder}",
        f"data.n_test={n // 5}", f"data.n_val={n // 10}",
    ]  # fmt: skip
    config, source = check_config(compose("train", settings))
    prepared = prepare(source, folder / "prepared")
    data = EncodingData(prepared, batch_size=None, seed=seed)
    return FittedCohort(data, config, Stages(folder / "stages"), folder)


def report(name: str, features: NDArray, responses: NDArray) -> None:
    names = [n for n in MEASURES if responses.ndim == 3 or n != WITH_REPEATS]
    splits: list[dict[str, Measured]] = []
    for seed in (FIRST_SEED, FIRST_SEED + 1):
        with tempfile.TemporaryDirectory() as folder, without_progress():
            cohort = fitted(features, responses, seed, Path(folder))
            splits.append({n: measured(n, MEASURES[n], cohort) for n in names})
            validated = cohort.evidence[1].share()
            texts = [f"validated {interval(*(part[-1] for part in validated))}"]
            if responses.ndim == 3:
                shares = cohort.share.regions
                row = shares.table({"all": shares.rois}).iloc[0]
                ends = ("nonlinear_share", "nonlinear_share_low", "nonlinear_share_high")
                texts.append(f"without an encoder {interval(*row[list(ends)])}")
        print(f"{name}, seed {seed}: share of all units together, {'; '.join(texts)}", flush=True)
    first, second = splits
    rows = {
        n: {
            "median": np.nanmedian(first[n].value),
            "nonlinear": np.nan if first[n].q is None else (first[n].q <= 0.1).sum(),
            "r of splits": spearman(first[n].value, second[n].value),
            "r with JNE": spearman(first[n].value, first["jne"].value),
        }
        for n in names
    }
    units = len(first["jne"].value)
    print(
        f"{name}, {units} units\n{pd.DataFrame(rows).T.to_string(float_format='%.3g')}", flush=True
    )


def interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def spearman(x: NDArray, y: NDArray) -> float:
    return float(spearmanr(x, y, nan_policy="omit").statistic)


def main(root: Path) -> None:
    register_resolvers()
    with initialize_config_dir(CONF, version_base="1.3"):
        if (root / "responses_raw.npy").exists():
            images, trials = read_v4(root)
            u, s, _ = np.linalg.svd(images - images.mean(axis=0), full_matrices=False)
            rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((100, 100)))[0]
            report("pixels", (u[:, :100] * s[:100]) @ rotation, trials)
            return
        responses = np.load(root / "responses.npy").T
        for layer in ("pixels", "1", "7", "12"):
            name = layer if layer == "pixels" else f"layer {layer}"
            report(name, v4_features(root, layer), responses)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))

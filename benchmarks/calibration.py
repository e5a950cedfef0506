"""The test against linear twins (docs/inference.md) on voxels whose nonlinearity is known.

python benchmarks/calibration.py 100 101 102                # cohorts of data=cells, by their seeds
python benchmarks/calibration.py 100 noise=correlated       # one structure of noise
python benchmarks/calibration.py 100 data.n_train=400 data.voxels_per_cell=10 control.draws=2
python benchmarks/calibration.py table=FILE.csv             # the tables of cohorts trained before

A number is a seed: of the subject, of the weights and of the twins. Any other KEY=VALUE goes to
train.py. A cohort of 480 voxels takes about a minute per structure of noise. Each is added to
table=FILE (outputs/calibration.csv); one that is there with the same settings is not trained again.

For each structure of noise:

P(W > 0)  of truly linear voxels (alpha 0), by noise ceiling; 0.5 if the test is calibrated. The
          interval is what 0.5 gives with 99 %, voxels taken as independent.
FDP       the share of linear voxels among those found, mean over cohorts and standard error, over
          all voxels
power     share of voxels found at q = .1, by alpha and noise ceiling
"""

import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from scipy import stats

from jne.cli import register_resolvers
from jne.data.cells import NOISES
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.results.contents import twin_q, voxel_table
from jne.training.config import check_config
from jne.training.fit import fit, test
from jne.training.measure import measure_nonlinearity, score_test
from jne.training.module import EncodingModule
from jne.training.twins import make_twins

ROOT = Path(__file__).parents[1]
RATES = (0.05, 0.1, 0.2)
COLUMNS = ["alpha", "noise_ceiling", "r2", "r2_twin", "p_fdr", "jne", "jne_twin", "w", "q"]


def cohort(seed: int, overrides: list[str]) -> pd.DataFrame:
    """The voxel table of `python train.py data=cells control=twins ...`."""
    with (
        tempfile.TemporaryDirectory() as name,
        initialize_config_dir(str(ROOT / "conf"), version_base="1.3"),
    ):
        folder = Path(name)
        seeds = [f"output={folder}", f"seed={seed}", f"data.seed={seed}"]
        settings = ["data=cells", "control=twins", *seeds, *overrides]
        config, source = check_config(compose("train", settings))
        prepared = prepare(source, folder)
        data = EncodingData(prepared, batch_size=config.trainer.batch_size, seed=seed)
        data.add_twins(make_twins(data, config.control, seed, folder / "twins.npy"))
        pl.seed_everything(seed, verbose=False)
        module = EncodingModule(data.n_features, data.n_outputs, config.encoder, config.optimizer)
        save_to = folder / "last.ckpt"
        fit(module, data, config.trainer, readout=config.readout, save_to=save_to)

        def measure(predictions):
            scores = score_test(data, predictions, config.stats, seed)
            return scores, measure_nonlinearity(
                module.encoder, data, scores, config.jacobian, config.stats.alpha, folder
            )

        scores, nonlinearity = test(module, data, config.trainer, measure)
        table = voxel_table(
            prepared.voxels, data.voxel_status, data.kept, scores.columns, nonlinearity.columns
        )
    table["q"] = twin_q(table)
    return table[COLUMNS]


def proportion_false(found: pd.DataFrame) -> float:
    return float((found["alpha"] == 0).mean()) if len(found) else 0.0


def show(table: pd.DataFrame, settings: str) -> None:
    for noise, voxels in table[table["settings"] == settings].groupby("noise"):
        seeds = sorted(voxels["seed"].unique())
        print(f"\n{noise}, {len(seeds)} cohorts (seeds {', '.join(map(str, seeds))}) {settings}")
        linear = voxels[voxels["alpha"] == 0]
        for ceiling, cell in linear.groupby("noise_ceiling"):
            n, share = len(cell), (cell["w"] > 0).mean()
            low, high = np.array(stats.binom.interval(0.99, n, 0.5)) / n
            mark = "" if low <= share <= high else "  OUTSIDE"
            print(f"  P(W > 0), ceiling {ceiling:4}: {share:.3f}  [{low:.3f}, {high:.3f}]{mark}")
        for rate in RATES:
            found = voxels[voxels["q"] <= rate]
            each = [proportion_false(found[found["seed"] == seed]) for seed in seeds]
            error = np.std(each, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
            print(f"  FDP at q = {rate:4}: {np.mean(each):.3f} ± {error:.3f}")
        nonlinear = voxels[voxels["alpha"] > 0]
        power = (nonlinear["q"] <= 0.1).groupby([nonlinear["alpha"], nonlinear["noise_ceiling"]])
        print("  power at q = 0.1, alpha by ceiling")
        print("    " + power.mean().unstack().round(2).to_string().replace("\n", "\n    "))
        jne = voxels.groupby("alpha")[["jne", "jne_twin"]].mean().round(3)
        print("    " + jne.T.to_string().replace("\n", "\n    "))


def main() -> None:
    register_resolvers()
    seeds = [int(word) for word in sys.argv[1:] if word.isdigit()]
    keys = [word for word in sys.argv[1:] if not word.isdigit()]
    values = {word.split("=", 1)[0]: word.split("=", 1)[1] for word in keys}
    file = Path(values.pop("table", ROOT / "outputs" / "calibration.csv"))
    noises = values.pop("noise", ",".join(NOISES)).split(",")
    overrides = [f"{key}={value}" for key, value in sorted(values.items())]
    settings = " ".join(overrides) or "default"
    table = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["settings"])
    for seed, noise in itertools.product(seeds, noises):
        if (
            len(table)
            and (table[["settings", "noise", "seed"]] == [settings, noise, seed]).all(axis=1).any()
        ):
            continue
        voxels = cohort(seed, [*overrides, f"data.noise={noise}"])
        voxels = voxels.assign(settings=settings, noise=noise, seed=seed)
        table = pd.concat([table, voxels], ignore_index=True) if len(table) else voxels
        file.parent.mkdir(exist_ok=True)
        table.to_csv(file, index=False)
    for name in [settings] if seeds else sorted(table["settings"].unique()):
        show(table, name)


if __name__ == "__main__":
    main()

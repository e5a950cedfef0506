"""Which units of a macaque V4 session are nonlinear, and how stable is the answer?

python benchmarks/nonlinear_v4.py FOLDER_OF_v4_201025              # split seeds 0 to 4
python benchmarks/nonlinear_v4.py FOLDER_OF_v4_201025 experiment=v4 optimizer.weight_decay=0.01

Linear twins (control=twins) for each split of the stimuli, and once more with responses to other
stimuli (shuffled). One row each: units found at q = .1, P(W > 0), the median W, Spearman's
correlation of W and JNE, the median gain and shape change. At the end, how many units are found in
how many of the splits, and the correlation of W between splits.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from scipy.stats import spearmanr

from jne.cli import register_resolvers
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.results.contents import twin_q
from jne.stages import Stages
from jne.training.config import check_config
from jne.training.steps import fit_and_measure

CONF = str(Path(__file__).parents[1] / "conf")
SPLITS = range(5)


def units(root: str, split: int, shuffle: bool, overrides: list[str]) -> pd.DataFrame:
    with (
        tempfile.TemporaryDirectory() as name,
        initialize_config_dir(CONF, version_base="1.3"),
    ):
        folder = Path(name)
        settings = [f"data.root={root}", "data.layer=7", f"data.split_seed={split}"]
        settings += ["control=twins", f"output={folder}", f"seed={split}"]
        config, source = check_config(compose("train", [*overrides, *settings]))
        data = EncodingData(
            prepare(source, folder / "prepared"),
            batch_size=config.trainer.batch_size,
            seed=config.seed,
            shuffle=shuffle,
        )
        table = fit_and_measure(data, config, Stages(folder / "stages"), folder).voxels()
    return table.assign(q=twin_q(table))


def main(root: str, overrides: list[str]) -> None:
    register_resolvers()
    if not any(override.startswith("experiment=") for override in overrides):
        overrides = ["experiment=v4", *overrides]
    rows, found, w = [], [], []
    for shuffle in (False, True):
        for split in SPLITS:
            table = units(root, split, shuffle, overrides)
            rows.append(
                {
                    "responses": "shuffled" if shuffle else "real",
                    "split": split,
                    "units": len(table),
                    "nonlinear": int((table["q"] <= 0.1).sum()),
                    "P(W > 0)": (table["w"] > 0).mean(),
                    "median W": table["w"].median(),
                    "r(W, JNE)": spearmanr(table["w"], table["jne"])[0],
                    "gain": table["gain_change"].median(),
                    "shape": table["shape_change"].median(),
                    "R2": table["r2"].mean(),
                }
            )
            print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False), flush=True)
            if not shuffle:
                found.append(table["q"] <= 0.1)
                w.append(table["w"])
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    times = np.sum(found, axis=0)
    print("units by the number of splits in which they are found:")
    print(" ".join(f"{k}: {(times == k).sum()}" for k in range(len(found) + 1)))
    between = spearmanr(np.array(w), axis=1)[0][np.triu_indices(len(w), 1)]
    print(f"Spearman's r of W between splits: {between.min():.2f} to {between.max():.2f}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])

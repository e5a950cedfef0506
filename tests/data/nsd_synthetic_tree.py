"""NSD-synthetic beside a small NSD tree, in the layout in which it is released: random numbers."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from nsd_tree import BETAS, GRID, N_FSAVERAGE, SUBJECT, save_mgh
from scipy.io import savemat

N_TRIALS, N_IMAGES = 744, 284
INVALID = (2, 2, 2)  # a voxel that is 0 in every trial


def order() -> np.ndarray:
    """As often as in the release: 236 images twice, 32 four, 8 eight and 8 ten times."""
    rng = np.random.default_rng(11)
    counts = rng.permutation(np.repeat([2, 4, 8, 10], [236, 32, 8, 8]))
    return rng.permutation(np.repeat(np.arange(1, N_IMAGES + 1), counts))


def write_nsd_synthetic(root: Path, space: str = "func1pt8mm", size: int = 12) -> Path:
    rng = np.random.default_rng(12)
    design = root / "nsddata" / "experiments" / "nsdsynthetic"
    stimuli = root / "nsddata_stimuli" / "stimuli" / "nsdsynthetic"
    betas = root / "nsddata_betas" / "ppdata" / SUBJECT / space / f"nsdsynthetic{BETAS}"
    for folder in (design, stimuli, betas):
        folder.mkdir(parents=True, exist_ok=True)
    shown = order()
    savemat(design / "nsdsynthetic_expdesign.mat", {
        "masterordering": shown[None].astype(np.float64),
        "stimpattern": np.ones((1, 8, 107)),
    })  # fmt: skip
    classes = pd.DataFrame({"Image number": np.arange(N_IMAGES) + 1, "Image": "x"})
    classes["Image class"] = np.repeat(["noise", "scenes", "gratings", "colour"], 71)
    classes.to_csv(design / "nsdsyntheticimageinformation.csv", index=False)
    for name, n in (("stimuli", 220), (f"colorstimuli_{SUBJECT}", 64)):
        with h5py.File(stimuli / f"nsdsynthetic_{name}.hdf5", "w") as file:
            file["imgBrick"] = rng.integers(0, 256, (n, size, 2 * size, 3), dtype=np.uint8)
    if space == "fsaverage":
        for side in ("lh", "rh"):
            signal = rng.standard_normal((50, N_IMAGES))[:, shown - 1]
            values = np.full((N_FSAVERAGE, 1, 1, N_TRIALS), np.nan, dtype=np.float32)
            values[:50, 0, 0] = signal + rng.standard_normal(signal.shape)
            save_mgh(betas / f"{side}.betas_nsdsynthetic.mgh", values)
        return root
    signal = rng.standard_normal((N_IMAGES, *GRID))[shown - 1]
    percent = 2 * signal + rng.standard_normal(signal.shape)
    raw = np.rint(percent * 300).astype(np.int16)
    raw[(slice(None), *INVALID)] = 0
    with h5py.File(betas / "betas_nsdsynthetic.hdf5", "w") as file:
        file.create_dataset("betas", data=raw.transpose(0, 3, 2, 1), chunks=(N_TRIALS, 1, 1, 1))
    return root

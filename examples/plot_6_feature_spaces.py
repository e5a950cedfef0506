"""
Several feature spaces: what does each explain?
===============================================

Features may be of several spaces side by side, such as two models or a model and depth. Banded
ridge regression shares out R² over the spaces, variance partitioning says what each explains
alone, and one nonlinear encoder is trained on all of them (:doc:`/features`). Here the truth is
known: there are voxels of one space, of the other, and of both.
"""

# %%
# Two arrays of very different width
# ----------------------------------
#
# 200 features of objects and 12 of depth. Half of what the two say is the same: the first six
# features of objects are depth, mixed.

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
n, n_voxels = 900, 60
depth = rng.standard_normal((n, 12))
objects = rng.standard_normal((n, 200))
objects[:, :6] = depth[:, :6] @ np.linalg.qr(rng.standard_normal((6, 6)))[0]

of_objects = objects[:, 50:60] @ rng.standard_normal((10, n_voxels))
of_depth = depth[:, 6:] @ rng.standard_normal((6, n_voxels))
of_both = depth[:, :6] @ rng.standard_normal((6, n_voxels))
kind = np.repeat(["objects", "depth", "either"], n_voxels // 3)
signal = np.select([kind == "objects", kind == "depth"], [of_objects, of_depth], of_both)
responses = signal / signal.std(axis=0) + rng.standard_normal((n, n_voxels))

folder = Path(tempfile.mkdtemp())
for name, array in {"objects": objects, "depth": depth, "responses": responses}.items():
    np.save(folder / f"{name}.npy", array.astype(np.float32))
pd.DataFrame({"roi": kind}).to_csv(folder / "voxels.csv", index=False)

# %%
# One run
# -------
#
# In a shell: ``jne train data=arrays 'data.features={objects: objects.npy, depth: depth.npy}'
# 'baseline=[ridge,banded,partition]' ...``

command = [
    *(sys.executable, "-m", "jne", "train", f"output={folder / 'outputs'}", "data=arrays"),
    *(f"data.root={folder}", "data.responses=responses.npy", "data.voxels=voxels.csv"),
    "data.features={objects: objects.npy, depth: depth.npy}",
    *("baseline=[ridge,banded,partition]", "data.n_test=200", "encoder.hidden_width=64"),
]
done = subprocess.run(command, capture_output=True, text=True, check=True)
print("\n".join(line for line in done.stdout.splitlines() if line.startswith("R²")))

# %%
# R² by space
# -----------
#
# ``Results.spaces`` has a row per voxel and space. In voxels that either space explains, banded
# ridge regression takes it all from depth, where it needs fewer weights (``r2_split``). Yet without
# depth little is lost, since objects then say most of it (``r2_unique``): it is shared.

from jne import Results

run = Results.newest(folder / "outputs")
voxels = run.voxels.set_index("voxel")
table = run.spaces[["r2_split", "r2_unique"]].join(voxels["roi"].astype(str))
table = table.drop("interaction", level="space")  # of nonlinear maps alone
table.groupby(["roi", "space"], sort=False).mean().unstack().round(2)

# %%
# A penalty for each space also predicts better than one for all features.

voxels.groupby(voxels["roi"].astype(str))[["r2_ridge", "r2_banded", "r2_shared"]].mean().round(3)

# %%
# In a picture
# ------------

import matplotlib.pyplot as plt

from jne.plots.style import STYLE

plt.rcParams.update(STYLE)
figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), sharex=True, sharey=True, layout="constrained")
colours = {"objects": "#0072B2", "depth": "#D55E00", "either": "#7F7F7F"}
titles = {"r2_split": "parts of one fit", "r2_unique": "lost without the space"}
for axis, (column, title) in zip(axes, titles.items(), strict=True):
    values = run.spaces[column].unstack()
    for roi, colour in colours.items():
        rows = values[voxels["roi"] == roi]
        axis.plot(rows["objects"], rows["depth"], ".", ms=5, alpha=0.6, color=colour, label=roi)
    axis.axhline(0, color="black", lw=0.7)
    axis.axvline(0, color="black", lw=0.7)
    axis.set(title=title, xlabel="R² of objects")
axes[0].set(ylabel="R² of depth")
axes[0].legend(title="what a voxel is of")

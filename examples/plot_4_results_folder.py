"""
A results folder, with pandas and nilearn
=========================================

A run of ``jne train`` leaves a folder of tables and arrays. This example makes one on the
synthetic cohort, whose voxels have a place on fsaverage5, reads it with :class:`jne.Results`, and
goes on with pandas and nilearn.
"""

# %%
# A run
# -----
#
# In a shell this is ``jne train data.n_train=1500 ...``. The cohort is a little smaller than its
# default.

import subprocess
import sys
import tempfile
from pathlib import Path

output = Path(tempfile.mkdtemp())
command = [
    *(sys.executable, "-m", "jne", "train", f"output={output}"),
    *("data.n_features=256", "data.n_train=1500", "encoder.hidden_width=256"),
]
done = subprocess.run(command, capture_output=True, text=True, check=True)
print(done.stdout[done.stdout.index("┏") : done.stdout.index("results")])

# %%
# Tables
# ------
#
# :class:`jne.Results` checks the whole folder before anything is computed from it. ``voxels`` has
# one row per voxel. This cohort is synthetic, so it also has the truth: ``alpha`` is the share of
# a voxel's explainable response that no linear encoder can reach.

from jne import Results

(folder,) = (output / "runs").iterdir()
run = Results(folder)
columns = ["alpha", "noise_ceiling", "r2_ridge", "r2", "jne", "mean_deviation"]
run.voxels.groupby("roi", observed=True)[columns].mean().round(2)

# %%
# What is a voxel's JNE worth where the response is not predicted? Keep those that are significant
# at a false discovery rate of 5 %.

significant = run.voxels[run.voxels["p_fdr"] < 0.05]
print(f"{len(significant)} of {len(run.voxels)} voxels")
print(significant[["alpha", "jne", "mean_deviation"]].corr("spearman").round(2))

# %%
# Arrays
# ------
#
# Arrays are memory-mapped, (n_test, n_voxels). JNE-SS says which stimuli a region is most
# nonlinear for: the cohort's FFA prefers people, its PPA outdoor scenes.

import pandas as pd

jne_ss = run.array("jne_ss")
category = run.stimuli["category"].to_numpy()
preferred = pd.DataFrame(
    {
        roi: pd.Series(jne_ss[:, rows].mean(axis=1)).groupby(category).mean()
        for roi, rows in run.voxels.groupby("roi", observed=True).indices.items()
        if roi in ("V1", "PPA", "RSC", "FFA-1", "FFA-2")
    }
)
preferred.idxmax().rename("most nonlinear for").to_frame().T

# %%
# On the brain
# ------------
#
# ``hemisphere`` and ``vertex`` say where a voxel is. :func:`jne.plots.brain_files.write_maps`
# writes GIFTI files that nilearn and Connectome Workbench open; :func:`jne.plotting.plot_map` draws
# them. All functions of ``jne.plotting`` take a run, and draw into the axes they are given.

import numpy as np

from jne import plotting

plotting.plot_map(run, "jne")

# %%

plotting.plot_by_roi(run, "jne")

# %%
# The summary: how much of the signal is nonlinear, how much of that the encoder has found, and how
# well it predicts.

plotting.plot_summary(run)

# %%
# The encoder
# -----------
#
# ``encoder()`` gives back the trained network, for whatever was not computed at the time. Here JNE
# with the L2 norm of the deviations in place of the L1 norm: the map is nearly the same.

import jne

l2 = jne.jne(jne.jacobian_deviation(run.encoder(), run.array("features"), variant="l2"))
print(f"r of the two maps: {np.corrcoef(run.voxels['jne'], l2)[0, 1]:.3f}")

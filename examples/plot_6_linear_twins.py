"""
Linear twins: which voxels are nonlinear?
=========================================

JNE has no threshold: a linear voxel, too, has a JNE above 0 once a nonlinear encoder has fitted
some of its noise. A linear twin beside each voxel says how much that is, and how many of the
voxels found are false discoveries (:doc:`/inference`). Here we know the truth, and check.
"""

# %%
# Voxels and their twins, in one encoder
# --------------------------------------
#
# 300 voxels, with four nonlinear shares alpha of their explainable response. The noise leaves at
# most R² = 0.6. ``control=twins`` trains one encoder on the voxels and their twins. In a shell:
# ``jne train control=twins data=cells ...``.

import subprocess
import sys
import tempfile
from pathlib import Path

output = Path(tempfile.mkdtemp())
command = [
    *(sys.executable, "-m", "jne", "train", f"output={output}", "control=twins", "data=cells"),
    *("data.alpha=[0,0.1,0.3,0.6]", "data.noise_ceiling=[0.6]", "data.voxels_per_cell=75"),
    *("data.n_features=64", "data.n_train=1500", "data.n_test=300", "encoder.hidden_width=256"),
]
done = subprocess.run(command, capture_output=True, text=True, check=True)

# %%
# W, the JNE of a voxel minus that of its twin
# --------------------------------------------
#
# If a voxel is linear, it and its twin are exchangeable: W is as likely to be positive as
# negative. The negative W are therefore a count of the false positives to expect above the same
# threshold, and :func:`~jne.analysis.inference.knockoff_q` turns them into a false discovery rate.

from jne import Results
from jne.analysis.inference import knockoff_q, knockoff_threshold, knockoff_w

(folder,) = (output / "runs").iterdir()
voxels = Results(folder).voxels
w = knockoff_w(voxels["jne"].to_numpy(), voxels[["jne_twin"]].to_numpy().T)  # (n_voxels,)
voxels["found"] = knockoff_q(w) <= 0.1
threshold = knockoff_threshold(w, rate=0.1)

by_alpha = voxels.groupby("alpha")
by_alpha[["r2_ridge", "r2", "jne", "jne_twin", "w", "found"]].mean().round(3)

# %%
# Linear voxels (alpha 0) have the JNE of their twins. The larger the nonlinear share, the more
# voxels are found. Among all voxels found, how many are linear?

discoveries = voxels[voxels["found"]]
print(f"found {len(discoveries)}, of them linear {(discoveries['alpha'] == 0).sum()}")
print(
    f"share of linear voxels with W > 0: {(voxels.loc[voxels['alpha'] == 0, 'w'] > 0).mean():.2f}"
)

# %%
# In a picture
# ------------
#
# Left: a voxel on the diagonal is as nonlinear as its twin. Right: W by the truth; the dashed line
# is the threshold at a rate of 10 %.

import matplotlib.pyplot as plt
import numpy as np

from jne.plots.style import STYLE

plt.rcParams.update(STYLE)
colours = dict(zip(by_alpha.groups, ("#7F7F7F", "#0072B2", "#009E73", "#D55E00"), strict=True))
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
left.plot([0.005, 2], [0.005, 2], color="black", lw=0.7)
for position, (alpha, rows) in enumerate(by_alpha):
    left.plot(
        rows["jne_twin"], rows["jne"], ".", ms=4, color=colours[alpha], label=f"alpha {alpha}"
    )
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(rows))
    right.plot(position + jitter, rows["w"], ".", ms=4, color=colours[alpha])
right.axhline(0, color="black", lw=0.7)
right.axhline(threshold, color="black", lw=1, ls="--")
ticks, limits = [0.01, 0.03, 0.1, 0.3, 1], (0.007, 1.5)
left.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
left.set_xticks(ticks, ticks)
left.set_yticks(ticks, ticks)
left.minorticks_off()
left.set(xlabel="JNE of the linear twin", ylabel="JNE")
left.legend(loc="lower right")
right.set_xticks(range(len(colours)), [f"{alpha:g}" for alpha in colours])
right.set(xlabel="alpha, the nonlinear share", ylabel="W")

# %%
# ``jne evaluate`` does all this for finished runs, by ROI and tier, with intervals and tests.

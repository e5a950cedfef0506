"""
An encoder and an array, in a notebook
======================================

JNE needs no config, no data format and no framework but torch: an encoder, and the features of the
stimuli. Here a small network is trained on four surrogate voxels whose nonlinearity we know.
"""

# %%
# Four voxels
# -----------
#
# Each reads 20 features. One is linear. One has an output nonlinearity: it saturates, whatever it
# reads. One listens to other features for one half of the stimuli than for the other. One is pure
# noise.

import numpy as np
import torch

rng = np.random.default_rng(0)
n_train, n_test, n_features = 4000, 500, 20
features = rng.standard_normal((n_train + n_test, n_features)).astype("float32")
first, second, context = np.linalg.qr(rng.standard_normal((n_features, 3)))[0].T  # orthogonal
drive, other, gate = features @ first, features @ second, features @ context

names = ["linear", "saturating", "switching", "noise"]
signal = np.stack(
    [
        drive,
        np.tanh(1.5 * drive),
        np.where(gate > 0, drive, other),
        np.zeros_like(drive),
    ],
    axis=1,
)
responses = signal + 0.5 * rng.standard_normal(signal.shape)
responses = ((responses - responses.mean(axis=0)) / responses.std(axis=0)).astype("float32")

# %%
# Any training will do
# --------------------
#
# :class:`jne.ResidualEncoder` is the encoder of Gao et al. (2025), an ordinary ``nn.Module``. A
# network of your own works as well, as long as it maps rows to rows.

from jne import ResidualEncoder

torch.manual_seed(0)
encoder = ResidualEncoder(n_features, len(names), hidden_width=128, n_hidden=2, activation="gelu")
optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=0.1)
x, y = torch.from_numpy(features[:n_train]), torch.from_numpy(responses[:n_train])
for _epoch in range(12):
    for rows in torch.randperm(n_train).split(100):
        optimizer.zero_grad()
        loss = (encoder(x[rows]) - y[rows]).square().mean()
        loss.backward()
        optimizer.step()
encoder.eval()

# %%
# Deviations, and what follows from them
# --------------------------------------
#
# One call gives the deviation of each stimulus's Jacobian from the mean Jacobian, per voxel; JNE,
# the mean deviation and JNE-SS are moments of it. ``gain_shape=True`` also splits each Jacobian
# into a multiple of the mean one and a rest (:doc:`/metrics`).

import pandas as pd

import jne
from jne.analysis.nonlinearity import gain_change, shape_change
from jne.analysis.prediction import r2_score

x_test, y_test = torch.from_numpy(features[n_train:]), responses[n_train:]
arrays = jne.jacobian_deviation(encoder, x_test, variant=["l1"], gain_shape=True)
deviation = arrays["l1"]  # (n_test, n_voxels)
with torch.no_grad():
    r2 = r2_score(y_test, encoder(x_test).numpy())

table = pd.DataFrame(
    {
        "R²": r2,
        "JNE": jne.jne(deviation),
        "mean deviation": jne.mean_deviation(deviation),
        "gain change": gain_change(arrays["gain"]),
        "shape change": shape_change(arrays["shape"]),
    },
    index=names,
)
table.round(2)

# %%
# The linear voxel has the smallest JNE of those that can be predicted, and it is not 0: the
# network has fitted some noise. (The noise voxel shows how little a JNE means without an R²: look
# at JNE where a voxel is predicted; :func:`jne.evidence` tests it on unseen responses.) The
# saturating voxel changes its gain, the switching voxel its shape: it reads other features.
#
# Which stimuli is a voxel nonlinear for?
# ---------------------------------------
#
# JNE-SS answers for each stimulus. A saturating voxel has its steepest slope near 0 and none in
# its tails, so both are unusual; the switching voxel is at its most unusual where it is switched,
# near a gate of 0.

import matplotlib.pyplot as plt

from jne.plots.style import STYLE

plt.rcParams.update(STYLE)
by_stimulus = jne.jne_ss(deviation)  # (n_test, n_voxels)
figure, panels = plt.subplots(1, 3, figsize=(7, 2.5), layout="constrained")
curves = [("linear", drive, "drive"), ("saturating", drive, "drive"), ("switching", gate, "gate")]
for panel, (name, axis, label) in zip(panels, curves, strict=True):
    column = names.index(name)
    s = deviation[:, column]
    colour = {"c": by_stimulus[:, column], "cmap": "viridis", "vmin": 0, "vmax": 4}
    panel.scatter(axis[n_train:], s, s=6, **colour)
    panel.axhline(s.mean(), color="#7F7F7F", lw=1)
    panel.set(title=f"{name}, JNE {table.loc[name, 'JNE']:.2f}", xlabel=label)
    panel.set_ylim(0, deviation[:, :3].max() * 1.05)
panels[0].set_ylabel("deviation s of a stimulus")

# %%
# Grey is the mean deviation. JNE is the spread around it; bright points have a large JNE-SS.

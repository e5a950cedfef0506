"""
In which feature space, and along which directions?
===================================================

After "how nonlinear is a voxel?" comes "in what?". With features of several kinds, such as those of
an image and of its caption, JNE has a value in each (:func:`jne.jacobian_deviation`), unseen
responses say in which the nonlinearity is real (:func:`jne.space_evidence`), and
:func:`jne.switching` shows the directions of feature space along which the Jacobian moves.
"""

# %%
# Voxels
# ------
#
# Two feature spaces of 12 features each. Of 48 voxels, twelve are linear in both; twelve are
# nonlinear in the image alone, twelve in the caption alone, and twelve in a product of the two.

import numpy as np
import torch
from torch import nn

spaces = {"image": slice(0, 12), "caption": slice(12, 24)}
kinds = ["linear", "image", "caption", "interaction"]
kind = np.repeat(np.arange(4), 12)

rng = np.random.default_rng(0)
n, n_features = 5000, 24
X = rng.standard_normal((n, n_features)).astype("float32")
directions = np.linalg.qr(rng.standard_normal((2, 12, 2)))[0]  # two directions in each space
u, v = X[:, spaces["image"]] @ directions[0], X[:, spaces["caption"]] @ directions[1]
gates = {
    1: np.maximum(u - 0.3, 0),
    2: np.maximum(v - 0.3, 0),
    3: u * v,
}
signal = X @ rng.standard_normal((n_features, 48)) / np.sqrt(n_features)
for k, gate in gates.items():
    signal[:, kind == k] += (gate / gate.std(axis=0))[:, np.arange(12) % 2]
y = signal + 1.2 * rng.standard_normal(signal.shape)
y = ((y - y.mean(axis=0)) / y.std(axis=0)).astype("float32")
train, test = slice(0, 4000), slice(4000, None)

# %%
# An encoder, and ridge regression beside it
# ------------------------------------------

from himalaya.ridge import RidgeCV

torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(n_features, 128), nn.ReLU(), nn.Linear(128, 48))
optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3, weight_decay=0.3)
x_train, y_train = torch.from_numpy(X[train]), torch.from_numpy(y[train])
for _epoch in range(25):
    for rows in torch.randperm(len(x_train)).split(200):
        optimizer.zero_grad()
        (encoder(x_train[rows]) - y_train[rows]).square().mean().backward()
        optimizer.step()

ridge = RidgeCV(alphas=np.geomspace(1, 1e4, 9)).fit(X[train], y[train])

# %%
# JNE in each space
# -----------------
#
# The deviations of a space are the part of the sum that its columns have, so they add up.

import jne

deviation = jne.jacobian_deviation(encoder, X[test], variant=["l1"], spaces=spaces)
print(sorted(deviation))
print(f"{np.abs(deviation['l1_image'] + deviation['l1_caption'] - deviation['l1']).max():.1e}")
jne_of = {name: jne.jne(deviation[f"l1_{name}"]) for name in spaces}

# %%
# Is it in the responses?
# -----------------------
#
# An encoder also bends in a space where the voxel does not. On unseen responses the nonlinear part
# of its prediction is split into the spaces and their interaction, and all are tested together.

evidence = jne.space_evidence(
    encoder, X[train], X[test], y[test], ridge=ridge.predict, spaces=spaces, y_train=y[train]
)
print(evidence)
assigned = evidence.assigned()
for k, name in enumerate(kinds):
    names, counts = np.unique(assigned[kind == k], return_counts=True)
    print(f"planted {name:12}", dict(zip(names.tolist(), counts.tolist(), strict=True)))

# %%
# What switches?
# --------------
#
# A gate adds the same direction to the Jacobian wherever it is open, so the six voxels of a gate
# share one. The Jacobian of a product moves along both of its features.

result = jne.switching(
    encoder, X[test], {kinds[k]: np.flatnonzero(kind == k) for k in range(1, 4)}, 4
)
print(result)
for name, share, ratio in zip(result.names, result.share, result.participation_ratio, strict=True):
    print(f"{name:12} shares {share.round(2)}, participation ratio {ratio:.1f}")

# %%
# The stimuli at both ends of the first direction, and what it correlates with:

low, high = result.ends(3)[0, 0]
print("lowest", low, "highest", high)
table = {f"image {j + 1}": u[test][:, j] for j in range(2)}
for name, r in result.correlations(table | {"caption 1": v[test][:, 0]}).items():
    print(f"{name:10} r {r[0].round(2)}")

# %%
# Figure
# ------

import matplotlib.pyplot as plt

from jne.plots.style import STYLE

plt.rcParams.update(STYLE)
figure, panels = plt.subplots(1, 3, figsize=(9.5, 3.1), layout="constrained")
colours = ["0.6", "#0072B2", "#D55E00", "#009E73"]
for k, name in enumerate(kinds):
    of_kind = kind == k
    panels[0].plot(
        jne_of["image"][of_kind],
        jne_of["caption"][of_kind],
        "o",
        ms=4,
        color=colours[k],
        label=name,
    )
    if k:
        panels[2].plot(range(1, 5), result.share[k - 1], "o-", ms=4, color=colours[k])
    mean = np.maximum(evidence.r2[of_kind], 0).mean(axis=0)
    panels[1].bar(np.arange(3) + 0.2 * k - 0.3, mean, 0.18, color=colours[k])
panels[0].set(xlabel="JNE in the image", ylabel="JNE in the caption", title="the encoder")
panels[1].set(ylabel="R² of the component alone", title="unseen responses")
panels[1].set_xticks(range(3), evidence.components)
panels[2].set(xlabel="direction", ylabel="share of the deviation", title="what switches")
panels[2].set_xticks(range(1, 5))
panels[2].set_ylim(0)
panels[0].legend(title="planted in", frameon=False)

# %%
# :doc:`/evidence` and :doc:`/switching` say how right these are.

"""
The JNE of an encoder that somebody else made
=============================================

:func:`jne.measure` takes any torch module and its features: vectors, tokens or images. Here are
three encoders of the same voxels that owe nothing to this package: kernel ridge regression of
himalaya, a transformer that reads tokens, and a network trained by PyTorch Lightning, which a
callback measures.
"""

# %%
# Voxels
# ------
#
# 16 voxels read 24 features. The share of a response that is not linear rises from 0 to 0.8.

import numpy as np
import torch
from torch import nn

rng = np.random.default_rng(0)
n_features, n_voxels = 24, 16
features = rng.standard_normal((1700, n_features)).astype("float32")
share = np.linspace(0, 0.8, n_voxels)
weights = rng.standard_normal((2, n_features, n_voxels)) / np.sqrt(n_features)
linear, curved = features @ weights[0], ((features @ weights[1]) ** 2 - 1) / np.sqrt(2)
responses = np.sqrt(1 - share) * linear + np.sqrt(share) * curved
responses += 0.5 * rng.standard_normal(responses.shape)
responses = ((responses - responses.mean(axis=0)) / responses.std(axis=0)).astype("float32")

train, test = slice(0, 1500), slice(1500, None)
x, y = torch.from_numpy(features), torch.from_numpy(responses)
jne_of = {}

# %%
# Kernel ridge regression
# -----------------------
#
# himalaya fits it. As a torch module it is one line: the kernel between a stimulus and those of
# training, times the dual weights. Then two lines measure it.

from himalaya.kernel_ridge import KernelRidgeCV

gamma = 0.2 / n_features
fitted = KernelRidgeCV(kernel="rbf", kernel_params={"gamma": gamma}).fit(
    features[train], responses[train]
)


class KernelRidge(nn.Module):
    def forward(self, features):
        distances = (features[:, None] - x[train]).square().sum(dim=-1)
        return torch.exp(-gamma * distances) @ torch.from_numpy(fitted.dual_coef_)


from jne import measure

result = measure(KernelRidge(), x[test])
jne_of["kernel ridge (himalaya)"] = result.jne

# %%
# The module predicts what himalaya does, up to the rounding of float32:

predicted = KernelRidge()(x[test]).numpy()
print(f"largest difference {np.abs(predicted - fitted.predict(features[test])).max():.1e}")

# %%
# A transformer over tokens
# -------------------------
#
# Features need not be vectors. Here they are 6 tokens of 4 numbers, (n, 6, 4).


class TokenReadout(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 64)
        self.position = nn.Parameter(0.1 * torch.randn(6, 64))
        self.attention = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.readout = nn.Linear(6 * 64, n_voxels)

    def forward(self, tokens):
        return self.readout(self.attention(self.embed(tokens) + self.position).flatten(1))


torch.manual_seed(0)
transformer = TokenReadout()
tokens = x.reshape(-1, 6, 4)
optimizer = torch.optim.AdamW(transformer.parameters(), lr=3e-3, weight_decay=0.1)
for _epoch in range(15):
    for rows in torch.randperm(1500).split(100):
        optimizer.zero_grad()
        (transformer(tokens[rows]) - y[rows]).square().mean().backward()
        optimizer.step()

result = measure(transformer, tokens[test])
jne_of["transformer over tokens"] = result.jne

# %%
# In PyTorch Lightning
# --------------------
#
# :class:`jne.MeasureJNE` is a callback for any LightningModule with any data. It measures at the
# end of ``trainer.test`` and logs ``jne/mean``; ``features=`` takes a function where a batch does
# not begin with the features.

import logging

import pytorch_lightning as pl
from torch.utils.data import DataLoader, TensorDataset

from jne import MeasureJNE

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Network(pl.LightningModule):
    def __init__(self):
        super().__init__()
        layers = nn.Linear(n_features, 256), nn.GELU(), nn.Linear(256, n_voxels)
        self.layers = nn.Sequential(*layers)

    def forward(self, features):
        return self.layers(features)

    def training_step(self, batch):
        return (self(batch[0]) - batch[1]).square().mean()

    def test_step(self, batch):
        self.log("test_loss", (self(batch[0]) - batch[1]).square().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=0.3)


callback = MeasureJNE()
quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
trainer = pl.Trainer(
    max_epochs=15, accelerator="cpu", callbacks=[callback], enable_checkpointing=False, **quiet
)
network = Network()
trainer.fit(network, DataLoader(TensorDataset(x[train], y[train]), batch_size=100, shuffle=True))
trainer.test(network, DataLoader(TensorDataset(x[test], y[test]), batch_size=100), verbose=False)
jne_of["network (Lightning)"] = callback.measurement.jne

# %%
# Do they agree?
# --------------
#
# The three differ in how nonlinear they are, and agree on which voxels are.

import matplotlib.pyplot as plt

from jne.plots.style import STYLE

plt.rcParams.update(STYLE)
figure, panel = plt.subplots(figsize=(4.5, 3), layout="constrained")
for (name, values), colour in zip(jne_of.items(), ("#0072B2", "#009E73", "#D55E00"), strict=True):
    panel.plot(share, values, ".-", lw=0.7, color=colour, label=name)
panel.set(xlabel="nonlinear share of the response", ylabel="JNE", ylim=(0, None))
panel.legend()

# %%
# JNE is in units of the response per unit of a feature: standardise both, as here, before you
# compare encoders. And read it beside how well each predicts (:doc:`/metrics`).

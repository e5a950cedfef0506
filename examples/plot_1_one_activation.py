r"""
JNE of one activation, by hand
==============================

The smallest encoder there is: one feature, one voxel, and an activation between them, :math:`y =
\varphi(x)`. Its Jacobian at a stimulus x is the slope :math:`\varphi'(x)`, a single number, so
that JNE can be computed on paper. This example does so, lets :func:`jne.jacobian_deviation` do the
same, and shows what JNE is blind to.
"""

# %%
# From slopes to JNE
# ------------------
#
# Take 1,001 stimuli in a narrow window around x = 1 and a GELU. First by hand: the Jacobians,
# their mean, the deviation of each from it, and the spread of the deviations.

import numpy as np
import torch
from torch import nn

window, half_width = np.linspace(-1, 1, 1001), 0.05


def gelu_slope(x):
    """phi'(x) of GELU, phi(x) = x Phi(x): Phi(x) + x times the normal density."""
    cdf = torch.special.ndtr(torch.as_tensor(x)).numpy()
    return cdf + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


stimuli = 1 + half_width * window  # (N,)
jacobians = gelu_slope(stimuli)  # (N,): dy / dx at each stimulus
deviation = np.abs(jacobians - jacobians.mean())  # s, eq. 4 (a sum over one feature)
print(f"mean deviation  {deviation.mean():.6f}")
print(f"JNE             {deviation.std():.6f}")

# %%
# Now the package. An encoder is any module from features (N, D) to responses (N, V).

import jne

encoder = nn.GELU()
s = jne.jacobian_deviation(encoder, stimuli[:, None])  # (N, V), here (1001, 1)
print(f"mean deviation  {jne.mean_deviation(s)[0]:.6f}")
print(f"JNE             {jne.jne(s)[0]:.6f}")

# %%
# JNE follows the curvature
# -------------------------
#
# In a window of half-width d, the slope changes by about :math:`\varphi''(x)` times the distance
# from the centre. The deviations are then uniform between 0 and :math:`|\varphi''(x)|\, d`, and
# their standard deviation is :math:`|\varphi''(x)|\, d / \sqrt{12}`: **JNE is the curvature of the
# encoder over the stimuli that it has seen**, in units of the Jacobian. We slide the window along
# x, for three activations. All windows are computed at once: each is a voxel of its own, which
# only its own feature drives.

import matplotlib.pyplot as plt

from jne.plots.style import STYLE

plt.rcParams.update(STYLE)
activations = {"GELU": nn.GELU(), "tanh": nn.Tanh(), "ReLU": nn.ReLU()}
centres = torch.linspace(-4, 4, 161, dtype=torch.float64)
stimuli = centres + half_width * torch.linspace(-1, 1, 201)[:, None]  # (N, n_windows)


def curvature(activation, x):
    """|phi''| at x, by differentiating twice."""
    second = torch.func.grad(torch.func.grad(lambda value: activation(value)))
    return torch.func.vmap(second)(x).abs()


figure, panels = plt.subplots(2, 3, figsize=(7, 3.6), sharex=True, layout="constrained")
for column, (name, activation) in zip(panels.T, activations.items(), strict=True):
    measured = jne.jne(jne.jacobian_deviation(activation, stimuli))
    column[0].plot(centres, activation(centres), color="#0072B2")
    column[0].set_title(name)
    expected = curvature(activation, centres) * half_width / np.sqrt(12)
    column[1].plot(centres, measured, color="#D55E00", lw=3, alpha=0.5, label="measured JNE")
    column[1].plot(centres, expected, "k--", lw=1, label="|phi''| d / sqrt(12)")
    column[1].set(xlabel="centre of the window, x", ylim=(0, 0.017))
panels[0, 0].set_ylabel("response phi(x)")
panels[1, 0].set_ylabel("JNE")
panels[1, 0].legend(loc="upper left", fontsize=7)

# %%
# GELU and tanh follow their curvature. ReLU has JNE 0 on both sides of its kink, where it is
# linear; a window that holds the kink has a JNE far above the axis.
#
# What JNE does not see
# ---------------------
#
# With the kink in the very middle of the window the JNE of ReLU is 0 again, although the unit
# could hardly be less linear. JNE is the *spread* of the deviations, not their size: if half of
# the stimuli have slope 0 and half have slope 1, each of them is exactly 1/2 away from the mean
# slope. Let a share p of the stimuli be on the steep side.

share = np.linspace(0.01, 0.99, 99)
steep = np.arange(100)[:, None] < np.round(100 * share)  # (N, n_shares): a voxel for each share
s = jne.jacobian_deviation(nn.ReLU(), np.where(steep, 1.0, -1.0))
spread, size = jne.jne(s), jne.mean_deviation(s)

figure, panel = plt.subplots(figsize=(4, 2.6), layout="constrained")
panel.plot(share, size, color="#0072B2", lw=3, alpha=0.5, label="mean deviation")
panel.plot(share, spread, color="#D55E00", lw=3, alpha=0.5, label="JNE")
panel.plot(share, 2 * share * (1 - share), "k--", lw=1)
panel.plot(share, np.abs(1 - 2 * share) * np.sqrt(share * (1 - share)), "k--", lw=1)
panel.set(xlabel="share of the stimuli with slope 1", ylabel="units of the Jacobian", ylim=(0, 0.6))
panel.legend(loc="upper right", ncols=2)

# %%
# The dashed lines are :math:`2 p (1 - p)` and :math:`|1 - 2 p| \sqrt{p (1 - p)}`. At p = 1/2 JNE
# vanishes and the mean deviation has its maximum. So read the two beside each other, as every
# table of the program shows them.

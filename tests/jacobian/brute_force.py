"""Jacobians of all stimuli at once, by autograd, and their deviations."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.encoders import ResidualEncoder


def small_net() -> tuple[ResidualEncoder, Tensor]:
    """An encoder of 150 voxels and 14 stimuli, in float64."""
    torch.manual_seed(0)
    encoder = ResidualEncoder(12, 150, hidden_width=16, activation="relu").double()
    return encoder, torch.randn(14, 12, dtype=torch.double)


def autograd_jacobians(encoder: nn.Module, x: Tensor) -> NDArray[np.float64]:
    """J (N, V, D), one backward pass per stimulus and output."""
    rows = [torch.autograd.functional.jacobian(lambda z: encoder(z[None])[0], row) for row in x]
    return torch.stack(rows).detach().numpy()


def zscored(jacobians: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each J_i[v, :] z-scored over d (Gao et al. 2025, A.9.2); one that is all 0 stays 0."""
    centred = jacobians - jacobians.mean(axis=2, keepdims=True)
    spread = jacobians.std(axis=2, keepdims=True)
    return centred / np.where(spread > 0, spread, 1)


def all_variants(encoder: nn.Module, x: Tensor) -> dict[str, NDArray[np.float64]]:
    """s (N, V) of the four variants, as Gao et al. 2025 write them (eq. 3 and 4, A.9.2)."""
    jacobians = autograd_jacobians(encoder, x)
    truth = {}
    for prefix, values in (("", jacobians), ("zscore_", zscored(jacobians))):
        centred = values - values.mean(axis=0)
        truth[f"{prefix}l1"] = np.abs(centred).sum(axis=2)
        truth[f"{prefix}l2"] = np.sqrt((centred**2).sum(axis=2))
    return truth


def brute_force(module, x):
    """s (N, V) of any module, all Jacobians at once by torch.func. x: (N, ...)."""
    rows = [torch.func.jacrev(lambda z: module(z[None])[0].flatten())(row) for row in x]
    return deviations(torch.stack(rows).flatten(start_dim=2).detach().numpy())


def deviations(jacobians):
    """s (N, V), L1, of Jacobians (N, V, D)."""
    return np.abs(jacobians - jacobians.mean(axis=0)).sum(axis=2)

"""The linear part of a function of the features. N stimuli, n others, D features, H functions."""

import torch
from torch import Tensor

_COLLINEAR = 1e-6


class LinearPart:
    """The best linear approximation of functions of the features, over N stimuli."""

    def __init__(self, features: Tensor, at: Tensor) -> None:
        """features: (N, D), where the functions are known. at: (n, D), where they are wanted."""
        self._mean = features.mean(dim=0, dtype=torch.float64)
        u, s, vt = torch.linalg.svd(features.double() - self._mean, full_matrices=False)
        rank = int((s > _COLLINEAR * s[0]).sum())  # features may be constant, or copies
        self._basis = u[:, :rank]
        self._at = (at.double() - self._mean) @ (vt[:rank].T / s[:rank])

    def remove(self, values: Tensor, at: Tensor) -> Tensor:
        """What is not linear in functions with these values (N, H) and (n, H): (n, H) float64."""
        offset = values.mean(dim=0, dtype=torch.float64)
        return at.double() - offset - self._at @ (self._basis.T @ (values.double() - offset))

"""Deviations of an encoder's Jacobians from their mean over stimuli, streamed (PAPER 2.3, 2.4).

N stimuli, D features, H hidden width, V voxels.

    J_i = W_out G_i                                  (V, D)  G_i = d h_last / d x  at stimulus i
    s[i, v] = sum_d |W_out (G_i - Gbar)|[v, d]       (N, V)

The readout is the same for every stimulus, so the mean Jacobian needs only Gbar (H, D), and the
N x V x D tensor (61 GB for 20,000 voxels) is never formed: one stimulus and one block of voxels
at a time.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.encoders import ResidualEncoder

_VOXEL_BLOCK = 4096


def jacobian_deviation(
    encoder: ResidualEncoder,
    features: Tensor | NDArray,
    *,
    voxels: NDArray | None = None,
    out: NDArray | None = None,
    progress: Callable[[int], None] | None = None,
) -> NDArray:
    """s[i, v] = sum_d |J_i[v, d] - Jbar[v, d]|, the L1 deviation of eq. 3-4.

    encoder: a ResidualEncoder from D features to V voxels, on the CPU, float32 or float64.
    features: (N, D), N at least 1, standardised as in training.
    voxels: which of the encoder's outputs, integer indices (V',); all by default.
    out: where to write the result, (N, V'), a memory-mapped array for many voxels.
    progress: called after every stimulus with the number of stimuli done by that call.

    Returns (N, V') of the encoder's dtype, in standardised response per standardised feature.
    Exactly 0 for a linear encoder. Raises ValueError on shapes that do not fit or on
    features that are not finite.
    """
    weights = encoder.readout.weight.detach()  # (V, H)
    if voxels is not None:
        weights = weights[torch.as_tensor(voxels, dtype=torch.long)]
    x = _checked_features(encoder, features, weights.dtype)
    n = len(x)
    if out is None:
        out = np.empty((n, len(weights)), dtype=np.float64 if x.dtype.itemsize == 8 else np.float32)
    if out.shape != (n, len(weights)):
        raise ValueError(f"out must be {(n, len(weights))}, found {out.shape}")

    # Lightning tests in inference mode, in which no derivative can be taken.
    with torch.inference_mode(False), torch.no_grad():
        slopes = _activation_slopes(encoder, x.clone())
        if all(slope is None for slope in slopes):
            out[:] = 0  # no activation: one Jacobian for all stimuli
            return out
        # The mean of differences from the first stimulus: equal Jacobians then deviate by exactly 0
        origin = _hidden_jacobian(encoder, slopes, 0)
        shift = torch.zeros_like(origin)
        for i in range(1, n):
            shift += _hidden_jacobian(encoder, slopes, i) - origin
        mean = origin + shift / n
        for i in range(n):
            centred = _hidden_jacobian(encoder, slopes, i) - mean  # (H, D)
            for start in range(0, len(weights), _VOXEL_BLOCK):
                block = slice(start, start + _VOXEL_BLOCK)
                deviation = torch.linalg.vector_norm(weights[block] @ centred, ord=1, dim=1)
                out[i, block] = deviation.numpy()
            if progress is not None:
                progress(1)
    return out


def _checked_features(encoder: ResidualEncoder, features: Tensor | NDArray, dtype) -> Tensor:
    x = torch.as_tensor(features).detach().to("cpu", dtype)
    n_features = encoder.hidden[0].in_features
    if x.ndim != 2 or x.shape[1] != n_features or len(x) < 1:
        raise ValueError(
            f"features must be (n_stimuli, {n_features}) for this encoder, found {tuple(x.shape)}"
        )
    if not bool(torch.isfinite(x).all()):
        raise ValueError("features hold NaN or infinite values")
    return x


def _activation_slopes(encoder: ResidualEncoder, x: Tensor) -> list[Tensor | None]:
    """phi_k' at every stimulus and unit, (N, H) a layer; None where a layer has no activation."""
    slopes: list[Tensor | None] = []
    h = x
    for linear, activation, skip in zip(
        encoder.hidden, encoder.activations, encoder.skips, strict=True
    ):
        a = linear(h)
        if isinstance(activation, nn.Identity):
            step = a
            slopes.append(None)
        else:
            with torch.enable_grad():
                a = a.detach().requires_grad_()
                step = activation(a)
                # Elementwise, so the gradient of the sum is every element's own derivative
                slopes.append(torch.autograd.grad(step.sum(), a)[0])
            step = step.detach()
        h = step + h if skip else step
    return slopes


def _hidden_jacobian(encoder: ResidualEncoder, slopes: list[Tensor | None], i: int) -> Tensor:
    """G_i (H, D): the chain rule through the hidden layers at stimulus i (A.4 eq. 8)."""
    g = None
    for linear, slope, skip in zip(encoder.hidden, slopes, encoder.skips, strict=True):
        weight = linear.weight
        step = weight.clone() if g is None else weight @ g
        if slope is not None:
            step *= slope[i, :, None]
        if skip:
            step = step + (torch.eye(len(step), dtype=step.dtype) if g is None else g)
        g = step
    return g

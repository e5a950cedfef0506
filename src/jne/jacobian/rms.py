r"""Root mean squared deviation of Jacobians over stimuli, without a product per stimulus and voxel.

With G_i (H, D) the Jacobian of the last hidden layer and w_v a row of the readout,

    sum_i |J_iv - Jbar_v|^2 = w_v' M w_v,   M = sum_i (G_i - Gbar) (G_i - Gbar)'   (H, H)

so that all voxels cost as much as H of them. A linear path is the same at all stimuli.

N stimuli, D features, H width of the last hidden layer, V voxels.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.jacobian.autograd import differentiable
from jne.jacobian.deviation import jacobian_deviation
from jne.jacobian.plan import Job
from jne.utils.blocks import voxel_blocks

_VOXELS_AT_ONCE = 2**13


def rms_deviation(
    encoder: nn.Module,
    features: Tensor | NDArray,
    *,
    device: str = "cpu",
    max_memory_gb: float = 4.0,
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.floating]:
    r"""The root mean square over stimuli of the L2 norm of J_i - Jbar, per voxel.

    .. math:: \sqrt{\frac1N \sum_i \sum_d (J_{ivd} - \bar J_{vd})^2}

    Parameters
    ----------
    encoder, features, device, max_memory_gb, progress
        As of `jacobian_deviation`. The bound on memory counts where the encoder has no
        `residual_chain`: then the deviations of all stimuli are computed one by one.

    Returns
    -------
    (V,) array
        In standardised response per standardised feature. Exactly 0 for an encoder without
        activations.

    Raises
    ------
    ValueError
        As `jacobian_deviation`.
    """
    with differentiable(encoder) as module:
        job = Job(module, features, None, ("l2",), "float32", torch.device(device))
        if job.constant:
            return np.zeros(job.v, job.numpy_dtype)
        if job.analytic:
            return _of_chain(job, progress)
    deviation = jacobian_deviation(
        encoder,
        features,
        variant="l2",
        device=device,
        max_memory_gb=max_memory_gb,
        progress=progress,
    )
    result: NDArray[np.floating] = np.sqrt(np.square(deviation, dtype=np.float64).mean(axis=0))
    return result.astype(deviation.dtype)


def _of_chain(job: Job, progress: Callable[[float], None] | None) -> NDArray[np.floating]:
    # Less than the first, which equal Jacobians are exactly; the mean of that is subtracted last
    first = job.chain.hidden_jacobian(0).clone()
    narrow = job.v < job.h  # then the products with the readout are the smaller ones
    weights = job.readout.to(job.device)
    size = (job.v,) if narrow else (job.h, job.h)
    squares = torch.zeros(size, dtype=torch.float64, device=job.device)
    shift, difference = torch.zeros_like(first), torch.empty_like(first)
    for i in range(1, job.n):
        torch.sub(job.chain.hidden_jacobian(i), first, out=difference)
        shift += difference
        squares += _products(difference, weights, narrow)
        if progress is not None:
            progress(i / job.n)
    squares -= _products(shift.div_(job.n), weights, narrow) * job.n
    total = squares if narrow else _quadratic(weights, squares)
    if progress is not None:
        progress(1.0)
    return np.sqrt((total.clamp(min=0) / job.n).cpu().numpy()).astype(job.numpy_dtype)


def _products(g: Tensor, weights: Tensor, narrow: bool) -> Tensor:
    """g g' (H, H), or its quadratic form with each row of the weights (V,), in float64."""
    if narrow:
        return (weights @ g).square().sum(dim=1, dtype=torch.float64)
    return (g @ g.T).double()


def _quadratic(weights: Tensor, matrix: Tensor) -> Tensor:
    """w' M w of each row w of weights, (V,), in float64."""
    result = matrix.new_empty(len(weights))
    for rows in voxel_blocks(len(weights), _VOXELS_AT_ONCE):
        block = weights[rows].double()
        result[rows] = ((block @ matrix) * block).sum(dim=1)
    return result

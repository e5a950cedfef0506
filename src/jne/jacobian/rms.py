r"""Root mean squared deviation of Jacobians over stimuli, without a product per stimulus and voxel.

With G_i (H, D) the Jacobian of the last hidden layer and w_v a row of the readout,

    sum_i |J_iv - Jbar_v|^2 = w_v' M w_v,   M = sum_i (G_i - Gbar) (G_i - Gbar)'   (H, H)

so that all voxels cost as much as H of them; of few voxels, J_i itself costs less. A linear path is
the same at all stimuli. M is the sum of those of the feature spaces, each of some columns of G_i.

N stimuli, D features, H width of the last hidden layer, V voxels.
"""

from collections.abc import Callable, Mapping
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.jacobian.autograd import differentiable
from jne.jacobian.deviation import jacobian_deviation
from jne.jacobian.plan import Job
from jne.jacobian.variants import in_space
from jne.utils.blocks import voxel_blocks

_VOXELS_AT_ONCE = 2**13


@overload
def rms_deviation(
    encoder: nn.Module,
    features: Tensor | NDArray,
    *,
    device: str = ...,
    max_memory_gb: float = ...,
    progress: Callable[[float], None] | None = ...,
    spaces: None = ...,
) -> NDArray[np.floating]: ...


@overload
def rms_deviation(
    encoder: nn.Module,
    features: Tensor | NDArray,
    *,
    device: str = ...,
    max_memory_gb: float = ...,
    progress: Callable[[float], None] | None = ...,
    spaces: Mapping[str, slice],
) -> dict[str, NDArray[np.floating]]: ...


def rms_deviation(
    encoder: nn.Module,
    features: Tensor | NDArray,
    *,
    device: str = "cpu",
    max_memory_gb: float = 4.0,
    progress: Callable[[float], None] | None = None,
    spaces: Mapping[str, slice] | None = None,
) -> NDArray[np.floating] | dict[str, NDArray[np.floating]]:
    r"""The root mean square over stimuli of the L2 norm of J_i - Jbar, per voxel.

    .. math:: \sqrt{\frac1N \sum_i \sum_d (J_{ivd} - \bar J_{vd})^2}

    Parameters
    ----------
    encoder, features, device, max_memory_gb, progress, spaces
        As of `jacobian_deviation`. The bound on memory counts where the encoder has no
        `residual_chain`: then the deviations of all stimuli are computed one by one.

    Returns
    -------
    (V,) array, or dict of them by space where there are `spaces`
        The squares of those of spaces add up to that of all features. In standardised response per
        standardised feature. Exactly 0 for an encoder without activations.

    Raises
    ------
    ValueError
        As `jacobian_deviation`.
    """
    with differentiable(encoder) as module:
        job = Job(module, features, None, ("l2",), "float32", torch.device(device), None, spaces)
        if job.constant:
            results: list[NDArray[np.floating]] = [
                np.zeros(job.v, job.numpy_dtype) for _ in job.blocks
            ]
        elif job.analytic:
            results = _of_chain(job, progress)
        else:
            deviations = jacobian_deviation(
                encoder,
                features,
                variant=["l2"],
                device=device,
                max_memory_gb=max_memory_gb,
                progress=progress,
                spaces=spaces,
            )
            of_spaces = [in_space("l2", space) for space in job.spaces]
            results = [root_mean_square(deviations[name]) for name in of_spaces or ["l2"]]
    return dict(zip(job.spaces, results, strict=True)) if job.spaces else results[0]


def root_mean_square(deviation: NDArray[np.floating]) -> NDArray[np.floating]:
    """Of L2 deviations (N, V), over the stimuli: (V,), summed in float64, a stimulus at a time."""
    total = np.zeros(deviation.shape[1])
    for row in deviation:
        total += np.square(row, dtype=np.float64)
    result: NDArray[np.floating] = np.sqrt(total / len(deviation))
    return result.astype(deviation.dtype)


def _of_chain(job: Job, progress: Callable[[float], None] | None) -> list[NDArray[np.floating]]:
    """(V,) of each of the job's blocks of columns."""
    weights = job.readout.to(job.device)
    of_voxels = job.v < job.h  # then the products with the readout are the smaller ones
    jacobian: Callable[[int], Tensor] = job.chain.hidden_jacobian
    readout = weights if of_voxels else None
    if job.chain.reverse_is_less(job.v):
        of_voxels, readout, jacobian = True, None, job.chain.reverse(weights)
    # Less than the first, which equal Jacobians are exactly; the mean of that is subtracted last
    first = jacobian(0).clone()
    size = (job.v,) if of_voxels else (job.h, job.h)
    squares = [torch.zeros(size, dtype=torch.float64, device=job.device) for _ in job.blocks]
    shift, difference = torch.zeros_like(first), torch.empty_like(first)
    for i in range(1, job.n):
        torch.sub(jacobian(i), first, out=difference)
        shift += difference
        for total, columns in zip(squares, job.blocks, strict=True):
            total += _products(difference[:, columns], readout, of_voxels)
        if progress is not None:
            progress(i / job.n)
    shift.div_(job.n)
    results = []
    for total, columns in zip(squares, job.blocks, strict=True):
        total -= _products(shift[:, columns], readout, of_voxels) * job.n
        summed = total if of_voxels else _quadratic(weights, total)
        mean = summed.clamp(min=0) / job.n
        results.append(np.sqrt(mean.cpu().numpy()).astype(job.numpy_dtype))
    if progress is not None:
        progress(1.0)
    return results


def _products(g: Tensor, readout: Tensor | None, of_voxels: bool) -> Tensor:
    """Float64: g g' (H, H); of voxels (V,), the squares of g, or of its product with a readout."""
    if not of_voxels:
        return (g @ g.T).double()
    rows = g if readout is None else readout @ g
    return rows.square().sum(dim=1, dtype=torch.float64)


def _quadratic(weights: Tensor, matrix: Tensor) -> Tensor:
    """w' M w of each row w of weights, (V,), in float64."""
    result = matrix.new_empty(len(weights))
    for rows in voxel_blocks(len(weights), _VOXELS_AT_ONCE):
        block = weights[rows].double()
        result[rows] = ((block @ matrix) * block).sum(dim=1)
    return result

r"""`rms_deviation` of any module, estimated from random directions of feature space.

For z of D independent signs (Hutchinson 1990, Commun. Stat. Simul. Comput. 19:433),

    E |(J_i - Jbar) z|^2 = |J_i - Jbar|^2

and J_i z of all V outputs takes one pass of forward mode, where J_i itself takes D of them, or V of
reverse mode. N stimuli.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.errors import InputError
from jne.jacobian.autograd import differentiable
from jne.jacobian.plan import Job
from jne.jacobian.rms import rms_deviation


class RmsSketch(NamedTuple):
    """Estimates of `rms_deviation`, in its units, and their standard errors, (V,) each."""

    rms: NDArray[np.floating]
    error: NDArray[np.floating]


def rms_sketch(
    encoder: nn.Module,
    features: Tensor | NDArray,
    n_directions: int = 64,
    *,
    seed: int = 0,
    device: str = "cpu",
    max_memory_gb: float = 4.0,
    progress: Callable[[float], None] | None = None,
) -> RmsSketch:
    """The root mean square over stimuli of the L2 norm of J_i - Jbar, per output, estimated.

    For modules of many outputs without a `residual_chain`; with one, it is `rms_deviation`, exactly
    and with errors of 0. The square of an estimate is unbiased. Its error falls with the root of
    the number of directions, and is at most about rms / sqrt(2 n_directions).

    Parameters
    ----------
    encoder, features
        As of `jacobian_deviation`.
    n_directions : int
        2 or more.
    seed : int
        Of the directions.
    device, max_memory_gb, progress
        As of `jacobian_deviation`.

    Returns
    -------
    RmsSketch

    Raises
    ------
    InputError
        A `ValueError`: as `jacobian_deviation`; for fewer than two directions; and where torch has
        no forward mode for the module.
    """
    if n_directions < 2:
        raise InputError("n_directions", "must be 2 or more", value=n_directions)
    with differentiable(encoder) as module:
        job = Job(module, features, None, ("l2",), "float32", torch.device(device))
        if job.analytic or job.constant:
            exact = rms_deviation(
                encoder, features, device=device, max_memory_gb=max_memory_gb, progress=progress
            )
            return RmsSketch(exact, np.zeros_like(exact))
        if not job.autograd.forward_mode:
            raise InputError("encoder", "torch has no forward mode for it; take rms_deviation")
        job.autograd.limit_memory(max_memory_gb * 1e9)
        generator = torch.Generator().manual_seed(seed)
        squares = np.empty((n_directions, job.v))
        for k, of_direction in enumerate(squares):
            signs = torch.randint(2, (job.d,), generator=generator).mul_(2).sub_(1)
            of_direction[:] = _mean_square(job, signs.to(job.x))
            if progress is not None:
                progress((k + 1) / n_directions)
    rms = np.sqrt(squares.mean(axis=0))
    error = squares.std(axis=0, ddof=1) / np.sqrt(n_directions)
    of_root = np.divide(error, 2 * rms, out=np.zeros_like(rms), where=rms > 0)
    return RmsSketch(rms.astype(job.numpy_dtype), of_root.astype(job.numpy_dtype))


def _mean_square(job: Job, direction: Tensor) -> NDArray[np.float64]:
    """(V,), the mean over stimuli of the squares of (J_i - Jbar) z, exactly 0 for equal J_i."""
    first: Tensor | None = None
    total = torch.zeros(2, job.v, dtype=torch.float64, device=job.device)
    for products in job.autograd.along(direction):
        first = products[0].clone() if first is None else first
        difference = (products - first).double()
        total += torch.stack([difference.sum(dim=0), difference.square().sum(dim=0)])
    mean, square = total / job.n
    result: NDArray[np.float64] = (square - mean.square()).clamp(min=0).cpu().numpy()
    return result

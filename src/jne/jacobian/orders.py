"""Three orders of the same sums, from Jacobians to their deviations.

N stimuli, D features, H width of the last hidden layer, V voxels, v voxels of a block.

centred   Forward to the last hidden layer, then W_out (G_i - Gbar), where J_i = W_out G_i and G_i
          (H, D) is the Jacobian of the last hidden layer: one product per stimulus and block of
          voxels, 2 N V H D operations in all. For many voxels.
reverse   From the voxels back to the features, for all stimuli of a block of voxels at once.
          For few voxels.
streamed  J_i of one stimulus at a time, twice: for the mean, then for the deviations. For the
          z-score variants, which need J_i itself, and for modules without a residual chain.

Each is a generator over its units of work, starting from unit `done`. It writes to the arrays
`out`, (N, V) each, and yields how many units are complete.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.jacobian.plan import Job, Plan
from jne.jacobian.variants import VARIANTS
from jne.utils.blocks import voxel_blocks


def _centred(job: Job, plan: Plan, out: dict[str, NDArray], done: int) -> Iterator[int]:
    mean = job.chain.mean_hidden_jacobian()  # (H, D)
    rows = {name: torch.empty(job.v, dtype=job.dtype, device=job.device) for name in out}
    last = job.variants[-1]
    for i in range(done, job.n):
        right = job.product.right(job.chain.hidden_jacobian(i).sub_(mean))
        for block in voxel_blocks(job.v, plan.voxel_block):
            product = job.product.rows(block, right)
            for name, row in rows.items():
                row[block] = _norm(product, name, consume=name == last)
        for name, row in rows.items():
            out[name][i] = row.cpu()
        yield i + 1


def _reverse(job: Job, plan: Plan, out: dict[str, NDArray], done: int) -> Iterator[int]:
    for unit, block in enumerate(voxel_blocks(job.v, plan.voxel_block)):
        if unit < done:
            continue
        weights = job.readout[block].to(job.device)
        for names in filter(None, (job.plain, job.zscored)):
            values = job.chain.reverse(weights)  # (N, v, D)
            if names is job.zscored:
                _zscore_(values)
            values -= values[:1].clone()  # equal Jacobians deviate by exactly 0
            values -= values.mean(dim=0)
            for name in names:
                out[name][:, block] = _norm(values, name, consume=name is names[-1]).cpu()
        yield unit + 1


def _streamed(job: Job, plan: Plan, out: dict[str, NDArray], done: int) -> Iterator[int]:
    for unit, block in enumerate(voxel_blocks(job.v, plan.voxel_block)):
        if done >= (unit + 1) * job.n:
            continue
        means = _mean_jacobians(job, block)
        for i in range(max(done - unit * job.n, 0), job.n):
            for names, values in _both_forms(job, job.jacobian(i, block)):
                values = values - means[names]
                for name in names:
                    out[name][i, block] = _norm(values, name, consume=False).cpu()
            yield unit * job.n + i + 1


Order = Callable[[Job, Plan, dict[str, NDArray], int], Iterator[int]]
ORDERS: Mapping[str, Order] = {"centred": _centred, "reverse": _reverse, "streamed": _streamed}


def _mean_jacobians(job: Job, block: slice) -> dict[tuple[str, ...], Tensor]:
    """The means over stimuli of J_i and of the z-scored J_i, where needed: (v, D) each."""
    first = {names: values.clone() for names, values in _both_forms(job, job.jacobian(0, block))}
    shift = {names: torch.zeros_like(values) for names, values in first.items()}
    for i in range(1, job.n):
        for names, values in _both_forms(job, job.jacobian(i, block)):
            shift[names] += values - first[names]  # equal Jacobians deviate by exactly 0
    return {names: values + shift[names] / job.n for names, values in first.items()}


def _both_forms(job: Job, jacobian: Tensor) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """J_i itself for the plain variants, then z-scored for the others."""
    if job.plain:
        yield job.plain, jacobian
    if job.zscored:
        yield job.zscored, _zscore_(jacobian.clone())


def _zscore_(jacobian: Tensor) -> Tensor:
    """Z-score each row over d in place; a row of zeros stays zero."""
    jacobian -= jacobian.mean(dim=-1, keepdim=True)
    spread = jacobian.square().mean(dim=-1, keepdim=True).sqrt_()
    return jacobian.div_(torch.where(spread > 0, spread, 1))


def _norm(values: Tensor, variant: str, *, consume: bool) -> Tensor:
    """The variant's norm over d, the last axis; with `consume` it may overwrite the values."""
    return VARIANTS[variant].norm(values, consume)

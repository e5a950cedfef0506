"""Four orders of the same sums, from Jacobians to their deviations.

N stimuli, D features, H width of the last hidden layer, V voxels, v voxels of a block.

centred   Forward to the last hidden layer, then W_out (G_i - Gbar), where J_i = W_out G_i and G_i
          (H, D) is the Jacobian of the last hidden layer: one product per stimulus and block of
          voxels, 2 N V H D operations in all. For many voxels. Gain and shape need the rows of
          Jbar as well: where these do not fit the memory for all voxels, the stimuli are gone
          through once per group of blocks.
reverse   J_i of a block of voxels at all stimuli, from the voxels back to the features. For few
          voxels.
held      The same, each computed once as W_out G_i. For the z-score variants, which need J_i
          itself, where the memory has room for them.
streamed  J_i of one stimulus at a time, twice: for the mean, then for the deviations. For the
          z-score variants where it has not, and for modules without a residual chain that have more
          voxels than features.

Each is a generator over its units of work, starting from unit `done`. It writes to the arrays
`out`, (N, V) each, and yields how many units are complete.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.jacobian.gain_shape import GAIN_SHAPE, Direction, direction_of_, gain_and_shape
from jne.jacobian.plan import Job, Plan
from jne.jacobian.variants import VARIANTS, in_space
from jne.utils.blocks import voxel_blocks


def _centred(job: Job, plan: Plan, out: dict[str, NDArray], done: int) -> Iterator[int]:
    mean = job.chain.mean_hidden_jacobian()  # (H, D)
    rows = {name: torch.empty(job.v, dtype=job.dtype, device=job.device) for name in out}
    # One array for all groups: many small ones would leave gaps between them, as large again.
    held = mean.new_empty(plan.voxel_group if job.gain_shape else 0, job.d)
    for unit, group in enumerate(voxel_blocks(job.v, plan.voxel_group)):
        if done >= (unit + 1) * job.n:
            continue
        size = group.stop - group.start
        directions = _directions_(held[:size], job, plan, group, mean) if job.gain_shape else None
        for i in range(max(done - unit * job.n, 0), job.n):
            right = job.product.right(job.chain.hidden_jacobian(i) - mean)
            for inside in voxel_blocks(size, plan.voxel_block):
                block = slice(group.start + inside.start, group.start + inside.stop)
                product = job.product.rows(block, right)
                direction = None if directions is None else directions.rows(inside)
                for name, values in _measures(product, direction, job.names, job):
                    rows[name][block] = values
            for name, row in rows.items():
                out[name][i, group] = row[group].cpu()
            yield unit * job.n + i + 1


def _directions_(held: Tensor, job: Job, plan: Plan, group: slice, mean: Tensor) -> Direction:
    """The directions of the Jbar of a group of voxels, in the array `held` (v, D)."""
    for inside in voxel_blocks(len(held), plan.voxel_block):
        block = slice(group.start + inside.start, group.start + inside.stop)
        torch.mm(job.readout[block].to(job.device), mean, out=held[inside])
        job.add_path_(held[inside], block)
    return direction_of_(held, job.blocks)


def _reverse(job: Job, plan: Plan, out: dict[str, NDArray], done: int) -> Iterator[int]:
    if job.analytic:
        yield from _held(job, plan, out, done)
        return
    for unit, block in enumerate(voxel_blocks(job.v, plan.voxel_block)):
        if unit < done:
            continue
        for names in filter(None, (job.plain, job.zscored)):
            values = job.jacobians(block)
            if names is job.zscored:
                _zscore_(values)
            first = values[0].clone()
            values -= first  # equal Jacobians deviate by exactly 0
            shift = values.mean(dim=0)
            values -= shift
            direction = direction_of_(first.add_(shift), job.blocks) if job.gain_shape else None
            for name, measure in _measures(values, direction, names, job):
                out[name][:, block] = measure.cpu()
        yield unit + 1


def _held(job: Job, plan: Plan, out: dict[str, NDArray], done: int) -> Iterator[int]:
    held = job.x.new_empty(job.n, plan.voxel_block, job.d)
    for unit, block in enumerate(voxel_blocks(job.v, plan.voxel_block)):
        if unit < done:
            continue
        room = held[:, : block.stop - block.start]
        values = job.jacobians(block, plan.order == "reverse", room)
        for names in filter(None, (job.plain, job.zscored)):
            if names is job.zscored:
                for jacobian in values:
                    _zscore_(jacobian)
            mean = _mean(values)
            direction = direction_of_(mean.clone(), job.blocks) if job.gain_shape else None
            for i, jacobian in enumerate(values):
                for name, measure in _measures(jacobian - mean, direction, names, job):
                    out[name][i, block] = measure.cpu()
        yield unit + 1


def _mean(values: Tensor) -> Tensor:
    """The mean of values (N, v, D) over stimuli, exactly that of each where all are equal."""
    shift = torch.zeros_like(values[0])
    for jacobian in values[1:]:
        shift += jacobian - values[0]
    return shift.div_(len(values)).add_(values[0])


def _streamed(job: Job, plan: Plan, out: dict[str, NDArray], done: int) -> Iterator[int]:
    for unit, block in enumerate(voxel_blocks(job.v, plan.voxel_block)):
        if done >= (unit + 1) * job.n:
            continue
        means = _mean_jacobians(job, block)
        mean = means[job.plain].clone() if job.gain_shape else None
        direction = None if mean is None else direction_of_(mean, job.blocks)
        for i in range(max(done - unit * job.n, 0), job.n):
            for names, values in _both_forms(job, job.jacobian(i, block)):
                deviation = values - means[names]
                for name, measure in _measures(deviation, direction, names, job):
                    out[name][i, block] = measure.cpu()
            yield unit * job.n + i + 1


Order = Callable[[Job, Plan, dict[str, NDArray], int], Iterator[int]]
ORDERS: Mapping[str, Order] = {
    "centred": _centred,
    "reverse": _reverse,
    "held": _held,
    "streamed": _streamed,
}


def _mean_jacobians(job: Job, block: slice) -> dict[tuple[str, ...], Tensor]:
    """The means over stimuli of J_i and of the z-scored J_i, where needed: (v, D) each."""
    first = {names: values.clone() for names, values in _both_forms(job, job.jacobian(0, block))}
    shift = {names: torch.zeros_like(values) for names, values in first.items()}
    for i in range(1, job.n):
        for names, values in _both_forms(job, job.jacobian(i, block)):
            shift[names] += values - first[names]  # equal Jacobians deviate by exactly 0
    return {names: values + shift[names] / job.n for names, values in first.items()}


def _both_forms(job: Job, jacobian: Tensor) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """J_i itself for all that is plain, then z-scored for the z-score variants."""
    if job.plain:
        yield job.plain, jacobian
    if job.zscored:
        yield job.zscored, _zscore_(jacobian.clone())


def _zscore_(jacobian: Tensor) -> Tensor:
    """Z-score each row over d in place; a row of zeros stays zero."""
    jacobian -= jacobian.mean(dim=-1, keepdim=True)
    spread = jacobian.square().mean(dim=-1, keepdim=True).sqrt_()
    return jacobian.div_(torch.where(spread > 0, spread, 1))


def _measures(
    deviation: Tensor, direction: Direction | None, names: Sequence[str], job: Job
) -> Iterator[tuple[str, Tensor]]:
    """Gain and shape, then the norm of each variant, over d: whichever of them are in `names`.

    Of all features, and of each feature space. deviation: J_i - Jbar, (..., v, D), overwritten.
    direction: of Jbar, for gain and shape alone.
    """
    if direction is not None and set(GAIN_SHAPE).issubset(names):
        whole, *parts = gain_and_shape(deviation, direction, job.blocks)
        yield from zip(GAIN_SHAPE, whole, strict=True)
        for space, part in zip(job.spaces, parts, strict=False):
            yield from zip((in_space(name, space) for name in GAIN_SHAPE), part, strict=True)
    norms = [name for name in names if name in VARIANTS]
    for name in norms:
        norm, consume = VARIANTS[name].norm, name is norms[-1]
        if not job.spaces:
            yield name, norm(deviation, consume)
            continue
        inside = [norm(deviation[..., columns], consume) for columns in job.blocks]
        yield from zip((in_space(name, space) for space in job.spaces), inside, strict=True)
        yield name, norm(torch.stack(inside, dim=-1), True)  # the norm of all is that of norms

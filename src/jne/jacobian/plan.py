"""The checked inputs of a computation of deviations, and how it will run.

N stimuli, D features, H width of the last hidden layer, V voxels.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.encoders import HasResidualChain, is_linear_layer
from jne.errors import InputError
from jne.jacobian.autograd import ModuleJacobians, device_of, dtype_of
from jne.jacobian.chain import Chain, Memo
from jne.jacobian.gain_shape import GAIN_SHAPE
from jne.jacobian.product import ReadoutMatmul
from jne.jacobian.variants import VARIANTS, in_space
from jne.utils.spaces import check_spaces

_VOXEL_BLOCK_BACK = 512  # of the reverse order, whose steps are then in the cache
# Operations that take as long as to hold, centre and sum a value of J_i, with what the small
# products of the reverse order lose (widths 256 and 1,024, 300 to 2,000 voxels: 700 to 1,200)
_HOLDING = 800
_VOXEL_BLOCK = 2048  # rows of a product: large enough for full speed, small enough for the cache
_SMALLEST_BLOCK = 64
_VOXEL_BLOCK_IN_GROUPS = 512  # where each block takes memory from a group


def _check_chosen(outputs: Tensor, n: int) -> None:
    if not len(outputs) or ((outputs < -n) | (outputs >= n)).any():
        raise InputError("voxels", f"must be indices of the encoder's {n} outputs")


class Job:
    """The checked inputs, on the device of the computation.

    names: of the arrays to compute, variants or GAIN_SHAPE. All other arguments as of
    `jacobian_deviation`. Raises ValueError where they do not fit each other.
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: Tensor | NDArray,
        voxels: NDArray | None,
        names: tuple[str, ...],
        precision: str,
        device: torch.device,
        memo: Memo | None = None,
        spaces: Mapping[str, slice] | None = None,
    ) -> None:
        self.dtype = dtype_of(encoder)
        if self.dtype not in (torch.float32, torch.float64):
            raise InputError(
                "encoder", f"must be float32 or float64, found {self.dtype}; convert it by float()"
            )
        self.numpy_dtype = np.float64 if self.dtype == torch.float64 else np.float32
        if isinstance(features, np.ndarray):  # torch warns of memory that it may not write to
            features = np.require(features, requirements="W")
        x = torch.as_tensor(features).detach().to(device, self.dtype).clone()
        self.names, self.device = names, device
        self.zscored = tuple(v for v in names if v in VARIANTS and VARIANTS[v].zscored)
        self.plain = tuple(name for name in names if name not in self.zscored)
        self.gain_shape = set(GAIN_SHAPE).issubset(names)
        if x.ndim != 2 or len(x) < 1:
            raise InputError("features", f"must be (n_stimuli, n_features), found {tuple(x.shape)}")
        if not bool(torch.isfinite(x).all()):
            raise InputError("features", "NaN or infinite values")
        self.x = x
        self.n, self.d = x.shape
        self.spaces = check_spaces(spaces, self.d)
        self.blocks = [*self.spaces.values()] or [slice(None)]
        """Columns of the features that are summed by themselves."""
        chosen = None if voxels is None else torch.as_tensor(np.array(voxels), dtype=torch.long)
        self.chosen = chosen is not None
        self.analytic = isinstance(encoder, HasResidualChain)
        self.precision = precision
        if isinstance(encoder, HasResidualChain):
            hidden, readout = encoder.residual_chain()
            self.chain = Chain(hidden, x, memo)
            path = getattr(encoder, "linear_path", None)
            self.readout = readout.weight.detach()
            self.path = None if path is None else path.weight.detach()
            if chosen is not None:
                _check_chosen(chosen, len(self.readout))
                self.readout = self.readout[chosen]
                self.path = None if self.path is None else self.path[chosen]
            self.v, self.h = self.readout.shape
            self.constant = self.chain.linear
            self._structure = repr([(layer.activation, layer.skip) for layer in hidden])
        else:
            if precision != "float32":
                raise InputError(
                    "precision", "needs an encoder with a residual_chain", value=precision
                )
            here = device_of(encoder) in (device, None)
            # Moved as a copy: the user's own module stays on its device.
            self.module = encoder if here else deepcopy(encoder).to(device)
            self.autograd = ModuleJacobians(self.module, x)
            n_outputs = self.autograd.n_outputs
            self.outputs = torch.arange(n_outputs) if chosen is None else chosen
            _check_chosen(self.outputs, n_outputs)
            self.v = len(self.outputs)
            self.h, self.constant = 0, is_linear_layer(encoder)
            self._structure = repr(encoder)

    @cached_property
    def product(self) -> ReadoutMatmul:
        return ReadoutMatmul(self.readout, self.precision, self.device)

    @property
    def arrays(self) -> list[str]:
        """`names`, and each of them in each space."""
        inside = [in_space(name, space) for space in self.spaces for name in self.names]
        return [*self.names, *inside]

    def jacobian(self, i: int, block: slice) -> Tensor:
        """J_i of a block of voxels, (v, D)."""
        if self.analytic:
            product = self.product.rows(block, self.product.right(self.chain.hidden_jacobian(i)))
            return self.add_path_(product, block)
        return self.autograd.at_stimulus(i, self.outputs[block].to(self.device))

    def jacobians(self, block: slice, backward: bool = True, held: Tensor | None = None) -> Tensor:
        """J_i of a block of voxels at all stimuli, (N, v, D).

        backward: from the voxels to the features, in place of forward to the last hidden layer.
        held: an array for them; by default a new one. Without a chain both are for nothing.
        """
        if not self.analytic:
            return self.autograd.at_stimuli(slice(None), self.outputs[block].to(self.device))
        if held is None:
            held = self.x.new_empty(self.n, block.stop - block.start, self.d)
        reverse = self.chain.reverse(self.readout[block].to(self.device))
        for i, jacobian in enumerate(held):
            if backward:
                self.add_path_(jacobian.copy_(reverse(i)), block)
            else:
                jacobian.copy_(self.jacobian(i, block))
        return held

    def add_path_(self, jacobians: Tensor, block: slice) -> Tensor:
        """Add the Jacobian of the linear path, if there is one, to those (..., v, D) of a block."""
        return jacobians if self.path is None else jacobians.add_(self.path[block].to(self.device))

    def tensors(self) -> Iterator[Tensor]:
        """All tensors that the result depends on."""
        if self.analytic:
            yield from self.chain.parameters
            yield self.readout
            if self.path is not None:
                yield self.path
        else:
            yield from self.module.state_dict().values()
            if self.chosen:
                yield self.outputs
        yield self.x

    def settings(self) -> str:
        """All else that the result depends on."""
        return f"{self.names} {self.precision} {self.device.type} {self._structure} {self.spaces}"


@dataclass(frozen=True)
class Plan:
    """How a computation will run; the log shows it as text before the computation starts."""

    order: str
    """A name in `jne.jacobian.orders.ORDERS`."""
    voxel_block: int
    """Voxels at a time."""
    voxel_group: int
    """Voxels whose blocks are done for a stimulus before the next stimulus."""
    n_groups: int
    n_kept: int
    """Stimuli whose hidden Jacobian is computed once, because it can be kept in memory."""
    operations: float
    memory_gb: float
    """Beside the encoder, the features and the result."""

    def __str__(self) -> str:
        several = self.voxel_block < self.voxel_group and self.n_groups > 1
        groups = f"in groups of {self.voxel_group}, " if several else ""
        return (
            f"Jacobians: {self.order} order, blocks of {self.voxel_block} voxels, {groups}"
            f"{self.operations:.2e} operations, {self.memory_gb:.2f} GB of working memory"
        )


def make_plan(job: Job, max_memory_gb: float, order: str | None = None) -> Plan:
    """The order with the fewest operations among those that fit the memory, and its blocks.

    Whether any fits does not depend on the values of the weights: `check_computable` asks before
    they are trained. Raises InputError for an order that cannot give the variants, and for a bound
    on memory that cannot be met, with the smallest bound that could be.
    """
    budget = min(max_memory_gb * 1e9, 2.0**62)  # finite
    operations, held_block = _operations(job, budget, order)
    if order is not None and order not in operations:
        raise InputError(
            "order", f"cannot give {', '.join(job.names)} of this encoder", value=order
        )
    orders = sorted(operations, key=operations.__getitem__) if order is None else [order]
    least = np.inf
    for name in orders:
        memory = _memory(job, budget, name)
        least = min(least, memory.least)
        if memory.least <= budget:
            return _in_blocks(job, budget, name, memory, held_block, operations[name])
    raise InputError(
        "max_memory_gb",
        f"too small: this computation needs at least {np.ceil(least / 1e7) / 100:.2f}",
        value=max_memory_gb,
    )


def _operations(job: Job, budget: float, order: str | None) -> tuple[dict[str, float], int]:
    """The operations of each order that can give the arrays; voxels of a block in the held order.

    Among equals the first is the best: reverse takes all stimuli at once.
    """
    n, d, h, v = job.n, job.d, job.h, job.v
    if not job.analytic:
        times = 2 if job.zscored else 1
        # A pass forward or back multiplies once with every weight; autograd keeps a pass for both.
        size = 2 * sum(t.numel() for t in (*job.module.parameters(), *job.module.buffers()))
        operations = {
            "reverse": float(n * v * times * size),
            "streamed": 2.0 * n * size * (d if v > d and job.autograd.forward_mode else v),
        }
        holds = n * d * job.x.element_size() * (2 + job.gain_shape)
        if order is None and holds > budget / 2:
            del operations["reverse"]  # holds the Jacobians of a voxel at all stimuli
        return operations, 0
    forward, product = n * job.chain.forward_operations(d), 2 * n * v * h * d
    back = job.chain.reverse_operations() + _HOLDING * d
    operations = {"reverse": float(n * v * back)}
    held_block = 0
    if not job.zscored:
        room = budget - _fixed_memory(job) - job.product.nbytes - d * v * job.x.element_size()
        kept = min(max(room / (n * h * d * job.x.element_size()), 0), 1)  # about, see `_in_blocks`
        operations["centred"] = (2 - kept) * forward + product
    else:
        # Where reverse has fewer operations, the readout is not even converted for `product`
        if order == "held" or forward + product < operations["reverse"]:
            room = budget - _fixed_memory(job) - job.product.nbytes
            held_block, passes = _held_block(job, room)
            if held_block or order == "held":
                operations["held"] = passes * forward + product
        operations["streamed"] = 2 * forward + 2 * product
    return operations, held_block


@dataclass(frozen=True)
class _Memory:
    """Bytes that an order takes."""

    fixed: float
    per_voxel: float
    """Of a block."""
    directions: float
    """Per voxel of a group, not only of a block: the directions of their Jbar."""
    smallest: int
    """The fewest voxels of a block."""

    @property
    def least(self) -> float:
        return self.fixed + self.smallest * (self.per_voxel + self.directions)


def _memory(job: Job, budget: float, order: str) -> _Memory:
    n, d, item = job.n, job.d, job.x.element_size()
    fixed = _fixed_memory(job)
    if job.analytic and order != "reverse":
        fixed += job.product.nbytes
    copies = 1 + job.gain_shape  # with the product of the deviation with the direction of Jbar
    per_voxel = {
        "centred": d * (copies * item + (job.product.bytes_per_value if order == "centred" else 0)),
        # For all stimuli: the Jacobian so far, its product with the slopes, the step, their sum
        "reverse": n * d * item + _one_stimulus(job) + 4 * _width(job) * item
        if job.analytic
        else n * (copies + 1) * d * item,
        "held": n * d * item + _one_stimulus(job),
        "streamed": _one_stimulus(job),
    }[order]
    directions = d * item if order == "centred" and job.gain_shape else 0
    smallest = min(job.v, 1 if order == "reverse" else _SMALLEST_BLOCK)
    if not job.analytic:
        fixed += job.autograd.limit_memory((budget - fixed - smallest * per_voxel) / 2)
    return _Memory(fixed, per_voxel, directions, smallest)


def _in_blocks(
    job: Job, budget: float, order: str, memory: _Memory, held_block: int, operations: float
) -> Plan:
    """The blocks of an order that fits the memory. operations: where nothing is kept."""
    n, d, h, v, item = job.n, job.d, job.h, job.v, job.x.element_size()
    room = budget - memory.fixed
    block = group = max(memory.smallest, min(v, int(room / (memory.per_voxel + memory.directions))))
    if order == "held":
        block = group = max(memory.smallest, held_block)
    if order == "reverse" and job.analytic:
        block = group = min(block, _VOXEL_BLOCK_BACK)
    if order == "centred":

        def voxels_in_group() -> int:
            size = (room - block * memory.per_voxel) / memory.directions if memory.directions else v
            return min(v, max(block, int(size)))

        block = min(block, _VOXEL_BLOCK)
        group = voxels_in_group()
        if group < v:  # smaller blocks, for larger groups: each group computes all G_i once more
            block = min(block, _VOXEL_BLOCK_IN_GROUPS)
            group = voxels_in_group()
    used = memory.fixed + block * memory.per_voxel + group * memory.directions
    kept, n_groups = 0, -(-v // group)
    if job.analytic and order != "reverse" and not (order == "held" and n_groups == 1):
        kept = job.chain.n_kept = min(n, int((budget - used) / (h * d * item)))
        used += kept * h * d * item
        forward = n * job.chain.forward_operations(d)
        if order == "held":
            operations = (n_groups - (n_groups - 1) * kept / n) * forward + 2 * n * v * h * d
        else:
            products = 2 if order == "streamed" else 1  # of J_i, or of its deviation
            operations = (2 - kept / n) * forward + products * 2 * n * v * h * d
    return Plan(order, block, group, n_groups, kept, float(operations), used / 1e9)


def _width(job: Job) -> int:
    return max(job.chain.width, job.d)


def _largest(job: Job) -> int:
    """Values of the largest matrix that a step of the chain makes: a G_i, or rows of a weight."""
    return max(job.chain.width * job.d, job.chain.largest)


def _fixed_memory(job: Job) -> float:
    """Bytes that every order takes, whatever its blocks."""
    fixed = 3e7  # taken by libraries
    if job.analytic:
        item = job.x.element_size()
        fixed += job.chain.nbytes + 6 * _largest(job) * item  # G_i, its mean, steps
        if job.chosen:  # copies of the chosen rows
            fixed += job.readout.nbytes + (0 if job.path is None else job.path.nbytes)
    return fixed


def _one_stimulus(job: Job) -> float:
    """Bytes per voxel, in the streamed and held order: Jacobians, means, deviations, norms."""
    return (5 + 3 * bool(job.zscored) + 2 * job.gain_shape) * job.d * job.x.element_size()


def _held_block(job: Job, room: float) -> tuple[int, int]:
    """Voxels of a block in the held order, and how often all G_i are computed.

    Once where all of them can be kept beside a block; else, for blocks as large as they can be,
    once per block. 0 voxels where the room, in bytes, is too small.
    """
    d, item = job.d, job.x.element_size()
    per_voxel = job.n * d * item + _one_stimulus(job)
    kept = min(job.v, int((room - job.n * job.h * d * item) / per_voxel))
    anew = min(job.v, int(room / per_voxel))
    least = min(job.v, _SMALLEST_BLOCK)
    if kept >= least and (anew < job.v or job.v > _VOXEL_BLOCK):
        return min(kept, _VOXEL_BLOCK), 1
    return (anew, -(-job.v // anew)) if anew >= least else (0, 0)

"""Deviations of an encoder's Jacobians from their mean over stimuli, streamed in blocks.

Gao et al. 2025, sections 2.3 and 2.4.

N stimuli, D features, H hidden width, V voxels, v voxels of a block.

    J_i = W_out G_i                                  (V, D)  G_i = d h_last / d x  at stimulus i
    s[i, v] = sum_d |J_i[v, d] - Jbar[v, d]|         (N, V)

The N x V x D tensor (61 GB for 20,000 voxels) is never formed. Three orders of the same sums:

    centred   forward to the last hidden layer, then W_out (G_i - Gbar): one product per stimulus
              and block of voxels, 2 N V H D operations in all. For many voxels.
    reverse   from the voxels back to the features, for all stimuli of a block of voxels at once.
              For few voxels.
    streamed  J_i of one stimulus at a time, twice: for the mean, then for the deviations. For the
              z-score variants, which need J_i itself, and for modules without a residual chain.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.encoders import HasResidualChain
from jne.jacobian.chain import Chain, functional_jacobian
from jne.jacobian.product import ReadoutMatmul
from jne.jacobian.resumable import ResumableArrays, fingerprint
from jne.jacobian.variants import VARIANTS, check_variant, variant_file

_VOXEL_BLOCK = 2048  # rows of a product: large enough for full speed, small enough for the cache

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How a computation will run; the log shows it as text before the computation starts."""

    order: str
    """centred, reverse or streamed."""
    voxel_block: int
    """Voxels at a time."""
    n_blocks: int
    """Blocks of voxels, one after the other; within each, stimulus by stimulus."""
    operations: float
    memory_gb: float
    """Beside the encoder, the features and the result."""

    def __str__(self) -> str:
        return (
            f"Jacobians: {self.order} order, blocks of {self.voxel_block} voxels, "
            f"{self.operations:.2e} operations, {self.memory_gb:.2f} GB of working memory"
        )


def jacobian_deviation(
    encoder: nn.Module,
    features: Tensor | NDArray,
    *,
    variant: str | Sequence[str] = "l1",
    voxels: NDArray | None = None,
    precision: str = "float32",
    device: str = "cpu",
    max_memory_gb: float = 1.0,
    order: str | None = None,
    path: Path | None = None,
    progress: Callable[[float], None] | None = None,
    memo: dict | None = None,
) -> NDArray | dict[str, NDArray]:
    """s[i, v] = sum_d |J_i[v, d] - Jbar[v, d]|, how far each Jacobian is from the mean (eq. 3-4).

    encoder: any module that maps (n, D) to (n, V) row by row, float32 or float64, in evaluation
        mode. One with a `residual_chain` (as ResidualEncoder has) is many times faster.
    features: (N, D), N at least 1, standardised as in training; cast to the encoder's dtype.
    variant: a name in `VARIANTS`, or several, which then share the work: `l1` (JNE), `l2` (the L2
        norm over d), `zscore_l1`, `zscore_l2` (each J_i[v, :] z-scored over d first; A.9.2).
    voxels: which of the encoder's outputs, integer indices (V',); by default all.
    precision: of the main product, see `jne.jacobian.product`: float32 (the encoder's own dtype),
        bfloat16 or int8; the two faster ones need a `residual_chain`.
    device: where to compute: cpu, cuda, cuda:1, ...
    max_memory_gb: bound on the working memory, beside the encoder, the features and the result.
    order: centred, reverse or streamed; by default the one with the fewest operations.
    path: a .npy file to write, memory-mapped; variants other than l1 add their name to it. If a
        computation on the same encoder, features and settings was killed, this one continues from
        the arrays it left beside `path`.
    progress: called with the share done, from 0 to 1.
    memo: an empty dict at first. Calls that are given the same dict share the forward passes of
        encoders with the same hidden weights and features, but other activations.

    Returns (N, V') of the encoder's dtype, in standardised response per standardised feature
    (z-score variants: without unit); a dict of them by name where `variant` is a sequence. Exactly
    0 for an encoder without activations. Raises ValueError on shapes that do not fit, features
    that are not finite, unknown words, and a memory bound that cannot be met.
    """
    variants = (variant,) if isinstance(variant, str) else tuple(variant)
    _check_words(variants, order)
    # Lightning tests in inference mode, in which no derivative can be taken.
    with torch.inference_mode(False), torch.no_grad():
        job = _Job(encoder, features, voxels, variants, precision, torch.device(device), memo)
        plan = make_plan(job, max_memory_gb, order)
        _log.info("%s", plan)
        files = identity = None
        if path is not None:
            files = {v: variant_file(path, v) for v in variants}
            identity = fingerprint(job.tensors(), job.settings(), str(plan))
        with ResumableArrays(variants, files, (job.n, job.v), job.numpy_dtype, identity) as out:
            if job.constant:
                for array in out.arrays.values():
                    array[:] = 0
            else:
                steps = {"centred": _centred, "reverse": _reverse, "streamed": _streamed}
                n_units = plan.n_blocks * (1 if plan.order == "reverse" else job.n)
                for unit in steps[plan.order](job, plan, out.arrays, out.done):
                    out.advance(unit)
                    if progress is not None:
                        progress(unit / n_units)
        if progress is not None:
            progress(1.0)
        results = out.results()
    return results[variant] if isinstance(variant, str) else results


class _Job:
    """The checked inputs, on the device of the computation."""

    def __init__(self, encoder, features, voxels, variants, precision, device, memo=None) -> None:
        parameter = next(encoder.parameters())
        self.dtype = parameter.dtype
        self.numpy_dtype = np.float64 if self.dtype == torch.float64 else np.float32
        x = torch.as_tensor(features).detach().to(device, self.dtype).clone()
        self.variants, self.device = variants, device
        self.plain = tuple(v for v in variants if not VARIANTS[v].zscored)
        self.zscored = tuple(v for v in variants if VARIANTS[v].zscored)
        if x.ndim != 2 or len(x) < 1:
            raise ValueError(f"features must be (n_stimuli, n_features), found {tuple(x.shape)}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("features hold NaN or infinite values")
        self.x, self.n, self.d = x, *x.shape
        chosen = None if voxels is None else torch.as_tensor(np.array(voxels), dtype=torch.long)
        self.chosen = chosen is not None
        self.analytic = isinstance(encoder, HasResidualChain)
        self.precision = precision
        if isinstance(encoder, HasResidualChain):
            hidden, readout = encoder.residual_chain()
            self.chain = Chain(hidden, x, memo)
            self.readout = readout.weight.detach()
            if chosen is not None:
                self.readout = self.readout[chosen]
            self.v, self.h = self.readout.shape
            self.constant = self.chain.linear
        else:
            if precision != "float32":
                raise ValueError(f"precision {precision} needs an encoder with a residual_chain")
            # Moved as a copy: the user's own module stays on its device.
            self.module = encoder if parameter.device == device else deepcopy(encoder).to(device)
            self.outputs = chosen
            self.v = len(chosen) if chosen is not None else self._count_outputs()
            self.h, self.constant = 0, False

    @cached_property
    def product(self) -> ReadoutMatmul:
        return ReadoutMatmul(self.readout, self.precision, self.device)

    def _count_outputs(self) -> int:
        shape = tuple(self.module(self.x[:1]).shape)
        if len(shape) != 2 or shape[0] != 1:
            raise ValueError(f"the encoder must map (1, n_features) to (1, V), found {shape}")
        return shape[1]

    def jacobian(self, i: int, block: slice) -> Tensor:
        """J_i of a block of voxels, (v, D)."""
        if self.analytic:
            return self.product.rows(block, self.product.right(self.chain.hidden_jacobian(i)))
        outputs = torch.arange(self.v)[block] if self.outputs is None else self.outputs[block]
        return functional_jacobian(self.module, self.x[i], outputs.to(self.device))

    def tensors(self) -> Iterator[Tensor]:
        if self.analytic:
            yield from self.chain.parameters
            yield self.readout
        else:
            yield from self.module.state_dict().values()
            if self.outputs is not None:
                yield self.outputs
        yield self.x

    def settings(self) -> str:
        return f"{self.variants} {self.precision} {self.device.type}"


def make_plan(job: _Job, max_memory_gb: float, order: str | None = None) -> Plan:
    """The order with the fewest operations, in blocks that fit the memory.

    Raises ValueError with the smallest bound that could be met.
    """
    n, d, h, v = job.n, job.d, job.h, job.v
    item = job.x.element_size()
    passes = 2 if job.zscored else 1
    if job.analytic:
        forward = n * job.chain.forward_operations(d)
        operations = {  # among equals the first wins: reverse takes all stimuli at once
            "reverse": n * v * job.chain.reverse_operations(),
            "centred": 2 * forward + 2 * n * v * h * d,
            "streamed": 2 * forward + 2 * passes * n * v * h * d,
        }
        del operations["centred" if job.zscored else "streamed"]
    else:
        size = sum(p.numel() for p in job.module.parameters())
        operations = {"streamed": 4 * n * size * min(v, d)}
    order = order or min(operations, key=operations.get)
    if order not in operations:
        raise ValueError(f"order {order} cannot give {', '.join(job.variants)} of this encoder")

    fixed = 3e7  # taken by libraries
    if job.analytic:
        fixed += job.chain.nbytes + 6 * h * max(h, d) * item  # G_i, its mean and its steps
        fixed += job.readout.nbytes if job.chosen else 0
        fixed += job.product.nbytes if order != "reverse" else 0
    per_voxel = {
        "centred": d * (item + (job.product.bytes_per_value if order == "centred" else 0)),
        # For all stimuli: the Jacobian so far, its product with the slopes, the step, their sum
        "reverse": n * (4 * max(h, d) + d) * item,
        "streamed": (5 + 3 * bool(job.zscored)) * d * item,
    }[order]
    smallest = min(v, {"centred": 64, "reverse": 1, "streamed": 64}[order])
    budget = max_memory_gb * 1e9
    if fixed + smallest * per_voxel > budget:
        need = (fixed + smallest * per_voxel) / 1e9
        raise ValueError(
            f"max_memory_gb={max_memory_gb} is too small: this computation needs at least "
            f"{np.ceil(need * 100) / 100:.2f}"
        )
    block = max(smallest, min(v, int((budget - fixed) / per_voxel)))
    if order == "centred":
        block = min(block, _VOXEL_BLOCK)
    n_blocks = 1 if order == "centred" else -(-v // block)
    memory = (fixed + block * per_voxel) / 1e9
    return Plan(order, block, n_blocks, float(operations[order]), memory)


def _check_words(variants: Sequence[str], order: str | None) -> None:
    for variant in variants:
        check_variant(variant)
    if not variants:
        raise ValueError(f"no variant chosen; choose from {', '.join(VARIANTS)}")
    if order not in (None, "centred", "reverse", "streamed"):
        raise ValueError(f"unknown order {order!r}")


# Each order is a generator over its units of work, starting from unit `done`. It writes into `out`
# and yields how many units are complete.


def _centred(job: _Job, plan: Plan, out: dict[str, NDArray], done: int) -> Iterator[int]:
    mean = job.chain.mean_hidden_jacobian()  # (H, D)
    rows = {name: torch.empty(job.v, dtype=job.dtype, device=job.device) for name in out}
    last = job.variants[-1]
    for i in range(done, job.n):
        right = job.product.right(job.chain.hidden_jacobian(i).sub_(mean))
        for start in range(0, job.v, plan.voxel_block):
            block = slice(start, start + plan.voxel_block)
            product = job.product.rows(block, right)
            for name, row in rows.items():
                row[block] = _norm(product, name, consume=name == last)
        for name, row in rows.items():
            out[name][i] = row.cpu()
        yield i + 1


def _reverse(job: _Job, plan: Plan, out: dict[str, NDArray], done: int) -> Iterator[int]:
    for unit in range(done, plan.n_blocks):
        start = unit * plan.voxel_block
        block = slice(start, start + plan.voxel_block)
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


def _streamed(job: _Job, plan: Plan, out: dict[str, NDArray], done: int) -> Iterator[int]:
    for unit in range(done // job.n, plan.n_blocks):
        start = unit * plan.voxel_block
        block = slice(start, min(start + plan.voxel_block, job.v))
        means = _mean_jacobians(job, block)
        for i in range(max(done - unit * job.n, 0), job.n):
            for names, values in _both_forms(job, job.jacobian(i, block)):
                values = values - means[names]
                for name in names:
                    out[name][i, block] = _norm(values, name, consume=False).cpu()
            yield unit * job.n + i + 1


def _mean_jacobians(job: _Job, block: slice) -> dict[tuple[str, ...], Tensor]:
    """The means over stimuli of J_i and of the z-scored J_i, where needed: (v, D) each."""
    first = {names: values.clone() for names, values in _both_forms(job, job.jacobian(0, block))}
    shift = {names: torch.zeros_like(values) for names, values in first.items()}
    for i in range(1, job.n):
        for names, values in _both_forms(job, job.jacobian(i, block)):
            shift[names] += values - first[names]  # equal Jacobians deviate by exactly 0
    return {names: values + shift[names] / job.n for names, values in first.items()}


def _both_forms(job: _Job, jacobian: Tensor) -> Iterator[tuple[tuple[str, ...], Tensor]]:
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
    """The variant's norm over d, the last axis; `consume` lets it overwrite the values."""
    return VARIANTS[variant].norm(values, consume)

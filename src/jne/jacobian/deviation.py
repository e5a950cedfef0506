"""Deviations of an encoder's Jacobians from their mean over stimuli, streamed in blocks.

Gao et al. 2025, sections 2.3 and 2.4. N stimuli, D features, V voxels.

    J_i = dy / dx                                    (V, D)  at stimulus i
    s[i, v] = sum_d |J_i[v, d] - Jbar[v, d]|         (N, V)

The N x V x D tensor (61 GB for 20,000 voxels) is never formed: `jne.jacobian.orders` has four
orders of the same sums, and `jne.jacobian.plan` chooses one and its blocks.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.errors import InputError
from jne.jacobian.autograd import differentiable
from jne.jacobian.chain import Memo
from jne.jacobian.gain_shape import GAIN_SHAPE
from jne.jacobian.orders import ORDERS
from jne.jacobian.plan import Job, make_plan
from jne.jacobian.resumable import ResumableArrays, fingerprint
from jne.jacobian.shard import restrict_, share_of
from jne.jacobian.variants import VARIANTS, check_variant, in_space, variant_file

_log = logging.getLogger(__name__)

SETTINGS = ("precision", "device", "max_memory_gb")
"""The arguments of `jacobian_deviation` that are keys of the config section `jacobian`."""


@overload
def jacobian_deviation(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
    encoder: nn.Module,
    features: Tensor | NDArray,
    *,
    variant: str = ...,
    voxels: NDArray | None = ...,
    precision: str = ...,
    device: str = ...,
    max_memory_gb: float = ...,
    order: str | None = ...,
    path: Path | None = ...,
    progress: Callable[[float], None] | None = ...,
    memo: Memo | None = ...,
    shard: tuple[int, int] | None = ...,
) -> NDArray: ...


@overload
def jacobian_deviation(
    encoder: nn.Module,
    features: Tensor | NDArray,
    *,
    variant: Sequence[str],
    voxels: NDArray | None = ...,
    precision: str = ...,
    device: str = ...,
    max_memory_gb: float = ...,
    order: str | None = ...,
    path: Path | None = ...,
    progress: Callable[[float], None] | None = ...,
    memo: Memo | None = ...,
    gain_shape: bool = ...,
    spaces: Mapping[str, slice] | None = ...,
    shard: tuple[int, int] | None = ...,
) -> dict[str, NDArray]: ...


def jacobian_deviation(
    encoder: nn.Module,
    features: Tensor | NDArray,
    *,
    variant: str | Sequence[str] = "l1",
    voxels: NDArray | None = None,
    precision: str = "float32",
    device: str = "cpu",
    max_memory_gb: float = 4.0,
    order: str | None = None,
    path: Path | None = None,
    progress: Callable[[float], None] | None = None,
    memo: Memo | None = None,
    gain_shape: bool = False,
    spaces: Mapping[str, slice] | None = None,
    shard: tuple[int, int] | None = None,
) -> NDArray | dict[str, NDArray]:
    r"""How far the Jacobian at each stimulus is from the mean Jacobian, per voxel (equation 3-4).

    .. math:: s_{iv} = \sum_d \left| J_{ivd} - \bar J_{vd} \right|, \quad
              J_i = \mathrm{d}y / \mathrm{d}x \text{ at stimulus } i

    The (N, V, D) tensor of Jacobians is never formed.

    Parameters
    ----------
    encoder : nn.Module
        Any module that maps (n, D) to (n, V) row by row, float32 or float64; computed in
        evaluation mode. One with a `residual_chain`, as `ResidualEncoder` has, is many times
        faster.
    features : (N, D) tensor or array
        N at least 1, standardised as in training; cast to the encoder's dtype.
    variant : str or sequence of str
        A name in `VARIANTS`, or several, which then share the work: `l1` (JNE), `l2` (the L2
        norm over d), `zscore_l1`, `zscore_l2` (each J_i[v, :] z-scored over d first; A.9.2).
    voxels : (V',) array of int, optional
        Which of the encoder's outputs; by default all.
    precision : {"float32", "bfloat16", "int8"}
        Of the main product, see `jne.jacobian.product`: float32 is the encoder's own dtype; the
        two faster ones need a `residual_chain`.
    device : str
        Where to compute: cpu, cuda, cuda:1, ...
    max_memory_gb : float
        Bound on the working memory, beside the encoder, the features and the result.
    order : {"centred", "reverse", "held", "streamed"}, optional
        By default the one with the fewest operations.
    path : Path, optional
        A .npy file to write, memory-mapped; all arrays but that of l1 add their name to it. If a
        computation on the same encoder, features and settings was killed, this one continues from
        the arrays it left beside `path`.
    progress : callable, optional
        Called with the share done, from 0 to 1.
    memo : dict, optional
        Empty at first. Calls with the same dict share the forward passes of encoders that have the
        same features, hidden weights and skip connections. Their activations may differ, if `repr`
        tells them apart.
    gain_shape : bool
        Whether to return, beside several variants, `gain` (N, V'), each stimulus's
        a_i = <J_i, Jbar> / <Jbar, Jbar>, and `shape` (N, V'), its norm(J_i - a_i Jbar) / norm(Jbar)
        (L2 over d; Keshishian et al. 2020). Without unit; exactly 1 and 0 for an encoder without
        activations; NaN where Jbar is 0 and J_i is not.
    spaces : dict of slices, optional
        Feature spaces by name: which columns of the features, one space after the other, all D of
        them. Beside each array there is then one per space, such as `l1_words`, over the space's
        columns alone. Those of l1 add up to the whole, the squares of those of l2 as well. Gain and
        shape of a space are those of its columns of J_i and Jbar. Needs a sequence of variants.
    shard : (k, K), optional
        Compute shard k of K, 1 <= k <= K, alone: a share of the V' voxels, in their order, that may
        be empty (then no file is written). Beside each other, the arrays of the K shards have the
        bytes of the whole, given the same settings and threads.

    Returns
    -------
    (N, V') array, or dict of them by name where `variant` is a sequence
        Of the encoder's dtype, in standardised response per standardised feature (z-score variants:
        without unit). Exactly 0 for an encoder without activations.

    Raises
    ------
    ValueError
        For shapes that do not fit, features that are not finite, unknown words, and a memory bound
        that cannot be met.
    """
    variants = (variant,) if isinstance(variant, str) else tuple(variant)
    _check_words(variants, order)
    for key, given in (("gain_shape", gain_shape), ("spaces", spaces)):
        if given and isinstance(variant, str):
            raise InputError(key, f"needs a sequence of variants, such as [{variant!r}]")
    names = variants + GAIN_SHAPE if gain_shape else variants

    def as_asked(results: dict[str, NDArray]) -> NDArray | dict[str, NDArray]:
        return results[variant] if isinstance(variant, str) else results

    with differentiable(encoder) as module:
        job = Job(module, features, voxels, names, precision, torch.device(device), memo, spaces)
        arrays, plan = job.arrays, make_plan(job, max_memory_gb, order)
        _log.info("%s", plan)
        if shard is not None:
            share = share_of(plan, job.v, shard)
            _log.info("shard %d/%d: %d of the %d voxels", *shard, share.stop - share.start, job.v)
            plan = restrict_(job, plan, share)
            if not job.v:
                return as_asked({name: np.empty((job.n, 0), job.numpy_dtype) for name in arrays})
        files = identity = None
        if path is not None:
            files = {name: variant_file(path, name) for name in arrays}
            identity = fingerprint(job.tensors(), job.settings(), str(plan))
        with ResumableArrays(arrays, files, (job.n, job.v), job.numpy_dtype, identity) as out:
            if job.constant:
                gains = {"gain", *(in_space("gain", space) for space in job.spaces)}
                for name, array in out.arrays.items():
                    array[:] = name in gains  # a gain of 1, all else 0
            else:
                n_units = plan.n_groups * (1 if plan.order in ("reverse", "held") else job.n)
                for unit in ORDERS[plan.order](job, plan, out.arrays, out.done):
                    out.advance(unit)
                    if progress is not None:
                        progress(unit / n_units)
        if progress is not None:
            progress(1.0)
        return as_asked(out.results())


def check_computable(
    encoder: nn.Module,
    features: Tensor | NDArray,
    *,
    variant: Sequence[str],
    voxels: NDArray | None = None,
    precision: str = "float32",
    device: str = "cpu",
    max_memory_gb: float = 4.0,
) -> None:
    """Raise InputError where `jacobian_deviation`, with gain and shape, would refuse its arguments.

    It computes no Jacobian. An encoder that is still to be trained is refused for the same reasons
    as afterwards.
    """
    _check_words(variant, None)
    names = (*variant, *GAIN_SHAPE)
    with differentiable(encoder) as module:
        job = Job(module, features, voxels, names, precision, torch.device(device))
        make_plan(job, max_memory_gb)


def _check_words(variants: Sequence[str], order: str | None) -> None:
    for variant in variants:
        check_variant(variant)
    if not variants:
        raise InputError("variant", f"none chosen; choose from {', '.join(VARIANTS)}")
    if order is not None and order not in ORDERS:
        raise InputError("order", f"choose from {', '.join(ORDERS)}", value=order)

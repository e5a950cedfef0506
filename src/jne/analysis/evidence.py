r"""Does the nonlinear part of a prediction exist in unseen responses? docs/evidence.md

The prediction f of an encoder is split into l, its best linear approximation over stimuli, and
what is left, g = f - l. Responses y to stimuli that nothing was fitted to are regressed on

.. math:: y = a + b_r r + b_o o + b_l l + b g

where r is the prediction of ridge regression, o that of least squares. If E[y|x] is linear in the
features, g tells nothing of y that these leave, whatever the encoder has fitted, and b over its
error is standard normal: the projected covariance measure (Lundborg et al. 2022, after Shah &
Peters 2020) with the encoder as the learned direction. The error is robust (HC3, MacKinnon & White
1985).

n unseen stimuli, N others, D features, V voxels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.analysis.contrast import quantile
from jne.analysis.evidence_sums import (
    N_REGRESSORS,
    EvidenceSums,
    one_sided_p,
    squared_pairs,
    validated_share,
)
from jne.analysis.prediction import fdr
from jne.utils.blocks import even_blocks
from jne.utils.notebook import summary_html, summary_text

_NOTHING = 1e-10
"""Of the variance of a prediction: what rounding leaves of one that is linear."""
RATE = 0.1
"""Of false discoveries, at which voxels are counted."""
STIMULI_PER_FEATURE = 2
"""With fewer, a least-squares approximation is noisier than what it leaves."""
_AT_ONCE = 2**18  # numbers in an array: few enough for the cache


class Evidence(NamedTuple):
    """What unseen responses say of each voxel; (V,) float64, NaN for constant responses."""

    z: NDArray[np.float64]
    """Standard normal where the voxel is linear; NaN where the prediction is."""
    p: NDArray[np.float64]
    """One-sided: the nonlinear part exists in the responses."""
    p_fdr: NDArray[np.float64]
    """p adjusted by Benjamini-Hochberg."""
    slope: NDArray[np.float64]
    """b: 1 where the nonlinear part has the right size, 0 where it is noise."""
    slope_error: NDArray[np.float64]
    r2_nonlinear: NDArray[np.float64]
    """Variance of the responses that the nonlinear part alone explains, over their variance.
    Unbiased, so negative half the time where there is none."""
    r2_linear: NDArray[np.float64]
    """The same of the linear regressors. Unbiased."""
    share: NDArray[np.float64]
    """r2_nonlinear / (r2_nonlinear + r2_linear): of what is predicted, how much is nonlinear. NaN
    where that is nothing."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """The ends of the 95 % interval of the share."""

    def __repr__(self) -> str:
        return summary_text(self._title, {"validated share": self.share})

    def _repr_html_(self) -> str:
        return summary_html(self._title, {"validated share": self.share, "z": self.z})

    @property
    def _title(self) -> str:
        nonlinear = int((self.p_fdr <= RATE).sum())
        return f"Evidence: {np.size(self.z)} voxels, {nonlinear} nonlinear at q = {RATE:g}"


class Columns(Protocol):
    """An array (n, V), or what computes some of its columns."""

    def __getitem__(self, rows_columns: tuple[slice, NDArray[np.int64]], /) -> NDArray: ...


def evidence_of(
    responses: Columns,
    prediction: Columns,
    nonlinear: Columns,
    linear: Sequence[Columns],
    sets: NDArray[np.int64],
    n_sets: int,
    keep: NDArray[np.float32] | None = None,
    *,
    groups: NDArray[np.int64] | None = None,
    crossed: NDArray | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[Evidence, EvidenceSums]:
    """Evidence of voxels; and of sets of them, and, last, of all of them.

    Parameters
    ----------
    responses : (n, V) array
    prediction : (n, V) array
        The encoder's.
    nonlinear : (n, V) array
        What is nonlinear in it (`jne.analysis.linear_part`).
    linear : sequence of (n, V) arrays
        The predictions of ridge and of least-squares regression. Without these linear voxels come
        out as nonlinear: what is linear in the responses, and missing in the encoder's linear part,
        is then no regressor, and the noise that both have fitted is common to them and to g.
    sets : (V,) array of int
        Which of the `n_sets` sets each voxel is in.
    keep : (n, V) array of float32, optional
        Filled with the product of each stimulus and voxel (`EvidenceSums.product`).
    groups : (n,) array of int, optional
        The group of each stimulus, numbers from 0. Errors are robust to noise that stimuli of a
        group share, and the sums are per group.
    crossed : (V,) array, optional
        Where the predictions of some stimuli are by encoders that were fitted to the others, as of
        folds: how much of the variance of g is noise of the responses; infinite where that is not
        known. Noise of two stimuli then meets twice, once in each one's product, and the variance
        of their sum grows by the share of this noise in g (docs/evidence.md).
    progress : callable, optional
        Called with the share of the voxels that are done, from 0 to 1.

    Returns
    -------
    Evidence, EvidenceSums
        The sums are those of n_sets + 1 sets.
    """
    together = _Groups(groups)
    n, n_voxels = len(responses[:, sets[:0]]), len(sets)
    columns = np.full((len(_COLUMNS), n_voxels), np.nan)
    n_rows = n if groups is None else together.n_groups
    sums = {name: np.zeros((n_rows, n_sets)) for name in _PER_STIMULUS}
    totals = {name: np.zeros(n_sets + 1) for name in ("n_voxels", "nonlinear", "linear", "pairs")}
    of_all = torch.zeros((n_rows, n_rows))
    n_done = 0
    for number in range(n_sets):
        members = np.flatnonzero(sets == number)
        of_set = torch.zeros_like(of_all)
        for part in even_blocks(len(members), max(_AT_ONCE // n, 2)):
            voxels = members[part]
            arrays = (responses, prediction, nonlinear, *linear)
            y, f, g, *others = (_float32(x, voxels) for x in arrays)
            noise = None if crossed is None else torch.from_numpy(crossed[voxels])
            per_stimulus, per_voxel, own, product = _regress(
                y, g, [*others, f - g], together, noise
            )
            columns[:, voxels] = [per_voxel[name].numpy() for name in _COLUMNS]
            for name in _PER_STIMULUS:
                sums[name][:, number] += per_stimulus[name].sum(dim=1, dtype=torch.float64).numpy()
            of_set.addmm_(own, own.T)
            if keep is not None:
                keep[:, voxels] = product.numpy()
            n_done += len(voxels)
            if progress is not None:
                progress(n_done / n_voxels)
        totals["pairs"][number] = squared_pairs(of_set)
        of_all += of_set
    by_name = dict(zip(_COLUMNS, columns, strict=True))
    for number in range(n_sets + 1):
        members = np.isfinite(by_name["linear"]) & ((sets == number) | (number == n_sets))
        totals["n_voxels"][number] = members.sum()
        for name in ("nonlinear", "linear"):
            totals[name][number] = by_name[name][members].sum()
    totals["pairs"][-1] = squared_pairs(of_all)
    with_all = {name: np.column_stack([x, x.sum(axis=1)]) for name, x in sums.items()}
    degrees = n_rows - max(N_REGRESSORS, 3 + len(linear))  # with f - g, g and the constant
    return _evidence(by_name, degrees), EvidenceSums(**with_all, **totals)


def _float32(values: Columns, voxels: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values[:, voxels], dtype=np.float32))


_COLUMNS = ("slope", "slope_error", "scale", "power", "nonlinear", "linear", "linear_error")
_PER_STIMULUS = ("product", "spread", "nonlinear_pull", "linear_pull")


class _Groups:
    """Sums over the stimuli of a group, which share noise."""

    def __init__(self, groups: NDArray[np.int64] | None) -> None:
        self._groups = None if groups is None else torch.from_numpy(groups)
        self.n_groups = 0 if groups is None else int(groups.max()) + 1

    def __call__(self, values: Tensor) -> Tensor:
        """(n_groups, v) from (n, v)."""
        if self._groups is None:
            return values
        return values.new_zeros(self.n_groups, values.shape[1]).index_add_(0, self._groups, values)


def _regress(
    y: Tensor, g: Tensor, linear: Sequence[Tensor], together: _Groups, noise: Tensor | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    """Of v voxels: _PER_STIMULUS, _COLUMNS (v,), what `pairs` are products of, and the product.

    _PER_STIMULUS and the third are (n, v), or of groups; the product is (n, v). Of constant
    responses, 0 per stimulus and NaN in columns. Without a nonlinear part, 0.
    """
    n = len(y)
    y = y - y.mean(dim=0)
    scale = y.square().mean(dim=0).sqrt()
    usable = y.abs().amax(dim=0) > 0
    y /= torch.where(usable, scale, torch.inf)
    g = g - g.mean(dim=0)
    size = g.square().sum(dim=0)
    basis: list[Tensor] = []
    for x in linear:
        x = x - x.mean(dim=0)
        power = x.square().sum(dim=0)
        size += power
        x = _without(x, basis)
        left = x.square().sum(dim=0)
        # An encoder whose linear part is ridge regression leaves rounding of it, and no regressor
        basis.append(x / torch.where(left > _NOTHING * power, left, torch.inf).sqrt())
    leverage = sum((b.square() for b in basis), torch.full_like(y, 1 / n))
    rest, g = _without(y, basis), _without(g, basis)
    fit = y - rest
    total = g.square().sum(dim=0)
    tested = (total > _NOTHING * size) & usable
    g *= tested
    total = torch.where(tested, total, torch.inf)
    product = g * rest
    slope = product.sum(dim=0) / total
    left, free = g * (rest - slope * g), 1 - leverage - g.square() / total
    inflation = torch.ones(())  # of standard errors
    if noise is not None:
        inflation = (1 + (n * noise / total).clamp(max=1)).sqrt().float()
    spread = together(left / free) * inflation
    # What noise alone adds to the squared slope: HC2, which is unbiased where HC3 is cautious
    by_noise = (together(left) * spread).sum(dim=0) * inflation / total.square()
    error = spread.square().sum(dim=0).sqrt() / total
    own = spread / (n * total).sqrt()
    linear_pull = fit * (2 * rest + fit)
    linear_pull = together(linear_pull - linear_pull.mean(dim=0)) / n
    overfit = ((leverage - 1 / n) * rest.square() / (1 - leverage)).mean(dim=0)
    power = torch.where(tested, total / n, 0)
    per_stimulus = {
        "product": together(product),
        "spread": spread,
        "nonlinear_pull": slope * spread / n - own.square(),
        "linear_pull": linear_pull,
    }
    per_voxel = {
        "slope": slope,
        "slope_error": error,
        "scale": scale,
        "power": power,
        "nonlinear": (slope.square() - by_noise) * power,
        "linear": fit.square().mean(dim=0) - overfit,
        "linear_error": linear_pull.square().sum(dim=0).sqrt(),
    }
    per_voxel = {name: torch.where(usable, x, torch.nan) for name, x in per_voxel.items()}
    return per_stimulus, per_voxel, own, product


def _without(x: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """x (n, v) without its projections on columns of unit length."""
    for b in basis:
        x = torch.addcmul(x, b, (b * x).sum(dim=0), value=-1)
    return x


def _evidence(columns: dict[str, NDArray[np.float64]], degrees: int) -> Evidence:
    slope, error, scale = columns["slope"], columns["slope_error"], columns["scale"]
    z = np.divide(slope, error, out=np.full_like(slope, np.nan), where=error > 0)
    p = one_sided_p(z, degrees)
    # The interval of a square, from that of the slope: it holds 0 where that does
    half = quantile() * error
    nearest, farthest = np.maximum(np.abs(slope) - half, 0), np.abs(slope) + half
    square, power = columns["nonlinear"], columns["power"]
    ends = np.minimum(power * np.square(nearest), square), power * np.square(farthest)
    linear = columns["linear"]
    share = validated_share(square, ends, linear, columns["linear_error"])
    slope, error = (np.where(error > 0, x * scale, np.nan) for x in (slope, error))
    return Evidence(z, p, fdr(p), slope, error, square, linear, *share)

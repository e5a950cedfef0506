r"""What switches: the few directions of feature space along which Jacobians move.

The deviations of a voxel's Jacobians from their mean over stimuli are a matrix A (N, D), with the
singular value decomposition

.. math:: J_i - \bar J = \sum_k l_{ik} d_k^\top

so that in feature direction d_k the response's slope is l_ik above its mean at stimulus i. Of a
region, the deviations of all its voxels are stacked.

N stimuli, D features, H width of the last hidden layer, V' voxels or regions.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from torch import Tensor, nn

from jne.errors import InputError
from jne.jacobian.autograd import differentiable
from jne.jacobian.plan import Job
from jne.utils.bars import progress_bar
from jne.utils.blocks import voxel_blocks
from jne.utils.notebook import summary_html, summary_text

FEWEST_STIMULI = 6  # of a half of them, three
_SMALL = 128  # a decomposition of so few rows is as fast as an approximate one
_MORE, _BLOCKS = 8, 3  # of a Krylov space: columns more than are wanted, and blocks of them
_COLLINEAR, _TINY = 1e-6, 1e-30
_ROWS = 512  # of a product, whose sum is in the encoder's precision
_SMALLEST_BLOCK, _LARGEST_BLOCK = 64, 256


@dataclass(frozen=True)
class Switching:
    """Directions along which the Jacobians of V' voxels or regions move, the most moved first.

    Arrays have the encoder's dtype. Where no Jacobian moves, as of a linear encoder, `share`,
    `participation_ratio` and `stability` are NaN, and the loadings 0.
    """

    names: list[str]
    """(V',) of regions; empty for voxels."""
    directions: NDArray[np.floating]
    """(V', D, k), of length 1, orthogonal to each other."""
    loadings: NDArray[np.floating]
    """(V', N, k): how far each stimulus's Jacobian is from the mean along a direction, in units of
    the Jacobian. The end that is farther from 0 is positive. Of a region, the first principal
    component of those of its voxels."""
    share: NDArray[np.floating]
    """(V', k), of the mean squared deviation, what lies along each direction."""
    participation_ratio: NDArray[np.floating]
    """(V',), how many directions are in use, of all there are: the squared sum of their variances
    over the sum of the squares. 1 where all Jacobians lie on one line."""
    stability: NDArray[np.floating]
    """(V', k), how well the first 1 to k directions of the even stimuli agree with those of the odd
    ones: the mean cosine of the principal angles between the two spaces."""

    def ends(self, n: int = 6) -> NDArray[np.int64]:
        """The n stimuli with the lowest, then the n with the highest loadings: (V', k, 2, n)."""
        order = np.argsort(self.loadings, axis=1).swapaxes(1, 2)
        return np.stack([order[..., :n], order[..., ::-1][..., :n]], axis=2)

    def correlations(self, stimuli: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float64]]:
        """Pearson's r (V', k) of the loadings with each numeric column of a table of the N stimuli.

        NaN for loadings that are all 0. Other columns, constant ones, and those with missing values
        have none.
        """
        centred = self.loadings - self.loadings.mean(axis=1, keepdims=True)
        length = np.linalg.norm(centred, axis=1)
        result = {}
        for name, column in stimuli.items():
            values = np.asarray(column)
            if values.dtype.kind not in "fiub" or len(values) != centred.shape[1]:
                continue
            z = values - values.mean(dtype=np.float64)
            size = np.linalg.norm(z)
            if size > 0 and np.isfinite(size):
                with np.errstate(invalid="ignore"):
                    result[name] = np.einsum("vnk,n->vk", centred, z / size) / length
        return result

    def agreement(self, other: "Switching") -> NDArray[np.float64]:
        """How well the first 1 to k directions agree with those of another encoder, (V', k).

        The mean cosine of the principal angles, as of `stability`. other: of the same voxels or
        regions, features and k, such as that of an encoder with another seed.
        """
        if other.directions.shape != self.directions.shape:
            shapes = f"{other.directions.shape} and {self.directions.shape}"
            raise InputError("other", f"its directions must have one shape with these: {shapes}")
        first, second = (torch.as_tensor(x.directions).double() for x in (self, other))
        ratio = torch.as_tensor(self.participation_ratio + other.participation_ratio)
        agreement: NDArray[np.float64] = _agreement(first, second, ratio).numpy()
        return agreement

    def __repr__(self) -> str:
        return summary_text(self._title, self._measures)

    def _repr_html_(self) -> str:
        return summary_html(self._title, self._measures)

    @property
    def _title(self) -> str:
        n, d, k = self.directions.shape
        what = "regions" if self.names else "voxels"
        return f"Switching: {n} {what}, {k} directions of {d} features"

    @property
    def _measures(self) -> dict[str, NDArray]:
        return {
            "participation ratio": self.participation_ratio,
            "share of the first": self.share[:, 0],
            "its stability": self.stability[:, 0],
        }


def switching(
    encoder: nn.Module,
    X: Tensor | NDArray,
    voxels: NDArray | Mapping[str, NDArray] | None = None,
    k: int = 8,
    *,
    device: str = "cpu",
    max_memory_gb: float = 4.0,
    verbose: int = 1,
) -> Switching:
    """The directions of feature space along which an encoder's Jacobians move over stimuli.

    Parameters
    ----------
    encoder : nn.Module
        Any module from features (n, D) to responses (n, V), as of `jacobian_deviation`.
    X : (N, D) tensor or array
        Features, standardised as in training.
    voxels : (V',) array of int, or dict of such arrays, optional
        Which of the responses, each by itself; by default all. A dict has regions, each with its
        voxels: then the directions are those of a region's voxels together.
    k : int
        How many directions, fewer than half the stimuli, and at most D.
    device, max_memory_gb
        As of `jacobian_deviation`.
    verbose : int
        0 for no progress bar.

    Returns
    -------
    Switching

    Raises
    ------
    InputError
        A `ValueError`: where module and features do not fit each other, features are not finite,
        and for a k or a bound on memory that cannot be met.

    Notes
    -----
    Of more than 128 stimuli and features, the decomposition is by block Krylov spaces of the Gram
    matrix (Musco & Musco 2015). See docs/switching.md.
    """
    regions = chosen = None
    if isinstance(voxels, Mapping):
        regions, chosen = voxels, np.concatenate([*voxels.values()])
    else:
        chosen = voxels
    with differentiable(encoder) as module, progress_bar("switching", verbose) as bar:
        job = Job(module, X, chosen, ("l2",), "float32", torch.device(device))
        most = min(job.n // 2 - 1, job.d)
        if job.n < FEWEST_STIMULI:
            raise InputError("X", f"{job.n} stimuli, but at least {FEWEST_STIMULI} are needed")
        if not 1 <= k <= most:
            raise InputError("k", f"must be 1 to {most}", value=k)
        if regions is None:
            blocks = list(voxel_blocks(job.v, _voxel_block(job, max_memory_gb)))
        else:
            ends = np.cumsum([len(members) for members in regions.values()])
            blocks = [slice(*pair) for pair in itertools.pairwise([0, *map(int, ends)])]
        parts = []
        for block in blocks:
            if regions is None:
                parts.append(_of_voxels(job, block, k))
            else:
                parts.append(_of_region(job, block, k))
            if bar is not None:
                bar(block.stop / job.v)
    names = [] if regions is None else list(regions)
    arrays = [torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True)]
    return Switching(names, *arrays)


# --- of each voxel by itself ---


def _voxel_block(job: Job, max_memory_gb: float) -> int:
    """How many voxels at a time; the chain keeps as many G_i as there is room for beside them."""
    n, d, item = job.n, job.d, job.x.element_size()
    per_voxel = item * (3 * n * d + 4 * min(n, d) ** 2)
    if not job.analytic:
        per_voxel += item * n * 4 * d
    elif not _forward(job):  # as of the reverse order (`jne.jacobian.plan`)
        per_voxel += item * 4 * max(job.chain.width, d)
    budget = room = max_memory_gb * 1e9
    if not job.analytic:
        room -= job.autograd.limit_memory(budget / 2)
    kept = n * job.h * d * item if _forward(job) else 0
    if room - kept > _SMALLEST_BLOCK * per_voxel:  # else each block computes the G_i once more
        room -= kept
    block = min(int(room / per_voxel), _LARGEST_BLOCK)
    if block < 1:
        least = np.ceil(per_voxel / 1e7) / 100
        raise InputError("max_memory_gb", f"must be at least {least:.2f}", value=max_memory_gb)
    if _forward(job):
        job.chain.n_kept = min(n, int((budget - block * per_voxel) / (job.h * d * item)))
    return block


def _forward(job: Job) -> bool:
    """Whether to go forward to the last hidden layer, or back from the voxels, if they are few."""
    return job.analytic and not job.chain.reverse_is_less(job.v)


def _deviations(job: Job, block: slice) -> Tensor:
    """J_i - Jbar of a block of voxels (v, N, D); exactly 0 where all J_i are equal."""
    values = job.jacobians(block, backward=not _forward(job))
    values -= values[0].clone()
    values -= values.mean(dim=0)
    return values.transpose(0, 1)


def _of_voxels(job: Job, block: slice, k: int) -> tuple[Tensor, ...]:
    """The arrays of `Switching`, of a block of voxels."""
    deviation = _deviations(job, block)
    directions, share, ratio = _directions(deviation, k)
    halves = (deviation[:, start::2] for start in (0, 1))
    first, second = (_directions(x - x.mean(dim=1, keepdim=True), k)[0] for x in halves)
    loadings = deviation @ directions
    return (*_signed(directions, loadings), share, ratio, _agreement(first, second, ratio))


def _directions(deviation: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Directions (v, D, k), the share of each (v, k), the participation ratio (v,)."""
    if deviation.shape[1] > deviation.shape[2]:
        return _leading(deviation.mT @ deviation, k)
    vectors, share, ratio = _leading(deviation @ deviation.mT, k)
    return _orthonormal(deviation.mT @ vectors), share, ratio


def _leading(gram: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of Gram matrices (v, n, n): vectors (v, n, k), shares (v, k), participation ratio (v,)."""
    total = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    ratio = total.square() / gram.square().sum(dim=(1, 2))
    n, width, basis = gram.shape[1], k + _MORE, None
    if len(gram) > 1 and n > max(_SMALL, _BLOCKS * width):
        start = torch.randn(n, width, generator=torch.Generator().manual_seed(0)).to(gram)
        blocks = [_orthonormal(gram @ start)]
        while len(blocks) < _BLOCKS:
            blocks.append(_orthonormal(gram @ blocks[-1]))
        basis = _orthonormal(_orthonormal(torch.cat(blocks, dim=2)))  # once leaves rounding
        gram = basis.mT @ (gram @ basis)
    if (
        n > _SMALL and basis is None
    ):  # of one large matrix, LAPACK finds the k in a third of the time
        largest = eigh(gram[0].cpu().numpy(), subset_by_index=[n - k, n - 1])
        values, vectors = (torch.from_numpy(x)[None].to(gram) for x in largest)
    else:
        values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(1)[:, :k].clamp(min=0), vectors.flip(2)[:, :, :k]
    return vectors if basis is None else basis @ vectors, values / total[:, None], ratio


def _orthonormal(vectors: Tensor) -> Tensor:
    """The orthonormal vectors (v, n, k) closest to these (Loewdin 1950); fewer are left of rank.

    By their Gram matrices, which for many is much faster than a QR decomposition of each.
    """
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=_TINY)
    values, axes = torch.linalg.eigh((vectors.mT @ vectors).double())
    keep = values > _COLLINEAR * values[:, -1:].clamp(min=_TINY)
    scaled = axes * torch.where(keep, values.clamp(min=_TINY).rsqrt(), 0)[:, None]
    return vectors @ (scaled @ axes.mT).to(vectors.dtype)


def _signed(directions: Tensor, loadings: Tensor) -> tuple[Tensor, Tensor]:
    """(v, D, k) and (v, N, k), turned so that a largest loading is positive."""
    sign = torch.where(loadings.amax(dim=1) < -loadings.amin(dim=1), -1, 1)[:, None]
    return directions * sign, loadings * sign


def _agreement(first: Tensor, second: Tensor, ratio: Tensor) -> Tensor:
    """Mean cosines (v, k) of the first 1 to k directions (v, D, k); NaN where the ratio is."""
    products = first.mT @ second
    cosines = [
        torch.linalg.svdvals(products[:, :j, :j]).mean(dim=1)
        for j in range(1, products.shape[1] + 1)
    ]
    return torch.where(ratio.isnan()[:, None], torch.nan, torch.stack(cosines, dim=1))


# --- of the voxels of a region together ---


def _of_region(job: Job, block: slice, k: int) -> tuple[Tensor, ...]:
    """The arrays of `Switching`, each of one region, from sums over its voxels and stimuli."""
    rows = _rows(job, block)
    first = rows(0)
    grams, shifts = [], []
    for start in (0, 1):
        gram = torch.zeros(job.d, job.d, dtype=torch.float64, device=job.device)
        shift = torch.zeros_like(first)
        half, size = range(start, job.n, 2), max(1, _ROWS // len(first))
        for begin in range(0, len(half), size):
            differences = torch.stack([rows(i) - first for i in half[begin : begin + size]])
            shift += differences.sum(dim=0)
            differences = differences.flatten(end_dim=1)
            gram += differences.T @ differences
        grams.append(gram)
        shifts.append(shift)
    counts = [(job.n + 1) // 2, job.n // 2]
    first_half, second_half = (
        _leading((gram - _outer(shift, n))[None], k)[0]
        for gram, shift, n in zip(grams, shifts, counts, strict=True)
    )
    shift = shifts[0] + shifts[1]
    directions, share, ratio = _leading((grams[0] + grams[1] - _outer(shift, job.n))[None], k)
    dtype = job.dtype
    along = directions[0].to(dtype)
    mean = shift / job.n
    of_rows = torch.stack([(rows(i) - first - mean) @ along for i in range(job.n)])  # (N, r, k)
    u, s, _ = torch.linalg.svd(of_rows.permute(2, 0, 1), full_matrices=False)
    loadings = (u[:, :, 0] * s[:, :1]).T[None]
    agreement = _agreement(first_half, second_half, ratio)
    return (*_signed(along[None], loadings), *(x.to(dtype) for x in (share, ratio, agreement)))


def _outer(shift: Tensor, n: int) -> Tensor:
    """n times the product of a mean with itself, from the sum (r, D) over n stimuli."""
    return (shift.T @ shift).double() / n


def _rows(job: Job, block: slice) -> Callable[[int], Tensor]:
    """From a stimulus to rows (r, D) with the products over d of its Jacobian's, (v, D).

    Of many voxels, whose Jacobians are W G_i with W (v, H), H rows do: R G_i where R'R = W'W.
    """
    if not job.analytic:
        return lambda i: job.jacobian(i, block)
    weights = job.readout[block].to(job.device)
    if len(weights) > job.h:
        weights = torch.linalg.qr(weights, mode="r")[1]
    if job.chain.reverse_is_less(len(weights)):
        return job.chain.reverse(weights)
    return lambda i: weights @ job.chain.hidden_jacobian(i)

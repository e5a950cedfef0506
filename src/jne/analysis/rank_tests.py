"""Mann-Whitney tests of all pairs of groups at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

_EXACT = 8  # voxels of the smaller group, up to which scipy's p is exact where nothing is tied


def mann_whitney(samples: Sequence[NDArray]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """U and the one-sided p of every ordered pair of G samples: is the first one greater?

    U counts the pairs of values in which the first sample's is larger, ties as one half. U and p
    are those of `scipy.stats.mannwhitneyu(first, second, alternative="greater")`, with its choice
    between the exact distribution and the normal approximation.

    samples: sorted values without NaN, each not empty. Returns two (G, G) arrays, NaN on the
    diagonal.
    """
    size = np.array([len(sample) for sample in samples], dtype=np.float64)
    u = np.full((len(samples), len(samples)), np.nan)
    if not samples:
        return u, u.copy()
    everything = np.concatenate(list(samples)).astype(np.float64)
    starts = np.r_[0, np.cumsum(size[:-1])].astype(int)
    for column, sample in enumerate(samples):
        below = np.searchsorted(sample, everything) + np.searchsorted(sample, everything, "right")
        u[:, column] = np.add.reduceat(below, starts) / 2
    np.fill_diagonal(u, np.nan)
    n1, n2 = size[:, None], size[None]
    ties = _ties(everything, np.repeat(np.arange(len(samples)), size.astype(int)))
    n = n1 + n2
    deviation = np.sqrt(n1 * n2 / 12 * (n + 1 - ties / (n * (n - 1))))
    with np.errstate(divide="ignore", invalid="ignore"):  # where all values are equal
        p = special.ndtr(-(u - n1 * n2 / 2 - 0.5) / deviation)
    exact = (np.minimum(n1, n2) <= _EXACT) & (ties == 0) & ~np.eye(len(samples), dtype=bool)
    sizes = np.stack(np.broadcast_arrays(np.minimum(n1, n2), np.maximum(n1, n2)), -1).astype(int)
    for small, large in np.unique(sizes[exact], axis=0):
        chosen = exact & (sizes == (small, large)).all(axis=-1)
        p[chosen] = _upper_tail(small, large)[u[chosen].astype(int)]
    return u, np.clip(p, 0, 1)


def _ties(values: NDArray, group: NDArray) -> NDArray[np.float64]:
    """sum(t^3 - t) over the tied values of each pair of groups, (G, G).

    With c and d the counts of a value in both groups, (c + d)^3 is the sum of products of matrices
    of counts. values, group: (V,), the groups numbered.
    """
    n_groups = int(group.max()) + 1
    _, value, count = np.unique(values, return_inverse=True, return_counts=True)
    tied = count[value] > 1
    if not tied.any():
        return np.zeros((n_groups, n_groups))
    ones = np.ones(int(tied.sum()))
    c = sparse.coo_array((ones, (group[tied], value[tied])), (n_groups, len(count))).tocsr()
    cubes, total = c.power(3).sum(axis=1), c.sum(axis=1)
    cross = (c.power(2) @ c.T).toarray()
    own = cubes - total
    return own[:, None] + own[None] + 3 * (cross + cross.T)


def _upper_tail(small: int, large: int) -> NDArray[np.float64]:
    """P(U >= u) without ties for u = 0, ..., small * large.

    The numbers of arrangements with each u are the coefficients of a Gaussian binomial: the product
    over i of (1 - q^(large + i)) / (1 - q^i). As integers they are exact where they fit into 64
    bits.
    """
    total = special.binom(small + large, small)
    n = small * large + 1
    coefficients: NDArray[Any] = np.zeros(n, dtype=np.int64 if total < 2**62 else np.float64)
    coefficients[0] = 1
    for i in range(1, small + 1):
        shifted = coefficients.copy()
        shifted[large + i :] -= coefficients[: max(n - large - i, 0)]
        for start in range(i):  # divided by 1 - q^i: sums with stride i
            shifted[start::i] = np.cumsum(shifted[start::i])
        coefficients = shifted
    half = n // 2 + 1
    coefficients[-half:] = coefficients[:half][::-1]  # symmetric; the first half is more precise
    return np.asarray(np.cumsum(coefficients[::-1])[::-1] / total, dtype=np.float64)

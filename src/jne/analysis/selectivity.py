"""Which stimuli is a region most nonlinear for (Gao et al. 2025, 3.5, A.11, A.12)?

N test stimuli, C clusters of them, V voxels, G groups of voxels (the whole brain and each ROI).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from jne.analysis.hierarchy import members
from jne.analysis.prediction import fdr
from jne.utils.blocks import voxel_blocks

WHOLE_BRAIN = "all"


@dataclass(frozen=True)
class Clusters:
    """Groups of test stimuli, in the order of the 1-D embedding."""

    names: list[str]
    label: NDArray[np.int64]
    """(N,) the position of each stimulus's cluster in `names`."""
    embedding: NDArray[np.float64]
    """(N, 2) t-SNE of the features."""
    silhouette: dict[int, float]
    """By number of clusters, if the silhouette chose that number; empty for categories."""


def embed(features: NDArray, n_dimensions: int, seed: int) -> NDArray[np.float64]:
    """t-SNE of the features (N, D), (N, n_dimensions), with scikit-learn's defaults."""
    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(n_dimensions, perplexity=perplexity, random_state=seed, init="pca")
    return tsne.fit_transform(np.asarray(features, dtype=np.float32)).astype(np.float64)


def cluster_categories(features: NDArray, category: Sequence[str], seed: int) -> Clusters:
    """The categories of the stimuli as clusters.

    Parameters
    ----------
    features : (N, D) array
    category : (N,) sequence of str
    seed : int
        Of t-SNE, which orders the clusters.

    Returns
    -------
    Clusters
    """
    names, label = np.unique(np.asarray(category, dtype=str), return_inverse=True)
    return _ordered(features, list(names), label, embed(features, 2, seed), {}, seed)


def cluster_features(features: NDArray, max_clusters: int, seed: int) -> Clusters:
    """K-means on the 2-D t-SNE, with the number of clusters whose silhouette is largest (A.11).

    Parameters
    ----------
    features : (N, D) array
        N at least 3.
    max_clusters : int
        The largest number that is tried.
    seed : int
        Of t-SNE and K-means.

    Returns
    -------
    Clusters
    """
    embedding = embed(features, 2, seed)
    silhouette, labels = {}, {}
    for k in range(2, min(max_clusters, len(features) - 1) + 1):
        labels[k] = KMeans(k, n_init=3, random_state=seed).fit_predict(embedding)
        silhouette[k] = float(silhouette_score(embedding, labels[k]))
    best = max(silhouette, key=silhouette.__getitem__)
    names = [str(k) for k in range(best)]
    clusters = _ordered(features, names, labels[best], embedding, silhouette, seed)
    numbered = [f"cluster {k + 1}" for k in range(best)]  # by rank in the 1-D embedding
    return Clusters(numbered, clusters.label, embedding, silhouette)


def _ordered(
    features: NDArray,
    names: list[str],
    label: NDArray,
    embedding: NDArray,
    silhouette: dict[int, float],
    seed: int,
) -> Clusters:
    line = embed(features, 1, seed)[:, 0]
    order = np.argsort([line[label == k].mean() for k in range(len(names))])
    position = np.argsort(order)
    return Clusters([names[k] for k in order], position[label], embedding, silhouette)


def mean_over_cluster(jne_ss: NDArray, clusters: Clusters) -> NDArray[np.float64]:
    """MoJ: mean JNE-SS of each voxel over the stimuli of each cluster (A.12).

    Parameters
    ----------
    jne_ss : (N, V) array
    clusters : Clusters
        Of the N stimuli.

    Returns
    -------
    (C, V) array of float64
    """
    weights = _membership(clusters.label, len(clusters.names))
    moj = np.empty((len(weights), jne_ss.shape[1]))
    for columns in voxel_blocks(jne_ss.shape[1]):
        moj[:, columns] = weights @ np.asarray(jne_ss[:, columns], dtype=np.float64)
    return moj


def mean_over_regions(values: NDArray, roi: NDArray, order: Sequence[str]) -> pd.DataFrame:
    """Means over all voxels and over those of each ROI.

    For MoJ this is MoM (A.12); for JNE-SS, the mean of each group at each stimulus.

    Parameters
    ----------
    values : (rows, V) array
    roi : (V,) array of str
        The ROI of each voxel.
    order : sequence of str
        The ROIs to report.

    Returns
    -------
    (rows, G) DataFrame
        The column `all`, then one per ROI; NaN for an ROI without voxels.
    """
    means = {WHOLE_BRAIN: values.mean(axis=1, dtype=np.float64)}
    for name, chosen in zip(order, members(roi, order), strict=True):
        means[name] = values[:, chosen].mean(axis=1, dtype=np.float64) if len(chosen) else np.nan
    return pd.DataFrame(means)


def min_max(mom: pd.DataFrame) -> pd.DataFrame:
    """MoM scaled from 0 to 1 within each group (Fig. 8c).

    Parameters
    ----------
    mom : (C, G) DataFrame
        As `mean_over_regions` returns it for MoJ.

    Returns
    -------
    (C, G) DataFrame
        NaN where all values of a group are equal.
    """
    spread = mom.max() - mom.min()
    return (mom - mom.min()) / spread.where(spread > 0)


def preferences(
    by_stimulus: pd.DataFrame, clusters: Clusters, n_permutations: int, seed: int, alpha: float
) -> pd.DataFrame:
    """Which group of voxels is more nonlinear for the stimuli of a cluster than for the others.

    The statistic is the mean JNE-SS inside the cluster minus that outside. Its p comes from
    permutations of the stimuli, (k + 1) / (n + 1), and is adjusted by Benjamini-Hochberg over all
    clusters and groups.

    Parameters
    ----------
    by_stimulus : (N, G) DataFrame
        JNE-SS of each group, as `mean_over_regions` returns it.
    clusters : Clusters
        Of the N stimuli.
    n_permutations : int
    seed : int
        Of the permutations.
    alpha : float
        Level of significance.

    Returns
    -------
    DataFrame
        One row per group and cluster: roi, cluster, n_stimuli, inside, outside, ratio, p, p_fdr,
        preferred (p_fdr < alpha).
    """
    values = by_stimulus.to_numpy(dtype=np.float64)
    n, size = len(values), np.bincount(clusters.label, minlength=len(clusters.names))[:, None]

    def means(label: NDArray) -> tuple[NDArray, NDArray]:  # each (C, G)
        inside = _membership(label, len(size)) @ values
        return inside, (values.sum(axis=0) - size * inside) / (n - size)

    inside, outside = means(clusters.label)
    rng = np.random.default_rng(seed)
    exceed = np.zeros_like(inside)
    for _ in range(n_permutations):
        # At a given cluster size the difference grows with the mean inside: compare that.
        permuted = _membership(rng.permutation(clusters.label), len(size)) @ values
        exceed += permuted >= inside * (1 - 1e-12)
    p = (exceed + 1) / (n_permutations + 1)
    table = pd.DataFrame(
        {
            "roi": np.tile(by_stimulus.columns, len(size)),
            "cluster": np.repeat(clusters.names, by_stimulus.shape[1]),
            "n_stimuli": np.repeat(size, by_stimulus.shape[1]),
            "inside": inside.ravel(),
            "outside": outside.ravel(),
            "p": p.ravel(),
        }
    )
    table["ratio"] = table["inside"] / table["outside"].where(table["outside"] > 0)
    table["p_fdr"] = fdr(table["p"].to_numpy())
    table["preferred"] = table["p_fdr"] < alpha
    return table


def _membership(label: NDArray, n_clusters: int) -> NDArray[np.float64]:
    """(C, N): 1 / size of the cluster for the stimuli that belong to it, else 0."""
    member = (label == np.arange(n_clusters)[:, None]).astype(np.float64)
    return member / member.sum(axis=1, keepdims=True)

"""Clusters, MoJ, MoM and preferences against plain loops."""

import numpy as np
import pandas as pd
import pytest
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from jne.analysis import selectivity
from jne.analysis.selectivity import Clusters

RNG = np.random.default_rng(4)
LABEL = np.array([0, 0, 1, 2, 1, 2, 2, 0, 1, 2])
CLUSTERS = Clusters(["x", "y", "z"], LABEL, np.zeros((10, 2)), {})
JNE_SS = RNG.gamma(1.0, size=(10, 6))
ROI = np.array(["V1", "V1", "FFA-1", "", "FFA-1", "FFA-1"])


def test_moj_and_mom_are_means_of_means():
    moj = selectivity.mean_over_cluster(JNE_SS, CLUSTERS)
    for c in range(3):
        for v in range(6):
            assert moj[c, v] == pytest.approx(
                np.mean([JNE_SS[i, v] for i in range(10) if LABEL[i] == c])
            )
    mom = selectivity.mean_over_regions(moj, ROI, ["V1", "FFA-1", "V2"])
    assert list(mom.columns) == ["all", "V1", "FFA-1", "V2"]
    assert mom.loc[1, "V1"] == pytest.approx((moj[1, 0] + moj[1, 1]) / 2)
    assert mom.loc[2, "FFA-1"] == pytest.approx((moj[2, 2] + moj[2, 4] + moj[2, 5]) / 3)
    assert mom.loc[0, "all"] == pytest.approx(moj[0].mean())
    assert mom["V2"].isna().all()


def test_min_max_within_each_region():
    mom = pd.DataFrame({"V1": [1.0, 3.0, 2.0], "flat": [2.0, 2.0, 2.0]})
    scaled = selectivity.min_max(mom)
    assert list(scaled["V1"]) == [0.0, 1.0, 0.5]
    assert scaled["flat"].isna().all()


def test_preference_p_is_the_permutation_p():
    values = pd.DataFrame({"all": JNE_SS.mean(axis=1), "V1": JNE_SS[:, :2].mean(axis=1)})
    table = selectivity.preferences(values, CLUSTERS, 4000, 0, 0.05)
    assert len(table) == 6
    rng = np.random.default_rng(11)  # other permutations than those of `preferences`
    for row in table.itertuples():
        x = values[row.roi].to_numpy()
        own = LABEL == CLUSTERS.names.index(row.cluster)
        assert row.inside == pytest.approx(x[own].mean())
        assert row.outside == pytest.approx(x[~own].mean())
        assert row.ratio == pytest.approx(x[own].mean() / x[~own].mean())
        assert row.n_stimuli == own.sum()
        difference = x[own].mean() - x[~own].mean()
        null = []
        for _ in range(2000):
            shuffled = rng.permutation(own)
            null.append(x[shuffled].mean() - x[~shuffled].mean())
        assert row.p == pytest.approx(np.mean(np.array(null) >= difference - 1e-12), abs=0.04)


def test_a_region_that_is_linear_outside_a_cluster_has_no_ratio():
    values = pd.DataFrame({"V1": np.where(LABEL == 1, 2.0, 0.0)})
    table = selectivity.preferences(values, CLUSTERS, 500, 0, 0.05).set_index("cluster")
    assert table["inside"].to_dict() == {"x": 0, "y": 2, "z": 0}
    assert np.isnan(table.loc["y", "ratio"])
    assert table.loc["x", "ratio"] == 0
    # Of 120 ways to choose three of ten stimuli one is that of the cluster
    assert table.loc["y", "p"] == pytest.approx(1 / 120, abs=0.01)
    assert table.loc["x", "p"] == 1


def test_a_planted_preference_is_found_and_no_other():
    label = np.repeat(np.arange(5), 20)
    clusters = Clusters([str(k) for k in range(5)], label, np.zeros((100, 2)), {})
    values = pd.DataFrame(RNG.gamma(2.0, size=(100, 3)), columns=["all", "V1", "FFA-1"])
    values.loc[label == 3, "FFA-1"] += 3
    found = selectivity.preferences(values, clusters, 2000, 0, 0.05).query("preferred")
    assert [(row.roi, row.cluster) for row in found.itertuples()] == [("FFA-1", "3")]


def test_clusters_of_features_are_the_planted_ones():
    truth = np.repeat(np.arange(4), 25)
    features = 20 * np.eye(4, 12)[truth] + RNG.normal(size=(100, 12))
    clusters = selectivity.cluster_features(features, 8, 0)
    assert len(clusters.names) == 4
    # The same partition, however it is numbered.
    assert len({(a, b) for a, b in zip(truth, clusters.label, strict=True)}) == 4
    assert max(clusters.silhouette, key=clusters.silhouette.get) == 4
    assert clusters.silhouette[4] == pytest.approx(
        silhouette_score(clusters.embedding, clusters.label), abs=1e-6
    )


def test_clusters_follow_the_one_dimensional_embedding():
    category = np.repeat(["b", "a", "c"], 12)
    features = np.repeat([[0.0], [1.0], [2.0]], 12, axis=0) * 30 + RNG.normal(size=(36, 8))
    clusters = selectivity.cluster_categories(features, category, 0)
    assert sorted(clusters.names) == ["a", "b", "c"]
    assert [clusters.names[k] for k in clusters.label] == list(category)
    line = selectivity.embed(features, 1, 0)[:, 0]
    means = [line[clusters.label == k].mean() for k in range(3)]
    assert means == sorted(means)


@pytest.mark.parametrize(("n", "perplexity"), [(100, 30), (31, 10), (7, 2)])
def test_the_embedding_is_scikit_learns(n, perplexity):
    """Its default perplexity, or a third of the other stimuli, where that is less."""
    features = RNG.normal(size=(n, 5)).astype(np.float32)
    expected = TSNE(2, perplexity=perplexity, init="pca", random_state=3).fit_transform(features)
    np.testing.assert_allclose(selectivity.embed(features, 2, 3), expected, rtol=1e-5, atol=1e-5)

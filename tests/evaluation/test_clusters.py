"""Clusters of the test stimuli are computed once, and are those of jne.analysis.selectivity."""

import numpy as np
import pytest
from finished_run import evaluate_config, write_run

from jne.analysis import selectivity
from jne.evaluation.clusters import stimulus_clusters
from jne.stages import Stages


@pytest.mark.parametrize("how", ["categories", "tsne"])
def test_clusters_are_kept_as_they_were_computed(tmp_path, how):
    run = write_run(tmp_path / "run")
    chosen = (f"selectivity.clusters={how}", "selectivity.max_clusters=5", "seed=3")
    config = evaluate_config(tmp_path, *chosen)
    features = np.array(run.array("features"))
    if how == "tsne":
        expected = selectivity.cluster_features(features, 5, 3)
    else:
        expected = selectivity.cluster_categories(features, list(run.stimuli["category"]), 3)
    made = []
    for _ in range(2):
        stages = Stages(config.stages)
        clusters = stimulus_clusters(run, config, stages)
        assert (clusters.names, clusters.silhouette) == (expected.names, expected.silhouette)
        np.testing.assert_array_equal(clusters.label, expected.label)
        np.testing.assert_array_equal(clusters.embedding, expected.embedding)
        made.append((config.stages / stages.used[0] / "stage.json").stat().st_mtime_ns)
    assert made[0] == made[1]
    stimulus_clusters(run, evaluate_config(tmp_path, *chosen[:2], "seed=4"), stages)
    assert len(set(stages.used)) == 2

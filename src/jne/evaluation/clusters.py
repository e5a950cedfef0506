"""Clusters of the test stimuli, as a stage: most of a report's time is t-SNE of the features."""

from pathlib import Path

import numpy as np

from jne.analysis import selectivity
from jne.analysis.selectivity import Clusters
from jne.errors import InputError
from jne.evaluation.config import EvaluateConfig
from jne.results import Results
from jne.stages import Stages, file_digest
from jne.utils.files import write_array, write_json
from jne.utils.plain import read_json
from jne.utils.reading import reading


def stimulus_clusters(run: Results, config: EvaluateConfig, stages: Stages) -> Clusters:
    """The categories of the stimuli if asked for and present, else K-means on a t-SNE.

    Raises InputError where categories are asked for and the stimuli have none.
    """
    settings = config.selectivity
    categories = run.stimuli.get("category")
    if settings.clusters == "categories" and categories is None:
        raise InputError(
            "selectivity.clusters",
            f"the stimuli of {run.path} have no column `category`; choose tsne",
            value="categories",
        )
    if categories is None or settings.clusters == "tsne" or categories.nunique() < 2:
        names, most = [], settings.max_clusters
    else:
        names, most = list(map(str, categories)), None
    about = {
        "features": file_digest(run.path / "features.npy"),
        "categories": names,
        "max_clusters": most,
        "seed": config.seed,
    }

    def write(folder: Path) -> None:
        features = run.array("features")
        if most is None:
            clusters = selectivity.cluster_categories(features, names, config.seed)
        else:
            clusters = selectivity.cluster_features(features, most, config.seed)
        write_array(folder / "label.npy", clusters.label)
        write_array(folder / "embedding.npy", clusters.embedding)
        silhouette = list(clusters.silhouette.items())
        write_json(folder / "clusters.json", {"names": clusters.names, "silhouette": silhouette})

    folder = stages.make("clusters", about, write)
    with reading(folder, ""):
        named = read_json(folder / "clusters.json")
        return Clusters(
            named["names"],
            np.load(folder / "label.npy", allow_pickle=False),
            np.load(folder / "embedding.npy", allow_pickle=False),
            dict(named["silhouette"]),
        )

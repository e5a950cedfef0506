"""How well an encoder predicts the test stimuli.

N test stimuli, V' trained voxels, T twins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jne.analysis import prediction
from jne.columns import reductions
from jne.config import StatsConfig
from jne.data.datamodule import EncodingData


@dataclass(frozen=True)
class Scores:
    """How well the test stimuli are predicted."""

    responses: NDArray[np.float32]
    """(N, V'), standardised."""
    predictions: NDArray[np.float32]
    """(N, V')."""
    columns: dict[str, NDArray]
    """(V',) each: those of predictions in `jne.columns`, p and p_fdr; with twins, r2_twin."""


def score_test(
    data: EncodingData, predictions: NDArray[np.float32], settings: StatsConfig, seed: int
) -> Scores:
    """R2, its p and FDR-adjusted p of the predictions (N, V') of the test stimuli.

    With twins, the predictions are (N, V' + T), and `r2_twin` is the mean R2 of a voxel's twins.
    """
    responses = data.split("test")[1].numpy()
    n_real = data.n_trained
    of_twins = prediction.r2_score(responses[:, n_real:], predictions[:, n_real:])
    responses, predictions = responses[:, :n_real], predictions[:, :n_real]
    columns = {
        name: score(responses, predictions) for name, score in reductions("predictions").items()
    }
    columns["p"] = prediction.r2_p(
        responses, predictions, settings.p_value, settings.n_bootstrap, seed, data.test_clusters
    )
    columns["p_fdr"] = prediction.fdr(columns["p"])
    if data.twins is not None:
        columns["r2_twin"] = data.twins.per_draw(of_twins, n_real).mean(axis=0)
    return Scores(responses, predictions, columns)

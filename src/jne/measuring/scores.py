"""How well an encoder predicts the test stimuli.

N test stimuli, V' trained voxels.
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
    """(V',) each: those of predictions in `jne.columns`, p and p_fdr."""


def score_test(
    data: EncodingData, predictions: NDArray[np.float32], settings: StatsConfig, seed: int
) -> Scores:
    """R2, its p and FDR-adjusted p of the predictions (N, V') of the test stimuli."""
    responses = data.split("test")[1].numpy()
    columns = {
        name: score(responses, predictions) for name, score in reductions("predictions").items()
    }
    columns["p"] = prediction.r2_p(
        responses, predictions, settings.p_value, settings.n_bootstrap, seed, data.test_clusters
    )
    columns["p_fdr"] = prediction.fdr(columns["p"])
    return Scores(responses, predictions, columns)

"""Does the answer repeat? The same training and measures in two disjoint halves of the stimuli.

Reruns share stimuli and flatter: only disjoint stimuli say whether it is the voxel that repeats, or
the data set.
"""

import shutil
from functools import partial
from pathlib import Path

import pandas as pd

from jne.data.datamodule import EncodingData
from jne.fitting.baseline import linear_predictions
from jne.jacobian.variants import DEFAULT
from jne.measuring.evidence import EvidenceConfig, measure_evidence
from jne.results.halves import MEASURES
from jne.stages import Stages
from jne.training.config import TrainConfig
from jne.training.steps import fit_and_measure
from jne.utils.files import make_folder
from jne.utils.progress import say


def measure_halves(
    data: EncodingData, config: TrainConfig, stages: Stages, folder: Path
) -> pd.DataFrame:
    """What `jne.results.halves` describes. folder: of the run; what is needed once is deleted.

    Raises InputError where there are too few stimuli.
    """
    jacobian = config.jacobian.model_copy(
        update={"variants": [DEFAULT], "trajectory": None, "shard": None, "voxels": "all"}
    )
    settings = config.model_copy(update={"jacobian": jacobian})
    columns: dict[str, pd.Series] = {}
    for number, half in enumerate(data.halves(), start=1):
        say(f"half {number} of the stimuli")
        scratch = make_folder(folder / f"half_{number}")
        evidence = None
        if config.evidence is not None:
            evidence = partial(
                measure_evidence,
                linear=linear_predictions(half, stages),
                settings=EvidenceConfig(keep=False),
                folder=scratch,
            )
        outcome = fit_and_measure(half, settings, stages, scratch, evidence=evidence)
        voxels = outcome.voxels()
        columns |= {f"{name}_{number}": voxels[name] for name in MEASURES if name in voxels}
        del outcome, voxels  # memory-mapped from the folder
        shutil.rmtree(scratch)
    return pd.DataFrame(columns)

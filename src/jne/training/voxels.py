"""What train.py does with an encoder, without its folder of results: the voxel table alone."""

from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
from numpy.typing import NDArray

from jne.data.datamodule import EncodingData
from jne.results.contents import voxel_table
from jne.training.config import FitConfig
from jne.training.fit import fit, test
from jne.training.measure import Nonlinearity, Scores, measure_nonlinearity, score_test
from jne.training.module import EncodingModule
from jne.training.planted import planted_columns
from jne.training.twins import make_twins


def trained_voxels(config: FitConfig, data: EncodingData, folder: Path) -> pd.DataFrame:
    """The columns of voxels.csv that a run with linear twins writes, one row per voxel.

    folder: for arrays and checkpoints; a restart goes on from what is there.
    """
    data.add_twins(make_twins(data, config.control, config.seed, folder / "twins.npy"))
    pl.seed_everything(config.seed, verbose=False)
    module = EncodingModule(data.n_features, data.n_outputs, config.encoder, config.optimizer)
    save_to = folder / "last.ckpt"
    fit(module, data, config.trainer, readout=config.readout, save_to=save_to)

    def measure(predictions: NDArray) -> tuple[Scores, Nonlinearity]:
        scores = score_test(data, predictions, config.stats, config.seed)
        return scores, measure_nonlinearity(
            module.encoder, data, scores, config.jacobian, config.stats.alpha, folder
        )

    scores, nonlinearity = test(module, data, config.trainer, measure)
    columns = dict(nonlinearity.columns)
    if config.control.planted:
        measured = nonlinearity.measured(data)
        columns |= planted_columns(config, data, module.encoder, measured, folder)
    return voxel_table(data.prepared.voxels, data.voxel_status, data.kept, scores.columns, columns)

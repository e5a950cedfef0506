"""JNE of the variants that a run did not store, as a stage."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from jne.analysis import nonlinearity
from jne.errors import keys_below
from jne.evaluation.config import EvaluateConfig
from jne.jacobian import SETTINGS, jacobian_deviation, variant_column
from jne.results import Results
from jne.results.contents import encoder_files
from jne.stages import Stages, digest_of, file_digest
from jne.utils.blocks import among_all
from jne.utils.files import write_array
from jne.utils.reading import reading


def missing_variants(
    run: Results,
    voxels: pd.DataFrame,
    config: EvaluateConfig,
    stages: Stages,
    progress: Callable[[float], None],
) -> dict[str, NDArray[np.float64]]:
    """JNE of the variants in `config.variants` that the run did not store.

    voxels: one row per voxel, with columns `status` and `analysed`; those analysed get a JNE.

    Returns (V,) by column of the voxel table. The run's folder is not written to. Raises InputError
    where the Jacobians cannot be computed within `jacobian.max_memory_gb`.
    """
    variants = [name for name in config.variants if variant_column("jne", name) not in voxels]
    if not variants:
        return {}
    trained = np.flatnonzero(voxels["status"] == "ok")
    outputs = np.flatnonzero(voxels["analysed"].to_numpy()[trained])  # of the encoder

    def write(folder: Path) -> None:
        features, of_folds = np.array(run.array("features")), []
        for fold, rows in enumerate(run.fold_rows, start=1):
            encoder = run.encoder(config.trust, fold)
            of_folds.append(
                deviations(encoder, features[rows], variants, outputs, config, progress)
            )
        for name in variants:
            jne = nonlinearity.jne(np.concatenate([of_fold[name] for of_fold in of_folds]))
            write_array(folder / f"{name}.npy", among_all(jne, trained[outputs], len(voxels)))

    about = {
        "encoder": [file_digest(run.path / name) for name in encoder_files(run.n_folds)],
        "features": file_digest(run.path / "features.npy"),
        "outputs": digest_of(outputs.tolist()),
        "variants": variants,
    }
    folder = stages.make("variants", about, write)
    with reading(folder, ""):
        return {
            variant_column("jne", name): np.load(folder / f"{name}.npy", allow_pickle=False)
            for name in variants
        }


def deviations(
    encoder: nn.Module,
    features: NDArray,
    variants: list[str],
    outputs: NDArray,
    config: EvaluateConfig,
    progress: Callable[[float], None],
) -> dict[str, NDArray]:
    """Deviations (N, v) by variant, of some of the encoder's outputs (v,) at features (N, D).

    Raises InputError, naming the key, where they cannot be computed within the memory.
    """
    with keys_below("jacobian", SETTINGS):
        arrays = jacobian_deviation(
            encoder,
            features,
            variant=variants,
            voxels=outputs,
            device=config.jacobian.device,
            max_memory_gb=config.jacobian.max_memory_gb,
            progress=progress,
        )
    assert isinstance(arrays, dict)  # one array per variant
    return arrays

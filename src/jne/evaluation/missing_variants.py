"""JNE of the variants that a run did not store, as a stage."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from jne.analysis import nonlinearity
from jne.errors import InputError, keys_below
from jne.evaluation.config import EvaluateConfig
from jne.jacobian import SETTINGS, jacobian_deviation, variant_column
from jne.results import Results
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
    if run.n_folds > 1:
        raise InputError(
            "variants",
            f"{', '.join(variants)}: {run.path} has an encoder for each fold; train with "
            f"jacobian.variants, or leave it out",
        )
    trained = np.flatnonzero(voxels["status"] == "ok")
    outputs = np.flatnonzero(voxels["analysed"].to_numpy()[trained])  # of the encoder

    def write(folder: Path) -> None:
        encoder, features = run.encoder(config.trust), np.array(run.array("features"))
        of_variants = deviations(encoder, features, variants, outputs, config, progress)
        for name in variants:
            jne = nonlinearity.jne(of_variants[name])
            write_array(folder / f"{name}.npy", among_all(jne, trained[outputs], len(voxels)))

    about = {
        "encoder": file_digest(run.path / "encoder.pt"),
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

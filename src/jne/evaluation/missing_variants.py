"""JNE of the variants that a run did not store: computed once, kept beside the reports.

    OUTPUT/variants/DIGEST/jne_VARIANT.npy   (V,) float64, NaN for voxels that were not asked for

DIGEST stands for the encoder, the features and the voxels asked for.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from jne import __version__
from jne.analysis import nonlinearity
from jne.errors import keys_below
from jne.evaluation.config import EvaluateConfig
from jne.jacobian import SETTINGS, jacobian_deviation, variant_column, variant_file
from jne.jacobian.resumable import fingerprint
from jne.results import Results
from jne.utils.blocks import among_all
from jne.utils.files import make_folder, write_array
from jne.utils.reading import UNREADABLE
from jne.utils.tensors import load_tensors


def missing_variants(
    run: Results,
    voxels: pd.DataFrame,
    config: EvaluateConfig,
    progress: Callable[[float], None],
) -> dict[str, NDArray[np.float64]]:
    """JNE of the variants in `config.variants` that the run did not store.

    voxels: one row per voxel, with columns `status` and `analysed`; asked for are those analysed.

    Returns (V,) by column of the voxel table. The run's folder is not written to. Raises InputError
    where the Jacobians cannot be computed within `jacobian.max_memory_gb`.
    """
    missing = [name for name in config.variants if variant_column("jne", name) not in voxels]
    if not missing:
        return {}
    trained = np.flatnonzero(voxels["status"] == "ok")
    outputs = np.flatnonzero(voxels["analysed"].to_numpy()[trained])  # of the encoder
    features = np.array(run.array("features"))
    folder = config.output / "variants" / _digest(run, features, trained, outputs)
    files = {name: variant_file(folder / "jne.npy", name) for name in missing}
    absent = [name for name, file in files.items() if not _is_readable(file, len(voxels))]
    if absent:
        encoder = run.encoder(config.trust)
        arrays = deviations(encoder, features, absent, outputs, config, progress)
        make_folder(folder)
        for name in absent:
            jne = nonlinearity.jne(arrays[name])
            write_array(files[name], among_all(jne, trained[outputs], len(voxels)))
    return {variant_column("jne", name): _read(file) for name, file in files.items()}


def _digest(run: Results, features: NDArray, trained: NDArray, outputs: NDArray) -> str:
    saved = load_tensors(run.path / "encoder.pt")
    weights = [torch.atleast_1d(tensor) for tensor in saved["weights"].values()]
    arrays = [torch.from_numpy(array) for array in (features, trained, outputs)]
    config = json.dumps(saved["config"], sort_keys=True)  # the activation is not in the weights
    return fingerprint([*weights, *arrays], config, str(len(run.voxels)), __version__)


def _is_readable(path: Path, n_voxels: int) -> bool:
    """Whether the file exists and is not damaged."""
    try:
        jne = _read(path)
    except UNREADABLE:
        return False
    return jne.shape == (n_voxels,) and jne.dtype == np.float64


def _read(path: Path) -> NDArray[np.float64]:
    return np.load(path, allow_pickle=False)


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

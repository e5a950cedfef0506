"""The trained encoder as an MLflow model: raw features in, responses in their raw units out.

The model holds encoder.pt and voxels.csv of the results folder, and the name of this module, by
which MLflow loads them. So nothing is pickled.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow  # which loads mlflow.pyfunc when it is used
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from jne import __version__
from jne.encoders import RawEncoder
from jne.errors import InputError
from jne.results.weights import build_saved
from jne.utils.reading import UNREADABLE
from jne.utils.tables import read_table
from jne.utils.tensors import is_scale, load_tensors

MODEL_FILES = ("encoder.pt", "voxels.csv")
"""The files of a results folder that a model consists of."""
_NAME = "encoder"


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> RawEncoder:
    """Read a model, which has a method `predict`; `mlflow.pyfunc.load_model` calls it.

    path: the folder with MODEL_FILES. model_config: `trust`, the packages whose encoders it may
    name, for an encoder of your own. Raises InputError where a file is damaged or names others.
    """
    folder = Path(path)
    saved, trained = _read(folder)
    encoder = build_saved(saved, folder / "encoder.pt", (model_config or {}).get("trust", ()))
    return RawEncoder(encoder, saved, trained)


def _read(folder: Path) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """The content of encoder.pt, and which voxels (V,) it is for. Raises InputError."""
    saved = load_tensors(folder / "encoder.pt", folder)
    try:
        voxels = read_table(folder / "voxels.csv")
        trained = (voxels["status"] == "ok").to_numpy()
        n_features, n_outputs = len(saved["feature_mean"]), int(trained.sum())
        fits = isinstance(saved["config"], dict) and isinstance(saved["weights"], dict)
        for side, size in (("feature", n_features), ("response", n_outputs)):
            for name in (f"{side}_mean", f"{side}_scale"):
                fits = fits and is_scale(saved[name], size)
    except (*UNREADABLE, TypeError, AttributeError):
        fits = False
    if not fits:
        raise InputError("", f"{folder}: encoder.pt and voxels.csv are damaged, or not of one run")
    return saved, trained


def log_encoder(client: MlflowClient, run_id: str, folder: Path) -> None:
    """Log the encoder of a results folder as the model `encoder` of a run, unless it has one.

    Raises InputError where a file of MODEL_FILES is missing or damaged.
    """
    run = client.get_run(run_id)
    if run.outputs is not None and run.outputs.model_outputs:
        return
    saved, trained = _read(folder)
    mean = saved["feature_mean"].numpy()
    with TemporaryDirectory() as temporary:
        data = Path(temporary, "data")
        data.mkdir()
        for name in MODEL_FILES:
            shutil.copyfile(folder / name, data / name)
        model = client.create_logged_model(
            run.info.experiment_id, _NAME, source_run_id=run_id, model_type="jne"
        )
        path = Path(temporary, _NAME)
        mlflow.pyfunc.save_model(
            path,
            loader_module=__name__,
            data_path=data,
            signature=_signature(saved, len(trained)),
            input_example=mean[None],
            # Given, because MLflow would find them by loading the model in another process.
            pip_requirements=[f"jne[full]=={__version__}"],
            mlflow_model=Model(run_id=run_id, model_id=model.model_id),
        )
        client.log_model_artifacts(model.model_id, str(path))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])


def _signature(saved: Mapping[str, Any], n_voxels: int) -> ModelSignature:
    """float32, or float64 where float32 cannot hold the data."""
    means = [saved[f"{side}_mean"].numpy() for side in ("feature", "response")]
    dtype = np.result_type(*means)
    inputs, outputs = (
        Schema([TensorSpec(dtype, (-1, size))]) for size in (len(means[0]), n_voxels)
    )
    return ModelSignature(inputs, outputs)

"""The data of a run as MLflow records them, in `Datasets used` of the run's page."""

import json
from typing import Any

import numpy as np
from mlflow.data.schema import TensorDatasetSchema
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.types import Schema, TensorSpec

from jne.data.prepared import Prepared

_TAG_LENGTH = 500  # of a dataset: MLflow's limit


def dataset_of(prepared: Prepared) -> dict[str, str]:
    """A dataset for `dataset_input`, in plain values.

    The digest is that of the prepared folder: of the source's settings and input files.
    `mlflow.data.get_source(dataset).load()` returns the folder itself.
    """
    name, _, digest = prepared.folder.name.rpartition("-")
    about = prepared.provenance
    arrays = (
        Schema([TensorSpec(np.dtype(np.float32), (-1, array.shape[1]))])
        for array in (prepared.features, prepared.responses)
    )
    profile = {
        "num_stimuli": len(prepared.stimuli),
        "num_features": prepared.features.shape[1],
        "num_voxels": len(prepared.voxels),
    } | {key: about[key] for key in ("source", "licence", "citation", "settings") if about.get(key)}
    return {
        "name": name,
        "digest": digest,
        "source_type": "local",
        "source": json.dumps({"uri": str(prepared.folder)}),
        "schema": json.dumps(TensorDatasetSchema(*arrays).to_dict()),
        "profile": json.dumps(profile),
    }


def dataset_input(dataset: dict[str, Any]) -> DatasetInput:
    """What `MlflowClient.log_inputs` takes for a dataset in plain values."""
    tags = [InputTag("mlflow.data.context", "training")]
    licence = json.loads(dataset["profile"]).get("licence")
    if licence:
        tags.append(InputTag("licence", licence[:_TAG_LENGTH]))
    return DatasetInput(Dataset(**dataset), tags)

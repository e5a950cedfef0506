"""What MLflow holds of a training run: parameters, data, the model, the top of the run's page."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import no_figures, status
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jne.data.prepared import Prepared, load
from jne.errors import InputError
from jne.results import Results
from jne.tracking import record, track
from jne.tracking.dataset import dataset_input, dataset_of
from jne.tracking.model import _load_pyfunc

DESCRIPTION = "mlflow.note.content"


def run_of(folder: Path, store: str):
    return MlflowClient(store).get_run(status(folder)["mlflow_run_id"])


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Overrides for features and responses with offsets and scales, one voxel without variance."""
    folder = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(0)
    features = (5 + 3 * rng.standard_normal((120, 8))).astype(np.float32)
    responses = (100 + 20 * rng.standard_normal((120, 4))).astype(np.float32)
    responses[:, 2] = 7.0
    np.save(folder / "x.npy", features)
    np.save(folder / "y.npy", responses)
    return (
        "data=arrays",
        f"data.features={folder / 'x.npy'}",
        f"data.responses={folder / 'y.npy'}",
    )


def raw_predictions(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features of the test stimuli as in the data, and the predictions in the data's own units.

    Computed from the prepared arrays and the standardised predictions of the results folder.
    """
    prepared = load(Path(status(folder)["prepared"]))
    train = prepared.responses[prepared.rows("train")].astype(np.float64)
    scale = train.std(axis=0)
    predictions = Results(folder).array("predictions") * scale + train.mean(axis=0)
    return prepared.features[prepared.rows("test")], predictions


def check_model(folder: Path, uri: str, run_id: str) -> None:
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model(f"runs:/{run_id}/encoder")
    finally:
        mlflow.set_tracking_uri(None)
    features, expected = raw_predictions(folder)
    predicted = model.predict(features)
    assert np.isnan(predicted[:, 2]).all()  # the constant voxel
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(pd.DataFrame(features)), predicted)
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, features.shape[1])
    assert model.metadata.signature.outputs.inputs[0].shape == (-1, 4)
    with pytest.raises(MlflowException, match="Shape of input"):
        model.predict(features[:, :-1])


@pytest.mark.runs
def test_a_logged_model_predicts_raw_responses_from_raw_features(run_train, arrays, store):
    (folder,) = run_train(*arrays, "tracking.log_model=true")
    run = run_of(folder, store)
    check_model(folder, store, run.info.run_id)
    (logged,) = run.outputs.model_outputs
    client = MlflowClient(store)
    kept = Path(client.get_logged_model(logged.model_id).artifact_location.removeprefix("file://"))
    suffixes = {path.suffix for path in kept.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".cloudpickle"}


@pytest.mark.runs
def test_a_model_of_a_class_of_a_stranger_needs_trust(run_train, arrays):
    (folder,) = run_train(*arrays)
    saved = torch.load(folder / "encoder.pt", weights_only=True)
    saved["config"] = {"_target_": "tempfile.mkdtemp"}
    torch.save(saved, folder / "encoder.pt")
    with pytest.raises(InputError, match=r"tempfile\.mkdtemp"):
        _load_pyfunc(str(folder))


class Lost(MlflowClient):
    """A store that is lost at the first array of metrics."""

    def log_batch(self, run_id, metrics=(), **named):
        if metrics:
            raise MlflowException("connection refused")
        return super().log_batch(run_id, metrics=metrics, **named)


@pytest.mark.runs
def test_data_model_and_pictures_survive_a_lost_store(run_train, arrays, store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("jne.tracking.store.MlflowClient", Lost)
        (folder,) = run_train(*arrays, "tracking.log_model=true", figures=True)
    assert not run_of(folder, store).outputs.model_outputs
    run_id = record(folder)
    run = MlflowClient(store).get_run(run_id)
    (found,) = run.inputs.dataset_inputs
    assert found.dataset.name.startswith("arrays")
    assert run_id in run.data.tags[DESCRIPTION]
    check_model(folder, store, run_id)


@pytest.mark.runs
def test_a_journal_does_not_send_an_encoder_from_elsewhere(
    run_train, arrays, monkeypatch, tmp_path
):
    with monkeypatch.context() as patch, no_figures():
        patch.setattr("jne.tracking.store.MlflowClient", Lost)
        (folder,) = run_train(*arrays, "tracking.log_model=true")
    (folder / "encoder.pt").rename(tmp_path / "elsewhere.pt")
    (folder / "encoder.pt").symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(InputError, match=r"encoder.pt, a file outside the folder"):
        record(folder)


@pytest.mark.runs
def test_a_damaged_encoder_is_not_recorded(run_train, arrays, monkeypatch):
    with monkeypatch.context() as patch, no_figures():
        patch.setattr("jne.tracking.store.MlflowClient", Lost)
        (folder,) = run_train(*arrays, "tracking.log_model=true")
    saved = torch.load(folder / "encoder.pt", weights_only=True)
    for damaged in (
        {},
        {key: value for key, value in saved.items() if key != "config"},
        saved | {"feature_mean": "x"},
        saved | {"response_mean": torch.zeros(2)},
    ):
        torch.save(damaged, folder / "encoder.pt")
        with pytest.raises(InputError, match=r"encoder.pt and voxels.csv are damaged"):
            record(folder)
    torch.save(saved, folder / "encoder.pt")
    assert record(folder)


@pytest.mark.parametrize(
    "inputs",
    [
        '[{"name": "x"}]',
        '["x"]',
        '[{"name": 1, "profile": "{"}]',
        '[{"profile": "[]"}]',
        '"x"',
        "3",
    ],
)
def test_damaged_inputs_in_a_journal_are_refused(tmp_path, store, inputs):
    written = {
        "store": {"uri": store, "experiment": "jne", "artifacts": str(tmp_path / "artifacts")},
        "name": "x", "run_id": None, "tags": {}, "params": {}, "metrics": [], "files": [],
        "inputs": json.loads(inputs), "status": "FINISHED",
    }  # fmt: skip
    (tmp_path / "unrecorded.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match="is damaged"):
        record(tmp_path)


@pytest.mark.runs
def test_every_key_that_matters_is_a_parameter(run_train, store):
    (folder,) = run_train("optimizer=adamw", "optimizer.weight_decay=0.25",
                          "jacobian.variants=[l1,l2]", "tracking.nested=false")  # fmt: skip
    params = run_of(folder, store).data.params
    assert params["optimizer.weight_decay"] == "0.25"
    assert params["jacobian.variants"] == "['l1', 'l2']"
    assert params["lr"] == params["optimizer.lr"]  # the short names stay
    assert params["data"] == params["data.name"] == "synthetic"
    unwanted = re.compile(
        r"name|output|sweep|resume|tracking\.|.*(cache|checkpoint_seconds|memory)"
    )
    assert not [key for key in params if unwanted.fullmatch(key)]


def test_more_parameters_than_mlflow_takes_at_once(tmp_path, store):
    """And a name that MLflow refuses."""
    arguments = {"uri": store, "experiment": "jne", "artifacts": str(tmp_path / "artifacts")}
    with track(arguments, "fail", "many", {}, tmp_path) as tracked:
        tracked.log_params({f"key{number}": number for number in range(250)} | {"a//b": 1})
    params = MlflowClient(store).get_run(tracked.run_id).data.params
    assert len(params) == 251
    assert [key for key in params if key.startswith("a/_b-")]


@pytest.mark.runs
def test_the_data_of_a_run_are_its_input(run_train, store):
    with no_figures():  # in an experiment, MLflow keeps a dataset as the first run recorded it
        (folder,) = run_train("tracking.experiment=inputs")
    (found,) = run_of(folder, store).inputs.dataset_inputs
    prepared = Path(status(folder)["prepared"])
    assert f"{found.dataset.name}-{found.dataset.digest}" == prepared.name
    assert {tag.key: tag.value for tag in found.tags}["mlflow.data.context"] == "training"
    assert Path(mlflow.data.get_source(found.dataset).load()) == prepared
    profile = json.loads(found.dataset.profile)
    assert profile["source"] == "jne.data.synthetic.Synthetic"
    assert profile["num_stimuli"] == 120
    assert profile["settings"]["n_features"] == 64


def test_licence_and_citation_of_the_data_are_recorded(tmp_path):
    about = {"licence": "CC0", "citation": "Somebody 2020", "source": "mine.Source"}
    arrays = (np.zeros((2, 3)), np.zeros((2, 4)))
    table = pd.DataFrame({"stimulus": ["a", "b"]})
    prepared = Prepared(tmp_path / "mine-subj01-0123456789ab", *arrays, table, table, about)
    made = dataset_input(dataset_of(prepared))
    assert {tag.key: tag.value for tag in made.tags}["licence"] == "CC0"
    assert json.loads(made.dataset.profile)["citation"] == "Somebody 2020"
    assert (made.dataset.name, made.dataset.digest) == ("mine-subj01", "0123456789ab")


def test_the_page_of_a_run_begins_with_a_picture_of_it(finished_run, store):
    (folder,) = (finished_run / "runs").iterdir()
    run = run_of(folder, store)
    addresses = re.findall(r"!\[\]\(([^)]+)\)", run.data.tags[DESCRIPTION])
    query = [parse_qs(urlparse(address).query) for address in addresses]
    assert query[0] == {"path": ["figures/overview.png"], "run_uuid": [run.info.run_id]}
    logged = {file.path for file in MlflowClient(store).list_artifacts(run.info.run_id, "figures")}
    assert {path for entry in query for path in entry["path"]} == logged


def test_a_description_of_the_user_stays(tmp_path, store):
    (tmp_path / "a.png").write_bytes(b"")
    arguments = {"uri": store, "experiment": "jne", "artifacts": str(tmp_path / "artifacts")}
    client = MlflowClient(store)
    for name, own in (("described", "mine"), ("not described", None)):
        with track(arguments, "fail", name, {}, tmp_path / name) as tracked:
            tracked.log_file(tmp_path / "a.png")
            if own is not None:
                client.set_tag(tracked.run_id, DESCRIPTION, own)
        description = client.get_run(tracked.run_id).data.tags[DESCRIPTION]
        assert description == own if own else "a.png" in description

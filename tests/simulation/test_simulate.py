"""simulate.py: what a study leaves, how bad input is refused, and studies of a user's own."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT
from mlflow import MlflowClient

from jne.simulation import ActivationCurves, Study

TINY = {
    "activation_curves": ["step=1", "n_points=11"],
    "placement_grid": ["n_draws=2", "n_stimuli=5", "n_features=8", "networks.0.width=8"],
    "sample_size": ["sizes=[4,8]", "n_points=9"],
    "input_scale": ["n_draws=2", "n_stimuli=5", "n_features=8", "network.width=8"],
    "depth": ["n_draws=1", "n_stimuli=5", "width=8", "depths=[1,2]"],
}


def overrides(name):
    return [f"simulation.{name}.{setting}" for setting in TINY[name]]


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        pytest.param(
            "all",
            ["activation_curves", "placement_grid", "sample_size", "input_scale"],
            marks=pytest.mark.runs,
        ),
        ("depth", ["depth"]),
    ],
)
def test_every_study_leaves_its_record(run_script, store, chosen, names):
    settings = [setting for name in names for setting in overrides(name)]
    folders = run_script("simulate.py", f"simulation={chosen}", *settings)
    assert sorted(folder.name for folder in folders) == sorted(names)
    for folder in folders:
        status = json.loads((folder / "status.json").read_text())
        assert status["status"] == "FINISHED"
        table = pd.read_csv(folder / "table.csv", keep_default_na=False)
        assert len(table)
        assert (folder / "figures" / f"{folder.name}.png").stat().st_size > 5000
        run = MlflowClient(store).get_run(status["mlflow_run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.tags["kind"] == "simulation"
        summary = json.loads((folder / "summary.json").read_text())
        assert run.data.metrics.keys() == summary["metrics"].keys()


@pytest.mark.runs
@pytest.mark.parametrize(
    ("study", "setting", "message"),
    [
        ("placement_grid", "n_draws=0", "n_draws=0: input should be greater"),
        ("placement_grid", "n_draws=-3", "n_draws=-3: input should be greater"),
        ("placement_grid", "activations=[sine]", "activations.*sine"),
        ("placement_grid", "activations=[]", "activations"),
        ("placement_grid", "networks.0.width=5", "must equal the number of features"),
        ("placement_grid", "networks=[]", "networks"),
        ("activation_curves", "window=0", "window=0"),
        ("activation_curves", "stop=-10", "start=-10.0 must be below stop=-10.0"),
        ("sample_size", "sizes=[]", "sizes"),
        ("depth", "depths=[0]", "depths"),
        ("calibration", "noise=[pink]", "simulation.calibration.noise"),
        ("calibration", "rates=[2]", "simulation.calibration.rates"),
        ("calibration", "trainer.patience=0", "simulation.calibration.trainer.patience"),
    ],
)
def test_bad_input_is_one_sentence(run_script, tmp_path, study, setting, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        run_script("simulate.py", f"simulation={study}", f"simulation.{study}.{setting}")
    assert "\n" not in str(stopped.value)
    assert not list(tmp_path.rglob("status.json"))


# --- a study of a user's own --------------------------------------------------------------------


def documented(language):
    """The example of docs/simulations.md in this language, as it is written there."""
    text = Path(ROOT, "docs", "simulations.md").read_text()
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


@pytest.fixture
def run_own(run_script, tmp_path, monkeypatch):
    """`PYTHONPATH=mine python simulate.py --config-dir mine simulation=NAME` of files in `mine`."""
    mine = tmp_path / "mine"
    (mine / "simulation").mkdir(parents=True)
    monkeypatch.syspath_prepend(mine)

    def run(name, code, config, *overrides):
        (mine / f"{name}.py").write_text(code)
        (mine / "simulation" / f"{name}.yaml").write_text(config)
        settings = [f"--config-dir={mine}", f"simulation={name}"]
        (folder,) = run_script("simulate.py", *settings, *overrides)
        return folder

    return run


@pytest.mark.runs
def test_the_documented_study_of_a_users_own(run_own, store):
    widths = "simulation.width.widths=[4,8]"
    folder = run_own("width", documented("python"), documented("yaml"), widths)
    table = pd.read_csv(folder / "table.csv")
    assert len(table) == 2 * 10
    cells = pd.read_csv(folder / "means.csv")
    assert list(cells["width"]) == [4, 8]
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert metrics == pytest.approx({"jne/4": cells["mean"][0], "jne/8": cells["mean"][1]})
    assert (folder / "figures" / "width.png").stat().st_size > 5000
    run_id = json.loads((folder / "status.json").read_text())["mlflow_run_id"]
    client = MlflowClient(store)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["kind"] == "simulation"
    assert run.data.params == {"widths": "[4, 8]", "n_draws": "10"}
    assert run.data.metrics == pytest.approx(metrics, rel=1e-3)  # MLflow gets four digits
    assert [file.path for file in client.list_artifacts(run_id, "figures")] == ["figures/width.png"]


PLAIN = """
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from jne.simulation import Study


class Powers(Study):
    largest: int = Field(ge=1)
    options: dict[str, Any] = {}

    def run(self, progress):
        n = np.arange(self.largest)
        return pd.DataFrame({"n": n, "power": n ** self.options["exponents"][0]})

    def summary(self, table):
        return {"sum": table["power"].sum()}
"""


def test_a_study_without_a_figure(run_own, store):
    config = "powers: {_target_: powers.Powers, largest: 4, options: {exponents: [2]}}"
    folder = run_own("powers", PLAIN, config)
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        ".lock",
        "config.yaml",
        "status.json",
        "summary.json",
        "table.csv",
    ]
    assert not list((folder / "figures").iterdir())
    assert list(pd.read_csv(folder / "table.csv")["power"]) == [0, 1, 4, 9]
    run_id = json.loads((folder / "status.json").read_text())["mlflow_run_id"]
    client = MlflowClient(store)
    assert client.get_run(run_id).data.metrics == {"sum": 14}
    assert not client.list_artifacts(run_id, "figures")


@pytest.mark.runs
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("powers: {_target_: powers.Powers, largest: 0}", "simulation.powers.largest=0"),
        ("powers: {_target_: powers.Power, largest: 4}", "simulation.powers: .*powers.Power"),
        ("powers: {_target_: nowhere.Powers}", "simulation.powers: .*No module named 'nowhere'"),
        ("powers: {_target_: pathlib.Path}", "simulation.powers._target_: must name a subclass"),
        ("powers: {largest: 4}", "simulation.powers._target_: must name a subclass"),
    ],
)
def test_a_bad_study_is_one_sentence(run_own, config, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        run_own("powers", PLAIN, config)
    assert "\n" not in str(stopped.value)


def test_saved_targets_resolve():
    """`_target_` of old configs: jne.simulation.NAME."""
    from jne import simulation

    assert simulation.ActivationCurves is ActivationCurves
    for name in simulation.__all__:
        assert issubclass(getattr(simulation, name), Study)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = simulation.Nothing

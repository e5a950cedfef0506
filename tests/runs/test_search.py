"""Sweeps that choose their training settings, from the command line to the commands they print."""

import shlex

import pandas as pd
import pytest
from helpers import TINY, TINY_COHORT, contents, no_figures, run_quietly, status
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from mlflow import MlflowClient

from jne.results import Results

SWEEP = ("-m", "encoder=linear,nonlinear", "optimizer.lr=1e-4,0.01")


@pytest.fixture(scope="module")
def search(tmp_path_factory, store):
    """The folder of a sweep over learning rates, and what it printed."""
    output = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch, no_figures():
        printed = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(words)))
        run_quietly(output, store, "train.py", *TINY_COHORT, *TINY, *SWEEP)
    (folder,) = (output / "sweeps").iterdir()
    return folder, printed


def losses(folder) -> pd.DataFrame:
    """One row per run, from its own files."""
    runs = [path.parent for path in folder.glob("*/status.json")]
    return pd.DataFrame(
        {
            "run": run.name,
            "encoder": Results(run).config["encoder"]["label"],
            "lr": Results(run).config["optimizer"]["lr"],
            "val_loss": status(run)["val_loss"],
        }
        for run in runs
    )


@pytest.mark.runs
def test_best_csv_holds_the_lowest_validation_loss_of_each_encoder(search):
    folder, printed = search
    runs = losses(folder)
    assert len(runs) == 4
    means = runs.groupby(["encoder", "lr"])["val_loss"].mean()
    best = pd.read_csv(folder / "best.csv")
    assert list(best["encoder"]) == ["subj01 linear", "subj01 nonlinear_relu_both"]
    table = pd.read_csv(folder / "sweep.csv")
    for row in best.to_dict("records"):
        encoder = row["encoder"].removeprefix("subj01 ")
        lr = means[encoder].idxmin()
        assert row["chosen"] == f"optimizer.lr={lr}"
        assert row["val_loss"] == pytest.approx(means[encoder, lr], abs=1e-12)
        of_setting = runs[(runs["encoder"] == encoder) & (runs["lr"] == lr)]
        assert sorted(row["runs"].split(";")) == sorted(of_setting["run"])
        r2 = table.set_index("run").loc[of_setting["run"], "r2/mean"]
        assert row["r2/mean"] == pytest.approx(r2.mean(), abs=1e-12)
        assert (row["n_settings"], row["n_seeds"]) == (2, 1)
    chosen = {run for runs in best["runs"] for run in runs.split(";")}
    assert set(table.loc[table["chosen"], "run"]) == chosen
    expected = runs.set_index("run")["val_loss"]
    assert dict(table.set_index("run")["val_loss"]) == pytest.approx(dict(expected))
    assert any(line.startswith("  best_subj01_linear ") for line in printed)


@pytest.mark.runs
def test_mlflow_has_the_choice(search, store):
    folder, _ = search
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("jne")
    wanted = f"tags.sweep = '{folder.name}' and tags.kind = 'sweep'"
    (run,) = client.search_runs([experiment.experiment_id], wanted)
    assert "best.csv" in {file.path for file in client.list_artifacts(run.info.run_id)}


@pytest.mark.runs
def test_the_printed_command_repeats_the_chosen_run(search, tmp_path, store):
    folder, printed = search
    (command,) = [line for line in printed if line.startswith("train ")]
    words = shlex.split(command)[3:]
    at = words.index("--config-dir")
    words[at : at + 2] = [f"--config-dir={words[at + 1]}"]
    with no_figures():
        (again,) = run_quietly(tmp_path, store, "train.py", *words)
    runs = pd.read_csv(folder / "best.csv")["runs"][0].split(";")
    assert contents(again) == contents(folder / runs[0])


@pytest.mark.runs
def test_an_interval_is_refused_before_any_job(run_train, tmp_path):
    with pytest.raises(SystemExit, match=r"error: optimizer.lr=interval\(1e-4,1\): a grid needs"):
        run_train("-m", "optimizer.lr=interval(1e-4,1)")
    assert not (tmp_path / "sweeps").exists()


def test_a_bug_before_the_first_job_is_no_warning(run_train, tmp_path, monkeypatch, capsys):
    """Hydra turns what a callback raises into a warning: the jobs would run without a record."""
    monkeypatch.setattr("jne.runs.sweep.launcher_of", lambda _: 1 / 0)
    with pytest.raises(SystemExit) as stopped:
        run_train("-m", "seed=0,1")
    assert stopped.value.code == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert not (tmp_path / "sweeps").exists()


@pytest.fixture
def searching(tmp_path, monkeypatch):
    """A sweeper that Hydra finds as it finds Optuna's, which chooses its jobs as it goes."""
    package = tmp_path / "search" / "hydra_plugins"
    package.mkdir(parents=True)
    (package / "search.py").write_text(
        "from hydra._internal.core_plugins.basic_sweeper import BasicSweeper\n"
        "class Search(BasicSweeper):\n"
        "    def sweep(self, arguments):\n"
        "        for rate in ('1e38', '0.01'):\n"
        "            jobs = [[*arguments, f'optimizer.lr={rate}']]\n"
        "            self.launcher.launch(jobs, initial_job_idx=len(rate) - 4)\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    Singleton._instances.pop(Plugins, None)  # it looks for plugins once
    yield "hydra.sweeper._target_=hydra_plugins.search.Search"
    Singleton._instances.pop(Plugins, None)


@pytest.mark.runs
def test_jobs_that_a_search_chooses_as_it_goes_are_recorded(searching, run_train, tmp_path, capsys):
    """One learning rate diverges: its job fails, and the search goes on."""
    with no_figures(), pytest.raises(SystemExit) as stopped:
        run_train("-m", searching)
    assert stopped.value.code == 1
    (folder,) = (tmp_path / "sweeps").iterdir()
    statuses = [status(path)["status"] for path in sorted(folder.glob("[01]_*"))]
    assert statuses == ["FAILED", "FINISHED"]
    assert len(pd.read_csv(folder / "sweep.csv")) == 1
    assert "1 of 2 jobs are not finished" in capsys.readouterr().out

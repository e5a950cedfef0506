"""Sweeps that choose their training settings, from the command line to the commands they print."""

import shlex

import pandas as pd
import pytest
from helpers import TINY, TINY_COHORT, contents, no_figures, run_quietly, status
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


def test_mlflow_has_the_choice(search, store):
    folder, _ = search
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("jne")
    wanted = f"tags.sweep = '{folder.name}' and tags.kind = 'sweep'"
    (run,) = client.search_runs([experiment.experiment_id], wanted)
    assert "best.csv" in {file.path for file in client.list_artifacts(run.info.run_id)}


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


def test_halving_trains_the_best_half_in_full(run_train, tmp_path, store, capsys):
    """One learning rate diverges: its trial fails, and the search goes on."""
    with no_figures(), pytest.raises(SystemExit) as stopped:
        run_train("-m", "hydra/sweeper=halving", "hydra.sweeper.epochs=1", "hydra.sweeper.eta=2",
                  "optimizer.lr=1e-5,0.001,0.01,1e38")  # fmt: skip
    assert stopped.value.code == 1
    (folder,) = (tmp_path / "sweeps").iterdir()
    trials = sorted((folder / "trials").iterdir())
    assert [status(trial)["status"] for trial in trials] == ["FINISHED"] * 3 + ["FAILED"]
    for trial in trials[:3]:
        assert len(Results(trial).epochs) == 1
        assert Results(trial).voxels["jne"].isna().all()
        run = MlflowClient(store).get_run(status(trial)["mlflow_run_id"])
        assert MlflowClient(store).get_experiment(run.info.experiment_id).name == "jne_trials"
    rates = {status(trial)["val_loss"]: Results(trial).config["optimizer"]["lr"]
             for trial in trials[:3]}  # fmt: skip
    table = pd.read_csv(folder / "sweep.csv")
    assert sorted(table["lr"]) == sorted(rates[loss] for loss in sorted(rates)[:2])
    assert table["chosen"].sum() == 1
    assert table["val_loss"].idxmin() == table["chosen"].idxmax()
    assert table["jne/mean"].notna().all()
    printed = capsys.readouterr().out
    assert "trials     4 jobs of at most 1 epochs" in printed
    assert "1 of 6 jobs are not finished" in printed

"""Runs of a subject that differ in one config key."""

import numpy as np
import pytest
from finished_run import evaluate_config, write_run
from matplotlib import rc_context

from jne.errors import InputError
from jne.evaluation.chosen import chosen_subjects
from jne.evaluation.sections import evaluate_sections
from jne.evaluation.sections.swept import Swept
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.plots.style import STYLE


@pytest.fixture
def runs(tmp_path):
    return [
        write_run(tmp_path / "sweep" / name, activation=name, seed=k)
        for k, name in enumerate(("relu", "gelu", "tanh"))
    ]


def test_the_run_with_the_lowest_validation_loss_is_reported(runs):
    runs[1].epochs["val/loss"] = 0.5
    (subject,) = by_subject(runs, "activation")
    assert subject.nonlinear is runs[1]
    assert list(subject.variations) == ["gelu", "relu", "tanh"]
    assert subject.seeds == []
    assert {run.path for run in subject.runs} == {run.path for run in runs}


def test_without_the_key_they_are_refused_and_the_key_is_named(runs):
    with pytest.raises(InputError, match=r"differ in activation, .*by=KEY"):
        by_subject(runs)


@pytest.mark.runs
def test_runs_that_do_not_differ_in_the_key_or_in_more(runs, tmp_path):
    with pytest.raises(InputError, match="by=placement: the runs of subj01 do not differ in it"):
        by_subject(runs, "placement")
    with pytest.raises(InputError, match=r"by=nowhere: the config of .* has no such key"):
        by_subject(runs, "nowhere")
    other = write_run(tmp_path / "other", placement="loc1")
    with pytest.raises(InputError, match=r"also differ in .*placement"):
        by_subject([*runs, other], "activation")


@pytest.mark.runs
def test_linear_runs_have_no_activation_but_are_an_encoder(runs, tmp_path):
    linear = write_run(tmp_path / "linear", placement="none")
    (subject,) = by_subject([*runs, linear], "activation")
    assert subject.linear is linear
    assert list(subject.variations) == ["gelu", "relu", "tanh"]
    (subject,) = by_subject([runs[0], linear], "encoder")
    assert list(subject.variations) == ["linear", "nonlinear"]
    assert (subject.nonlinear, subject.linear) == (runs[0], linear)


def test_numbers_are_in_their_order(tmp_path):
    runs = [write_run(tmp_path / str(layer), seed=layer) for layer in (10, 9)]
    for run in runs:
        run.config["features"] = {"layer": run.config["seed"]}
    (subject,) = by_subject(runs, "features.layer")
    assert list(subject.variations) == ["9", "10"]


@pytest.mark.runs
def test_the_folder_of_a_sweep_stands_for_its_runs(runs, tmp_path):
    config = evaluate_config(tmp_path, f"runs={tmp_path / 'sweep'}", "by=activation")
    (subject,) = chosen_subjects(config)
    assert set(subject.variations) == {"relu", "gelu", "tanh"}


def test_medians_and_means_of_the_same_voxels_in_every_run(runs, tmp_path):
    config = evaluate_config(tmp_path, "variants=[l1]")
    subjects = voxel_tables(by_subject(runs, "activation"), config)
    (result,) = evaluate_sections([Swept()], subjects)
    table = result.by_subject["subj01"]["swept"].set_index(["value", "roi"])
    analysed = subjects[0].voxels["analysed"].to_numpy()
    for run in runs:
        for region in ("V1", "V2", "EBA", "all"):
            inside = (run.voxels["roi"] == region) | (region == "all")
            chosen = run.voxels[analysed & inside.to_numpy()]
            row = table.loc[(run.config["activation"], region)]
            quartiles = np.percentile(chosen["jne"], [25, 50, 75])
            np.testing.assert_allclose(row[["jne_q25", "jne", "jne_q75"]].astype(float), quartiles)
            for name in ("r2", "r2_ridge"):
                assert row[name] == pytest.approx(chosen[name].mean())
            assert row["n_voxels"] == len(chosen)
    with rc_context(STYLE):
        (figure,) = Swept().figures(subjects[0], result.by_subject["subj01"]).values()
    lines = [line.get_ydata() for line in figure.axes[0].lines]
    np.testing.assert_allclose(lines[0], table.xs("all", level="roi")["jne"])
    whole = table.xs("all", level="roi")
    most, best = whole["jne"].idxmax(), whole["r2"].idxmax()
    assert Swept().findings(subjects[0], result.by_subject["subj01"]) == [
        f"by activation: median JNE is highest with {most} ({whole['jne'].max():.2f}), "
        f"mean R² with {best} ({whole['r2'].max():.3f})."
    ]

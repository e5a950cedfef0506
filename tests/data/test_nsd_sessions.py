"""Which sessions and images were found, and what is said of those that were not."""

import numpy as np
import pandas as pd
import pytest
from data_sources import refused, source
from nsd_tree import SESSIONS, behaviour, write_surface

from jne.data.nsd.behaviour import read_trials, report_sessions, stimulus_table
from jne.data.prepared import prepare


@pytest.mark.runs
def test_sessions_and_repeats_are_reported(tree, features, tmp_path, capsys):
    prepared = prepare(source(tmp_path, tree, features), tmp_path)
    printed = capsys.readouterr().out
    assert (
        "sessions   3 found (1-2, 4); 34 missing (3, 5-37); 3 missing that were withheld until 20 "
        "August 2023 (38-40)\n"
    ) in printed
    n = prepared.stimuli["n_repeats"].value_counts()
    total = f"images     {n.sum()} seen: {n[1]} once, {n[2]} twice, {n[3]} three times\n"
    assert total in printed


@pytest.mark.parametrize(
    ("subject", "found", "sentence"),
    [
        ("subj01", range(1, 41), "40 found (1-40)"),
        ("subj08", range(1, 31), "30 found (1-30)"),
        (
            "subj06",
            range(1, 30),
            "29 found (1-29); 3 missing that were withheld until 20 August 2023 (30-32)",
        ),
        ("mine", (1, 3), "2 found (1, 3); 1 missing (2)"),
    ],
)
def test_the_sessions_of_each_subject(capsys, subject, found, sentence):
    report_sessions(subject, found, pd.DataFrame({"n_repeats": [3, 3]}))
    printed = capsys.readouterr().out
    assert f"sessions   {sentence}\n" in printed
    assert "images     2 seen: 2 three times\n" in printed


@pytest.mark.runs
def test_a_session_of_one_hemisphere_is_refused(features, tmp_path):
    """It was left out, with all its trials, without a word."""
    root = write_surface(tmp_path / "nsd")
    next(root.rglob("rh.betas_session04.mgh")).unlink()
    sentence = refused(tmp_path, root, features, "data.space=fsaverage")
    assert sentence.startswith("data.root: ")
    assert sentence.endswith(
        "lh.betas_session04.mgh is there, but rh.betas_session04.mgh is missing beside it"
    )
    next(root.rglob("lh.betas_session04.mgh")).unlink()
    path = next(root.rglob("lh.ncsnr.mgh"))
    path.unlink()
    sentence = refused(tmp_path, root, features, "data.space=fsaverage")
    assert sentence.startswith(f"data.noise_ceiling=ncsnr: needs {path}; choose")


@pytest.mark.runs
def test_more_validation_than_training_images_is_warned_of(tree, features, tmp_path, capsys):
    trials = read_trials(next(tree.rglob("responses.tsv")), SESSIONS)
    n = len(stimulus_table(trials, 2, 0, "subj01").query("split != 'test'"))
    prepare(source(tmp_path, tree, features, f"data.n_val={n - 3}"), tmp_path)
    printed = capsys.readouterr().out
    expected = f"3 stimuli to train on are fewer than the {n - 3} to validate on; change data.n_val"
    assert expected in printed
    prepare(source(tmp_path, tree, features, f"data.n_val={n // 2}"), tmp_path)
    assert "to train on" not in capsys.readouterr().out


@pytest.mark.runs
@pytest.mark.filterwarnings("error")
def test_behaviour_with_columns_of_mixed_types(tree, tmp_path):
    """In the release some are numbers in a part of the file and text in another."""
    table = behaviour(tree)
    table = pd.concat([table] * 1000, ignore_index=True)
    table["TIME"] = table["TIME"].astype(object)
    table.loc[len(table) // 2 :, "TIME"] = "text"
    path = tmp_path / "responses.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="NaN")
    trials = read_trials(path, [1, 4])
    assert set(trials["session"]) == {1, 4}
    assert all(trials[column].dtype == np.int64 for column in ("session", "run", "id", "row"))


@pytest.mark.runs
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("73KID", "text", "cannot be read"),
        ("73KID", np.nan, "cannot be read"),
        ("73KID", 0, "has a 73KID that is not from 1 to 73000"),
        ("73KID", 73_001, "has a 73KID that is not from 1 to 73000"),
    ],
)
def test_wrong_values_of_the_behaviour_are_refused(
    fresh_tree, features, tmp_path, column, value, message
):
    path = next(fresh_tree.rglob("responses.tsv"))
    table = behaviour(fresh_tree).astype({column: object})
    table.loc[5, column] = value
    table.to_csv(path, sep="\t", index=False, na_rep="NaN")
    sentence = refused(tmp_path, fresh_tree, features)
    assert sentence.startswith("data.root: ")
    assert message in sentence

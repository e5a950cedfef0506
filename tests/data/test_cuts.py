"""Cuts of stimuli, against scikit-learn's and by brute force: groups whole, purged rows far."""

import numpy as np
import pandas as pd
import pytest
from helpers import compose_train
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    PredefinedSplit,
    RepeatedKFold,
    StratifiedKFold,
)

from jne.data.folds import Belonging, Cutting
from jne.data.splits import random_split
from jne.errors import InputError
from jne.training.config import check_config

GROUPS = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])


def table(n=78, **columns):
    split = np.where(np.arange(n) < 8, "val", "train")
    return pd.DataFrame({"stimulus": np.arange(n), "split": split, **columns})


def check_once(splits, n):
    np.testing.assert_array_equal(np.sort(np.concatenate([out for _, out in splits])), np.arange(n))


def test_folds_are_scikit_learns():
    rows = np.random.default_rng(0).permutation(500)[:78]
    for of, expected in (
        (Belonging(), KFold(5, shuffle=True, random_state=3).split(rows)),
        (
            Belonging(np.arange(500) // 10),
            GroupKFold(5, shuffle=True, random_state=3).split(rows, groups=rows // 10),
        ),
    ):
        splits = of.folds(rows, 5, seed=3)
        check_once(splits, 78)
        for split, pair in zip(splits, expected, strict=True):
            np.testing.assert_array_equal(split[0], pair[0])
            np.testing.assert_array_equal(split[1], pair[1])


@pytest.mark.parametrize("groups", [None, GROUPS])
@pytest.mark.parametrize("purge", [0, 1, 4])
def test_rows_near_those_held_out_do_not_train(groups, purge):
    rows = np.random.default_rng(0).permutation(78)
    splits = Belonging(groups, purge).folds(rows, 4)
    check_once(splits, 78)
    for train, out in splits:
        others = np.setdiff1d(np.arange(78), out)
        near = [np.abs(rows[k] - rows[out]).min() <= purge for k in others]
        np.testing.assert_array_equal(np.sort(train), others[~np.array(near)])
        if groups is not None:
            assert not set(groups[rows[train]]) & set(groups[rows[out]])
        elif purge:
            assert np.ptp(rows[out]) == len(out) - 1  # a run of consecutive rows


def test_fewer_groups_than_folds():
    assert len(Belonging(np.repeat([4, 7, 9], 10)).folds(np.arange(30), 5)) == 3
    with pytest.raises(InputError, match=r"data\.groups: 30 stimuli of one group"):
        Belonging(np.zeros(30, dtype=int)).folds(np.arange(30), 5)


@pytest.fixture
def compose_data(tmp_path):
    return lambda override: check_config(compose_train(tmp_path, override))[1]


@pytest.mark.parametrize("groups", [None, "film"])
def test_every_stimulus_is_tested_once(groups):
    stimuli = table(film=[f"film {k}" for k in GROUPS])
    cutting = Cutting(folds=4, groups=groups)
    belonging = cutting.belonging(stimuli)
    folds = cutting.cut(belonging, stimuli, seed=1)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([rows["test"] for rows in folds])), np.arange(78)
    )
    for rows in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(78))
        assert 0.02 < len(rows["val"]) / 78 < 0.25
        if groups:
            sets = [set(GROUPS[chosen]) for chosen in rows.values()]
            assert sum(map(len, sets)) == 12
    other = cutting.cut(belonging, stimuli, seed=2)
    assert [rows["test"].tolist() for rows in folds] != [rows["test"].tolist() for rows in other]


def test_folds_of_a_column():
    session = np.array(["b", "a", "c"])[np.arange(78) % 3]
    stimuli = table(session=session, one="x", film=GROUPS)
    cutting = Cutting(folds="session", purge=0)
    folds = cutting.cut(cutting.belonging(stimuli), stimuli, seed=0)
    for rows, name in zip(folds, "bac", strict=True):
        assert set(session[rows["test"]]) == {name}
        assert len(rows["test"]) == 26
    for cutting, sentence in (
        (Cutting(folds="run"), "data.folds=run: not a column"),
        (Cutting(folds="one"), "data.folds=one: has one value alone"),
        (Cutting(folds="session", groups="film"), "data.folds=session: cuts a group of film"),
    ):
        with pytest.raises(InputError, match=sentence):
            cutting.cut(cutting.belonging(stimuli), stimuli, seed=0)


def test_folds_of_a_splitter():
    films = np.arange(78) // 10
    stimuli = table(film=[f"film {k}" for k in films])
    for splitter, groups in ((KFold(3), None), (LeaveOneGroupOut(), "film")):
        cutting = Cutting(folds=splitter, groups=groups)
        folds = cutting.cut(cutting.belonging(stimuli), stimuli, seed=0)
        expected = splitter.split(stimuli, groups=None if groups is None else films)
        for rows, (_, out) in zip(folds, expected, strict=True):
            np.testing.assert_array_equal(rows["test"], out)
    for splitter, sentence in (
        (LeaveOneGroupOut(), "cannot cut these stimuli .*groups"),
        (StratifiedKFold(3), "cannot cut these stimuli"),
        (RepeatedKFold(n_splits=3, n_repeats=2), "tests the stimulus of row 0 2 times"),
        (PredefinedSplit([0, 1, -1] * 26), "tests the stimulus of row 2 0 times"),
    ):
        cutting = Cutting(folds=splitter)
        with pytest.raises(InputError, match=rf"data\.folds=.*{sentence}"):
            cutting.cut(cutting.belonging(stimuli), stimuli, seed=0)


def test_a_splitter_by_target_is_a_key(compose_data):
    name = "sklearn.model_selection.KFold"
    source = compose_data(f"data.folds={{_target_: {name}, n_splits: 4}}")
    assert isinstance(source.folds, KFold)
    with pytest.raises(InputError, match=r"data\.folds"):
        compose_data("data.folds={_target_: sklearn.model_selection.ShuffleSplit}")


def test_what_cannot_be_cut():
    stimuli = table(film=[*["a"] * 40, *["b"] * 37, None])
    for cutting, sentence in (
        (Cutting(groups="run"), r"data\.groups=run: not a column .* stimulus, split, film"),
        (Cutting(groups="film"), r"data\.groups=film: has missing values"),
    ):
        with pytest.raises(InputError, match=sentence):
            cutting.belonging(stimuli)
    stimuli["film"] = stimuli["film"].fillna("b")
    cutting = Cutting(folds=3, groups="film")
    with pytest.raises(InputError, match=r"data\.folds=3: 2 groups of film are fewer"):
        cutting.cut(cutting.belonging(stimuli), stimuli, seed=0)


def test_a_split_that_cuts_a_group_is_refused():
    rows = {"train": np.arange(50), "val": np.arange(50, 60), "test": np.arange(60, 78)}
    with pytest.raises(InputError, match=r"data\.groups: .* both train and val"):
        Belonging(GROUPS).apart(rows)
    of_splits = Belonging(np.repeat([0, 1, 2], [50, 10, 18]), purge=3).apart(rows)
    np.testing.assert_array_equal(of_splits["train"], np.arange(47))
    np.testing.assert_array_equal(of_splits["val"], np.arange(50, 57))
    np.testing.assert_array_equal(of_splits["test"], rows["test"])
    with pytest.raises(InputError, match=r"data\.purge=9: leaves 1 stimuli to validate on"):
        Belonging(purge=9).apart(rows)


def test_a_split_at_random_keeps_groups_whole():
    split = random_split(78, 0.2, 0.2, 0, Belonging(GROUPS))
    for group in range(12):
        assert len(set(split[GROUPS == group])) == 1
    assert set(split) == {"train", "val", "test"}
    ordered = random_split(78, 8, 10, 0, Belonging(purge=2))
    assert ordered.tolist() == ["train"] * 60 + ["val"] * 8 + ["test"] * 10

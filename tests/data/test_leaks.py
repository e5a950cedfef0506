"""What is said of the rows: leaks across splits, near copies, repeats as rows, order."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from jne.data.datamodule import EncodingData
from jne.data.leaks import row_findings, row_warnings
from jne.data.prepared import prepare
from jne.errors import InputError

SPLIT = np.array(["train"] * 60 + ["val"] * 20 + ["test"] * 20)


def rows(x, y=None, split=SPLIT, **columns):
    """As a prepared folder."""
    n = len(x)
    y = np.arange(n, dtype=np.float32)[:, None] if y is None else y
    stimuli = pd.DataFrame({"stimulus": np.arange(n), "split": split} | columns)
    return SimpleNamespace(
        features=x.astype(np.float32), responses=y, stimuli=stimuli, features_key="features"
    )


def draw(n=100, d=30, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def sentences(prepared, leaks="warn", in_order=True):
    return row_warnings(row_findings(prepared), leaks, in_order=in_order)


# --- the same rows -------------------------------------------------------------------------------


def test_rows_in_two_splits_are_counted_by_what_they_share():
    x, y = draw(), np.random.default_rng(1).standard_normal((100, 4)).astype(np.float32)
    x[80:85] = x[:5]  # test and train
    x[85:87] = x[60:62]  # test and val
    x[62:65] = x[10:13]  # val and train
    y[80:83] = y[:3]
    found = row_findings(rows(x, y))
    assert found["identical"] == {"train": 0, "test": 7, "val": 3}
    assert found["same"] == {"features": 10, "responses": 3, "id": 0}
    assert found["near"] == {"train": 0, "test": 0, "val": 0}
    (sentence,) = sentences(rows(x, y))
    assert sentence.startswith(
        "7 of 20 test stimuli and 3 of 20 validation stimuli are among those that the encoder "
        "learns from (10 by the same features, 3 by the same features and responses), so"
    )
    with pytest.raises(InputError, match=r"^data\.leaks=refuse: 7 of 20 .* data\.leaks=allow is"):
        sentences(rows(x, y), "refuse")


@pytest.mark.parametrize(("column", "kind"), [("stimulus", "id"), ("image", "image")])
def test_the_same_image_or_id_is_a_leak_whatever_the_features(column, kind):
    """Of features, for instance, that a model extracted twice and rounded otherwise."""
    names = np.array([f"{k}.png" for k in range(100)], dtype=object)
    names[80:82] = names[:2]
    prepared = rows(draw(), **{column: names})
    assert row_findings(prepared)["same"][kind] == 2
    with pytest.raises(InputError, match=rf"2 of 20 test stimuli .* \(2 by the same {kind}\)"):
        sentences(prepared, "refuse")
    names[:] = ""  # none has a name
    assert not sentences(rows(draw(), image=names), "refuse")


def test_bits_that_mean_the_same_are_the_same():
    x = draw()
    x[0, 0], x[80] = 0.0, x[0]
    x[80, 0] = -0.0
    assert row_findings(rows(x))["identical"]["test"] == 1


def test_repeats_as_rows_within_a_split_are_said():
    x = draw()
    x[20:40] = x[:20]
    x[40:60] = x[:20]
    (sentence,) = sentences(rows(x), "refuse")
    assert sentence.startswith("60 of 100 stimuli have the features of another in their split")
    assert "third axis of the responses" in sentence


def test_responses_are_read_only_where_features_agree():
    class Responses:
        asked: np.ndarray = np.empty(0)

        def __getitem__(self, index):
            self.asked = np.append(self.asked, index)
            return np.zeros((len(index), 3), np.float32)

    x, y = draw(), Responses()
    x[90] = x[7]
    assert row_findings(rows(x, y))["same"]["responses"] == 1
    assert set(y.asked) == {7, 90}


# --- nearly the same -----------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.02, 0.05])
def test_near_copies_are_those_of_brute_force(noise):
    rng = np.random.default_rng(0)
    x = draw(d=40) * np.arange(1, 41) ** -0.5 + 3
    x[62:65] = x[:3] + noise * x.std(axis=0) * rng.standard_normal((3, 40))
    x[80:90] = x[:10] + noise * x.std(axis=0) * rng.standard_normal((10, 40))
    found = row_findings(rows(x))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    distance = cdist(z[60:], z[:60])
    near = (distance < np.median(distance) / 20).any(axis=1)
    assert found["near"] == {"train": 0, "val": near[:20].sum(), "test": near[20:].sum()}
    assert found["near"]["test"] == 10
    (sentence,) = sentences(rows(x), "refuse")
    assert sentence.startswith("10 of 20 test stimuli and 3 of 20 validation stimuli are nearly co")


def beside(x, row, distance, of):
    """Rows at this share of the usual distance from those of `of`."""
    z = x / x.std(axis=0)
    usual = np.median(cdist(z[60:], z[:60]))
    towards = np.random.default_rng(2).standard_normal((len(of), x.shape[1]))
    towards *= distance * usual / np.linalg.norm(towards, axis=1)[:, None]
    x[row : row + len(of)] = x[of] + towards * x.std(axis=0)


@pytest.mark.parametrize(("distance", "near"), [(0.046, 4), (0.054, 0)])
def test_near_is_a_twentieth_of_the_usual_distance(distance, near):
    x = draw()
    beside(x, 80, distance, range(4))
    assert row_findings(rows(x))["near"]["test"] == near


@pytest.mark.parametrize(("distance", "n_wide", "near"), [(0.14, 4, 4), (0.14, 5, 0), (0.16, 5, 4)])
def test_near_copies_stand_apart_from_pairs_within_three_times_their_distance(
    distance, n_wide, near
):
    x = draw()
    beside(x, 80, 0.02, range(4))
    beside(x, 90, distance, range(20, 20 + n_wide))
    assert row_findings(rows(x))["near"]["test"] == near


@pytest.mark.runs
@pytest.mark.parametrize("d", [1, 2, 3, 5, 10, 100])
@pytest.mark.parametrize("spectrum", [0, 1, 2])
def test_independent_rows_raise_no_alarm(d, spectrum):
    """Also of one feature, of which every stimulus has a neighbour close by."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((300, d)) @ (
            np.arange(1, d + 1)[:, None] ** (-spectrum / 2)
            * np.linalg.qr(rng.standard_normal((d, d)))[0]
        )
        split = rng.permutation(np.repeat(["train", "val", "test"], [200, 50, 50]))
        assert not sentences(rows(x, split=split), "refuse")


def test_categories_with_little_spread_around_them_are_no_copies():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 50))[np.arange(100) % 8] + 0.3 * rng.standard_normal((100, 50))
    assert not sentences(rows(x), in_order=False)


# --- order ---------------------------------------------------------------------------------------


def autoregressive(n, d, r, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d))
    for i in range(1, n):
        x[i] = r * x[i - 1] + np.sqrt(1 - r**2) * x[i]
    return x


@pytest.mark.parametrize("r", [0.8, 0.95])
def test_rows_in_the_order_of_a_recording_get_a_sentence(r):
    n = 400
    split = np.random.default_rng(0).choice(["train", "val", "test"], n, p=[0.8, 0.1, 0.1])
    prepared = rows(autoregressive(n, 20, r), split=split)
    found = row_findings(prepared)
    assert found["autocorrelation"] == pytest.approx(r, abs=0.06)
    (sentence,) = sentences(prepared, "refuse")
    assert f"autocorrelation of the features {found['autocorrelation']:.2f})" in sentence
    assert "whole runs or blocks of rows (data.groups, data.purge, or data.split=fixed)" in sentence
    blocks = np.repeat(["train", "val", "test"], [320, 40, 40])
    assert not sentences(rows(autoregressive(n, 20, r), split=blocks), "refuse")
    assert not sentences(prepared, "refuse", in_order=False)


def test_a_weak_autocorrelation_gets_none():
    split = np.random.default_rng(0).choice(["train", "val", "test"], 400, p=[0.8, 0.1, 0.1])
    assert not sentences(rows(autoregressive(400, 20, 0.2), split=split), "refuse")


@pytest.mark.parametrize(
    ("n", "lag1", "share", "said"),
    [(1000, 0.31, 0.51, True), (1000, 0.29, 0.51, False), (1000, 0.31, 0.49, False),
     (100, 0.41, 0.51, True), (100, 0.39, 0.51, False)],
)  # fmt: skip
def test_order_is_said_above_the_autocorrelation_of_independent_rows(n, lag1, share, said):
    """Above .3 and four standard errors, 1 / sqrt(N) each, where most stand by a trained one."""
    none = {"train": 0, "val": 0, "test": 0}
    counts = {"train": n - 40, "val": 20, "test": 20}
    found = {"n": counts, "identical": none, "same": {}, "near": none, "repeated": 0,
             "autocorrelation": lag1, "beside": share}  # fmt: skip
    assert bool(row_warnings(found, "refuse", in_order=True)) == said


def test_held_out_rows_beside_a_trained_one_are_counted():
    x = np.array([[2.0], [1], [-1], [-2], [1], [-1]])
    split = np.array(["val", "train", "test", "test", "val", "train"])
    found = row_findings(rows(7 * x + 5, split=split))  # the level and the unit do not matter
    assert found["beside"] == 3 / 4  # all but the second test row, between two held-out ones
    assert found["autocorrelation"] == pytest.approx((2 - 1 + 2 - 2 - 1) / 12)


# --- in a prepared folder ------------------------------------------------------------------------


@pytest.fixture
def leaky(recorded):
    """Features whose rows 0 and 1 are those of rows 25 to 49, too."""
    folder, x, _, source = recorded
    x[25:] = x[np.arange(25) % 2]
    np.save(folder / "x.npy", x)
    return folder, source


def test_a_leak_is_refused_by_default_and_the_key_changes_no_name(leaky):
    folder, source = leaky
    with pytest.raises(InputError, match=r"^data\.leaks=refuse: \d of 5 test stimuli and"):
        prepare(source(), folder / "p")
    warned = prepare(source(leaks="warn"), folder / "p")
    assert len(warned.warnings) == 2
    assert prepare(source(leaks="allow"), folder / "p").warnings == []
    assert [path for path in (folder / "p").iterdir() if path.is_dir()] == [warned.folder]
    EncodingData(warned, batch_size=None, seed=0)


def test_folders_of_earlier_versions_are_looked_at_once(leaky, monkeypatch):
    folder, source = leaky
    first = prepare(source(leaks="warn"), folder / "p")
    (first.folder / "checks.json").unlink()
    assert prepare(source(leaks="warn"), folder / "p").warnings == first.warnings
    monkeypatch.setattr("jne.data.prepared.row_findings", lambda _: pytest.fail("looked again"))
    assert prepare(source(leaks="warn"), folder / "p").warnings == first.warnings
    monkeypatch.undo()
    (first.folder / "checks.json").write_text("[")  # damaged
    assert prepare(source(leaks="warn"), folder / "p").warnings == first.warnings
    assert json.loads((first.folder / "checks.json").read_text())["rows_1"]["n"]["test"] == 5


def test_a_folder_that_cannot_be_written_to_is_looked_at_all_the_same(leaky, monkeypatch):
    folder, source = leaky
    first = prepare(source(leaks="warn"), folder / "p")
    (first.folder / "checks.json").unlink()
    monkeypatch.setattr(os, "access", lambda path, _: path != first.folder)
    assert prepare(source(leaks="warn"), folder / "p").warnings == first.warnings
    assert not (first.folder / "checks.json").exists()

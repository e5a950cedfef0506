"""`halves=true`: two encoders of disjoint halves of the stimuli, and how far they agree."""

import numpy as np
import pandas as pd
import pytest
from helpers import small_cells
from scipy.stats import spearmanr

from jne import Results
from jne.data.datamodule import EncodingData
from jne.data.folds import Cutting
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.results.halves import MEASURES, agreement


def test_agreement_is_spearmans():
    rng = np.random.default_rng(0)
    halves = pd.DataFrame({f"{m}_{k}": rng.standard_normal(40) for m in MEASURES for k in (1, 2)})
    halves.loc[3, "jne_1"] = np.nan
    rois = pd.Series(["V1"] * 20 + [""] * 4 + ["V2"] * 16)
    table = agreement(halves, rois)
    assert table["roi"].tolist() == ["V1", "V2", "all"]
    assert table["voxels"].tolist() == [20, 16, 40]
    expected = spearmanr(halves["r2_1"][:20], halves["r2_2"][:20]).statistic
    assert table["r2"][0] == pytest.approx(expected)
    others = halves.drop(3)
    assert table["jne"][2] == pytest.approx(spearmanr(others["jne_1"], others["jne_2"]).statistic)


@pytest.mark.parametrize("folds", [1, 3])
def test_halves_are_disjoint_and_cut_as_the_whole(tmp_path, folds):
    prepared = prepare(small_cells(), tmp_path)
    data = EncodingData.cut(prepared, Cutting(folds=folds), batch_size=None, seed=0)
    first, second = data.halves()
    rows = [np.concatenate(list(half.rows.values())) for half in (first, second)]
    assert not set(rows[0]) & set(rows[1])
    assert set(rows[0]) | set(rows[1]) == set(range(len(prepared.stimuli)))
    assert len(first.parts) == folds
    for half in (first, second):
        for part, whole in zip(half.parts, data.parts, strict=True):
            for split, chosen in part.rows.items():
                assert set(chosen) <= set(whole.rows[split])


@pytest.mark.runs
@pytest.mark.parametrize("folds", [1, 2])
def test_a_run_says_how_far_it_repeats(run_train, capsys, folds):
    (folder,) = run_train("halves=true", f"data.folds={folds}", "data.n_test=40")
    said = " ".join(capsys.readouterr().out.split())
    assert "two disjoint halves of the stimuli agree on voxels (Spearman's r): R²" in said
    run = Results(folder)
    assert list(run.halves) == [f"{name}_{k}" for k in (1, 2) for name in MEASURES]
    assert run.halves["r2_1"].notna().all()
    r = spearmanr(run.halves["r2_1"], run.halves["r2_2"]).statistic
    assert run.summary["metrics"]["halves/r2"] == pytest.approx(r)
    assert not list(folder.glob("half_*"))


@pytest.mark.runs
def test_too_few_stimuli_are_refused(run_train):
    with pytest.raises(SystemExit, match="halves=True: a half of the stimuli has too few"):
        run_train("halves=true", "data.n_val=4")


def test_few_stimuli(tmp_path):
    data = EncodingData(prepare(small_cells(n_val=4), tmp_path), batch_size=None, seed=0)
    with pytest.raises(InputError, match="halves"):
        data.halves()

"""A new column is one entry of jne.columns, from which everything that shows it follows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_run import CONSTANT, N_VOXELS, evaluate_config, write_run
from helpers import ROOT

from jne import columns
from jne.columns import RUN, Column, find, is_reserved, label, maps_of
from jne.data.voxel_table import check_voxel_table
from jne.errors import InputError
from jne.evaluation import html
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.results import Results
from jne.results.contents import roi_table, summarise, voxel_table
from jne.utils.tables import write_table

NEW = Column("tuning_width", "tuning width", RUN, "how wide the voxel is tuned", "degrees",
             averaged=True, cmap="magma")  # fmt: skip


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, NEW))


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def widths(table):
    return np.where(np.arange(len(table)) == CONSTANT, np.nan, np.arange(len(table), dtype=float))


def test_an_entry_brings_a_column_into_everything(run, tmp_path, registered):
    kept = np.flatnonzero(run.voxels["status"] == "ok")
    given = run.voxels[["voxel", "roi"]]
    status, width = run.voxels["status"].to_numpy(), widths(given)
    measured = run.voxels.drop(columns=["voxel", "roi", "status"])
    table = voxel_table(given, status, kept, {NEW.name: width[kept]}, dict(measured.items()))
    np.testing.assert_array_equal(table[NEW.name], width)
    assert roi_table(table).set_index("roi").loc["V2", NEW.name] == 7
    metrics = summarise(table, 0.05)["metrics"]
    assert metrics["tuning_width/mean"] == pytest.approx(np.nanmean(width))
    assert metrics["tuning_width/V1"] == pytest.approx(1.5)  # of 0 to 3: 4 is CONSTANT

    write_table(run.path / "voxels.csv", table)
    again = Results(run.path)
    variable = again.to_xarray()[NEW.name]
    assert variable.attrs == {"long_name": "tuning width", "units": "degrees"}
    np.testing.assert_array_equal(variable, width)
    (data,) = voxel_tables(by_subject([again]), evaluate_config(tmp_path, "variants=[l1]"))
    assert NEW in maps_of(data.voxels)
    np.testing.assert_array_equal(NEW.values(data.voxels), width)
    shown = html.table("t", data.voxels[["roi", NEW.name]], {})["columns"]
    assert [column["title"] for column in shown] == ["region", "tuning width"]
    assert "| `tuning_width` | how wide the voxel is tuned | degrees | train.py |" in (
        columns.markdown()
    )

    write_table(run.path / "voxels.csv", table.assign(tuning_width="wide"))
    with pytest.raises(InputError, match="must hold numbers in column tuning_width"):
        Results(run.path)
    with pytest.raises(InputError, match="the column tuning_width has the name of one that jne"):
        check_voxel_table(table[["roi", NEW.name]], "data.voxels")


def test_a_column_without_an_entry_is_not_written(run):
    with pytest.raises(KeyError, match="tuning_width needs an entry"):
        voxel_table(run.voxels[["voxel", "roi"]], run.voxels["status"].to_numpy(),
                    np.arange(N_VOXELS), {}, {NEW.name: widths(run.voxels)})  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jne", "JNE"),
        ("jne_l2", "JNE-L2"),
        ("mean_deviation_zscore_l1", "mean deviation, JNE-zscore-L1"),
        ("r2_normalised_kernel", "R² / ceiling kernel"),
        ("p_fdr_linear", "p (FDR) linear"),
    ],
)
def test_one_entry_describes_columns_by_encoder_predictor_and_variant(name, expected):
    assert find(name).label == label(name) == expected
    assert is_reserved(name)


@pytest.mark.parametrize("name", ["jne_l3", "w", "alpha", "noise_ceiling", "jne_l1", "R2"])
def test_other_names_are_the_users(name):
    assert not is_reserved(name)


def test_entries_do_not_overlap():
    names = [entry.name for entry in columns.COLUMNS]
    assert len(set(names)) == len(names)
    for name in names:
        if "{" not in name:
            table = pd.DataFrame(columns=[name])
            assert columns.names(table, lambda entry: True) == [name]


def chosen(choose):
    return {entry.name for entry in columns.COLUMNS if choose(entry)}


@pytest.mark.parametrize(
    "name",
    [
        "voxel", "roi", "status", "r2", "p", "p_fdr", "jne", "mean_deviation", "jne_ss_p95",
        "gain_change", "shape_change",
    ],
)  # fmt: skip
def test_a_run_without_a_column_that_every_run_has_is_refused(run, name):
    write_table(run.path / "voxels.csv", run.voxels.drop(columns=name))
    with pytest.raises(InputError, match=f"column {name}$|column {name}[ ,;:]"):
        Results(run.path)


def test_no_other_column_is_needed(run):
    """Baselines and a noise ceiling are what only some runs have; others are the user's."""
    others = run.voxels.drop(columns=["r2_ridge"]).assign(w=1.0)
    write_table(run.path / "voxels.csv", others)
    assert list(Results(run.path).voxels) == list(others)


def test_means_by_roi_are_of_what_a_mean_says_something_about():
    """Of p, penalties, ends of intervals and the tables' own columns it does not."""
    table = pd.DataFrame(columns=[entry.name for entry in columns.COLUMNS])
    expected = [
        "r2", "r2_ridge", "r2_kernel", "r2_banded", "r2_shared", "jne", "jne_calibrated",
        "mean_deviation", "rms_deviation",
    ]  # fmt: skip
    assert columns.averaged(table) == expected
    assert columns.baselines(table) == ["r2_ridge", "r2_kernel", "r2_banded"]
    assert columns.regional(table) == [
        "nonlinear_share", "nonlinear_share_low", "nonlinear_share_high", "signal_share",
        "linear_share", "validated_share", "validated_share_low", "validated_share_high",
        "nonlinear_z", "nonlinear_p", "r2_nonlinear_part", "r2_linear_part", "nonlinear",
    ]  # fmt: skip


def test_maps_of_nonlinearity_stand_before_those_of_prediction():
    order = [entry.name for entry in columns.maps()]
    assert order == [
        "nonlinear_share", "validated_share", "jne", "jne_calibrated", "nonlinear",
        "rms_deviation", "gain_change", "shape_change",
        "noise_ceiling", "r2_nonlinear", "r2_linear", "r2_ridge",
    ]  # fmt: skip
    assert chosen(lambda entry: entry.static) == {
        "nonlinear_share", "validated_share", "jne", "r2_nonlinear",
    }  # fmt: skip


def test_a_map_needs_a_value():
    table = pd.DataFrame(
        {"jne": [np.nan, 1.0], "nonlinear_share": [np.nan, np.nan], "r2_ridge": [0.1, 0.2]}
    )
    assert [entry.name for entry in maps_of(table)] == ["jne", "r2_ridge"]


def test_the_documentation_has_the_table():
    page = Path(ROOT, "docs", "columns.md").read_text()
    assert columns.markdown() in page, "replace the table by jne.columns.markdown()"

"""What a user of Python meets: names, tables of runs, and how results show themselves."""

import base64
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from finished_run import write_run
from helpers import ROOT
from mlflow import MlflowClient

import jne
from jne.errors import InputError
from jne.roi import ROIS
from jne.utils import bars
from jne.utils.files import write_json
from jne.utils.notebook import histogram_svg
from jne.utils.plain import read_json

PARAMS = {"data": "made", "features": "own", "layer": "-", "encoder": "nonlinear",
          "control": "none", "subject": "subj01", "seed": 0}  # fmt: skip


def record(path: Path, started: str, **params) -> Path:
    """A finished run as train.py leaves it: with its parameters and when it started."""
    settings = {k: v for k, v in params.items() if k in ("placement", "stimuli", "features_config")}
    write_run(path, **settings)
    shown = {k: v for k, v in params.items() if k not in ("stimuli", "features_config")}
    more = {"kind": "train", "started": started, "name": path.name, "params": PARAMS | shown}
    write_json(path / "status.json", read_json(path / "status.json") | more)
    return path


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("outputs")
    record(output / "runs" / "first", "2026-01-01T00:00:00+00:00")
    record(output / "runs" / "third", "2026-01-03", placement="none", encoder="linear")
    record(output / "sweeps" / "s" / "second", "2026-01-02", placement="loc1", layer=7)
    begun = record(output / "runs" / "begun", "2026-01-04")
    write_json(begun / "status.json", read_json(begun / "status.json") | {"status": "RUNNING"})
    (output / "runs" / "notes").mkdir()
    (output / "runs" / "notes" / "status.json").write_text("not JSON")
    return output


# --- names ---------------------------------------------------------------------------------------


def test_completion_lists_the_public_names_and_nothing_else():
    names = dir(jne)
    assert {"JNERegressor", "Results", "jne", "measure", "evidence", "list_runs"} <= set(names)
    assert not [name for name in names if name.startswith("_")]
    assert set(names) == {*jne.__all__, "jne"}
    assert all(hasattr(jne, name) for name in names)


def test_a_star_import_leaves_the_package_its_name():
    code = "import jne\nfrom jne import *\nassert jne.jne is not None and Results is jne.Results"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_no_example_puts_the_function_in_the_place_of_the_package():
    pages = [Path(ROOT, "README.md"), *Path(ROOT, "docs").rglob("*.md"),
             *Path(ROOT, "examples").glob("*.py"), Path(ROOT, "src/jne/__init__.py")]  # fmt: skip
    hiding = re.compile(r"^(?:>>> )?from jne import (?:.*\b)?jne\b", re.MULTILINE)
    assert len(pages) > 20
    assert not [page.name for page in pages if hiding.search(page.read_text())]


# --- runs ----------------------------------------------------------------------------------------


def test_finished_runs_are_a_table_the_newest_first(output):
    runs = jne.list_runs(output)
    assert runs["name"].tolist() == ["third", "second", "first"]
    assert list(runs) == [
        *("name", "data", "features", "layer", "encoder", "control", "subject"),
        *("placement", "r2", "validated_share", "jne", "path"),
    ]
    assert runs["layer"].tolist() == ["", 7, ""]
    for _, row in runs.iterrows():
        voxels = jne.Results(row["path"]).voxels
        assert row["r2"] == pytest.approx(voxels["r2"].mean())
        assert row["jne"] == pytest.approx(voxels["jne"].mean())
        assert np.isnan(row["validated_share"])


def test_the_newest_run_with_given_settings(output):
    assert jne.Results.newest(output).name == "third"
    assert jne.Results.newest(output, encoder="nonlinear").name == "second"
    assert jne.Results.newest(output, layer="").name == "third"
    assert jne.Results.newest(output, subject=1).name == "third"
    assert jne.Results.newest(output, encoder="nonlinear", layer="").name == "first"
    with pytest.raises(InputError, match=r"encodr: no such column.*did you mean encoder"):
        jne.Results.newest(output, encodr="linear")
    with pytest.raises(InputError, match="encoder=cubic: no finished run has it; there are linear"):
        jne.Results.newest(output, encoder="cubic")
    with pytest.raises(InputError, match=r"output=.*: there is no such folder"):
        jne.list_runs(output / "nowhere")
    with pytest.raises(InputError, match="holds no finished run"):
        jne.Results.newest(output / "runs")


def test_two_runs_by_region(output):
    first, third = (jne.Results(output / "runs" / name) for name in ("first", "third"))
    table = jne.compare(third, first.path)
    assert table.index.tolist() == ["V1", "V2", "EBA", "all"]
    for measure in ("r2", "jne"):
        for roi in ("V1", "V2", "EBA"):
            a, b = (run.voxels.query(f"roi == '{roi}'")[measure].mean() for run in (third, first))
            assert table.loc[roi, (measure, "a")] == pytest.approx(a)
            assert table.loc[roi, (measure, "difference")] == pytest.approx(b - a)
    assert table["validated_share"].isna().all(axis=None)
    assert "placement=both instead of none" in table.attrs["differs"]


def test_runs_of_other_data_are_refused_and_other_features_have_no_difference_of_jne(
    output, tmp_path
):
    first = jne.Results(output / "runs" / "first")
    shifted = write_run(tmp_path / "shifted", shift=1.0)
    with pytest.raises(InputError, match="has other responses"):
        jne.compare(first, shifted)
    layer = write_run(tmp_path / "layer", contents={"features": "0" * 16})
    table = jne.compare(first, layer)
    assert table[("jne", "difference")].isna().all()
    assert table[("r2", "difference")].notna().all()


def test_regions_are_in_the_order_of_the_hierarchy(output):
    run = jne.Results(output / "runs" / "first")
    roi = run.voxels["roi"]
    assert roi.cat.ordered
    assert list(roi.cat.categories) == ["V1", "V2", "EBA", ""]
    assert list(run.voxels.groupby("roi", observed=True)["jne"].mean().index) == [
        name for name in ROIS if name in ("V1", "V2", "EBA")
    ]
    assert roi.min() == "V1"


def test_a_misspelt_array_names_those_that_exist(output):
    run = jne.Results(output / "runs" / "first")
    with pytest.raises(InputError, match=r"name=jne_s: .* deviation, features.*mean jne_ss\?"):
        run.array("jne_s")


# --- how results show themselves -----------------------------------------------------------------


def test_a_run_shows_its_regions_and_no_array(output):
    run = jne.Results(output / "runs" / "first")
    text, page = repr(run), run._repr_html_()
    for shown in (text, page):
        assert "first: made, subj01, 15 voxels, 24 test stimuli" in shown
        for roi in ("V1", "V2", "EBA", "all"):
            mean = run.voxels["jne"].mean()
            if roi != "all":
                mean = run.voxels.loc[run.voxels["roi"] == roi, "jne"].mean()
            assert roi in shown
            assert f"{mean:.3f}" in shown
    assert len(text.splitlines()) == 7


def test_names_in_html_are_text(tmp_path):
    run = write_run(tmp_path / "run", subject="<script>alert(1)</script>")
    assert "<script>" not in run._repr_html_()


def test_a_measurement_shows_its_quartiles():
    measured = jne.measure(torch.nn.Sequential(torch.nn.Linear(4, 12), torch.nn.Tanh()),
                           torch.randn(30, 4))  # fmt: skip
    quartiles = np.quantile(measured.jne, [0.25, 0.5, 0.75])
    text, page = repr(measured), measured._repr_html_()
    assert "30 stimuli, 12 voxels" in text
    for value in quartiles:
        assert f"{value:.3g}" in text
        assert f"{value:.3g}" in page
    assert "array" not in text
    assert page.count("<rect") == 30


def test_evidence_and_share_show_how_much_is_nonlinear():
    values = np.array([np.nan, 0.1, 0.3])
    evidence = jne.Evidence(*[values] * 10)._replace(p_fdr=np.array([np.nan, 0.05, 0.2]))
    assert repr(evidence) == (
        "<Evidence: 3 voxels, 1 nonlinear at q = 0.1; validated share 0.1 to 0.3, "
        "quartiles 0.15, 0.2, 0.25 (n = 2)>"
    )
    assert "<table>" in evidence._repr_html_()
    share = jne.Share(*[np.float64(0.25)] * 5)  # one voxel, as JNERegressor gives it
    assert "1 voxels; nonlinear share 0.25 to 0.25" in repr(share)
    assert "<table>" in share._repr_html_()
    assert "-" in jne.Share(*[np.array([np.nan])] * 5)._repr_html_()


def test_the_bars_of_a_histogram_are_its_counts():
    values = np.random.default_rng(0).normal(size=200)
    heights = [
        float(h) for h in re.findall(r'<rect [^>]* height="([\d.]+)"', histogram_svg(values, "x"))
    ]
    counts, _ = np.histogram(values, 30)
    np.testing.assert_allclose(np.array(heights) / 70 * counts.max(), counts, atol=0.05)
    assert histogram_svg(np.ones(30), "x") == histogram_svg(np.arange(3), "x") == ""


@pytest.mark.parametrize(("verbose", "bar"), [(1, True), (0, False)])
def test_progress_is_shown_where_somebody_looks(verbose, bar, monkeypatch, capsys):
    monkeypatch.setattr(bars, "has_viewer", lambda: True)
    x = np.random.default_rng(0).normal(size=(60, 3))
    jne.measure(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh()), x, verbose=verbose)
    jne.evidence(np.abs, x[:40], x[40:], x[40:], ridge=lambda z: z, verbose=verbose)
    printed = capsys.readouterr().out
    assert ("Jacobians" in printed) == ("100/100" in printed) == ("evidence" in printed) == bar


def test_nothing_is_drawn_where_nobody_looks(capsys):
    assert not bars.has_viewer()
    jne.measure(torch.nn.Linear(3, 2), torch.randn(5, 3))
    assert capsys.readouterr().out == ""


@pytest.mark.runs
def test_the_page_runs_after_a_training(finished_run, monkeypatch, tmp_path):
    """docs/notebook.md, on runs of train.py; maps need an atlas, images a volume."""
    matplotlib.use("Agg")
    page = Path(ROOT, "docs", "notebook.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(examples) == 7
    run = jne.Results.newest(finished_run)
    monkeypatch.setattr(jne.Results, "newest", lambda *_, **__: run)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for example in examples:
        if "to_nifti" in example:  # tests/data/test_volume.py and test_surface.py
            continue
        if "plot_map" not in example or "vertex" in run.voxels:
            code = example.replace('"outputs"', repr(str(finished_run)))
            exec(compile(code, "docs/notebook.md", "exec"), names)
    assert (names["table"]["r2", "difference"] == 0).all()
    assert Path("figure.pdf").stat().st_size > 5000
    runs = jne.list_runs(finished_run)
    assert runs["name"].tolist() == [run.name]
    assert (run.path / "figures" / "jne_by_roi.pdf").exists()
    assert runs["validated_share"][0] == run.regions["validated_share"].iloc[-1]


@pytest.mark.runs
def test_the_saved_view_of_mlflow_has_columns_that_a_run_has(finished_run, store):
    client = MlflowClient(store)
    run = client.get_run(jne.Results.newest(finished_run).status["mlflow_run_id"])
    tags = client.get_experiment(run.info.experiment_id).tags
    packed = json.loads(tags["mlflow.sharedViewState.jne"])["state"].partition(";")[2]
    columns = json.loads(zlib.decompress(base64.b64decode(packed)))["selectedColumns"]
    names = {f"params.`{name}`" for name in run.data.params}
    names |= {f"metrics.`{name}`" for name in run.data.metrics} | {"attributes.`Duration`"}
    assert set(columns) - names <= {"metrics.`nonlinear_share/all`"}  # of few stimuli, unknown
    assert {"params.`data`", "params.`control`", "metrics.`r2/above_ridge`"} <= set(columns)

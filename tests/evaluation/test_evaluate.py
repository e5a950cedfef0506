"""evaluate.py end to end, its choice of runs, and its sentences for bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers import TINY, TINY_COHORT, no_figures, run_quietly
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from omegaconf import OmegaConf
from PIL import Image
from scipy import stats
from sklearn.metrics import r2_score

from jne.analysis.nonlinearity import jne
from jne.errors import InputError
from jne.evaluation import figures
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.run import chosen_subjects
from jne.evaluation.subjects import by_subject
from jne.evaluation.tables import SubjectTables
from jne.features.images import FolderImages
from jne.results import Results

QUICK = ("selectivity.n_permutations=99", "stats.n_bootstrap=20", "voxels=all")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, store):
    """Results folders of two subjects: nonlinear, linear, and a second seed of the first."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for key, settings in {
        "s1": ["subject=s1"],
        "s1_linear": ["subject=s1", "encoder=linear"],
        "s1_seed": ["subject=s1", "seed=1"],
        "s2": ["subject=s2"],
    }.items():
        with no_figures():
            (made[key],) = run_quietly(
                folder,
                store,
                "train.py",
                "tracking.experiment=runs",
                *TINY_COHORT,
                *TINY,
                *settings,
            )
    return made


@pytest.fixture
def evaluate(run_script):
    def run(*overrides: str):
        (folder,) = run_script("evaluate.py", *QUICK, "tracking.experiment=runs", *overrides)
        return folder

    return run


def named(*folders) -> str:
    return f"runs=[{','.join(map(str, folders))}]"


def table(folder, name) -> pd.DataFrame:
    return pd.read_csv(folder / "tables" / f"{name}.csv", keep_default_na=False, na_values=[""])


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory, store):
    """One report on a subject's linear and nonlinear runs, two seeds of these."""
    folder = tmp_path_factory.mktemp("report")
    chosen = named(*(runs[key] for key in ("s1_seed", "s1", "s1_linear")))
    settings = (*QUICK, "tracking.experiment=runs", "rois=[V1,V2,FFA-1]", chosen)
    (made,) = run_quietly(folder, store, "evaluate.py", *settings)
    return made


def test_performance_is_scikit_learns(report, runs):
    voxels = table(report, "voxels").query("subject == 'subj01'").reset_index()
    for label, key in (("nonlinear", "s1_seed"), ("linear", "s1_linear")):
        run = Results(runs[key])
        y, prediction = (np.array(run.array(n), dtype=float) for n in ("responses", "predictions"))
        expected = r2_score(y, prediction, multioutput="raw_values")
        np.testing.assert_allclose(voxels[f"r2_{label}"], expected, atol=1e-9)
        np.testing.assert_allclose(voxels[f"r2_{label}"], run.voxels["r2"], atol=1e-6)
        r = [stats.pearsonr(*pair).statistic for pair in zip(y.T, prediction.T, strict=True)]
        np.testing.assert_allclose(voxels[f"r_{label}"], r, atol=1e-9)
        np.testing.assert_allclose(
            voxels[f"r2_normalised_{label}"], expected / run.voxels["noise_ceiling"], atol=1e-9
        )


def test_comparison_is_that_of_the_voxel_table(report):
    voxels = table(report, "voxels").query("subject == 'subj01' and roi == 'V2'")
    row = table(report, "comparison").query("subject == 'subj01' and roi == 'V2'").iloc[0]
    assert row.r == pytest.approx(
        stats.pearsonr(voxels["r2_linear"], voxels["r2_nonlinear"]).statistic
    )
    difference = voxels["r2_nonlinear"] - voxels["r2_linear"]
    assert row.difference == pytest.approx(difference.mean())
    assert row.p == pytest.approx(stats.wilcoxon(difference).pvalue)


def test_variants_are_those_of_the_engine(report, runs):
    run = Results(runs["s1_seed"])  # the newest
    encoder, features = run.encoder(), run.array("features")
    x = torch.tensor(np.array(features))
    jacobians = torch.stack([torch.autograd.functional.jacobian(encoder, row[None]) for row in x])
    jacobians = jacobians[:, 0, :, 0].double()  # (N, V, D)
    scaled = jacobians - jacobians.mean(dim=2, keepdim=True)
    scaled = scaled / scaled.std(dim=2, keepdim=True, unbiased=False)
    deviation = torch.linalg.vector_norm(scaled - scaled.mean(dim=0), dim=2)
    voxels = table(report, "voxels")
    np.testing.assert_allclose(voxels["jne_zscore_l2"], jne(deviation.numpy()), rtol=2e-4)


def test_mom_is_the_mean_of_the_stored_jne_ss(report, runs):
    run = Results(runs["s1_seed"])  # the newest
    mom = table(report, "mom").query("subject == 'subj01'").set_index(["cluster", "roi"])["mom"]
    own = (run.stimuli["category"] == "food").to_numpy()
    ffa = (run.voxels["roi"] == "FFA-1").to_numpy()
    assert mom["food", "FFA-1"] == pytest.approx(run.array("jne_ss")[own][:, ffa].mean(), rel=1e-5)


def test_report_is_whole_and_needs_no_network(report):
    assert json.loads((report / "status.json").read_text())["status"] == "FINISHED"
    page = (report / "report.html").read_text()
    assert "http" not in page.replace("https://", "http").split("<body>")[1]
    assert page.count("data:image/png;base64,") >= 8
    for word in ("subj01", "Caveats", "Kendall"):
        assert word in page
    for figure in (report / "figures").glob("*.png"):
        assert figure.with_suffix(".pdf").stat().st_size > 1000


def test_report_has_an_mlflow_run_tied_to_those_it_read(report, runs, store):
    run_id = json.loads((report / "status.json").read_text())["mlflow_run_id"]
    client = MlflowClient(store)
    run = client.get_run(run_id)
    assert run.data.tags["kind"] == "report"
    read = [runs[key] for key in ("s1", "s1_linear", "s1_seed")]
    ids = {Results(folder).status["mlflow_run_id"] for folder in read}
    assert set(run.data.tags["reads"].split()) == ids
    assert {file.path for file in client.list_artifacts(run_id)} >= {"report.html", "tables"}


@pytest.mark.slow
def test_a_report_on_the_newest_runs_of_several_subjects(evaluate, runs):
    folder = evaluate("rois=[V1,V2,FFA-1]")
    read = yaml.safe_load((folder / "config.yaml").read_text())["read"]
    found = {subject: {run["results"] for run in listed} for subject, listed in read.items()}
    assert found == {
        "subj01": {str(runs[key]) for key in ("s1", "s1_linear", "s1_seed")},
        "subj02": {str(runs["s2"])},
    }
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 8 + 7  # no linear run of subj02
    assert set(table(folder, "trend")["subject"]) == {"subj01", "subj02", "all"}


@pytest.mark.slow
def test_one_nonlinear_run_is_enough_and_is_left_as_it_was(evaluate, runs):
    def contents():
        files = (path for path in sorted(runs["s2"].rglob("*")) if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = contents()
    folder = evaluate(
        named(runs["s2"]), "variants=[l1]", "rois=[V1,HVC]", "selectivity.clusters=tsne"
    )
    assert contents() == before
    assert not (folder / "tables" / "comparison.csv").exists()
    rois = table(folder, "performance")["roi"]
    assert list(rois) == ["all", "V1", "EBA", "PPA", "RSC", "OPA", "FFA-1", "FFA-2"]
    assert table(folder, "stimuli")["cluster"].str.startswith("cluster ").all()


def test_runs_are_chosen_by_id_by_filter_and_as_the_newest(runs, store, tmp_path):
    def chosen(**keys):
        keys = {
            "output": tmp_path,
            "tracking": {
                "uri": store,
                "experiment": "runs",
                "on_unreachable": "fail_at_start",
                "nested": False,
            },
        } | keys
        with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
            plain = OmegaConf.to_container(compose("evaluate"), resolve=True)
        config = EvaluateConfig.model_validate(plain | keys)
        return {one.name: [run.path for run in one.runs] for one in chosen_subjects(config)}

    run_id = Results(runs["s2"]).status["mlflow_run_id"]
    assert chosen(runs=[run_id]) == {"subj02": [runs["s2"]]}
    newest = {subject: set(found) for subject, found in chosen().items()}
    assert newest == {
        "subj01": {runs[key] for key in ("s1", "s1_linear", "s1_seed")},
        "subj02": {runs["s2"]},
    }
    assert chosen(filter="params.seed = '0' and params.subject = 'subj01'") == {
        "subj01": [runs["s1"], runs["s1_linear"]]
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rois=[V1,XYZ]"], "rois: unknown ROI 'XYZ'; this data has V1"),
        (["voxels=some"], "voxels=some"),
        (["runs=[nowhere]"], "nowhere is neither a results folder nor the id of a run"),
        (["filter='params.subject = \"nobody\"'"], "no finished training run"),
        (["filter=nonsense"], "filter=nonsense: MLflow cannot read it"),
        (["variants=[l3]"], "variants"),
        (["selectivity.n_permutations=5"], "n_permutations=5"),
        (["voxels=significant", "stats.n_bootstrap=3"], "set voxels=all to analyse them all"),
    ],
)
def test_bad_input_is_one_sentence(evaluate, runs, overrides, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        evaluate(*overrides)
    assert "\n" not in str(stopped.value)


def test_runs_that_do_not_belong_together(runs, tmp_path):
    with pytest.raises(InputError, match="no nonlinear run of subj01 among those named"):
        by_subject([Results(runs["s1_linear"])])

    def altered(key, change):
        folder = tmp_path / key
        shutil.copytree(runs["s1"], folder)
        change(folder)
        return Results(folder)

    def other_stimuli(folder):
        stimuli = pd.read_csv(folder / "stimuli.csv")
        stimuli.assign(stimulus=stimuli["stimulus"] + "x").to_csv(folder / "stimuli.csv")

    def set_config(key, value):
        def change(folder):
            config = yaml.safe_load((folder / "config.yaml").read_text())
            (folder / "config.yaml").write_text(yaml.safe_dump(config | {key: value}))

        return change

    first = Results(runs["s1"])
    with pytest.raises(InputError, match="different test stimuli"):
        by_subject([first, altered("stimuli", other_stimuli)])
    with pytest.raises(InputError, match="differ in activation"):
        by_subject([first, altered("activation", set_config("activation", "gelu"))])
    with pytest.raises(InputError, match=r"\(shuffle\)"):
        by_subject([first, altered("shuffle", set_config("shuffle", True))])
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs["s1"], unfinished)
    status = json.loads((unfinished / "status.json").read_text())
    (unfinished / "status.json").write_text(json.dumps(status | {"status": "KILLED"}))
    with pytest.raises(InputError, match="is KILLED, not FINISHED"):
        Results(unfinished)


def test_examples_are_the_stimuli_nearest_the_middle_of_their_cluster(tmp_path):
    shades = {f"{i:02d}.png": 8 * i for i in range(22)}
    for name, shade in shades.items():
        Image.new("RGB", (20, 10), (shade, 0, 0)).save(tmp_path / name)
    x = np.r_[np.arange(11.0), 100 + np.arange(11.0)]
    cluster = np.repeat(["left", "right"], 11)
    stimuli = pd.DataFrame({"image": list(shades), "cluster": cluster, "x": x, "y": 0.0})
    mom = pd.DataFrame({"roi": "all", "cluster": ["left", "right"], "mom": [0.1, 0.2]})
    tables = SubjectTables("s", pd.DataFrame(), [], {"mom": mom}, None, None, stimuli)
    figure = figures.examples(tables, FolderImages(tmp_path))
    rows = np.reshape(figure.axes, (2, -1))
    shown = [{int(panel.images[0].get_array()[0, 0, 0]) // 8 for panel in row} for row in rows]
    assert shown == [set(range(13, 20)), set(range(2, 9))]  # the more nonlinear cluster first

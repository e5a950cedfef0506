"""evaluate.py from end to end, its choice of runs, and its error messages."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from finished_run import contents
from helpers import TINY, TINY_COHORT, no_figures, only_run, run_quietly, status
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from omegaconf import OmegaConf
from scipy import stats
from sklearn.metrics import r2_score

from jne.analysis.nonlinearity import jne
from jne.evaluation.chosen import chosen_subjects
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.sections import SECTIONS, Section
from jne.plots.style import subplots
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
        "s1_shuffle": ["subject=s1", "control=shuffle"],
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


class Spread(Section):
    """A section as a user would add one: this class, and one line in SECTIONS."""

    title = "Spread of the responses"
    captions = {"spread": "Each response range, sorted."}  # noqa: RUF012
    headings = {"n_wide": "wide responses"}  # noqa: RUF012

    def __init__(self):
        self.n_findings = 0

    def tables(self, data):
        spread = np.ptp(data.subject.nonlinear.array("responses"), axis=0)
        return {"spread": pd.DataFrame({"n_wide": [(spread > 2).sum()], "widest": spread.max()})}

    def figures(self, data, tables):
        figure, axes = subplots()
        axes.plot(np.sort(np.ptp(data.subject.nonlinear.array("responses"), axis=0)))
        return {"spread": figure}

    def findings(self, data, tables):
        self.n_findings += 1
        return [f"the widest response spans {tables['spread']['widest'][0]:.4f}."]

    def scalars(self, tables):
        spread = tables["spread"]
        return dict(zip("widest/" + spread["subject"], spread["widest"], strict=True))


SPREAD = Spread()


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory, store):
    """One report on a linear and two nonlinear runs of a subject, with a section of a user."""
    folder = tmp_path_factory.mktemp("report")
    chosen = named(*(runs[key] for key in ("s1_seed", "s1", "s1_linear")))
    settings = (*QUICK, "tracking.experiment=runs", "rois=[V1,V2,FFA-1]", chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jne.evaluation.sections.SECTIONS", (*SECTIONS, SPREAD))
        (made,) = run_quietly(folder, store, "evaluate.py", *settings)
    return made


@pytest.mark.runs
def test_a_report_on_one_run(finished_run, run_script):
    """With two sections; the reports below have all."""
    path = only_run(finished_run)
    with pytest.MonkeyPatch.context() as patch:
        two = tuple(s for s in SECTIONS if s.title in ("Prediction", "Where JNE is high"))
        patch.setattr("jne.evaluation.sections.SECTIONS", two)
        (folder,) = run_script("evaluate.py", *QUICK, "variants=[l1]", named(path))
    run = Results(path)
    y, prediction = (np.array(run.array(n), dtype=float) for n in ("responses", "predictions"))
    expected = r2_score(y, prediction, multioutput="raw_values")
    np.testing.assert_allclose(table(folder, "voxels")["r2_nonlinear"], expected, atol=1e-9)
    performance = table(folder, "performance").query("roi == 'all' and encoder == 'nonlinear'")
    assert performance["r2_mean"].item() == pytest.approx(expected.mean())
    page = (folder / "report.html").read_text()
    assert all(section.title in page for section in two)
    assert status(folder)["status"] == "FINISHED"


@pytest.mark.runs
def test_performance_equals_scikit_learn(report, runs):
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


@pytest.mark.runs
def test_comparison_agrees_with_the_voxel_table(report):
    voxels = table(report, "voxels").query("subject == 'subj01' and roi == 'V2'")
    row = table(report, "comparison").query("subject == 'subj01' and roi == 'V2'").iloc[0]
    assert row.r == pytest.approx(
        stats.pearsonr(voxels["r2_linear"], voxels["r2_nonlinear"]).statistic
    )
    difference = voxels["r2_nonlinear"] - voxels["r2_linear"]
    assert row.difference == pytest.approx(difference.mean())
    assert row.p == pytest.approx(stats.wilcoxon(difference).pvalue)


@pytest.mark.runs
def test_variants_equal_those_of_autograd(report, runs):
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


@pytest.mark.runs
def test_mom_is_the_mean_of_the_stored_jne_ss(report, runs):
    run = Results(runs["s1_seed"])  # the newest
    mom = table(report, "mom").query("subject == 'subj01'").set_index(["cluster", "roi"])["mom"]
    food = (run.stimuli["category"] == "food").to_numpy()
    ffa = (run.voxels["roi"] == "FFA-1").to_numpy()
    assert mom["food", "FFA-1"] == pytest.approx(run.array("jne_ss")[food][:, ffa].mean(), rel=1e-5)


@pytest.mark.runs
def test_report_is_complete_and_needs_no_network(report):
    assert json.loads((report / "status.json").read_text())["status"] == "FINISHED"
    page = (report / "report.html").read_text()
    assert not re.search(
        r"""(src|href)\s*=\s*["']?(https?:)?//|url\(["']?(https?:)?//|@import""", page
    )
    assert page.count("data:image/png;base64,") >= 8
    for word in ("subj01", "Caveat", "Kendall"):
        assert word in page
    for figure in (report / "figures").glob("*.png"):
        assert figure.with_suffix(".pdf").stat().st_size > 1000


@pytest.mark.runs
def test_report_has_an_mlflow_run_that_names_those_it_read(report, runs, store):
    run_id = json.loads((report / "status.json").read_text())["mlflow_run_id"]
    client = MlflowClient(store)
    run = client.get_run(run_id)
    assert run.data.tags["kind"] == "report"
    read = [runs[key] for key in ("s1", "s1_linear", "s1_seed")]
    ids = {Results(folder).status["mlflow_run_id"] for folder in read}
    assert set(run.data.tags["reads"].split()) == ids
    assert {file.path for file in client.list_artifacts(run_id)} >= {"report.html", "tables"}


@pytest.mark.runs
def test_a_section_of_a_user_is_in_the_page_the_tables_and_mlflow(report, runs, store):
    responses = Results(runs["s1_seed"]).array("responses")
    widest = np.ptp(responses, axis=0).max()
    (row,) = table(report, "spread").to_dict("records")
    assert row["subject"] == "subj01"
    assert row["widest"] == pytest.approx(widest)
    page = (report / "report.html").read_text()
    assert ">Spread of the responses</h2>" in page
    assert '<th scope="col" class="n">wide responses</th>' in page
    assert "<figcaption>Each response range, sorted. " in page
    image = base64.b64encode((report / "figures" / "subj01_spread.png").read_bytes()).decode()
    assert image in page
    assert f"<li>the widest response spans {widest:.4f}.</li>" in page
    run_id = json.loads((report / "status.json").read_text())["mlflow_run_id"]
    client = MlflowClient(store)
    logged = client.get_run(run_id).data.metrics["widest/subj01"]
    assert logged == pytest.approx(widest, rel=1e-3)
    assert "tables/spread.csv" in {file.path for file in client.list_artifacts(run_id, "tables")}
    assert SPREAD.n_findings == 1, "the page and the console show the same findings"


@pytest.mark.runs
def test_a_report_leaves_the_runs_unchanged(evaluate, runs):
    before = {key: contents(folder) for key, folder in runs.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jne.evaluation.sections.SECTIONS", ())
        evaluate(named(runs["s2"]), "variants=[l1,l2]")
    assert {key: contents(folder) for key, folder in runs.items()} == before


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
def test_one_nonlinear_run_is_enough_and_stays_unchanged(evaluate, runs):
    before = contents(runs["s2"])
    folder = evaluate(
        named(runs["s2"]), "variants=[l1]", "rois=[V1,HVC]", "selectivity.clusters=tsne"
    )
    assert contents(runs["s2"]) == before
    assert not (folder / "tables" / "comparison.csv").exists()
    rois = ["all", "V1", "EBA", "PPA", "RSC", "OPA", "FFA-1", "FFA-2"]
    performance = table(folder, "performance")
    assert set(performance["encoder"]) == {"nonlinear", "ridge"}  # no linear run; the baseline
    for _, rows in performance.groupby("encoder"):
        assert list(rows["roi"]) == rois
    assert table(folder, "stimuli")["cluster"].str.startswith("cluster ").all()


@pytest.mark.runs
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
        subjects = chosen_subjects(config)
        return {subject.name: [run.path for run in subject.runs] for subject in subjects}

    run_id = Results(runs["s2"]).status["mlflow_run_id"]
    assert chosen(runs=[run_id]) == {"subj02": [runs["s2"]]}
    newest = {subject: set(folders) for subject, folders in chosen().items()}
    assert newest == {
        "subj01": {runs[key] for key in ("s1", "s1_linear", "s1_seed")},
        "subj02": {runs["s2"]},
    }
    assert chosen(filter="params.seed = '0' and params.subject = 'subj01'") == {
        "subj01": [runs["s1"], runs["s1_linear"]]
    }


@pytest.mark.runs
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
        (
            ["voxels=significant", "stats.p_value=plus_one", "stats.n_bootstrap=3"],
            "set voxels=all to analyse them all",
        ),
    ],
)
def test_bad_input_gives_one_sentence(evaluate, runs, overrides, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        evaluate(*overrides)
    assert "\n" not in str(stopped.value)

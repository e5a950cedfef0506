"""Evidence on an external test set: against the run's own, and against scikit-learn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finished_run import evaluate_config
from helpers import no_figures, run_quietly, status
from scipy import stats
from sklearn.linear_model import LinearRegression, Ridge

from jne.analysis.evidence import evidence_of
from jne.data.datamodule import EncodingData
from jne.data.prepared import load
from jne.evaluation.external_test import external_test
from jne.evaluation.sections.generalisation import Generalisation
from jne.evaluation.sections.out_of_distribution import OutOfDistribution
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.results import Results

pytestmark = pytest.mark.runs

N_OUT = 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory, store):
    """A run on the synthetic cohort, with a folder of external stimuli: its own test stimuli."""
    folder = tmp_path_factory.mktemp("external")
    sizes = ("data.n_features=64", "data.n_train=200", "data.n_val=40", f"data.n_test={N_OUT}",
             "data.voxels_per_roi=3", "encoder.hidden_width=16", "trainer.max_epochs=5",
             "stats.n_bootstrap=20", "optimizer.weight_decay=0")  # fmt: skip
    with no_figures():
        (run,) = run_quietly(folder / "out", store, "train.py", *sizes)
    prepared = load(Path(status(run)["prepared"]))
    rows = prepared.rows("test")
    np.save(folder / "x.npy", prepared.features[rows])
    np.save(folder / "y.npy", prepared.responses[rows])
    kinds = np.repeat(["a", "b", "few"], [30, 26, 4])
    table = pd.DataFrame({"stimulus": range(N_OUT), "category": kinds})
    table.to_csv(folder / "stimuli.csv", index=False)
    return folder, Results(run), prepared


def config(folder, *more):
    files = ("test.features=x.npy", "test.responses=y.npy", "test.stimuli=stimuli.csv")
    return evaluate_config(folder / "out", "test=arrays", f"test.root={folder}", *files, *more)


@pytest.fixture(scope="module")
def result(trained):
    folder, run, _ = trained
    return external_test(run, config(folder), lambda _: None)


def test_of_the_run_s_own_test_stimuli_it_is_the_evidence_of_the_run(trained, result):
    _, run, _ = trained
    for name in ("nonlinear_z", "nonlinear_p", "nonlinear_p_fdr", "r2_ridge"):
        expected = run.voxels[name]
        np.testing.assert_allclose(
            result.columns[f"{name}_ood"], expected, rtol=5e-3, atol=1e-3, err_msg=name
        )
    for end in ("", "_low", "_high"):
        expected = run.voxels[f"validated_share{end}"]
        actual = result.columns[f"validated_share{end}_ood"]
        np.testing.assert_allclose(actual, expected, rtol=5e-3, atol=1e-3)
    own, out = run.region_evidence.table(), result.evidence.regions(np.arange(N_OUT)).table()
    pd.testing.assert_frame_equal(out, own, rtol=5e-3, atol=1e-3)
    np.testing.assert_allclose(result.evidence.ridge_in, result.evidence.ridge, atol=1e-4)


def test_the_evidence_of_a_kind_is_that_of_its_stimuli(trained, result):
    _, run, prepared = trained
    data = EncodingData(prepared, batch_size=None, seed=0)
    seen, test = np.concatenate([data.rows["train"], data.rows["val"]]), data.rows["test"]
    rows = np.arange(30, 56)
    x = data.features.double().numpy()
    y = data.responses[np.arange(len(x))].numpy().astype(float)
    with torch.no_grad():
        f = run.encoder().double()(data.features.double()).numpy()
    g = f - LinearRegression().fit(x[seen], f[seen]).predict(x)
    penalty = run.voxels["ridge_penalty"].to_numpy()
    ridge = Ridge(alpha=penalty).fit(x[seen], y[seen]).predict(x[test])
    np.testing.assert_allclose(result.evidence.ridge, ridge, atol=2e-3)
    linear = [ridge[rows], result.evidence.least[rows]]
    at = test[rows]
    roi = run.voxels["roi"].to_numpy()
    expected, _ = evidence_of(y[at], f[at], g[at], linear, np.zeros(len(roi), dtype=int), 1)
    of_kind = result.evidence.regions(rows)
    product = of_kind.sums.product
    assert product.shape == (26, len(set(roi)) + 1)
    assert of_kind.rois[-1] == "all"
    (everything,) = [of_kind.sums.nonlinear[-1]]
    assert everything == pytest.approx(np.nansum(expected.r2_nonlinear), rel=0.02)
    assert result.evidence.regions(np.arange(56, 60)) is None  # four stimuli


def test_stimuli_of_a_group_share_noise(trained, result):
    folder, run, _ = trained
    table = pd.read_csv(folder / "stimuli.csv").assign(image=np.arange(N_OUT) // 2)
    table.to_csv(folder / "grouped.csv", index=False)
    grouped = external_test(
        run, config(folder, "test.stimuli=grouped.csv", "test.groups=image"), lambda _: None
    )
    sums = grouped.evidence.regions(np.arange(N_OUT)).sums
    alone = result.evidence.regions(np.arange(N_OUT)).sums
    pairs = alone.product.reshape(N_OUT // 2, 2, -1).sum(axis=1)
    np.testing.assert_allclose(sums.product, pairs, rtol=1e-4, atol=1e-6)


def test_without_the_data_of_the_run_there_is_none(trained, capsys, tmp_path):
    folder, run, _ = trained
    other = config(folder).model_copy(update={"output": tmp_path})
    without = external_test(run, other, lambda _: None)
    assert without.evidence is None
    assert not {"nonlinear_z_ood", "r2_ridge_ood"} & set(without.columns)
    printed = " ".join(capsys.readouterr().out.split())
    assert "no evidence out of distribution, which needs the training data" in printed


@pytest.fixture(scope="module")
def subject(trained):
    """With enough validated voxels: the rate is lenient."""
    folder, run, _ = trained
    q = run.voxels["nonlinear_p_fdr"].sort_values().iloc[12]
    (data,) = voxel_tables(by_subject([run]), config(folder, f"inference.q={q}"))
    return data


def pooled_r2(responses, predictions):
    error = np.square(responses - predictions).sum()
    return 1 - error / np.square(responses - responses.mean(axis=0)).sum()


def test_the_lead_over_ridge_of_validated_and_other_voxels(subject):
    tables = Generalisation().tables(subject)
    table = tables["generalisation"]
    table = table[table["roi"] == "all"].set_index("voxels")
    run, external = subject.subject.nonlinear, subject.external
    validated = (run.voxels["nonlinear_p_fdr"] <= subject.config.inference.q).to_numpy()
    assert table["n_voxels"].to_dict() == {
        "validated": validated.sum(), "other": (~validated).sum(), "difference": len(validated),
    }  # fmt: skip
    for name, v in (("validated", validated), ("other", ~validated)):
        own = [run.array(a)[:, v].astype(float) for a in ("responses", "predictions")]
        gain_in = pooled_r2(*own) - pooled_r2(own[0], external.evidence.ridge_in[:, v])
        y = external.responses[:, v].astype(float)
        gain_out = pooled_r2(y, external.predictions[:, v]) - pooled_r2(
            y, external.evidence.ridge[:, v]
        )
        row = table.loc[name]
        assert [row["gain_in"], row["gain_out"]] == pytest.approx([gain_in, gain_out], abs=1e-5)
        assert row["change"] == pytest.approx(gain_out - gain_in, abs=1e-5)
        assert row["change_low"] < row["change"] < row["change_high"]
    for value in ("gain_in", "gain_out", "change"):
        first, second, difference = table.loc[["validated", "other", "difference"], value]
        assert difference == pytest.approx(first - second)
    (finding, _) = Generalisation().findings(subject, tables)
    assert finding.startswith(f"In the {validated.sum()} voxels whose nonlinearity is validated")


def test_jne_ss_and_error_are_correlated_within_kinds(subject):
    table = Generalisation().tables(subject)["generalisation_error"]
    external, roi = subject.external, subject.voxels["roi"].to_numpy()
    v = roi == "V4"
    table = table[table["roi"] == "V4"].set_index("kind")
    expected = {}
    for kind, rows in (("a", np.arange(30)), ("b", np.arange(30, 56)), ("few", np.arange(56, 60))):
        s = external.deviation[np.ix_(rows, v)].astype(float)
        error = np.square(external.responses - external.predictions)[np.ix_(rows, v)].mean(axis=1)
        nonlinearity = np.square(s - s.mean(axis=0)).mean(axis=1)
        expected[kind] = stats.spearmanr(nonlinearity, error).statistic
        assert table.loc[kind, "rho"] == pytest.approx(expected[kind], abs=1e-3)
    within = np.average(list(expected.values()), weights=[27, 23, 1])
    assert table.loc["within kinds", "rho"] == pytest.approx(within, abs=1e-3)
    assert table.loc["within kinds", "n_stimuli"] == N_OUT
    figures = Generalisation().figures(subject, Generalisation().tables(subject))
    assert set(figures) == {"generalisation"}


def test_stimuli_without_categories_are_of_one_kind(subject):
    external = subject.external
    external = replace(external, stimuli=external.stimuli.drop(columns="category"))
    section, data = Generalisation(), replace(subject, external=external)
    tables = section.tables(data)
    errors = tables["generalisation_error"]
    row = errors[errors["kind"] == "out of distribution"].set_index("roi").loc["all"]
    v = subject.voxels["analysed"].to_numpy()
    s = external.deviation[:, v].astype(float)
    error = np.square(external.responses - external.predictions)[:, v].mean(axis=1)
    nonlinearity = np.square(s - s.mean(axis=0)).mean(axis=1)
    assert row["n_stimuli"] == N_OUT
    assert row["rho"] == pytest.approx(stats.spearmanr(nonlinearity, error).statistic, abs=1e-3)
    assert "JNE-SS of a stimulus" in section.findings(data, tables)[-1]
    assert set(section.figures(data, tables)) == {"generalisation"}


def test_the_table_by_kind_has_the_evidence_of_each_kind(subject):
    table = OutOfDistribution().tables(subject)["out_of_distribution_by_kind"]
    own = subject.evidence.table()
    for kind, rows in (("a", np.arange(30)), ("out of distribution", np.arange(N_OUT))):
        expected = subject.external.evidence.regions(rows).table()
        of_kind = table[table["kind"] == kind].set_index("roi")
        for column in ("nonlinear_z", "validated_share", "validated_share_high"):
            np.testing.assert_array_equal(of_kind[column], expected[column][of_kind.index])
    inside = table[table["kind"] == "in distribution"].set_index("roi")
    np.testing.assert_array_equal(inside["nonlinear_z"], own["nonlinear_z"][inside.index])
    assert table.loc[table["kind"] == "few", "nonlinear_z"].isna().all()  # four stimuli


def test_without_evidence_there_is_no_section(trained, subject):
    without = replace(subject, external=replace(subject.external, evidence=None))
    assert Generalisation().tables(without) == {}
    assert Generalisation().findings(without, {}) == []

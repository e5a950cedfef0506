"""Every number of the report's tables, against NumPy, pandas, SciPy and scikit-learn."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from two_subjects import close, groups, tables_of_voxels, write_runs

from jne.evaluation.run import Report
from jne.evaluation.sections import SECTIONS, evaluate_sections
from jne.stages import Stages


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    runs = write_runs(tmp_path_factory.mktemp("runs"))
    return tables_of_voxels(runs, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def results(subjects):
    return evaluate_sections(SECTIONS, subjects)


@pytest.fixture(scope="module")
def tables(results):
    return {name: table for result in results for name, table in result.tables.items()}


def test_summary(subjects, tables):
    table = tables["summary"].set_index(["subject", "roi"])
    for data in subjects:
        for level, name, rows in groups(data.voxels):
            if level == "tier":
                continue
            found, analysed = table.loc[data.name, name], rows[rows["analysed"]]
            assert (found["n_voxels"], found["n_analysed"]) == (len(rows), len(analysed))
            assert len(analysed) < len(rows)
            assert found["tier"] == ("" if name == "all" else rows["tier"].iloc[0])
            quartiles = np.percentile(analysed["jne"], [25, 50, 75])
            ends = found[["jne_q25", "jne", "jne_q75"]]
            np.testing.assert_allclose(ends.astype(float), quartiles)
            close(found, rows.mean(numeric_only=True),
                  ("noise_ceiling", "r2_ridge", "r2_linear", "r2_nonlinear"))  # fmt: skip
    means = ("jne", "noise_ceiling", "r2_ridge", "r2_linear", "r2_nonlinear")
    for roi in ("all", "V1", "V2", "EBA"):
        each, found = table.xs(roi, level="roi").iloc[:2], table.loc["all", roi]
        close(found, each[list(means)].astype(float).mean(), means)
        assert found["sd"] == pytest.approx(np.std(each["jne"].astype(float), ddof=1))
        assert (found["n_voxels"], found["n_analysed"]) == tuple(
            each[["n_voxels", "n_analysed"]].sum()
        )
        assert found["n_subjects"] == 2
        whole = table.xs("all", level="roi")["jne"].iloc[:2]
        above = (each["jne"] > whole).sum()
        assert np.isnan(found["n_above"]) if roi == "all" else found["n_above"] == above


def test_performance(subjects, tables):
    table = tables["performance"].set_index(["subject", "encoder", "roi"])
    for data in subjects:
        for level, name, rows in groups(data.voxels):
            for encoder in ("nonlinear", "linear", "ridge", "kernel"):
                if level == "tier":
                    continue
                r2, ceiling = rows[f"r2_{encoder}"], rows["noise_ceiling"]
                scored = encoder in ("nonlinear", "linear")
                expected = {
                    "n_voxels": len(rows),
                    "n_without_p": (rows["status"] != "ok").sum(),
                    "n_analysed": rows["analysed"].sum(),
                    "r2_mean": r2.mean(), "r2_median": np.nanmedian(r2), "r2_max": np.nanmax(r2),
                    "r_mean": np.nanmean(rows[f"r_{encoder}"]) if scored else np.nan,
                    "noise_ceiling_mean": ceiling.mean(),
                    "r2_normalised_median": np.nanmedian(r2 / ceiling),
                }  # fmt: skip
                close(table.loc[data.name, encoder, name], expected, expected)


def holm(table, by):
    for _, rows in table.groupby(by):
        tested = rows.dropna(subset="p").sort_values("p")
        adjusted = np.maximum.accumulate(tested["p"] * np.arange(len(tested), 0, -1))
        np.testing.assert_allclose(tested["p_holm"], np.minimum(adjusted, 1))


def test_comparison(subjects, tables):
    table = tables["comparison"].set_index(["subject", "roi"])
    for data in subjects:
        scored = data.voxels.dropna(subset=["r2_linear"])
        for level, name, rows in groups(scored):
            if level == "tier":
                continue
            linear, other = rows["r2_linear"], rows["r2_nonlinear"]
            expected = {
                "n_voxels": len(rows), "r": stats.pearsonr(linear, other).statistic,
                "r2_linear": linear.mean(), "r2_nonlinear": other.mean(),
                "difference": (other - linear).mean(), "p": stats.wilcoxon(other, linear).pvalue,
            }  # fmt: skip
            close(table.loc[data.name, name], expected, expected)
    holm(tables["comparison"], "subject")


def test_hierarchy_pairs_and_trend(subjects, tables):
    measures = ["jne", "mean_deviation", "jne_l2"]
    summary = tables["hierarchy"].set_index(["subject", "level", "group", "measure"])
    pairs = tables["pairwise"].set_index(["subject", "level", "measure", "greater", "lesser"])
    trend = tables["trend"].set_index(["subject", "measure"])
    rng = np.random.default_rng(98)
    for data in subjects:
        analysed = data.voxels[data.voxels["analysed"]]
        by_group = {(level, name): rows for level, name, rows in groups(analysed)}
        for measure in measures:
            for (level, name), rows in by_group.items():
                if level == "brain":
                    continue
                found, values = summary.loc[data.name, level, name, measure], rows[measure]
                expected = {"n_voxels": len(rows), "mean": values.mean(), "median": values.median()}
                close(found, expected, expected)
                draws = rng.choice(values, (4000, len(values)))
                resampled = {"mean": draws.mean(axis=1), "median": np.median(draws, axis=1)}
                for moment, drawn in resampled.items():  # 2.5 % of few voxels' resamples is a step
                    for end, tails in (("low", (1.2, 4)), ("high", (96, 98.8))):
                        low, high = np.percentile(drawn, tails)
                        assert low - 1e-12 <= found[f"{moment}_{end}"] <= high + 1e-12
                for (other_level, other), lesser in by_group.items():
                    if other_level == level and other != name:
                        test = stats.mannwhitneyu(values, lesser[measure], alternative="greater")
                        row = pairs.loc[data.name, level, measure, name, other]
                        size = len(values) * len(lesser)
                        close(row, {"p": test.pvalue, "superiority": test.statistic / size},
                              ("p", "superiority"))  # fmt: skip
                        assert row["significant"] == (row["p_holm"] < 0.05)
            rank = analysed["tier"].map({"PVC": 0, "IVC": 1, "HVC": 2})
            test = stats.kendalltau(rank, analysed[measure], alternative="greater")
            close(trend.loc[data.name, measure], {"tau": test.statistic, "p": test.pvalue,
                  "n_voxels": len(analysed)}, ("tau", "p", "n_voxels"))  # fmt: skip
    holm(tables["pairwise"], ["subject", "level", "measure"])
    for measure in measures:
        each = trend.xs(measure, level="measure").iloc[:2]
        z = stats.norm.isf(each["p"]).sum() / np.sqrt(2)
        expected = {"tau": each["tau"].mean(), "p": stats.norm.sf(z),
                    "n_voxels": each["n_voxels"].sum()}  # fmt: skip
        close(trend.loc["all", measure], expected, expected)


def test_selectivity(subjects, tables):
    mom = tables["mom"].set_index(["subject", "cluster", "roi"])
    preferences = tables["preferences"].set_index(["subject", "cluster", "roi"])
    for data in subjects:
        jne_ss = data.subject.nonlinear.array("jne_ss").astype(float)
        cluster = data.subject.nonlinear.stimuli["category"].to_numpy()
        analysed = data.voxels["analysed"].to_numpy()
        for level, name, rows in groups(data.voxels[analysed]):
            if level == "tier":
                continue
            by_stimulus = jne_ss[:, rows.index].mean(axis=1)
            means = {c: by_stimulus[cluster == c].mean() for c in ("animals", "scenes")}
            for one, other in (("animals", "scenes"), ("scenes", "animals")):
                expected = {
                    "n_stimuli": 12,
                    "mom": means[one],
                    "mom_normalised": float(means[one] > means[other]),
                }
                close(mom.loc[data.name, one, name], expected, expected, rel=1e-5)
                expected = {
                    "n_stimuli": 12, "inside": means[one], "outside": means[other],
                    "ratio": means[one] / means[other],
                }  # fmt: skip
                row = preferences.loc[data.name, one, name]
                close(row, expected, expected, rel=1e-5)
                rng = np.random.default_rng(97)
                permuted = [rng.permutation(by_stimulus)[:12].mean() for _ in range(2000)]
                assert row["p"] == pytest.approx(
                    np.mean(np.array(permuted) >= means[one]), abs=0.15
                )
                assert row["preferred"] == (row["p_fdr"] < 0.05)
        rows = tables["preferences"].query(f"subject == '{data.name}'")
        np.testing.assert_allclose(rows["p_fdr"], stats.false_discovery_control(rows["p"]))


def test_variants_and_reliability(subjects, tables):
    table = tables["variants"].set_index(["subject", "first", "second"])
    reliability = tables["reliability"].set_index("subject")
    for data in subjects:
        rows = data.voxels[data.voxels["analysed"]]
        for first, second in (("jne", "mean_deviation"), ("jne", "jne_l2"),
                              ("mean_deviation", "jne_l2")):  # fmt: skip
            found = table.loc[data.name, first, second]
            assert found["r"] == pytest.approx(stats.pearsonr(rows[first], rows[second]).statistic)
            assert found["n_voxels"] == len(rows)
        maps = np.stack([run.voxels["jne"][rows.index] for run in
                         (data.subject.nonlinear, *data.subject.seeds)])  # fmt: skip
        pairs = np.corrcoef(maps)[np.triu_indices(3, k=1)]
        expected = {
            "n_voxels": len(rows), "n_stimuli": 24,
            "split_half_r": stats.pearsonr(rows["jne_half1"], rows["jne_half2"]).statistic,
            "median_interval_width": (rows["jne_high"] - rows["jne_low"]).median(),
            "median_jne": rows["jne"].median(), "n_seeds": 3, "r_across_seeds": pairs.mean(),
            "median_sd_across_seeds": np.median(maps.std(axis=0, ddof=1)),
        }  # fmt: skip
        close(reliability.loc[data.name], expected, expected)


def test_files_and_mlflow_have_these_tables_and_their_scalars(subjects, results, tables, tmp_path):
    logged, files = {}, []
    tracked = SimpleNamespace(log_metrics=logged.update, log_file=lambda *file: files.append(file))
    Report(
        SimpleNamespace(path=tmp_path, figures=tmp_path), tracked, Stages(tmp_path)
    ).write_tables(subjects, results)
    names = ("comparison", "reliability")  # the whole brain is the first row
    whole = {name: tables[name].groupby("subject").first() for name in names}
    jne = tables["trend"].query("measure == 'jne'").set_index("subject")["tau"]
    expected = {}
    for subject in ("subj01", "subj02", "all"):
        expected[f"trend_tau/{subject}"] = jne[subject]
        if subject != "all":
            expected[f"r2_map_r/{subject}"] = whole["comparison"].loc[subject, "r"]
            expected[f"split_half_r/{subject}"] = whole["reliability"].loc[subject, "split_half_r"]
    assert logged == pytest.approx(expected)
    assert json.loads((tmp_path / "summary.json").read_text()) == {"metrics": logged}
    for name, table in tables.items():
        written = pd.read_csv(tmp_path / "tables" / f"{name}.csv", keep_default_na=False,
                              na_values=[""])  # fmt: skip
        numbers = table.select_dtypes("number")
        pd.testing.assert_frame_equal(written[list(numbers)], numbers, check_dtype=False)
        assert (tmp_path / "tables" / f"{name}.csv", "tables") in files
    voxels = pd.read_csv(tmp_path / "tables" / "voxels.csv")
    both = pd.concat([data.voxels for data in subjects], ignore_index=True)
    for name in both.select_dtypes("number"):
        np.testing.assert_allclose(voxels[name], both[name], rtol=1e-12, err_msg=name)
    for data in subjects:
        moj = np.load(tmp_path / f"moj_{data.name}.npy")
        jne_ss = data.subject.nonlinear.array("jne_ss")
        for row, cluster in zip(moj, data.clusters.names, strict=True):
            inside = (data.subject.nonlinear.stimuli["category"] == cluster).to_numpy()
            np.testing.assert_allclose(row, jne_ss[inside].mean(axis=0), rtol=1e-5)

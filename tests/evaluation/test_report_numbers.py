"""Every number of the report's tables, against NumPy, pandas, SciPy and scikit-learn."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from finished_run import N_VOXELS, evaluate_config, write_run
from scipy import stats
from sklearn.metrics import r2_score
from statsmodels.stats.proportion import proportion_confint
from test_planted_section import write_planted

from jne.evaluation.run import Report
from jne.evaluation.sections import SECTIONS, evaluate_sections
from jne.evaluation.sections.data_sets import DataSets
from jne.evaluation.sections.out_of_distribution import OutOfDistribution
from jne.evaluation.sections.summary import Summary
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.results import Results
from jne.stages import Stages

CEILING = np.linspace(0.2, 0.9, N_VOXELS)
N_RESAMPLES = 400


def with_ceiling(run):
    voxels = run.voxels.copy()
    voxels.insert(2, "noise_ceiling", CEILING)
    voxels["r2_kernel"] = voxels["r2"] - 0.2
    voxels.to_csv(run.path / "voxels.csv", index=False)
    return Results(run.path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two subjects, each with all kinds of runs; the second one's predict worse."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for k, subject in enumerate(("subj01", "subj02")):
        path = folder / subject
        shift = {"shift": 0.3 * k}
        plain = with_ceiling(write_run(path / "plain", subject=subject, **shift))
        made += [
            plain,
            write_run(path / "linear", subject=subject, placement="none", seed=5 + k, **shift),
            write_run(path / "seed", subject=subject, seed=1, **shift),
            write_run(path / "seed2", subject=subject, seed=2, **shift),
        ]
        twins = write_planted(path / "twins", plain)
        twins.voxels["jne"] += 0.25
        twins.voxels["jne_twin"] = twins.voxels["jne"] - twins.voxels["w"]
        twins.voxels.to_csv(path / "twins" / "voxels.csv", index=False)
        made.append(Results(path / "twins"))
    return made


@pytest.fixture(scope="module")
def subjects(runs, tmp_path_factory):
    config = evaluate_config(
        tmp_path_factory.mktemp("out"), "variants=[l1,l2]", "inference.q=0.25",
        f"stats.n_bootstrap={N_RESAMPLES}",
    )  # fmt: skip
    tables = voxel_tables(by_subject(runs), config)
    for data in tables:  # as where some are not significant: not all voxels are analysed
        data.voxels["analysed"] &= data.voxels.index % 5 != 2
    return tables


@pytest.fixture(scope="module")
def results(subjects):
    return evaluate_sections(SECTIONS, subjects)


@pytest.fixture(scope="module")
def tables(results):
    return {name: table for result in results for name, table in result.tables.items()}


def groups(voxels):
    """Level, name and rows of the brain, each ROI and each tier."""
    yield "brain", "all", voxels
    for level in ("roi", "tier"):
        for name, rows in voxels.groupby(level):
            yield level, name, rows


def brute_q(w):
    w = np.asarray(w, dtype=float)
    q = np.ones(len(w))
    for t in np.abs(w):
        if (w >= t).any():
            q[w >= t] = np.minimum(q[w >= t], (1 + (w <= -t).sum()) / (w >= t).sum())
    return q


def nonlinear(rows, rate=0.25):
    """How many of these rows are nonlinear."""
    return (brute_q(rows["w"]) <= rate).sum() if len(rows) else 0


def close(found, expected, names, **tolerance):
    for name in names:
        assert found[name] == pytest.approx(expected[name], nan_ok=True, **tolerance), name


def test_scores_in_the_voxel_table(subjects):
    for data in subjects:
        voxels, kept = data.voxels, data.voxels["status"] == "ok"
        for encoder, run in (
            ("nonlinear", data.subject.nonlinear),
            ("linear", data.subject.linear),
        ):
            y, prediction = (
                run.array(name)[:, kept].astype(float) for name in ("responses", "predictions")
            )
            r2 = r2_score(y, prediction, multioutput="raw_values")
            gained = np.square(y - y.mean(axis=0)) - np.square(y - prediction)
            p = stats.ttest_1samp(gained, 0, alternative="greater").pvalue
            for name, expected in {
                f"r2_{encoder}": r2,
                f"r_{encoder}": stats.pearsonr(y, prediction).statistic,
                f"r2_normalised_{encoder}": r2 / CEILING[kept],
                f"p_{encoder}": p,
                f"p_fdr_{encoder}": stats.false_discovery_control(p),
            }.items():
                found = voxels.loc[kept, name]
                np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)
                assert voxels.loc[~kept, name].isna().all()
        for name in ("ridge", "kernel"):
            ratio = voxels[f"r2_{name}"] / CEILING
            np.testing.assert_allclose(voxels[f"r2_normalised_{name}"], ratio)


def test_intervals_and_halves_in_the_voxel_table(subjects):
    for data in subjects:
        kept = (data.voxels["status"] == "ok").to_numpy()
        deviation = data.subject.nonlinear.array("deviation")[:, kept].astype(float)
        rng = np.random.default_rng(99)  # not the program's resamples
        draws = rng.integers(0, len(deviation), (4000, len(deviation)))
        resampled = deviation[draws].std(axis=1)
        spread = resampled.std(axis=0)
        for name, tail in (("jne_low", 2.5), ("jne_high", 97.5)):
            expected = np.percentile(resampled, tail, axis=0)
            assert (np.abs(data.voxels.loc[kept, name] - expected) < 0.5 * spread).all(), name
        # The program's own splits: half of the stimuli each; the one of the median correlation
        halves = []
        among = data.voxels.loc[kept, "jne"].notna().to_numpy()
        for seed in range(21):
            order = np.random.default_rng(seed).permutation(len(deviation))
            first, second = np.split(order, [len(deviation) // 2])
            halves.append((deviation[first].std(axis=0), deviation[second].std(axis=0)))
        r = [np.corrcoef(a[among], b[among])[0, 1] for a, b in halves]
        typical = halves[int(np.argsort(r)[10])]
        for name, expected in zip(("jne_half1", "jne_half2"), typical, strict=True):
            np.testing.assert_allclose(data.voxels.loc[kept, name], expected, rtol=1e-6)


def test_columns_of_twins_in_the_voxel_table(subjects):
    for data in subjects:
        voxels, twins = data.voxels, data.subject.twins.voxels
        plain = data.subject.nonlinear.voxels
        np.testing.assert_array_equal(voxels["jne"], plain["jne"])
        np.testing.assert_array_equal(voxels["jne_twins_fit"], twins["jne"])
        assert (voxels["jne_twins_fit"] != voxels["jne"]).all()
        for name in ("jne_twin", "r2_twin", "w", "linear_power", "planted_share",
                     "planted_share_low", "planted_share_high"):  # fmt: skip
            np.testing.assert_array_equal(voxels[name], twins[name])
        tested = voxels["w"].notna()
        q = brute_q(twins.loc[tested, "jne"] - twins.loc[tested, "jne_twin"])
        np.testing.assert_allclose(voxels.loc[tested, "q"], q)
        np.testing.assert_array_equal(voxels.loc[tested, "nonlinear"], q <= 0.25)
        w = (twins["jne_planted_fit"] - twins["jne_planted_0"])[tested]
        smallest = w[brute_q(w) <= 0.25].min()
        for level in (10, 60):
            above = (twins[f"jne_planted_{level}"] - twins["jne_planted_0"])[tested] >= smallest
            np.testing.assert_array_equal(voxels.loc[tested, f"found_{level}"], above)


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
            for measure in ("jne", "w"):
                quartiles = np.percentile(analysed[measure], [25, 50, 75])
                ends = found[[f"{measure}_q25", measure, f"{measure}_q75"]]
                np.testing.assert_allclose(ends.astype(float), quartiles)
            n = nonlinear(analysed)
            low, high = proportion_confint(n, len(analysed), method="wilson")
            expected = {"share": n / len(analysed), "share_low": low, "share_high": high}
            close(found, expected, expected)
            close(found, rows.mean(numeric_only=True),
                  ("noise_ceiling", "r2_ridge", "r2_linear", "r2_nonlinear"))  # fmt: skip
    means = ("jne", "w", "share", "noise_ceiling", "r2_ridge", "r2_linear", "r2_nonlinear")
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


def test_nonlinear_voxels(subjects, tables):
    table = tables["nonlinear"].set_index(["subject", "level", "group"])
    trend = tables["nonlinear_trend"].set_index(["subject", "measure"])
    counts = {}
    for data in subjects:
        analysed = data.voxels[data.voxels["analysed"]]
        for level, name, rows in groups(analysed):
            n = nonlinear(rows)
            low, high = proportion_confint(n, len(rows), method="wilson")
            expected = {
                "n_voxels": len(rows), "n_nonlinear": n, "share": n / len(rows), "share_low": low,
                "share_high": high, "median_w": rows["w"].median(),
                "p": stats.wilcoxon(rows["w"], alternative="greater").pvalue,
            }  # fmt: skip
            close(table.loc[data.name, level, name], expected, expected)
            counts[level, name] = np.add(counts.get((level, name), 0), (n, len(rows)))
        rank = analysed["tier"].map({"PVC": 0, "IVC": 1, "HVC": 2})
        given = analysed[["noise_ceiling", "r2_nonlinear"]].rank()
        for measure in ("jne", "w"):
            test = stats.kendalltau(rank, analysed[measure], alternative="greater")
            left = [_left(rank.rank(), given), _left(analysed[measure].rank(), given)]
            partial = np.corrcoef(left)[0, 1]
            t = partial * np.sqrt((len(rank) - 4) / (1 - partial**2))
            expected = {
                "n_voxels": len(rank), "tau": test.statistic, "p": test.pvalue,
                "partial_r": partial, "partial_p": 2 * stats.t.sf(abs(t), len(rank) - 4),
            }  # fmt: skip
            close(trend.loc[data.name, measure], expected, expected)
    holm(tables["nonlinear"][tables["nonlinear"]["subject"] != "all"], ["subject", "level"])
    for (level, name), (n, total) in counts.items():
        found = table.loc["all", level, name]
        low, high = proportion_confint(n, total, method="wilson")
        expected = {"n_voxels": total, "n_nonlinear": n, "share": n / total, "share_low": low,
                    "share_high": high}  # fmt: skip
        close(found, expected, expected)


def _left(values, given):
    """What a linear fit on the covariates leaves."""
    design = np.column_stack([np.ones(len(given)), given])
    return values - design @ np.linalg.pinv(design) @ values


def test_planted_shares(subjects, tables):
    table = tables["planted"].set_index(["subject", "level", "group"])
    for data in subjects:
        for level, name, rows in groups(data.voxels[data.voxels["analysed"]]):
            share = rows["planted_share"]
            half = 1.96 * share.std() / np.sqrt(len(share))
            expected = {
                "n_voxels": len(rows), "mean_share": share.mean(), "median_share": share.median(),
                "mean_low": share.mean() - half, "mean_high": share.mean() + half,
                "found_10": rows["found_10"].astype(float).mean(),
                "found_60": rows["found_60"].astype(float).mean(),
            }  # fmt: skip
            close(table.loc[data.name, level, name], expected, expected)


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


def test_out_of_distribution_and_areas(subjects):
    rng = np.random.default_rng(96)
    names = ["r2_ood", "r_ood", "noise_ceiling_ood", "jne_ood", "jne_half1_ood", "jne_half2_ood"]
    (data, _) = subjects
    voxels = data.voxels.assign(HCP_MMP1=np.resize(["V1", "V2", "FFC"], N_VOXELS))
    voxels[names] = rng.random((N_VOXELS, len(names))) + voxels[["jne"]].to_numpy()
    other = SimpleNamespace(
        voxels=voxels, analysed=voxels[voxels["analysed"]], rois=data.rois, subject=data.subject
    )
    table = OutOfDistribution().tables(other)["out_of_distribution"].set_index("roi")
    for level, name, rows in groups(other.analysed):
        if level == "tier":
            continue
        halves = [np.corrcoef(rows[f"jne_half1{end}"], rows[f"jne_half2{end}"])[0, 1]
                  for end in ("", "_ood")]  # fmt: skip
        r1, r2 = (max(2 * r / (1 + r), 0) for r in halves)
        expected = {
            "n_voxels": len(rows), **rows[["r2_ood", "r_ood", "noise_ceiling", "noise_ceiling_ood",
                                           "jne", "jne_ood"]].mean(),
            "r2": rows["r2_nonlinear"].mean(), "r": rows["r_nonlinear"].mean(),
            "r_jne": stats.pearsonr(rows["jne"], rows["jne_ood"]).statistic,
            "rho_jne": stats.spearmanr(rows["jne"], rows["jne_ood"]).statistic,
            "r_r2": stats.pearsonr(rows["r2_nonlinear"], rows["r2_ood"]).statistic,
            "r_jne_reliable": np.sqrt(r1 * r2),
        }  # fmt: skip
        close(table.loc[name], expected, expected)
    areas = DataSets().tables(other)["areas"].set_index("area")
    for area, rows in other.analysed.groupby("HCP_MMP1"):
        expected = {"n_voxels": len(rows), "jne": rows["jne"].mean(), "w": rows["w"].mean(),
                    "r2": rows["r2_nonlinear"].mean()}  # fmt: skip
        close(areas.loc[area], expected, expected)
        assert areas.loc[area, "tier"] == {"V1": "PVC", "V2": "IVC", "FFC": "HVC"}[area]
        assert areas.loc[area, "data_set"] == "made"


def test_files_and_mlflow_have_these_tables_and_their_scalars(subjects, results, tables, tmp_path):
    logged, files = {}, []
    tracked = SimpleNamespace(log_metrics=logged.update, log_file=lambda *file: files.append(file))
    Report(
        SimpleNamespace(path=tmp_path, figures=tmp_path), tracked, Stages(tmp_path)
    ).write_tables(subjects, results)
    names = ("planted", "comparison", "reliability")  # the whole brain is the first row
    whole = {name: tables[name].groupby("subject").first() for name in names}
    jne = tables["trend"].query("measure == 'jne'").set_index("subject")["tau"]
    expected = {}
    for subject in ("subj01", "subj02", "all"):
        expected[f"trend_tau/{subject}"] = jne[subject]
        brain = tables["nonlinear"].query("level == 'brain'").set_index("subject")
        expected[f"nonlinear_voxels/{subject}"] = brain.loc[subject, "share"]
        if subject != "all":
            expected[f"planted_share/{subject}"] = whole["planted"].loc[subject, "mean_share"]
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


def test_a_region_of_one_voxel(subjects):
    data = replace(subjects[0], voxels=subjects[0].voxels.drop(index=[5, 6, 7, 9]))
    row = Summary().tables(data)["summary"].set_index("roi").loc["V2"]
    only = data.voxels.loc[8]
    assert (row["n_voxels"], row["n_analysed"], row["tier"]) == (1, 1, only["tier"])
    assert row["jne_q25"] == row["jne"] == row["jne_q75"] == only["jne"]
    assert row["r2_nonlinear"] == only["r2_nonlinear"]

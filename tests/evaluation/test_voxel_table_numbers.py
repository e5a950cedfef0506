"""Every number of the voxel table, and of tables for one set of voxels, against NumPy and SciPy."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from finished_run import N_VOXELS
from scipy import stats
from sklearn.metrics import r2_score
from two_subjects import CEILING, close, groups, tables_of_voxels, write_runs

from jne.evaluation.sections.data_sets import DataSets
from jne.evaluation.sections.out_of_distribution import OutOfDistribution
from jne.evaluation.sections.summary import Summary


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    runs = write_runs(tmp_path_factory.mktemp("runs"))
    return tables_of_voxels(runs, tmp_path_factory.mktemp("out"))


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


def test_out_of_distribution_and_areas(subjects):
    rng = np.random.default_rng(96)
    names = ["r2_ood", "r_ood", "noise_ceiling_ood", "jne_ood", "jne_half1_ood", "jne_half2_ood"]
    (data, _) = subjects
    voxels = data.voxels.assign(HCP_MMP1=np.resize(["V1", "V2", "FFC"], N_VOXELS))
    voxels[names] = rng.random((N_VOXELS, len(names))) + voxels[["jne"]].to_numpy()
    other = SimpleNamespace(
        voxels=voxels, analysed=voxels[voxels["analysed"]], rois=data.rois, subject=data.subject,
        external=None,
    )  # fmt: skip
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
        expected = {"n_voxels": len(rows), "jne": rows["jne"].mean(),
                    "r2": rows["r2_nonlinear"].mean()}  # fmt: skip
        close(areas.loc[area], expected, expected)
        assert areas.loc[area, "tier"] == {"V1": "PVC", "V2": "IVC", "FFC": "HVC"}[area]
        assert areas.loc[area, "data_set"] == "made"


def test_a_region_of_one_voxel(subjects):
    data = replace(subjects[0], voxels=subjects[0].voxels.drop(index=[5, 6, 7, 9]))
    row = Summary().tables(data)["summary"].set_index("roi").loc["V2"]
    only = data.voxels.loc[8]
    assert (row["n_voxels"], row["n_analysed"], row["tier"]) == (1, 1, only["tier"])
    assert row["jne_q25"] == row["jne"] == row["jne_q75"] == only["jne"]
    assert row["r2_nonlinear"] == only["r2_nonlinear"]

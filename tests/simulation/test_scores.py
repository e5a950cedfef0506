"""Scores of measures: by hand, by brute force, and of measures whose worth is plain."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jne.simulation import scores


@pytest.fixture
def voxels():
    rng = np.random.default_rng(0)
    alpha, ceiling = np.array(np.meshgrid([0.0, 0.1, 0.3, 0.6], [0.2, 0.6])).reshape(2, -1)
    table = pd.DataFrame({"alpha": alpha, "noise_ceiling": ceiling})
    table = table.loc[np.repeat(table.index, 10)].reset_index(drop=True)
    return table.assign(value=rng.standard_normal(80), p=rng.random(80), q=rng.random(80))


def test_scores_by_hand_and_by_brute_force(voxels):
    voxels.loc[3, ["value", "p", "q"]] = np.nan
    each = scores.of_cohort(voxels, "nonlinear_share")
    rows = voxels.to_dict("records")
    linear = [r for r in rows if r["alpha"] == 0]
    assert each["small_p"] == sum(r["p"] < 0.05 for r in linear) / 19  # the one has no p
    positive = [r for r in rows if r["q"] <= 0.1]
    assert each["false"] == sum(r["alpha"] == 0 for r in positive) / len(positive)
    assert each["detected"] == sum(r["alpha"] > 0 for r in positive) / 60
    assert each["defined"] == 79 / 80
    auc, rank = [], []
    for ceiling in (0.2, 0.6):
        mine = [r for r in rows if r["noise_ceiling"] == ceiling and np.isfinite(r["value"])]
        pairs = [
            (a["value"] > b["value"])
            for a in mine
            if a["alpha"] > 0
            for b in mine
            if not b["alpha"]
        ]
        auc.append(np.mean(pairs))
        rank.append(
            stats.spearmanr(*zip(*[(r["alpha"], r["value"]) for r in mine], strict=True))[0]
        )
    assert each["auc"] == pytest.approx(np.mean(auc))
    assert each["spearman"] == pytest.approx(np.mean(rank))
    cells = [
        abs(
            np.nanmean([r["value"] for r in rows if (r["alpha"], r["noise_ceiling"]) == cell])
            - cell[0]
        )
        for cell in {(r["alpha"], r["noise_ceiling"]) for r in rows}
    ]
    assert each["error"] == pytest.approx(np.mean(cells))
    assert "error" not in scores.of_cohort(voxels, "jne")


def test_a_perfect_measure_and_one_that_measures_the_noise_ceiling(voxels):
    perfect = scores.of_cohort(voxels.assign(value=voxels["alpha"]), "nonlinear_share")
    assert perfect["auc"] == 1
    assert perfect["spearman"] == pytest.approx(1)
    assert perfect["error"] == pytest.approx(0)
    assert np.isnan(perfect["ceiling"])  # at equal alpha it is constant
    of_noise = scores.of_cohort(voxels.assign(value=voxels["noise_ceiling"]), "jne")
    assert of_noise["ceiling"] == pytest.approx(1)
    assert of_noise["auc"] == 0.5
    no_p = voxels.assign(p=np.nan, q=np.nan)
    assert not {"small_p", "detected", "false"} & set(scores.of_cohort(no_p, "jne"))


def test_ratio_repeatability_and_fold(voxels):
    other = voxels.assign(value=3 * voxels["value"])
    assert scores.ratio(voxels, other) == pytest.approx(3)
    assert scores.repeatability(voxels, other) == pytest.approx(1)
    assert scores.repeatability(voxels, other.assign(value=-voxels["value"])) == pytest.approx(-1)
    assert scores.fold(pd.Series([0.25, 2.0, np.nan])) == pytest.approx(4)
    assert scores.fold(pd.Series([-1.0, 2.0])) == np.inf
    assert np.isnan(scores.fold(pd.Series([np.nan])))


def test_the_overview_averages_cohorts_and_names_what_is_dominated():
    rows = []
    for measure, quality in (("good", 1.0), ("bad", 0.5)):
        for world in ("a", "b"):
            for noise, ratio in (("independent", None), ("heavy", 2.0)):
                key = (measure, world, noise, "default")
                rows += [(*key, "spearman", quality), (*key, "detected", quality)]
                rows += [(*key, "small_p", 0.05), (*key, "ceiling", -0.1), (*key, "seconds", 3.0)]
                if ratio:
                    rows.append((*key, "noise_ratio", ratio if world == "a" else 1 / 4))
        rows.append((measure, "a", "independent", "n_train=5", "ratio", 0.5))
        rows.append((measure, "a", "independent", "seed=1", "repeatability", 0.7))
    columns = ["measure", "world", "noise", "setting", "score", "value"]
    result = scores.overview(pd.DataFrame(rows, columns=columns), ["n_train", "seed"])
    assert list(result.index) == ["good", "bad"]
    good = result.loc["good"]
    assert good["spearman"] == 1
    assert good["noise"] == pytest.approx(3)  # the mean of 2 and 4
    assert good["n_train"] == pytest.approx(2)
    assert good["seed"] == pytest.approx(0.7)
    assert good["seconds"] == 3
    assert scores.dominated(result) == {"bad": ["good"]}
    ranks = scores.badness(result)
    assert list(ranks["spearman"]) == [0, 1]
    assert list(ranks["seconds"]) == [0, 0]
    assert ranks["auc"].isna().all()

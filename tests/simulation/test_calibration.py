"""The calibration of the evidence: its numbers by hand, its cohorts against train.py."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jne.results import Results
from jne.simulation.calibration import cells, claims, false_discoveries, small_p

SMALL = {
    "n_cohorts": 1, "noise": ["heavy"], "n_train": [60], "alpha": [0.0, 0.5],
    "noise_ceiling": [0.5], "voxels_per_cell": 3, "n_features": 64, "n_test": 20,
}  # fmt: skip


def table_of(rng, n=50):
    """Two cohorts of voxels with alpha 0 and .3 and three ceilings."""
    cell = list(itertools.product([7, 8], [0.0, 0.3], [0.15, 0.4, 0.7], range(n)))
    table = pd.DataFrame(cell, columns=["cohort", "alpha", "noise_ceiling", "voxel"])
    table["jne"] = table["noise_ceiling"] + 0.1 * rng.standard_normal(len(table))
    table["nonlinear_p"] = rng.random(len(table)) ** 2
    table["nonlinear_p_fdr"] = rng.random(len(table)) ** 2
    table["validated_share"] = rng.standard_normal(len(table))
    return table


def test_the_numbers_by_hand():
    table = table_of(np.random.default_rng(0))
    linear = table[(table["alpha"] == 0) & (table["noise_ceiling"] == 0.4)]
    small = small_p(table).set_index("noise_ceiling")
    assert small.loc[0.4, "share"] == sum(linear["nonlinear_p"] < 0.05) / 100
    inside = stats.binom.interval(0.99, 100, 0.05)
    assert tuple(small.loc[0.4, ["low", "high"]] * 100) == pytest.approx(inside)

    found = false_discoveries(table, [0.1, 1.0]).set_index("rate")
    q = "nonlinear_p_fdr"
    each = [(v["alpha"] == 0)[v[q] <= 0.1].tolist() for _, v in table.groupby("cohort")]
    shares = [sum(c) / len(c) for c in each]
    assert found.loc[0.1, "fdp"] == pytest.approx(np.mean(shares))
    assert found.loc[0.1, "error"] == pytest.approx(abs(shares[0] - shares[1]) / 2)
    assert found.loc[1.0, "fdp"] == 0.5
    nothing = false_discoveries(table.assign(nonlinear_p_fdr=1.0), [0.1])
    assert nothing["fdp"][0] == 0

    cell = cells(table).set_index(["alpha", "noise_ceiling"]).loc[(0.3, 0.7)]
    chosen = table[(table["alpha"] == 0.3) & (table["noise_ceiling"] == 0.7)]
    assert cell["evidence_power"] == (chosen["nonlinear_p_fdr"] <= 0.1).mean()
    assert cell["validated_share"] == pytest.approx(chosen["validated_share"].mean())
    assert cell["jne"] == pytest.approx(chosen["jne"].mean())


@pytest.mark.runs
def test_what_grows_with_the_ceiling_is_claimed_and_what_does_not_is_not():
    tables = [table_of(np.random.default_rng(seed)) for seed in range(60)]
    flat = [table.assign(jne=table["validated_share"]) for table in tables]
    for of_seeds, expected in ((tables, 1), (flat, 0.025)):  # two-sided at .05
        rates = pd.concat(map(claims, of_seeds)).set_index("measure")["share"]
        assert rates.index.unique().tolist() == ["jne"]
        assert rates.mean() == pytest.approx(expected, abs=0.055)


@pytest.mark.runs
def test_a_cohort_is_a_run_of_train_and_is_trained_once(run_script):
    small = [f"simulation.calibration.{k}={v}".replace(" ", "") for k, v in SMALL.items()]
    fast = ["encoder.hidden_width=16", "trainer.max_epochs=2"]
    study = ["simulation=calibration", *small, *(f"simulation.calibration.{k}" for k in fast)]
    (folder,) = run_script("simulate.py", *study)
    (plain,) = run_script(
        "train.py", "data=cells", "data.noise=heavy", "data.n_train=60", "data.n_val=7",
        "data.n_test=20", "data.alpha=[0.0,0.5]", "data.noise_ceiling=[0.5]",
        "data.voxels_per_cell=3", "data.n_features=64", *fast,
        "optimizer.weight_decay=0.01", "trainer.patience=20", "readout=ridge", "seed=0",
    )  # fmt: skip
    assert (folder / "figures" / "calibration.png").stat().st_size > 5000
    table = pd.read_csv(folder / "table.csv")
    voxels = Results(plain).voxels
    evidence = ("nonlinear_p", "nonlinear_p_fdr", "validated_share")
    for name in ("alpha", "r2", "jne", *evidence):
        np.testing.assert_allclose(table[name], voxels[name], rtol=1e-5, atol=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jne.simulation.calibration.train_cohort", None)  # not called
        again = set(run_script("simulate.py", *study)) - {folder}
    pd.testing.assert_frame_equal(table, pd.read_csv(again.pop() / "table.csv"))

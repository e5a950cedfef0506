"""The measures against NumPy and SciPy, on one fitted cohort; the study, with a user's own."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT
from scipy import stats
from torch import nn

from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.fitting.fit import Fitted
from jne.measuring.config import JacobianConfig
from jne.simulation.candidates import MEASURES, Clock, FittedCohort, Measured, measured
from jne.simulation.measures import at_most
from jne.simulation.worlds import Cohort
from jne.stages import Stages
from jne.training.config import MethodConfig

CONFIG = {
    "encoder": {"_target_": "jne.encoders.ResidualEncoder", "hidden_width": 16, "n_hidden": 2},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3, "weight_decay": 0.0},
    "readout": "stacked",
    "trainer": {
        "max_epochs": 3, "patience": 2, "batch_size": None, "precision": "32-true",
        "accelerator": "cpu", "checkpoint_seconds": 60,
    },
    "seed": 0,
    "stats": {"n_bootstrap": 5, "p_value": "t_test", "alpha": 0.05},
    "jacobian": JacobianConfig(
        voxels="all", variants=["l1"], precision="float32", device="cpu", max_memory_gb=1
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    source = Cohort(
        name="functions", subject="s", world="functions", noise="heavy", seed=2, alpha=[0, 0.6],
        noise_ceiling=[0.5], voxels_per_cell=4, n_repeats=2, n_features=64, n_train=160, n_val=20,
        n_test=40,
    )  # fmt: skip
    data = EncodingData(prepare(source, folder), batch_size=None, seed=0)
    return FittedCohort(data, MethodConfig(**CONFIG), Stages(folder / "stages"))


def with_encoder(cohort, encoder):
    """The cohort as if `encoder` had been trained."""
    clock = Clock()
    clock.value("encoder", lambda: Fitted(encoder, cohort.encoder.history, ""))
    return FittedCohort(cohort.data, cohort.config, cohort.stages, clock)


def test_every_measure_gives_a_number_per_voxel(cohort):
    for name, measure in MEASURES.items():
        value, p, q = measured(name, measure, cohort)
        assert value.shape == (8,)
        assert np.isfinite(value).any(), name
        assert (p is None) or ((p >= 0) & (p <= 1)).all()
        assert (q is None) == (p is None)
        assert cohort.clock.cost(f"measure {name}") > 0


def test_gaps_are_paired_t_tests_of_squared_errors(cohort):
    y, f, r = (np.float64(a) for a in (cohort.y, cohort.prediction, cohort.linear[0]))
    value, p, _ = measured("r2_gap", MEASURES["r2_gap"], cohort)
    expected = [
        stats.ttest_rel((y - r)[:, v] ** 2, (y - f)[:, v] ** 2, alternative="greater").pvalue
        for v in range(8)
    ]
    np.testing.assert_allclose(p, expected, rtol=1e-3)
    gap = (np.square(y - r) - np.square(y - f)).mean(axis=0) / y.var(axis=0)
    np.testing.assert_allclose(value, gap, atol=1e-6)


def test_measures_of_jacobians_are_those_of_numpy(cohort):
    encoder, x = cohort.encoder.encoder, cohort.x
    jacobians = np.array([torch.autograd.functional.jacobian(encoder, row).numpy() for row in x])
    mean = jacobians.mean(axis=0)
    size = np.linalg.norm(jacobians - mean, axis=2)
    expected = {"rms_deviation": np.sqrt((size**2).mean(axis=0)), "jne_l2": size.std(axis=0)}
    singular = [np.linalg.svd(jacobians[:, v], compute_uv=False) for v in range(8)]
    expected["complexity"] = np.array([s.sum() / s[0] for s in singular])
    linear = x.numpy() @ mean.T
    linear += (cohort.prediction - linear).mean(axis=0)
    error = np.square(cohort.y - linear).mean(axis=0) - np.square(
        cohort.y - cohort.prediction
    ).mean(axis=0)
    expected["linbridge_bias"] = error / cohort.y.var(axis=0)
    for name, values in expected.items():
        np.testing.assert_allclose(MEASURES[name](cohort).value, values, rtol=1e-3, atol=1e-5)


def test_a_linear_encoder_has_no_bias_one_map_and_no_deviation(cohort):
    linear = with_encoder(cohort, nn.Linear(64, 8).eval())
    np.testing.assert_allclose(MEASURES["linbridge_bias"](linear).value, 0, atol=1e-5)
    np.testing.assert_allclose(MEASURES["complexity"](linear).value, 1, atol=1e-3)
    for name in ("rms_deviation", "jne", "gain_change", "shape_change"):
        np.testing.assert_allclose(MEASURES[name](linear).value, 0, atol=1e-6)


def test_costs_are_of_all_that_a_value_needs_and_of_nothing_twice():
    clock = Clock({"old": 5.0})

    def spin(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    def shared():
        spin(0.05)
        return 1

    def of_both():
        clock.value("old", int)
        spin(0.02)
        return clock.value("shared", shared)

    assert clock.value("first", of_both) == 1
    assert clock.value("second", of_both) == 1
    for name in ("first", "second"):
        assert clock.cost(name) == pytest.approx(5.07, abs=0.03)
    assert clock.cost("shared") == pytest.approx(0.05, abs=0.02)


def test_a_measure_of_another_shape_is_refused(cohort):
    with pytest.raises(ValueError, match=r"returned \(3,\).*one number per voxel"):
        measured("bad", lambda _: np.zeros(3), cohort)
    assert measured("fine", lambda _: Measured(np.ones(8), np.full(8, 0.5)), cohort).q[0] == 0.5


def test_the_validated_share_is_at_most_the_share_within_intervals():
    names = ("nonlinear_share", "validated_share")
    columns = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    validated = [(0.4, 0.3, 0.5), (0.6, 0.55, 0.7), (0.8, 0.7, 0.9)]
    table = pd.DataFrame([(0.5, 0.4, 0.6, *row) for row in validated], columns=columns)
    assert at_most(table) == pytest.approx(2 / 3)  # .8 - .5 > hypot(.1, .1)


PAGE = Path(ROOT, "docs", "measures.md").read_text()
TINY = (
    "simulation.measures.worlds=[functions,output]",
    "simulation.measures.noise=[independent,heavy]", "~simulation.measures.vary",
    "+simulation.measures.vary={sample:[1],hidden_width:[8]}", "simulation.measures.alpha=[0,0.6]",
    "simulation.measures.noise_ceiling=[0.5]", "simulation.measures.voxels_per_cell=3",
    "simulation.measures.n_features=64", "simulation.measures.n_train=160",
    "simulation.measures.n_test=20", "simulation.measures.encoder.hidden_width=16",
    "simulation.measures.trainer.max_epochs=2", "simulation.measures.optimizer.weight_decay=0",
    "simulation.measures.seed=1",
)  # fmt: skip


def documented(language):
    """The example of docs/measures.md in this language, as it is written there."""
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.mark.runs
def test_the_study_goes_on_from_its_cohorts_and_takes_a_users_measure(
    run_script, tmp_path, monkeypatch
):
    mine = tmp_path / "mine"
    (mine / "simulation").mkdir(parents=True)
    (mine / "own_measure.py").write_text(documented("python"))
    (mine / "simulation" / "ours.yaml").write_text(documented("yaml"))
    monkeypatch.syspath_prepend(mine)
    (folder,) = run_script("simulate.py", "simulation=measures", *TINY, figures=True)
    table = pd.read_csv(folder / "table.csv")
    assert set(table["measure"]) == set(MEASURES)
    assert set(table["setting"]) == {"default", "sample=1", "hidden_width=8"}
    overview = pd.read_csv(folder / "overview.csv", index_col="measure")
    wide = table[(table["setting"] == "default") & (table["score"] == "spearman")]
    means = wide.groupby("measure")["value"].mean()
    np.testing.assert_allclose(overview["spearman"][means.index], means)
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert metrics["auc/jne"] == pytest.approx(overview.loc["jne", "auc"])
    assert (folder / "figures" / "measures.png").stat().st_size > 5000

    own = (f"--config-dir={mine}", "simulation=ours")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jne.fitting.fit.train_module", pytest.fail)  # nothing is trained again
        folders = set(run_script("simulate.py", *own, *TINY))
    again = pd.read_csv((folders - {folder}).pop() / "table.csv")
    assert set(again["measure"]) == {*MEASURES, "spread"}
    pd.testing.assert_frame_equal(
        again[again["measure"] != "spread"].reset_index(drop=True), table, check_exact=True
    )


@pytest.mark.runs
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("+simulation.measures.more.jne={_target_: math.sqrt}", "more.jne: is a measure of"),
        ("+simulation.measures.more.a={_target_: nowhere.f}", "more.a: .*nowhere"),
        ("+simulation.measures.vary.depth=[1]", "vary.depth: is no key"),
        ("simulation.measures.worlds=[flat]", "worlds"),
        ("simulation.measures.n_features=101", "n_features=101: 200 stimuli of default"),
    ],
)
def test_bad_input_of_the_referee_is_one_sentence(run_script, setting, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        run_script("simulate.py", "simulation=measures", *TINY, setting)
    assert "\n" not in str(stopped.value)

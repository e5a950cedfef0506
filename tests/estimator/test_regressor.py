"""JNERegressor: scikit-learn's own checks, and train.py's numbers."""

import pickle
import random

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import no_figures, only_run, run_quietly
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from jne import JNERegressor, Results, nonlinear_share
from jne.errors import InputError

# One weight decay: tests/fitting/test_decay.py has the choice among many
SMALL = {"hidden_width": 16, "n_hidden": 2, "max_epochs": 3, "weight_decay": 0.0}


@pytest.mark.runs
@parametrize_with_checks([JNERegressor(**SMALL)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"readout": "trained"},
        {"placement": "none"},
        {"readout": "stacked", "validation_fraction": 0.4},
    ],
)
def test_scikit_learns_checks_of_full_size(settings):
    check_estimator(JNERegressor(**settings))


@pytest.mark.runs
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"readout": "trained", "linear_path": False, "bias": False, "activation": "gelu"},
        pytest.param(
            {"placement": "none", "optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"batch_size": None, "placement": "loc1", "patience": 1, "random_state": 3},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_numbers_are_those_of_train_py(arrays, settings, tmp_path, store):
    x, y = arrays
    split = np.random.default_rng(1).choice(["train", "val", "test"], 90, p=[0.6, 0.2, 0.2])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    table = pd.DataFrame({"stimulus": np.arange(90), "split": split})
    table.to_csv(tmp_path / "stimuli.csv", index=False)
    settings = {**SMALL, "max_epochs": 12, "batch_size": 16, **settings}
    sections = {
        **dict.fromkeys(("hidden_width", "n_hidden", "bias", "linear_path"), "encoder."),
        **dict.fromkeys(("lr", "weight_decay"), "optimizer."),
        **dict.fromkeys(("max_epochs", "patience", "batch_size"), "trainer."),
    }
    overrides = [
        f"{sections.get(name, '')}{name}={'null' if value is None else value}".replace(
            "random_state", "seed"
        )
        for name, value in settings.items()
    ]
    if settings.get("placement") == "none":
        overrides.append("encoder=linear")
    with no_figures():
        run_quietly(
            tmp_path,
            store,
            "train.py",
            *("data=arrays", f"data.root={tmp_path}", "data.features=x.npy"),
            *("data.responses=y.npy", "data.stimuli=stimuli.csv", "data.split=fixed"),
            *overrides,
        )
    run = Results(only_run(tmp_path))

    trains = split != "test"
    model = JNERegressor(**settings).fit(x[trains], y[trains], validation=split[trains] == "val")
    tested = x[~trains]
    saved = torch.load(run.path / "encoder.pt", weights_only=True)
    mean, scale = saved["response_mean"].numpy(), saved["response_scale"].numpy()
    predicted = (model.predict(tested)[:, :2] - mean) / scale
    np.testing.assert_allclose(predicted, run.array("predictions")[:, :2], atol=1e-6)
    np.testing.assert_allclose(
        model.deviation(tested)[:, :2], run.array("deviation")[:, :2], atol=1e-6
    )
    np.testing.assert_allclose(model.jne(tested), run.voxels["jne"], atol=1e-6)
    np.testing.assert_allclose(model.jne_ss(tested), run.array("jne_ss"), atol=1e-6)
    r2 = r2_score(y[~trains][:, :2], model.predict(tested)[:, :2], multioutput="raw_values")
    np.testing.assert_allclose(r2, run.voxels["r2"][:2], atol=1e-5)
    scores = model.score_voxels(tested, y[~trains])
    np.testing.assert_allclose(scores, run.voxels["r2"], atol=1e-5)
    ridge = model.ridge_.score_voxels(tested, y[~trains])
    np.testing.assert_allclose(ridge, run.voxels["r2_ridge"], atol=1e-5)
    pd.testing.assert_frame_equal(model.epochs_, run.epochs, check_exact=False, atol=1e-6)
    assert model.best_epoch_ == run.summary["metrics"]["train/best_epoch"]


def test_a_constant_voxel_is_predicted_and_has_no_jne(arrays):
    x, y = arrays
    model = JNERegressor(**SMALL).fit(x, y)
    assert (model.predict(x)[:, 2] == 47).all()
    assert np.isnan(model.jne_).tolist() == [False, False, True]
    assert np.isnan(model.jne_ss(x)[:, 2]).all()


def test_jne_of_the_stimuli_that_validated(arrays):
    x, y = arrays
    model = JNERegressor(**SMALL, validation_fraction=0.3).fit(x, y)
    assert len(model.validation_) == 27
    np.testing.assert_allclose(model.jne_, model.jne(x[model.validation_]), rtol=1e-6)
    linear = clone(model).set_params(placement="none").fit(x, y)
    assert (linear.jne_[:2] == 0).all()


def test_a_response_without_an_axis_of_voxels(arrays):
    x, y = arrays
    column, flat = (JNERegressor(**SMALL).fit(x, target) for target in (y[:, [1]], y[:, 1]))
    for name in ("predict", "deviation", "jne", "jne_ss"):
        expected = getattr(column, name)(x)
        found = getattr(flat, name)(x)
        assert found.shape == expected.shape[:-1]
        np.testing.assert_array_equal(found, expected[..., 0])
    assert np.ndim(flat.jne_) == 0


def test_a_scaler_before_it_changes_nothing(arrays):
    x, y = arrays
    alone = JNERegressor(**SMALL).fit(x, y)
    scaled = make_pipeline(StandardScaler(), JNERegressor(**SMALL)).fit(x, y)
    np.testing.assert_allclose(scaled.predict(x), alone.predict(x), rtol=1e-4)
    # The linear voxel's JNE, 4e-6, is rounding itself
    np.testing.assert_allclose(scaled[-1].jne_, alone.jne_, rtol=1e-3, atol=1e-7)


@pytest.mark.runs
def test_a_grid_search_with_stimuli_to_validate_on(arrays):
    x, y = arrays
    mask = np.arange(90) % 5 == 0
    grid = {
        "jneregressor__hidden_width": np.array([16]),
        "jneregressor__placement": np.array(["none", "both"]),
        "jneregressor__lr": np.array([1e-2]),
    }
    pipeline = make_pipeline(StandardScaler(), JNERegressor(**SMALL))
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise")
    search.fit(x, y, jneregressor__validation=mask)
    best = search.best_estimator_[-1]
    assert best.validation_.tolist() == np.flatnonzero(mask).tolist()
    assert search.score(x, y) > 0.5


def test_a_fitted_one_is_pickled_and_cloned(arrays):
    x, y = arrays
    model = JNERegressor(**SMALL).fit(x, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    np.testing.assert_array_equal(again.jne_, model.jne_)
    fresh = clone(model)
    assert not hasattr(fresh, "jne_")
    with pytest.raises(NotFittedError):
        fresh.deviation(x)
    np.testing.assert_array_equal(fresh.fit(x, y).predict(x), model.predict(x))


def test_fitting_leaves_all_random_generators_alone(arrays):
    x, y = arrays

    def states():
        drawn = np.random.mtrand._rand.get_state()[2]
        return torch.get_rng_state().tolist(), drawn, random.getstate()

    before = states()
    JNERegressor(**SMALL).fit(x, y)
    assert states() == before


def test_a_new_seed_for_each_fit(arrays):
    x, y = arrays
    model = JNERegressor(**SMALL, random_state=np.random.RandomState(0))
    first, second = (model.fit(x, y).predict(x) for _ in range(2))
    assert not np.array_equal(first, second)


def test_fitting_is_silent(arrays, capfd):
    JNERegressor(**SMALL).fit(*arrays)
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_share_is_that_of_the_plain_function_and_needs_no_fit():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 5))
    trials = (x @ rng.standard_normal((5, 2)))[:, :, None] + rng.standard_normal((60, 2, 3))
    expected = nonlinear_share(x, trials)
    np.testing.assert_array_equal(JNERegressor().share(x, trials), expected)
    one = JNERegressor().share(x, trials[:, 0], n_components=5)
    np.testing.assert_allclose(one.share, expected.share[:1], rtol=1e-5)


# --- voxels with NaN -----------------------------------------------------------------------------


@pytest.fixture
def holes(arrays):
    """The same responses, with a voxel that has one NaN between the others."""
    x, y = arrays
    more = np.insert(y, 1, y[:, 0], axis=1)
    more[5, 1] = np.nan
    return x, more


def test_a_voxel_with_nan_is_left_out_and_the_others_are_as_without_it(arrays, holes):
    alone = JNERegressor(**SMALL).fit(*arrays)
    with pytest.warns(UserWarning, match="1 of 4 voxels have NaN in y") as warned:
        model = JNERegressor(**SMALL).fit(*holes)
    assert len(warned) == 1
    x, y = holes
    others = [0, 2, 3]
    np.testing.assert_allclose(model.predict(x)[:, others], alone.predict(x), rtol=1e-5)
    for values in (model.predict(x)[:, 1], model.jne_[1], model.score_voxels(x, y)[1]):
        assert np.isnan(values).all()
    assert np.isnan(model.ridge_.predict(x)[:, 1]).all()
    np.testing.assert_allclose(model.jne_[others], alone.jne_, rtol=1e-5)
    assert model.score(x, y) == pytest.approx(alone.score(*arrays))
    expected = np.insert(alone.evidence(*arrays).slope, 1, np.nan)
    np.testing.assert_allclose(model.evidence(x, y).slope, expected, rtol=1e-3)


def test_the_score_of_each_voxel_is_scikit_learns(arrays):
    x, y = arrays
    model = JNERegressor(**SMALL).fit(x, y)
    expected = r2_score(y[:, :2], model.predict(x)[:, :2], multioutput="raw_values")
    scores = model.score_voxels(x, y)
    np.testing.assert_allclose(scores[:2], expected, rtol=1e-5)
    assert np.isnan(scores[2]), "a constant voxel"
    flat = JNERegressor(**SMALL).fit(x, y[:, 1])
    assert flat.score_voxels(x, y[:, 1]) == pytest.approx(flat.score(x, y[:, 1]))
    with pytest.raises(InputError, match=r"y: must be \(90, 3\), found \(90, 2\)"):
        model.score_voxels(x, y[:, :2])


def test_ridge_is_scikit_learns_at_a_penalty_of_each_voxel(arrays):
    x, y = arrays
    model = JNERegressor(**SMALL).fit(x, y)
    train = np.delete(np.arange(90), model.validation_)
    z = ((x - x[train].mean(axis=0)) / x[train].std(axis=0)).astype(np.float64)
    predicted = model.ridge_.predict(x)
    for voxel in (0, 1):
        others = [
            Ridge(alpha=alpha).fit(z, y[:, voxel]).predict(z)
            for alpha in np.geomspace(1e-4, 1e4, 2000)
        ]
        nearest = np.abs(others - predicted[:, voxel]).max(axis=1).min()
        assert nearest < 0.01 * y[:, voxel].std()
    assert (predicted[:, 2] == 47).all()


def test_row_numbers_validate_as_a_mask_does(arrays):
    x, y = arrays
    mask = np.arange(90) % 5 == 0
    by_mask = JNERegressor(**SMALL).fit(x, y, validation=mask)
    by_rows = JNERegressor(**SMALL).fit(x, y, validation=np.flatnonzero(mask)[::-1])
    np.testing.assert_array_equal(by_rows.validation_, by_mask.validation_)
    np.testing.assert_array_equal(by_rows.predict(x), by_mask.predict(x))


@pytest.mark.parametrize(("verbose", "bars_shown"), [(1, True), (0, False)])
def test_bars_are_shown_to_somebody(arrays, verbose, bars_shown, monkeypatch, capsys):
    monkeypatch.setattr("jne.estimator.regressor.has_viewer", lambda: True)
    JNERegressor(**SMALL, verbose=verbose).fit(*arrays)
    assert ("epoch" in capsys.readouterr().out) == bars_shown

"""Banded ridge and variance partitioning: against himalaya called directly, and brute force."""

import himalaya.backend
import numpy as np
import pytest
from himalaya.kernel_ridge import MultipleKernelRidgeCV
from himalaya.ridge import GroupRidgeCV
from sklearn.linear_model import Ridge
from space_arrays import V, arrays_source, spaces_data, write_arrays

from jne.analysis.prediction import r2_score
from jne.data.folds import cross_validation
from jne.encoders.ridge import PENALTIES
from jne.errors import InputError
from jne.fitting import banded as fitting_banded
from jne.fitting.banded import check_banded, fit_banded
from jne.stages import Stages
from jne.utils.progress import without_progress

BOTH = ["ridge", "banded", "partition"]
ALONE = np.arange(V) < V // 2  # voxels of the first space alone


def encoding_data(folder, widths, **settings):
    files = write_arrays(folder, widths)
    return spaces_data(folder, arrays_source(folder, features=files, **settings))


@pytest.fixture(
    scope="module", params=[{"a": 5, "b": 20}, {"a": 40, "b": 160}, {"a": 4, "b": 9, "c": 6}]
)
def case(request, tmp_path_factory):
    """More stimuli than features, fewer, and three spaces."""
    folder = tmp_path_factory.mktemp("banded")
    data = encoding_data(folder, request.param)
    with without_progress():
        return data, fit_banded(BOTH, data, Stages(folder / "stages"))


def centred(data):
    """Float64: features of each space and responses, to fit and to test; centred, but the last."""
    rows, test = np.concatenate([data.rows["train"], data.rows["val"]]), data.rows["test"]
    x, y = data.features.double().numpy(), data.responses[:].double().numpy()
    mean_x, mean_y = x[rows].mean(axis=0), y[rows].mean(axis=0)
    spaces = [x[:, columns] - mean_x[columns] for columns in data.feature_spaces.values()]
    return [s[rows] for s in spaces], y[rows] - mean_y, [s[test] for s in spaces], y[test], mean_y


def directly(data):
    """What each space adds, (K, n, V), by himalaya's estimators, its other backend, float64."""
    fitted, y, tested, _, _ = centred(data)
    size = np.mean([np.square(x).sum() / len(x) for x in fitted])
    search = {"n_iter": 20 * (len(fitted) - 1), "alphas": size * np.array(PENALTIES),
              "progress_bar": False}  # fmt: skip
    given = {"cv": cross_validation(data), "random_state": 0, "solver_params": search}
    with without_progress():
        if sum(x.shape[1] for x in fitted) < len(y):
            model = GroupRidgeCV(groups="input", **given).fit(fitted, y)
            return model.predict(tested, split=True)
        kernels = np.stack([x @ x.T for x in fitted])
        at = np.stack([t @ x.T for t, x in zip(tested, fitted, strict=True)])
        model = MultipleKernelRidgeCV(kernels="precomputed", **given).fit(kernels, y)
        return model.predict(at, split=True)


def product_measure(truth, added, total):
    """Parts of R2 (K, V), of truth and predictions (n, V): a wrong mean costs all equally."""
    y = truth - truth.mean(axis=0)
    parts = added - added.mean(axis=1, keepdims=True)
    parts += (total - truth.mean(axis=0) - parts.sum(axis=0)) / len(added)
    return (parts * (2 * y - parts.sum(axis=0))).sum(axis=1) / np.square(y).sum(axis=0)


def test_r2_and_its_parts_are_himalayas(case):
    data, result = case
    added, (*_, truth, mean) = directly(data), centred(data)
    np.testing.assert_allclose(
        result.columns["r2_banded"], r2_score(truth, added.sum(axis=0) + mean), atol=1e-4
    )
    parts = product_measure(truth, added, added.sum(axis=0) + mean)
    np.testing.assert_allclose(result.of_spaces["r2_split"], parts, atol=1e-4)
    whole = result.of_spaces["r2_split"].sum(axis=0)
    np.testing.assert_allclose(whole, result.columns["r2_banded"], atol=1e-5)


def test_predictions_are_himalayas(case, tmp_path):
    data, _ = case
    with without_progress():
        (table,) = fitting_banded._tables(data, list(data.feature_spaces), Stages(tmp_path))
    added, (*_, mean) = directly(data), centred(data)
    n = len(data.rows["test"])
    np.testing.assert_allclose(table[1 : 1 + n], added.sum(axis=0) + mean, atol=1e-4)
    np.testing.assert_allclose(table[1 + n :].reshape(added.shape), added, atol=1e-4)


def test_unique_parts_by_brute_force(case):
    """Without one of two spaces, all that is left is ridge regression on the other."""
    data, result = case
    fitted, y, tested, truth, mean = centred(data)
    unique, r2 = result.of_spaces["r2_unique"], result.columns["r2_banded"]
    np.testing.assert_allclose(result.columns["r2_shared"], r2 - unique.sum(axis=0), atol=1e-6)
    if len(fitted) > 2:
        return
    splits = cross_validation(data)
    for k in range(2):
        x, at = fitted[1 - k], tested[1 - k]
        errors = []
        penalties = np.square(x).sum() / len(x) * np.array(PENALTIES)
        for penalty in penalties:
            ridge = Ridge(alpha=penalty, fit_intercept=False)
            left = [
                np.square(ridge.fit(x[a], y[a]).predict(x[b]) - y[b]).mean(axis=0)
                for a, b in splits
            ]
            errors.append(np.mean(left, axis=0))
        best = penalties[np.argmin(errors, axis=0)]
        predicted = Ridge(alpha=best, fit_intercept=False).fit(x, y).predict(at) + mean
        np.testing.assert_allclose(unique[k], r2 - r2_score(truth, predicted), atol=1e-4)


def test_three_spaces_are_left_out_one_by_one(tmp_path):
    """Without the third: as data that never had it, but for the scale that balances spaces."""
    data = encoding_data(tmp_path, {"a": 4, "b": 9, "c": 6})
    with without_progress():
        three = fit_banded(["partition"], data, Stages(tmp_path / "stages"))
        files = {"a": "a.npy", "b": "b.npy"}
        fewer = spaces_data(tmp_path, arrays_source(tmp_path, features=files))
        two = fit_banded(["banded"], fewer, Stages(tmp_path / "stages"))
    without = three.columns["r2_banded"] - three.of_spaces["r2_unique"][2]
    np.testing.assert_allclose(without, two.columns["r2_banded"], atol=1e-4)


def test_a_space_that_says_nothing_has_no_part(tmp_path):
    data = encoding_data(tmp_path, {"a": 5, "b": 20}, split_seed=1)
    with without_progress():
        result = fit_banded(BOTH, data, Stages(tmp_path / "stages"))
    r2, split, unique = result.columns["r2_banded"], *result.of_spaces.values()
    assert (r2[ALONE] > 0.5).all()
    assert np.abs(split[1, ALONE]).max() < 0.05
    assert np.abs(unique[1, ALONE]).max() < 0.05
    np.testing.assert_allclose(unique[0, ALONE], r2[ALONE], atol=0.1)
    assert (split[:, ~ALONE] > 0.1).all()
    assert (unique[:, ~ALONE] > 0.1).all()


def test_the_scale_of_features_hardly_matters(tmp_path):
    """Each space has a penalty of its own."""
    r2 = []
    for scaling in ("each", "global"):
        data = encoding_data(tmp_path, {"a": 5, "b": 20}, scale_features=scaling)
        with without_progress():
            fitted = fit_banded(["banded"], data, Stages(tmp_path / scaling))
        r2.append(fitted.columns["r2_banded"])
    np.testing.assert_allclose(*r2, atol=0.02)


def test_blocks_and_an_interruption_change_nothing(case, tmp_path, monkeypatch):
    data, whole = case
    monkeypatch.setattr(fitting_banded, "_VOXELS_AT_ONCE", 4)
    best, calls = fitting_banded._Search.best, []

    def killed(search, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return best(search, *arguments)

    monkeypatch.setattr(fitting_banded._Search, "best", killed)
    before = himalaya.backend.get_backend()
    with without_progress():
        with pytest.raises(KeyboardInterrupt):
            fit_banded(["banded"], data, Stages(tmp_path))
        assert himalaya.backend.get_backend() is before
        again = fit_banded(["banded"], data, Stages(tmp_path))
    pieces = 4 * (len(data.feature_spaces) - 1) * 2
    assert len(calls) == pieces + 1  # the one that was interrupted is repeated, no other
    np.testing.assert_allclose(again.columns["r2_banded"], whole.columns["r2_banded"], atol=1e-5)
    np.testing.assert_allclose(again.of_spaces["r2_split"], whole.of_spaces["r2_split"], atol=1e-5)


def test_folds_are_scored_together(tmp_path):
    """In units of the data, in which every stimulus is predicted by the fold that tests it."""
    data = encoding_data(tmp_path, {"a": 5, "b": 20}, folds=3)
    with without_progress():
        result = fit_banded(["banded"], data, Stages(tmp_path / "stages"))
    y = np.load(tmp_path / "y.npy").astype(np.float64)
    total, by_space = np.empty_like(y), np.empty((2, *y.shape))
    for part in data.parts:
        added, (*_, mean) = directly(part), centred(part)
        scale, rows = part.response_scale.numpy(), part.rows["test"]
        total[rows] = (added.sum(axis=0) + mean) * scale + part.response_mean.numpy()
        by_space[:, rows] = added * scale
    np.testing.assert_allclose(result.columns["r2_banded"], r2_score(y, total), atol=1e-4)
    parts = product_measure(y, by_space, total)
    np.testing.assert_allclose(result.of_spaces["r2_split"], parts, atol=1e-4)


def test_what_cannot_be_is_refused(tmp_path, monkeypatch):
    write_arrays(tmp_path)
    data = spaces_data(tmp_path, arrays_source(tmp_path, features="wide.npy"))
    assert fit_banded(["ridge"], data, Stages(tmp_path)).columns == {}
    with pytest.raises(
        InputError, match=r"^baseline=partition: is of several feature spaces, and "
    ):
        fit_banded(["ridge", "partition"], data, Stages(tmp_path))
    check_banded(BOTH)
    monkeypatch.setattr(fitting_banded, "find_spec", lambda _: None)
    check_banded(["ridge", "kernel"])
    with pytest.raises(
        InputError, match=r'^baseline=banded: needs himalaya: pip install "jne\[ban'
    ):
        check_banded(BOTH)

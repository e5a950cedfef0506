"""Evidence per voxel against statsmodels, its sums over sets against their definitions."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy import stats
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, Ridge
from statsmodels.stats.multitest import multipletests
from torch import nn

import jne
from jne.analysis.evidence import evidence_of
from jne.analysis.linear_part import LinearPart

N, V = 80, 7
SETS = np.array([0, 0, 1, 1, 1, 0, 1])


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Responses with and without a nonlinear part, with noise that depends on the stimulus."""
    rng = np.random.default_rng(0)
    linear, g = rng.standard_normal((2, N, V))
    ridge = 0.7 * linear + 0.3 * rng.standard_normal((N, V))
    slopes = np.array([0, 0, 0.5, 1, 1.5, 0, -0.4])
    y = linear + slopes * g + rng.standard_normal((N, V)) * (0.5 + np.abs(g))
    y = 3 + 2 * y
    least = linear + rng.standard_normal((N, V))
    return {"y": y, "f": linear + g, "g": g, "ridge": ridge, "least": least}


def _evidence(a, **changes):
    a = {name: x.astype(np.float32) for name, x in {**a, **changes}.items()}
    return evidence_of(a["y"], a["f"], a["g"], [a["ridge"], a["least"]], SETS, 2)


def _ols(a, v, *columns):
    return sm.OLS(a["y"][:, v], sm.add_constant(np.column_stack(columns))).fit(cov_type="HC3")


def test_slope_error_z_and_p_are_those_of_statsmodels(arrays):
    voxels, _ = _evidence(arrays)
    for v in range(V):
        ols = _ols(arrays, v, *(x[:, v] for x in _regressors(arrays)))
        assert voxels.slope[v] == pytest.approx(ols.params[-1], rel=1e-4, abs=1e-5)
        assert voxels.slope_error[v] == pytest.approx(ols.bse[-1], rel=1e-4)
        assert voxels.z[v] == pytest.approx(ols.tvalues[-1], rel=1e-3, abs=1e-4)
        assert voxels.p[v] == pytest.approx(stats.t.sf(ols.tvalues[-1], N - 5), rel=1e-3)
    np.testing.assert_allclose(voxels.p_fdr, multipletests(voxels.p, method="fdr_bh")[1])


def _regressors(a):
    return a["ridge"], a["least"], a["f"] - a["g"], a["g"]


def test_r2_of_the_parts_by_regression(arrays):
    voxels, _ = _evidence(arrays)
    ridge, least, linear, g = _regressors(arrays)
    for v in range(V):
        y = arrays["y"][:, v]
        small = _ols(arrays, v, ridge[:, v], least[:, v], linear[:, v])
        whole = _ols(arrays, v, ridge[:, v], least[:, v], linear[:, v], g[:, v])
        beside = np.column_stack([ridge[:, v], least[:, v], linear[:, v]])
        left = sm.OLS(g[:, v], sm.add_constant(beside)).fit()
        power = np.square(left.resid).mean() / y.var()
        unbiased = whole.get_robustcov_results("HC2")
        expected = (whole.params[-1] ** 2 - unbiased.bse[-1] ** 2) * power
        assert voxels.r2_nonlinear[v] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        leverage = small.get_influence().hat_matrix_diag - 1 / N
        overfit = (leverage * small.resid**2 / (1 - leverage - 1 / N)).mean() / y.var()
        assert voxels.r2_linear[v] == pytest.approx(small.rsquared - overfit, rel=1e-4)
    total = voxels.r2_nonlinear + voxels.r2_linear
    np.testing.assert_allclose(voxels.share, voxels.r2_nonlinear / total)


def test_r2_of_the_parts_are_unbiased_where_there_is_nothing():
    rng = np.random.default_rng(1)
    y, linear, g, *others = rng.standard_normal((5, 60, 4000), dtype=np.float32)
    voxels, _ = evidence_of(y, linear + g, g, others, np.zeros(4000, dtype=int), 1)
    for values in (voxels.r2_nonlinear, voxels.r2_linear):
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(4000)
    assert (voxels.p < 0.05).mean() == pytest.approx(0.05, abs=0.015)
    assert np.corrcoef(np.sort(voxels.z), stats.norm.ppf(np.arange(0.5, 4000) / 4000))[0, 1] > 0.99


def test_the_interval_of_the_share_holds_zero_where_that_of_the_slope_does(arrays):
    voxels, _ = _evidence(arrays)
    has_share = np.isfinite(voxels.share)
    assert has_share.any()
    low = np.abs(voxels.z) > stats.norm.ppf(0.975)
    np.testing.assert_array_equal(voxels.low[has_share] > 0, low[has_share])
    assert (voxels.low <= voxels.share)[has_share].all()
    assert (voxels.share <= voxels.high)[has_share].all()
    assert (voxels.high[has_share] <= 1).all()


def test_a_set_is_tested_over_stimuli(arrays):
    voxels, sums = _evidence(arrays)
    product, spread = np.zeros((N, 3)), np.zeros((N, 3))
    pairs = np.zeros((3, N, N))
    for v in range(V):
        y = arrays["y"][:, v] / arrays["y"][:, v].std()
        linear = sm.add_constant(np.column_stack([x[:, v] for x in _regressors(arrays)[:3]]))
        g = sm.OLS(arrays["g"][:, v], linear).fit().resid
        whole = sm.OLS(y, np.column_stack([linear, arrays["g"][:, v]])).fit()
        residual = whole.resid / (1 - whole.get_influence().hat_matrix_diag)
        own = g * residual / np.sqrt(N * (g @ g))
        for k in (SETS[v], 2):
            product[:, k] += g * sm.OLS(y, linear).fit().resid
            spread[:, k] += g * residual
            pairs[k] += np.outer(own, own)
    np.testing.assert_allclose(sums.product, product, atol=1e-4)
    np.testing.assert_allclose(sums.spread, spread, atol=1e-4)
    z = product.sum(axis=0) / np.sqrt(np.square(spread).sum(axis=0))
    np.testing.assert_allclose(sums.z, z, rtol=1e-4)
    np.testing.assert_allclose(sums.p, stats.t.sf(z, N - 5), rtol=1e-3)
    off = ~np.eye(N, dtype=bool)
    np.testing.assert_allclose(sums.pairs, [np.square(p[off]).sum() for p in pairs], rtol=1e-4)
    members = [SETS == 0, SETS == 1, SETS >= 0]
    np.testing.assert_allclose(sums.nonlinear, [voxels.r2_nonlinear[m].sum() for m in members])
    np.testing.assert_allclose(sums.linear, [voxels.r2_linear[m].sum() for m in members])
    np.testing.assert_array_equal(sums.n_voxels, [3, 4, 7])


def test_a_union_of_all_sets_is_all_voxels_but_for_the_pairs(arrays):
    _, sums = _evidence(arrays)
    union = sums.combined(np.array([[1, 1, 0]]))
    for name in ("product", "spread", "nonlinear", "nonlinear_pull", "linear", "linear_pull"):
        np.testing.assert_allclose(getattr(union, name)[..., 0], getattr(sums, name)[..., 2])
    assert union.z == pytest.approx(sums.z[2])
    assert union.pairs[0] == pytest.approx(sums.pairs[:2].sum())


def test_errors_of_sets_are_those_over_cohorts():
    """The spread of a region's share, and its error, over cohorts with shared noise."""
    rng = np.random.default_rng(2)
    n, n_voxels = 150, 12
    shares, widths, differences, sides = [], [], [], []
    sets = np.repeat([0, 1], n_voxels // 2)
    for _ in range(150):
        linear, g = rng.standard_normal((2, n, n_voxels))
        noise = rng.standard_normal((n, 1)) + rng.standard_normal((n, n_voxels))
        y = linear + 0.5 * g + noise
        y, f, g, *others = (
            x.astype(np.float32) for x in (y, linear + g, g, *rng.standard_normal((2, n, n_voxels)))
        )
        _, sums = evidence_of(y, f, g, others, sets, 2)
        share = sums.share()
        shares.append(share.share)
        widths.append((share.high - share.low) / 2 / stats.norm.ppf(0.975))
        difference, low, high, _ = sums.contrast(np.array([1, -1, 0]))
        differences.append(difference)
        sides.append((high - low) / 2 / stats.norm.ppf(0.975))
    np.testing.assert_allclose(np.mean(shares, axis=0), 0.25 / 1.25, atol=0.015)
    np.testing.assert_allclose(np.std(shares, axis=0), np.mean(widths, axis=0), rtol=0.25)
    assert np.std(differences) == pytest.approx(np.mean(sides), rel=0.25)
    assert abs(np.mean(differences)) < 0.015


def test_what_has_no_evidence(arrays):
    """Constant responses have none; a linear prediction is all linear."""
    y, f, g = arrays["y"].copy(), arrays["f"].copy(), arrays["g"].copy()
    y[:, 0] = 1.5
    f[:, 1] -= g[:, 1]
    g[:, 1] = 0
    voxels, sums = _evidence(arrays, y=y, f=f, g=g)
    assert np.isnan([x[0] for x in voxels]).all()
    assert np.isnan([voxels.z[1], voxels.p[1], voxels.p_fdr[1], voxels.slope[1]]).all()
    assert voxels.r2_nonlinear[1] == voxels.share[1] == voxels.low[1] == voxels.high[1] == 0
    assert voxels.r2_linear[1] > 0
    np.testing.assert_array_equal(sums.n_voxels, [2, 4, 6])
    _, all_linear = _evidence(arrays, g=0 * g, f=f - g)
    assert np.isnan([all_linear.z, all_linear.p]).all()
    assert (all_linear.share().share == 0).all()


def test_the_linear_part_is_removed_by_least_squares():
    rng = np.random.default_rng(3)
    x, at = rng.standard_normal((50, 4)) + 5, rng.standard_normal((30, 4)) + 5
    values = np.column_stack([x[:, 0] * x[:, 1], x @ [1.0, 2, 3, 4] + 7])
    wanted = np.column_stack([at[:, 0] * at[:, 1], at @ [1.0, 2, 3, 4] + 7])
    part = LinearPart(torch.from_numpy(x), torch.from_numpy(at))
    left = part.remove(torch.from_numpy(values), torch.from_numpy(wanted)).numpy()
    fit = sm.OLS(values[:, 0], sm.add_constant(x)).fit()
    np.testing.assert_allclose(left[:, 0], wanted[:, 0] - fit.predict(sm.add_constant(at)))
    np.testing.assert_allclose(left[:, 1], 0, atol=1e-10)


def test_products_are_kept(arrays):
    a = {name: x.astype(np.float32) for name, x in arrays.items()}
    kept = np.full((N, V), np.nan, dtype=np.float32)
    _, sums = evidence_of(a["y"], a["f"], a["g"], [a["ridge"], a["least"]], SETS, 2, kept)
    np.testing.assert_allclose(kept.sum(axis=1), sums.product[:, 2], atol=1e-4)


def test_features_that_are_constant_or_copies_change_nothing():
    rng = np.random.default_rng(4)
    x, at = rng.standard_normal((50, 4)), rng.standard_normal((30, 4))
    values, wanted = (torch.from_numpy(np.abs(a)) for a in (x, at))
    plain, more = (
        LinearPart(*(torch.from_numpy(make(a)) for a in (x, at))).remove(values, wanted)
        for make in (lambda a: a, lambda a: np.column_stack([a, 2 * a[:, :2], np.ones(len(a))]))
    )
    np.testing.assert_allclose(more, plain)


@pytest.fixture(scope="module")
def model():
    """A model that is nonlinear in one of two voxels, and ridge regression, both overfitted."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((400, 6))
    Y = np.column_stack([X[:, 0] + X[:, 1] ** 2, X[:, 2]]) + 0.5 * rng.standard_normal((400, 2))
    kernel = KernelRidge(alpha=0.1, kernel="rbf", gamma=0.1).fit(X[:300], Y[:300])
    linear = Ridge(1.0).fit(X[:300], Y[:300])
    return kernel.predict, X[:300], X[300:], Y[300:], linear.predict, Y[:300]


def test_evidence_of_any_model(model):
    predict, train, test, y, ridge, seen = model
    result = jne.evidence(predict, train, test, y, ridge=ridge)
    assert result.p[0] < 1e-6
    assert result.p[1] > 0.05
    assert result.r2_nonlinear[0] > 0.3
    assert abs(result.r2_nonlinear[1]) < 0.02
    approximation = LinearRegression().fit(train, predict(train)).predict(test)
    columns = [ridge(test)[:, 0], approximation[:, 0], predict(test)[:, 0] - approximation[:, 0]]
    ols = sm.OLS(y[:, 0], sm.add_constant(np.column_stack(columns))).fit(cov_type="HC3")
    assert result.slope[0] == pytest.approx(ols.params[-1], rel=1e-4)
    assert result.z[0] == pytest.approx(ols.tvalues[-1], rel=1e-3)
    least = LinearRegression().fit(train, seen).predict(test)
    ols = sm.OLS(y[:, 0], sm.add_constant(np.column_stack([*columns, least[:, 0]])))
    beside = jne.evidence(predict, train, test, y, ridge=ridge, y_train=seen)
    expected = ols.fit(cov_type="HC3")
    assert beside.z[0] == pytest.approx(expected.tvalues[3], rel=1e-3)
    by_array = jne.evidence(predict, train, test, y, ridge=ridge(test))
    np.testing.assert_array_equal(by_array, result)
    one = jne.evidence(lambda x: predict(x)[:, 0], train, test, y[:, 0], ridge=ridge(test)[:, 0])
    np.testing.assert_allclose(one.z, result.z[:1], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X_train": np.zeros((11, 6))}, "X_train: 11 stimuli are too few for 6 features"),
        ({"X_test": np.zeros((100, 5))}, r"X_test: must be \(n, 6\)"),
        ({"y_test": np.zeros((99, 2))}, "y_test: must be"),
        ({"y_train": np.zeros((300, 1))}, r"y_train: must be \(300, 2\)"),
        ({"y_test": np.full((100, 2), np.nan)}, "y_test: has NaN"),
        ({"ridge": np.zeros((100, 3))}, r"ridge: must give \(100, 2\)"),
        ({"predict": lambda x: np.zeros((len(x), 3))}, r"predict: must give \(300, 2\)"),
    ],
)
def test_input_that_cannot_be_tested_is_refused(model, change, message):
    names = ("predict", "X_train", "X_test", "y_test", "ridge", "y_train")
    arguments = dict(zip(names, model, strict=True)) | change
    with pytest.raises(ValueError, match=message):
        jne.evidence(**arguments)


def test_units_and_offsets_change_nothing_but_the_unit(model):
    predict, train, test, y, ridge, seen = model
    plain = jne.evidence(predict, train, test, y, ridge=ridge, y_train=seen)
    for scale, offset in ((1e-25, 0.0), (1e20, 0.0), (1.0, 1e7)):
        moved = jne.evidence(
            lambda x, s=scale, o=offset: s * predict(x) + o,
            train, test, scale * y + offset, ridge=scale * ridge(test) + offset,
            y_train=scale * seen + offset,
        )  # fmt: skip
        np.testing.assert_allclose(moved, plain, rtol=1e-3, atol=1e-5)


def test_a_torch_module_is_left_as_it_was(model):
    _, train, test, y, ridge, _ = model
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 2))
    result = jne.evidence(module, train, test, y, ridge=ridge)
    assert module.training
    module.eval()
    by_function = jne.evidence(
        lambda x: module(torch.from_numpy(x).float()).detach(), train, test, y, ridge=ridge
    )
    np.testing.assert_array_equal(result, by_function)

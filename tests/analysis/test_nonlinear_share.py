"""The nonlinear share: its parts against brute force, its intervals against known truth."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut, LeaveOneOut, cross_val_predict

from jne import nonlinear_share
from jne.analysis import contrast, leave_one_out, share_sums
from jne.analysis.repeats import blocks_of, repeats_of
from jne.errors import InputError


def make(seed=0, n=80, d=5, v=3, r=2, share=0.0, noise=1.0):
    """Features, and trials with this nonlinear share of a signal of unit variance."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    weights = rng.standard_normal((d, v))
    linear = x @ (weights / np.linalg.norm(weights, axis=0))
    pairs = rng.integers(d, size=v)
    nonlinear = (np.square(x[:, pairs]) - 1) / np.sqrt(2)  # Hermite: no linear part
    signal = np.sqrt(1 - share) * linear + np.sqrt(share) * nonlinear
    return x, signal[:, :, None] + noise * rng.standard_normal((n, v, r))


def sums_of(x, trials, set_of=None):
    """ShareSums of voxels, and of sets."""
    repeats = repeats_of(trials)
    left_out = leave_one_out.LeaveOneOut(torch.from_numpy(x), repeats.block)
    sets = None if set_of is None else left_out.sets(set_of.max() + 1)
    mean = torch.from_numpy(trials.mean(axis=2)[left_out.order]).float()
    voxels = left_out.sums(mean, repeats, None, sets, set_of)
    return voxels, None if sets is None else sets.finish(), left_out


@pytest.mark.parametrize("grouped", [False, True])
def test_the_linear_part_is_the_covariance_with_what_scikit_learn_predicts(grouped):
    x, trials = make()
    groups = np.r_[np.repeat(np.arange(10), 3), np.arange(10, 60)] if grouped else np.arange(80)
    splitter = LeaveOneGroupOut() if grouped else LeaveOneOut()
    mean = trials.mean(axis=2)
    mean = mean - mean.mean(axis=0)
    found = nonlinear_share(x, trials, groups=groups if grouped else None)
    of_all = {"cv": splitter, "groups": groups if grouped else None}
    predicted = cross_val_predict(LinearRegression(), x, mean, **of_all)
    constant = cross_val_predict(LinearRegression(), np.zeros((80, 1)), mean, **of_all)
    expected = (mean * (predicted - constant)).mean(axis=0)
    np.testing.assert_allclose(found.linear, expected, rtol=1e-5)


def test_a_stimulus_that_its_feature_has_nearly_to_itself_is_left_out_as_the_others():
    """Its leverage is .998: what it is predicted as has little to do with its response."""
    x, trials = make(noise=0.1)
    x[7, 0] = 200.0
    mean = trials.mean(axis=2)
    mean = mean - mean.mean(axis=0)
    predicted = cross_val_predict(LinearRegression(), x, mean, cv=LeaveOneOut())
    expected = (mean * (predicted + mean / 79)).sum(axis=0)  # the mean without it: -y / (N - 1)
    np.testing.assert_allclose(sums_of(x, trials)[0].linear, expected, rtol=1e-3)


def test_components_are_those_of_the_standardised_features():
    x, trials = make(d=8)
    z = PCA(3).fit_transform((x - x.mean(axis=0)) / x.std(axis=0))
    found, expected = nonlinear_share(x, trials, n_components=3), nonlinear_share(z, trials)
    for name in ("share", "low", "high", "linear", "signal"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4)


def test_more_features_than_stimuli_have_components():
    x, trials = make(n=60, d=90)
    z = PCA(20).fit_transform((x - x.mean(axis=0)) / x.std(axis=0))
    found = nonlinear_share(x, trials, n_components=20)
    np.testing.assert_allclose(found.linear, nonlinear_share(z, trials).linear, rtol=1e-4)


def test_without_noise_a_linear_voxel_has_share_0_and_units_do_not_matter():
    x, trials = make(noise=0.0)
    found = nonlinear_share(x * [1, 10, 100, 1e3, 1e4] + 7, 50 * trials + 1000)
    assert found.share == pytest.approx(np.zeros(3), abs=0.02)  # Beale's correction is of order 1/N
    assert found.linear == pytest.approx(found.signal, rel=0.02)
    assert found.signal == pytest.approx(2500 * trials[:, :, 0].var(axis=0, ddof=1), rel=1e-5)


def test_rows_may_be_trials():
    x, trials = make()
    expected = nonlinear_share(x, trials)
    stimulus = np.tile(np.arange(80), 2)
    shuffled = np.random.default_rng(0).permutation(160)
    rows = np.concatenate([trials[:, :, 0], trials[:, :, 1]])[shuffled]
    found = nonlinear_share(x[stimulus[shuffled]], rows, repeats=stimulus[shuffled])
    for name, values in found._asdict().items():
        np.testing.assert_allclose(values, getattr(expected, name), rtol=1e-5, err_msg=name)


def test_depending_features_count_once():
    x, trials = make()
    twice = np.column_stack([x, x[:, 0], x @ np.ones(5), np.ones(80)])
    np.testing.assert_allclose(
        nonlinear_share(twice, trials).linear, nonlinear_share(x, trials).linear, rtol=0.2
    )
    assert sums_of(twice, trials)[2].n_components == 5


@pytest.fixture(scope="module")
def cohorts():
    """Shares of voxels and of sets in cohorts of share .3: 40 of 60 voxels in two sets."""
    voxels, sets, differences = [], [], []
    for seed in range(40):
        x, trials = make(seed, n=320, d=60, v=60, r=2, share=0.3, noise=1.5)
        one, two, _ = sums_of(x, trials, np.arange(60) // 30)
        voxels.append(one.shares())
        sets.append(two.shares())
        differences.append(two.contrast(np.array([1, -1])))
    return voxels, sets, np.array(differences)


def covered(shares, truth):
    return np.mean([(each.low <= truth) & (truth <= each.high) for each in shares])


def test_intervals_of_voxels_hold_the_truth(cohorts):
    voxels = cohorts[0]
    assert 0.93 < covered(voxels, 0.3) < 0.97
    assert np.nanmean([each.share for each in voxels]) == pytest.approx(0.3, abs=0.02)


def test_intervals_of_sets_and_of_their_differences_hold_the_truth(cohorts):
    _, sets, difference = cohorts
    assert 0.88 < covered(sets, 0.3) <= 1  # of 80
    inside = (difference[:, 1] <= 0) & (difference[:, 2] >= 0)
    assert 0.85 < inside.mean() <= 1  # of 40
    # Neither too wide: the spread over cohorts is that of the intervals
    width = np.mean([each.high - each.low for each in sets])
    assert width / (2 * contrast.quantile(63)) == pytest.approx(
        np.std([each.share for each in sets]), rel=0.25
    )


def test_the_error_of_the_linear_part_is_that_of_noise():
    """Without a signal, its spread over voxels; the jackknife alone gives half as much again."""
    rng = np.random.default_rng(3)
    x, trials = rng.standard_normal((300, 100)), rng.standard_normal((300, 3000, 2))
    sums = sums_of(x, trials)[0]
    centred = sums._centred(sums.derivative)
    jackknife = share_sums._product(centred, centred)
    corrected = jackknife - sums.pair_weight * share_sums._squared(sums.pairs)
    truth = np.var(sums.linear / 300)
    assert corrected.mean() == pytest.approx(truth, rel=0.1)
    assert jackknife.mean() > 1.8 * truth


def grouped(x, size):
    """Groups of so many stimuli in a random order, and the leave-one-group-out predictions' matrix.

    Of dense hat matrices: y - (1 - H_GG)^-1 (y - H y) within each group.
    """
    n = len(x)
    groups = np.random.default_rng(0).permutation(n) // size
    design = np.column_stack([np.ones(n), x])
    hat = design @ np.linalg.pinv(design)
    predict, met = np.zeros((n, n)), np.zeros(n)
    for group in np.unique(groups):
        inside = np.flatnonzero(groups == group)
        inverse = np.linalg.inv(np.eye(len(inside)) - hat[np.ix_(inside, inside)])
        predict[inside] = np.eye(n)[inside] - inverse @ (np.eye(n) - hat)[inside]
        met[inside] = np.diag(inverse) - 1
    return groups, predict, met


def sums_of_groups(x, trials, groups):
    """ShareSums of voxels whose blocks hold whole groups."""
    repeats = repeats_of(trials, blocks_of(groups.max() + 1)[groups])
    left_out = leave_one_out.LeaveOneOut(torch.from_numpy(x), repeats.block, None, groups)
    mean = torch.from_numpy(trials.mean(axis=2)[left_out.order]).float()
    return left_out.sums(mean, repeats), left_out


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_error_of_the_linear_part_with_groups_is_that_of_a_quadratic_form(size):
    """Of white noise of variance s^2, y' B y has the variance 2 s^4 |(B + B') / 2|^2."""
    rng = np.random.default_rng(3)
    x, trials = rng.standard_normal((300, 75)), rng.standard_normal((300, 600, 2))
    groups, predict, met = grouped(x, size)
    sums, left_out = sums_of_groups(x, trials, groups)
    assert left_out.pair_weight == pytest.approx(2 * (met.sum() + (met**2).sum()) / 300**2)
    assert left_out._unexplained == pytest.approx((1 / (1 + met)).mean())
    centred = sums._centred(sums.derivative)
    spread = share_sums._product(centred, centred)
    corrected = spread - sums.pair_weight * share_sums._squared(sums.pairs)
    truth = 2 * 0.5**2 * np.square((predict + predict.T) / 2).sum() / 300**2
    assert corrected.mean() == pytest.approx(truth, rel=0.08)  # 64 blocks
    assert np.var(sums.linear / 300) == pytest.approx(truth, rel=0.15)


@pytest.mark.parametrize("size", [1, 3])
def test_the_derivative_of_each_block_is_that_of_its_predictions(size):
    """f (2 y - f), with f predicted by scikit-learn without the group (docs/share.md)."""
    x, trials = make(n=90, noise=2.0)
    groups = grouped(x, size)[0]
    sums = sums_of_groups(x, trials, groups)[0]
    mean = trials.mean(axis=2)
    mean = mean - mean.mean(axis=0)
    f = cross_val_predict(LinearRegression(), x, mean, cv=LeaveOneGroupOut(), groups=groups)
    block = blocks_of(groups.max() + 1)[groups]
    expected = [(f * (2 * mean - f))[block == b].sum(axis=0) for b in range(block.max() + 1)]
    np.testing.assert_allclose(sums.derivative, expected, rtol=1e-4, atol=1e-4)


def test_covariances_of_sums_are_those_over_blocks():
    """The covariance of a sum of independent blocks is their number times that of one."""
    x, y = np.random.default_rng(0).standard_normal((2, 12, 3))
    expected = [12 * np.cov(x[:, k], y[:, k])[0, 1] for k in range(3)]
    found = share_sums._product(x - x.mean(axis=0), y - y.mean(axis=0))
    np.testing.assert_allclose(found, expected)


def test_sets_are_sums_over_voxels_and_over_pairs_of_stimuli():
    x, trials = make(n=200, d=20, v=40, noise=2.0)
    set_of = np.arange(40) % 2
    voxels, sets, left_out = sums_of(x, trials, set_of)
    for k in range(2):
        inside = set_of == k
        assert sets.linear[k] == pytest.approx(voxels.linear[inside].sum(), rel=1e-5)
        np.testing.assert_allclose(sets.signal[:, k], voxels.signal[:, inside].sum(axis=1))
        np.testing.assert_allclose(sets.derivative[:, k], voxels.derivative[:, inside].sum(axis=1))
        mean = trials.mean(axis=2)[:, inside]
        mean = mean - mean.mean(axis=0)
        rest = mean - cross_val_predict(LinearRegression(), x, mean, cv=LeaveOneOut())
        products = np.square(rest @ rest.T)
        pairs = (products.sum() - np.trace(products)) / 200**2 * left_out._unexplained**2
        assert share_sums._squared(sets.pairs)[k] == pytest.approx(pairs, rel=0.15)
        assert sets.variance[k] == pytest.approx(mean.var(axis=0, ddof=1).sum(), rel=1e-5)
    whole = sets.combined(np.ones((1, 2)))
    np.testing.assert_allclose(voxels.variance, trials.mean(axis=2).var(axis=0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(whole.variance, voxels.variance.sum())
    assert whole.linear[0] == pytest.approx(sets.linear.sum())
    assert whole.shares().share[0] == pytest.approx(
        1 - whole.linear[0] / whole.signal.sum(), abs=0.005
    )


def test_the_error_of_a_difference_is_that_of_two_ratios():
    """By the delta method over blocks; the sets have different shares."""
    x, trials = make(n=320, d=4, v=20, noise=0.3)
    other = make(seed=1, n=320, d=4, v=20, share=0.6, noise=0.3)[1]
    sets = sums_of(x, np.concatenate([trials, other], axis=1), np.arange(40) // 20)[1]
    centre, low, high, p = sets.contrast(np.array([-1, 1]))
    n, blocks = 320, len(sets.block_size)
    linear, signal = sets.linear, sets.signal.sum(axis=0)
    # What each block adds to the ratio of the sums, beyond what its size would
    of_linear = sets.derivative - np.outer(sets.block_size, sets.derivative.sum(axis=0)) / n
    of_signal = sets.signal - np.outer(sets.block_size, signal) / n
    added = of_linear / signal - linear * of_signal / signal**2
    spread = blocks / (blocks - 1) * np.square(added[:, 1] - added[:, 0]).sum()
    pairs = sets.pairs / (signal / n)[:, None, None]
    excess = sets.pair_weight * share_sums._squared(pairs[1:] - pairs[:1]).item()
    half = contrast.quantile(blocks - 1) * np.sqrt(max(spread - excess, spread / 3))
    assert (centre - low, high - centre) == pytest.approx((half, half), rel=1e-6)
    error = half / contrast.quantile(blocks - 1)
    assert p == pytest.approx(2 * stats.t.sf(centre / error, blocks - 1), rel=1e-4)
    share = sets.shares().share
    assert centre == pytest.approx(share[1] - share[0])


def test_voxels_without_signal_or_responses_have_no_share():
    x, trials = make(v=4, noise=0.5)
    trials[:, 1] = np.random.default_rng(0).standard_normal((80, 2))
    trials[:, 2] = 3.0
    trials[5, 3] = np.nan
    found = nonlinear_share(x, trials)
    assert np.isnan(found.share).tolist() == [False, True, True, True]
    assert np.isnan(found.signal).tolist() == [False, False, True, True]


def many(x):
    """More features than there may be."""
    return np.column_stack([np.sin((k + 1) * x) for k in range(20)])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, y: (x, y[:, :, 0], {}), r"y: must be \(N, V, R\)"),
        (lambda x, y: (x[:-1], y, {}), r"X: must be \(80, D\)"),
        (lambda x, y: (x, y[:, :, :1], {}), "y: has no repeats"),
        (lambda x, y: (many(x), y, {}), "too few for .* features, of which there may be 40"),
        (lambda x, y: (x, y, {"groups": [1, 2]}), "groups: must have 80 values, found 2"),
        (lambda x, y: (np.where(x > 1, np.nan, x), y, {}), "X: has NaN"),
        (lambda x, y: (x, y[:, :, 0], {"repeats": np.zeros(80)}), "repeats: gives rows of X that"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(change, sentence):
    x, trials, settings = change(*make())
    with pytest.raises(InputError, match=sentence):
        nonlinear_share(x, trials, **settings)

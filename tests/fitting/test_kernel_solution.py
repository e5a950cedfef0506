"""What `encoder=kernel` is solved for: against himalaya, brute force, and worlds that are known."""

import numpy as np
import pytest
import torch
from helpers import TINY, TINY_COHORT, no_figures, run_quietly
from himalaya.kernel_ridge import KernelRidgeCV
from sklearn.linear_model import LinearRegression, Ridge

from jne import JNERegressor, Results, jacobian_deviation
from jne.analysis.nonlinearity import jne
from jne.analysis.prediction import r2_score
from jne.data.datamodule import StandardisedData
from jne.data.folds import cross_validation
from jne.encoders import KernelRegression
from jne.encoders.ridge import PENALTIES, RidgeCV
from jne.errors import InputError
from jne.estimator.parameters import checked
from jne.fitting import kernel as fitting_kernel
from jne.fitting.fit import fit
from jne.fitting.kernel import check_kernel_memory, solve_kernel
from jne.fitting.readout import LEAST_NONLINEAR
from jne.utils.progress import without_progress

D, V, N_TRAIN, N_VAL, N_TEST = 6, 12, 130, 20, 200
N = N_TRAIN + N_VAL
LINEAR = np.arange(V) < V // 2


@pytest.fixture(scope="module")
def data():
    """Half of the voxels are linear; features that are not standardised alike."""
    rng, n = np.random.default_rng(0), N + N_TEST
    x = rng.standard_normal((n, D))
    signal = x @ rng.standard_normal((D, V)) / np.sqrt(D)
    signal[:, ~LINEAR] += 3 * np.abs(x @ rng.standard_normal((D, V // 2)) / np.sqrt(D))
    y = (signal + rng.standard_normal((n, V))).astype(np.float32)
    parts = np.split(np.arange(n), [N_TRAIN, N])
    rows = dict(zip(("train", "val", "test"), parts, strict=True))
    return StandardisedData(x + 3, y, rows, batch_size=None, seed=0)


@pytest.fixture(scope="module")
def solved(data):
    encoder = KernelRegression(D, V, widths=[1])
    with without_progress():
        return encoder, solve_kernel(encoder, data)


def seen(data):
    pairs = zip(data.split("train"), data.split("val"), strict=True)
    return [torch.cat(pair).double().numpy() for pair in pairs]


def bumps(x, centres, width=1.0):
    distance = np.square(x[:, None] - centres).sum(axis=2)
    pairs = np.square(centres[:, None] - centres).sum(axis=2).mean()
    return np.exp(-distance / (width * pairs))


class Reference:
    """r and k of left out stimuli, and what predicts unseen ones."""

    def __init__(self, data, width=1.0):
        x, y = seen(data)
        self.splits, self.mean = cross_validation(data), y.mean(axis=0)
        self.y, self.x = y - self.mean, x - x.mean(axis=0)
        kernel = bumps(x, x, width)
        self.kernel = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
        at = data.split("test")[0].double().numpy()
        self.at = at - x.mean(axis=0)
        of_test = bumps(at, x, width)
        self.of_test = of_test - kernel.mean(axis=0)

    def grid(self):
        return np.array(PENALTIES) * np.trace(self.kernel) / len(self.kernel)

    def left_out(self, penalty):
        """By the kernel, at penalties (V,)."""
        result = np.empty_like(self.y)
        for train, test in self.splits:
            dual = self.dual(train, self.y[train], penalty)
            result[test] = self.kernel[np.ix_(test, train)] @ dual
        return result

    def dual(self, rows, y, penalty):
        """(n, V). himalaya's own, of several penalties, is right to three digits."""
        kernel = self.kernel[np.ix_(rows, rows)]
        solved = [
            np.linalg.solve(kernel + alpha * np.eye(len(kernel)), y[:, v])
            for v, alpha in enumerate(np.broadcast_to(np.float64(penalty), y.shape[1:]))
        ]
        return np.transpose(solved)

    def ridge_left_out(self):
        """At the best of a fine grid, and those penalties."""
        grid = np.geomspace(1e-3, 1e4, 400)
        every = np.empty((len(grid), *self.y.shape))
        for train, test in self.splits:
            x, y = self.x[train], self.y[train]
            for k, alpha in enumerate(grid):
                weights = np.linalg.solve(x.T @ x + alpha * np.eye(D), x.T @ y)
                every[k, test] = self.x[test] @ weights
        best = np.square(self.y - every).sum(axis=1).argmin(axis=0)
        return every[best, :, np.arange(V)].T, grid[best]


def test_the_penalties_are_himalayas(data, solved):
    reference, (_, readout) = Reference(data), solved
    grid = reference.grid()
    model = KernelRidgeCV(alphas=grid, kernel="precomputed", cv=reference.splits)
    model.fit(reference.kernel, reference.y)
    assert (np.abs(np.log10(readout.penalty / model.best_alphas_)) < 0.34).all()
    error = np.square(reference.y - reference.left_out(readout.penalty)).sum(axis=0)
    nearest = np.square(reference.y - reference.left_out(model.best_alphas_)).sum(axis=0)
    assert (error < nearest * (1 + 1e-4)).all()
    assert not readout.end.any()


def test_the_slope_is_the_best_for_left_out_stimuli(data, solved):
    reference, (_, readout) = Reference(data), solved
    k, (r, _) = reference.left_out(readout.penalty), reference.ridge_left_out()
    slopes = np.linspace(LEAST_NONLINEAR, 1, 400)
    errors = [np.square(reference.y - r - w * (k - r)).mean(axis=0) for w in slopes]
    np.testing.assert_allclose(readout.stack_nonlinear, slopes[np.argmin(errors, 0)], atol=0.02)
    np.testing.assert_allclose(readout.loss, np.min(errors, axis=0).mean(), rtol=1e-3)
    np.testing.assert_array_equal(readout.stack_linear, readout.stack_nonlinear)


def test_it_predicts_as_the_two_regressions_do(data, solved):
    reference, (encoder, readout) = Reference(data), solved
    x, y = (torch.from_numpy(values).float() for values in (reference.x, reference.y))
    penalty = np.float64(RidgeCV(x, reference.splits).choose(y).penalty)
    r = Ridge(penalty, fit_intercept=False).fit(reference.x, reference.y)
    k = reference.of_test @ reference.dual(np.arange(N), reference.y, readout.penalty)
    w, x = readout.stack_nonlinear, data.split("test")[0]
    expected = (1 - w) * r.predict(reference.at) + w * k
    with torch.no_grad():
        found = encoder(x).numpy()
    np.testing.assert_allclose(found, expected + reference.mean, atol=1e-3)


def test_what_is_linear_stays_so_and_what_is_not_is_learned(data, solved):
    encoder, readout = solved
    assert np.median(readout.stack_nonlinear[LINEAR]) < 0.2
    assert (readout.stack_nonlinear[~LINEAR] > 0.8).all()
    x, y = data.split("test")
    with torch.no_grad():
        r2 = r2_score(y.numpy(), encoder(x).numpy())
    linear = LinearRegression().fit(*seen(data)).predict(x)
    gain = r2 - r2_score(y.numpy(), linear)
    assert gain[LINEAR].min() > -0.01
    assert gain[~LINEAR].mean() > 0.15
    value = jne(jacobian_deviation(encoder, x))
    assert value[LINEAR].max() < value[~LINEAR].min()


def test_the_noise_of_the_nonlinear_part_is_that_of_simulated_noise(data, solved):
    reference, (_, readout) = Reference(data), solved
    noise = np.random.default_rng(1).standard_normal((len(reference.y), 4000))
    noise -= noise.mean(axis=0)
    for voxel in (0, V - 1):
        kernel, alpha = reference.kernel, float(readout.penalty[voxel])
        k = kernel @ np.linalg.solve(kernel + alpha * np.eye(N), noise)
        g = readout.stack_nonlinear[voxel] * (
            k - LinearRegression(fit_intercept=False).fit(reference.x, k).predict(reference.x)
        )
        expected = np.square(g).mean()
        np.testing.assert_allclose(readout.nonlinear_noise[voxel], expected, rtol=0.03)


def test_all_voxels_together_choose_the_width(data, monkeypatch):
    losses = {}
    for width in (0.02, 0.7, 0.1):  # far apart: the first split chooses as all of them would
        encoder = KernelRegression(D, V, widths=[width])
        with without_progress():
            losses[width] = solve_kernel(encoder, data).loss
    encoder = KernelRegression(D, V, widths=list(losses))
    with without_progress():
        solved = solve_kernel(encoder, data)
    assert solved.loss == min(losses.values()) == losses[0.7]
    monkeypatch.setattr(fitting_kernel, "_MOST_TO_CHOOSE", 60)  # of 150: every third
    with without_progress():
        assert solve_kernel(KernelRegression(D, V, widths=list(losses)), data).loss == solved.loss
    x = seen(data)[0]
    pairs = np.square(x[:, None] - x).sum(axis=2).mean()
    np.testing.assert_allclose(encoder.falloff.numpy(), 2 / (0.7 * pairs), rtol=1e-5)


def test_blocks_of_voxels_change_nothing(data, solved, monkeypatch):
    monkeypatch.setattr(fitting_kernel, "_VOXELS_AT_ONCE", 5)
    encoder = KernelRegression(D, V, widths=[1])
    with without_progress():
        readout = solve_kernel(encoder, data)
    np.testing.assert_allclose(readout.penalty, solved[1].penalty, rtol=1e-4)
    x = data.split("test")[0]
    with torch.no_grad():
        np.testing.assert_allclose(encoder(x), solved[0](x), atol=5e-4)


def test_kernels_that_do_not_fit_the_memory_are_refused(data, monkeypatch):
    monkeypatch.setattr(fitting_kernel, "memory_bytes", lambda: 1e6)
    with pytest.raises(InputError, match=r"encoder=kernel: needs about 0 GB for 150 stimuli"):
        check_kernel_memory(data, "encoder")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, store):
    tiny = (text for text in TINY if not text.startswith("encoder."))
    arguments = (*TINY_COHORT, *tiny, "encoder=kernel", "baseline=[ridge,kernel]")
    folders = []
    with no_figures():
        for k, more in enumerate(("data.folds=1", "data.folds=2")):
            folder = tmp_path_factory.mktemp(f"kernel_{k}")
            folders += run_quietly(folder, store, "train.py", *arguments, more)
    return [Results(folder) for folder in folders]


@pytest.mark.parametrize("k", [0, 1])
def test_a_run(runs, k):
    run = runs[k]
    voxels = run.voxels
    np.testing.assert_allclose(voxels["r2"], voxels["r2_kernel"], atol=1e-5)
    np.testing.assert_allclose(voxels["readout_penalty"], voxels["kernel_penalty"], rtol=1e-4)
    assert voxels[["jne", "nonlinear_z", "stack_nonlinear"]].notna().all(axis=None)
    for fold, rows in enumerate(run.fold_rows, start=1):
        encoder = run.encoder(fold=fold if run.n_folds > 1 else None)
        assert isinstance(encoder, KernelRegression)
        features = torch.from_numpy(run.array("features")[rows])
        found = jacobian_deviation(encoder, features)
        np.testing.assert_allclose(found, run.array("deviation")[rows], rtol=1e-3)
        predicted = run.array("predictions")[rows]
        with torch.no_grad():  # other units, where folds are standardised each by itself
            r = [np.corrcoef(p)[0, 1] for p in zip(encoder(features).T, predicted.T, strict=True)]
        np.testing.assert_allclose(r, 1, atol=1e-4)


def test_readout_trained_is_refused(data):
    settings = checked(JNERegressor().get_params()).config()
    target = {"_target_": "jne.encoders.KernelRegression"}
    settings = settings.model_copy(update={"encoder": target, "readout": "trained"})
    with pytest.raises(InputError, match="readout=trained: encoder=kernel is solved for"):
        fit(data, settings)

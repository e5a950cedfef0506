"""The usual ways beside this package's, in one run and one table: 10 minutes on two cores.

    python benchmarks/rivals.py

Jacobians: N 1,000 test stimuli, D 768, H 1,024. Of V 1,000 voxels, what most people run, the others
are timed whole, too: a loop over voxels with one backward pass each; vmap(jacrev); and the paper's
order of work, Jacobians in closed form of every stimulus that are all held before their mean is
taken away. They are written from the paper's description, not from its scripts. Of V 20,000, whose
Jacobians would take 61 GB, only the loop is possible: 12 voxels of it are timed, and multiplied.
Ridge regression: five folds, a penalty of its own for each of 20,000 voxels, 4,500 stimuli, 768
features, beside himalaya's and scikit-learn's (which has no folds for penalties of each voxel:
leave-one-out).
Deviations, JNE and R2 are compared with ours. The product of a row is the time that its matrix
products would take at the rate of this machine.
"""

import numpy as np
import torch
from jacobian import (
    D,
    H,
    encoder_and_features,
    held_analytic,
    loop_over_voxels,
    product_rate,
    timed,
    vmap_jacrev,
)
from rich.console import Console
from rich.table import Table

from jne import jacobian_deviation, jne, rms_deviation
from jne.encoders.ridge import RidgeCV

N, V, MANY = 1000, 1000, 20_000
N_TRAIN, N_TARGETS, N_FOLDS = 4500, 20_000, 5


# Jacobians: the deviations (N, V), |J - mean J|_1


def whole_loop() -> torch.Tensor:
    encoder, x = encoder_and_features(N, V)
    x.requires_grad_()
    y = encoder(x)
    deviations = torch.empty(N, V)
    for voxel in range(V):
        (jacobian,) = torch.autograd.grad(y[:, voxel].sum(), x, retain_graph=True)
        deviations[:, voxel] = (jacobian - jacobian.mean(dim=0)).abs().sum(dim=1)
    return deviations


def jacobians(table: Table, rate: float) -> None:
    encoder, x = encoder_and_features(N, V)
    own, deviations = timed(lambda: jacobian_deviation(encoder, x), 3)
    columns, _ = timed(
        lambda: jacobian_deviation(encoder, x, variant=["l1", "l2"], gain_shape=True), 3
    )
    rms, _ = timed(lambda: rms_deviation(encoder, x), 3)
    backward = 2 * N * V * (D * H + 2 * H * H)  # through the hidden layers
    forward = 2 * N * D * H * (2 * H + V)
    ours = 2 * N * D * H * (H + V)  # half of the rows of hidden Jacobians are zero
    for name, function, operations in (
        ("a loop over voxels, one backward pass each", whole_loop, backward),
        ("vmap(jacrev)", vmap_jacrev(N, V), backward),
        ("the paper's order: all, then their mean", held_analytic(N, V), forward),
    ):
        seconds, theirs = timed(function)
        error = np.abs(jne(theirs.numpy()) / jne(deviations) - 1).max()
        note = f"JNE within {error:.0e} of ours; {seconds / own:.1f} times the time"
        table.add_row(name, f"{seconds:.1f}", f"{operations / rate:.1f}", note)
    table.add_row("jne.jacobian_deviation", f"{own:.1f}", f"{ours / rate:.1f}", "")
    table.add_row("with gain, shape and L2 deviations", f"{columns:.1f}", "", "")
    table.add_row("jne.rms_deviation", f"{rms:.1f}", "", "no product for each stimulus")
    table.add_section()


def many_voxels(table: Table, rate: float) -> None:
    encoder, x = encoder_and_features(N, MANY)
    own, _ = timed(lambda: jacobian_deviation(encoder, x))
    rms, _ = timed(lambda: rms_deviation(encoder, x))
    loop = loop_over_voxels(MANY) * MANY  # of a voxel
    backward, ours = 2 * N * MANY * (D * H + 2 * H * H), 2 * N * D * H * (H + MANY)
    table.add_row(
        f"a loop over {MANY:,} voxels",
        f"{loop:.0f}",
        f"{backward / rate:.0f}",
        f"from 11 voxels; {loop / own:.1f} times the time, {loop / rms:.0f} times that of rms",
    )
    table.add_row("jne.jacobian_deviation", f"{own:.0f}", f"{ours / rate:.0f}", "")
    table.add_row("jne.rms_deviation", f"{rms:.0f}", "", "no product for each stimulus")
    table.add_section()


# Ridge regression


def ridge(table: Table, rate: float) -> None:
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV
    from sklearn.linear_model import RidgeCV as SklearnRidgeCV

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N_TRAIN + 500, D, generator=generator)
    signal = x @ torch.randn(D, N_TARGETS, generator=generator) / D**0.5
    size = torch.rand(N_TARGETS, generator=generator)
    noise = torch.randn(signal.shape, generator=generator)
    y = size.sqrt() * signal + (1 - size).sqrt() * noise
    x, y, x_test, y_test = x[:N_TRAIN], y[:N_TRAIN], x[N_TRAIN:], y[N_TRAIN:]
    folds = np.arange(N_TRAIN) % N_FOLDS
    splits = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(N_FOLDS)]
    own, fit = timed(lambda: RidgeCV(x, splits).fit(y))
    scale = float(x.square().sum()) / len(x)
    alphas = scale * np.logspace(-6, 7, 14)

    def r2(predicted: torch.Tensor) -> float:
        of_voxels = 1 - (y_test - predicted).square().sum(dim=0) / (
            y_test - y_test.mean(dim=0)
        ).square().sum(dim=0)
        return float(of_voxels.mean())

    def himalaya() -> torch.Tensor:
        model = HimalayaRidgeCV(
            alphas=alphas, cv=splits, solver_params={"n_targets_batch": 2048, "warn": False}
        )
        model.fit(x.numpy(), y.numpy())
        return torch.as_tensor(model.predict(x_test.numpy()))

    def sklearn() -> torch.Tensor:
        model = SklearnRidgeCV(alphas=alphas, alpha_per_target=True, fit_intercept=False)
        model.fit(x.numpy(), y.numpy())
        return torch.as_tensor(model.predict(x_test.numpy()))

    ours = r2(x_test @ fit.weights)
    for name, function in (
        ("himalaya.ridge.RidgeCV, 14 penalties", himalaya),
        ("sklearn.linear_model.RidgeCV, leave-one-out", sklearn),
    ):
        seconds, predicted = timed(function)
        note = f"mean R² {r2(predicted):.5f}; {seconds / own:.1f} times the time"
        table.add_row(name, f"{seconds:.1f}", "", note)
    # Of a fold: the rotation of the others, and 14 penalties; then the weights of all rows
    per_fold = 2 * D * (N_TRAIN - N_TRAIN // N_FOLDS + 14 * D)
    operations = N_TARGETS * (N_FOLDS * per_fold + 2 * D * N_TRAIN + 2 * D * D)
    note = f"mean R² {ours:.5f}; penalties between those of the grid, too"
    table.add_row("jne's ridge baseline", f"{own:.1f}", f"{operations / rate:.1f}", note)


def main() -> None:
    rate = product_rate(torch.float32)
    table = Table(title=f"{torch.get_num_threads()} threads, {rate / 1e9:.0f} GFLOP/s in float32")
    for name in ("", "s", "its products, s", ""):
        table.add_column(name, justify="right" if name else "left")
    jacobians(table, rate)
    many_voxels(table, rate)
    ridge(table, rate)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

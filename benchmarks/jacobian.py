"""The Jacobian engine beside the machine's matrix-product rate and the ways it replaces.

    python benchmarks/jacobian.py                # the whole table, about 20 minutes on two cores
    python benchmarks/jacobian.py rate growth    # some of its parts

The baselines are written from the paper's description, not from its scripts: a loop over voxels
with one backward pass each; vmap(jacrev); and the analytic Jacobian with the tensor held. Where a
whole run would take hours, a part is timed at the true size and scaled; the table says so.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from jne import ResidualEncoder, jacobian_deviation, jne, jne_ss, rms_deviation, rms_sketch
from jne.jacobian.chain import Chain
from jne.jacobian.product import PRECISIONS

D, H = 768, 1024
PARTS = (
    "accuracy",
    "rate",
    "gain_shape",
    "baselines",
    "growth",
    "memory",
    "brain",
    "rms",
    "spaces",
)
console = Console(width=110)


def encoder_and_features(n: int, v: int) -> tuple[ResidualEncoder, torch.Tensor]:
    """The paper's nonlinear encoder, H = 1024 and no bias, and n standardised stimuli."""
    torch.manual_seed(0)
    return ResidualEncoder(D, v, hidden_width=H, bias=False).eval(), torch.randn(n, D)


def seconds(function, repeats: int = 1) -> float:
    return timed(function, repeats, statistics.median)[0]


def timed(
    function: Callable[[], Any], repeats: int = 1, of: Callable[[list[float]], float] = min
) -> tuple[float, Any]:
    """The fewest seconds of a function, or another summary of them, and what it returns."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return of(times), result


def product_rate(dtype: torch.dtype) -> float:
    """Operations a second of a matrix product of the main stage's shape, blocks of 2048 voxels."""
    rows = torch.randn(2048, H)
    hidden = torch.randn(H, D)
    if dtype == torch.int8:
        a, b = (m.mul(30).clamp(-127, 127).to(dtype) for m in (rows, hidden))
        out = torch.empty(2048, D, dtype=torch.int32)
        run = lambda: torch._int_mm(a, b, out=out)  # noqa: E731
    else:
        a, b = rows.to(dtype), hidden.to(dtype)
        out = torch.empty(2048, D, dtype=dtype)
        run = lambda: torch.mm(a, b, out=out)  # noqa: E731
    seconds(run, 20)
    return 2 * 2048 * H * D / seconds(lambda: [run() for _ in range(50)], 5) * 50


# --- parts of the table -------------------------------------------------------------------------


def accuracy(table: Table) -> None:
    """Against float64 autograd Jacobians of every stimulus, on a small net."""
    torch.manual_seed(0)
    encoder = ResidualEncoder(40, 60, hidden_width=48, activation="gelu").double()
    x = torch.randn(50, 40, dtype=torch.double)
    rows = [torch.autograd.functional.jacobian(lambda z: encoder(z[None])[0], row) for row in x]
    jacobians = torch.stack(rows).detach()
    truth = (jacobians - jacobians.mean(dim=0)).abs().sum(dim=2).numpy()
    spread = (truth - truth.mean(axis=0)) ** 2
    s = jacobian_deviation(encoder, x)
    errors = {
        "deviation": np.abs(s / truth - 1).max(),
        "JNE": np.abs(jne(s) / np.sqrt(spread.mean(axis=0)) - 1).max(),
        "JNE-SS, of its largest": np.abs(jne_ss(s) - spread).max() / spread.max(),
    }
    for name, error in errors.items():
        table.add_row(f"{name} against autograd, float64", f"relative error {error:.1e}")


def rate(table: Table) -> None:
    """N 1000, V 20,000: the share of the matrix-product rate, and the fast precisions."""
    n, v = 1000, 20_000
    encoder, x = encoder_and_features(n, v)
    rates = {
        "float32": product_rate(torch.float32),
        "bfloat16": product_rate(torch.bfloat16),
        "int8": product_rate(torch.int8),
    }
    for name, value in rates.items():
        table.add_row(f"matrix product, {name}", f"{value / 1e9:.0f} GFLOP/s")
    operations = 2 * n * v * H * D
    with torch.no_grad():
        hidden = seconds(Chain(encoder.residual_chain()[0], x).mean_hidden_jacobian) * 2
    deviations, times = {}, {}
    for precision in PRECISIONS:
        start = time.perf_counter()
        deviations[precision] = jacobian_deviation(encoder, x, precision=precision)
        times[precision] = time.perf_counter() - start
        ideal = operations / rates[precision]
        main = times[precision] - hidden
        table.add_row(
            f"N {n}, V {v:,}, {precision}",
            f"{times[precision]:.1f} s; share of its product rate: main stage "
            f"{100 * ideal / main:.0f} %, whole {100 * ideal / times[precision]:.0f} %",
        )
    exact = jne(deviations["float32"])
    for precision in PRECISIONS[1:]:
        fast = jne(deviations[precision])
        r = np.corrcoef(fast, exact)[0, 1]
        table.add_row(
            f"{precision} against float32",
            f"{times['float32'] / times[precision]:.2f} times as fast; JNE off by at most "
            f"{100 * np.abs(fast / exact - 1).max():.2f} %, map r {r:.6f}",
        )


def gain_shape(table: Table) -> None:
    """With gain and shape beside the deviations; CPU seconds, in turns, the fastest of three.

    In 1 GB, and in little more than the least that is possible.
    """
    n, v = 60, 20_000
    encoder, x = encoder_and_features(n, v)
    for precision, budget in (*((p, 1.0) for p in PRECISIONS), ("float32", 0.08)):
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(3):
            for both, taken in times.items():
                start = time.process_time()
                jacobian_deviation(
                    encoder,
                    x,
                    variant=["l1"],
                    gain_shape=both,
                    precision=precision,
                    max_memory_gb=budget,
                )
                taken.append(time.process_time() - start)
        table.add_row(
            f"gain and shape, N {n}, V {v:,}, {precision}, {budget} GB",
            f"{min(times[True]) / min(times[False]):.2f} times the time",
        )


def spaces(table: Table) -> None:
    """Two and ten feature spaces beside one; CPU seconds, in turns, the fastest of three."""
    n, v = 60, 20_000
    encoder, x = encoder_and_features(n, v)
    cuts = {1: [0, D], 2: [0, 500, D], 10: [*range(0, 700, 70), D]}
    given = {
        k: {str(j): slice(*ends) for j, ends in enumerate(itertools.pairwise(at))}
        if k > 1
        else None
        for k, at in cuts.items()
    }
    for gain_shape in (False, True):
        times: dict[int, list[float]] = {k: [] for k in given}
        for _ in range(3):
            for k, taken in times.items():
                start = time.process_time()
                jacobian_deviation(
                    encoder, x, variant=["l1"], gain_shape=gain_shape, spaces=given[k]
                )
                taken.append(time.process_time() - start)
        fastest = {k: min(taken) / min(times[1]) for k, taken in times.items()}
        what = "with gain and shape" if gain_shape else "l1"
        table.add_row(
            f"spaces, N {n}, V {v:,}, {what}",
            f"2 spaces {fastest[2]:.3f}, 10 spaces {fastest[10]:.3f} times the time of one",
        )
    rms_of = {k: seconds(lambda s=s: rms_deviation(encoder, x, spaces=s)) for k, s in given.items()}
    table.add_row("rms deviation", f"2 spaces {rms_of[2] / rms_of[1]:.3f} times the time of one")


def loop_over_voxels(v: int, timed: int = 12) -> float:
    """Seconds a voxel of one backward pass each into the held tensor, at the true V."""
    encoder, x = encoder_and_features(1000, v)
    x.requires_grad_()
    y = encoder(x)
    jacobians = torch.empty(timed, 1000, D)

    def backward(voxel: int) -> None:
        (jacobians[voxel],) = torch.autograd.grad(y[:, voxel].sum(), x, retain_graph=True)

    backward(0)
    return statistics.median(seconds(lambda k=k: backward(k)) for k in range(1, timed))


def vmap_jacrev(n: int, v: int) -> Callable[[], torch.Tensor]:
    encoder, x = encoder_and_features(n, v)

    def deviations() -> torch.Tensor:
        jacobian = torch.func.jacrev(lambda row: encoder(row[None])[0])
        with torch.no_grad():
            jacobians = torch.func.vmap(jacobian, chunk_size=4)(x)
            return jacobians.sub_(jacobians.mean(dim=0)).abs_().sum(dim=2)

    return deviations


def held_analytic(n: int, v: int) -> Callable[[], torch.Tensor]:
    """J = W_out (I + D3 W3) (I + D2 W2) D1 W1 of every stimulus, held whole."""
    encoder, x = encoder_and_features(n, v)
    w1, w2, w3 = (layer.weight.detach() for layer in encoder.hidden)

    def deviations() -> torch.Tensor:
        with torch.no_grad():
            a1 = x @ w1.T
            h1 = a1.relu()
            a2 = h1 @ w2.T
            h2 = a2.relu() + h1
            a3 = h2 @ w3.T
            jacobians = torch.empty(n, v, D)
            for i in range(n):
                g = (a1[i] > 0)[:, None] * w1
                g = g + (a2[i] > 0)[:, None] * (w2 @ g)
                g = g + (a3[i] > 0)[:, None] * (w3 @ g)
                torch.mm(encoder.readout.weight, g, out=jacobians[i])
            jacobians -= jacobians.mean(dim=0)
            return jacobians.abs_().sum(dim=2)

    return deviations


def ours(n: int, v: int, precision: str = "float32") -> float:
    encoder, x = encoder_and_features(n, v)
    return seconds(lambda: jacobian_deviation(encoder, x, precision=precision))


def baselines(table: Table) -> None:
    for v, n in ((20_000, 200), (100_000, 40)):
        loop = loop_over_voxels(v) * v
        fast = {precision: ours(n, v, precision) * 1000 / n for precision in PRECISIONS}
        gains = ", ".join(f"{p} {loop / s:.0f} times" for p, s in fast.items())
        table.add_row(
            f"loop over voxels, N 1000, V {v:,}",
            f"{loop / 3600:.2f} h, from 11 voxels at the true V; ours (from N {n}) faster: {gains}",
        )
    n, v = 100, 5_000  # 1.5 GB held, and as much again inside: a tenth of N, to stay in minutes
    theirs, own = seconds(vmap_jacrev(n, v)), ours(n, v)
    table.add_row(
        f"vmap(jacrev), N {n}, V {v:,}",
        f"{theirs:.1f} s; ours {own:.1f} s, {theirs / own:.1f} times",
    )
    n, v = 1000, 6_500  # 20 GB held: the largest that 24 GB take
    theirs, own = seconds(held_analytic(n, v)), ours(n, v)
    table.add_row(
        f"analytic, tensor held, N {n}, V {v:,}",
        f"{theirs:.1f} s, {n * v * D * 4 / 1e9:.1f} GB tensor; ours {own:.1f} s, "
        f"{theirs / own:.2f} times",
    )


def growth(table: Table) -> None:
    sizes = [(250, v) for v in (5_000, 10_000, 20_000, 40_000)]
    sizes += [(n, 10_000) for n in (500, 1000)]
    for n, v in sizes:
        taken = ours(n, v)
        table.add_row(f"growth, N {n}, V {v:,}", f"{1e6 * taken / n / v:.2f} µs a sample and voxel")


def memory(table: Table) -> None:
    """Each in a process of its own. Half: of the voxels are chosen, whose readout is copied."""
    for v, n, precision, budget, options in (
        (400, 1000, "float32", 1.0, ""),
        (400, 1000, "float32", 1.0, "gain_shape"),
        (6_500, 100, "float32", 1.0, ""),
        (20_000, 100, "float32", 1.0, ""),
        (20_000, 4, "float32", 1.0, "gain_shape streamed"),
        (226_000, 4, "float32", 1.0, ""),
        (226_000, 4, "bfloat16", 1.0, ""),
        (226_000, 4, "int8", 1.0, ""),
        (226_000, 4, "float32", 1.0, "gain_shape"),
        (226_000, 4, "float32", 1.0, "gain_shape linear_path half"),
        (226_000, 4, "float32", 0.2, "gain_shape linear_path"),
        (226_000, 4, "bfloat16", 1.0, "gain_shape"),
        (226_000, 4, "int8", 1.0, "gain_shape"),
    ):
        words = [str(n), str(v), precision, str(budget), options]
        command = [sys.executable, __file__, "--extra", *words]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        table.add_row(
            f"N {n}, V {v:,}, {precision} {options}", f"{float(output):.2f} GB of {budget}"
        )


def extra_memory(n: int, v: int, precision: str, budget: float, options: list[str]) -> float:
    """GB of peak memory over inputs, weights and result (Linux)."""
    torch.manual_seed(0)
    path = "linear_path" in options
    encoder = ResidualEncoder(D, v, hidden_width=H, bias=False, linear_path=path).eval()
    both = {"gain_shape": "gain_shape" in options, "precision": precision}
    small, x = encoder_and_features(n, 300)  # first: the libraries' own threads and buffers
    jacobian_deviation(small, x[:2], variant=["l1"], order="centred", **both)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is used now
    before = used("VmRSS")
    result = jacobian_deviation(
        encoder,
        x,
        variant=["l1", "zscore_l1"] if "streamed" in options else ["l1"],
        voxels=np.arange(0, v, 2) if "half" in options else None,
        max_memory_gb=budget,
        **both,
    )
    return (used("VmHWM") - before - sum(array.nbytes for array in result.values())) / 1e9


def used(what: str) -> int:
    """Bytes, as the line `what` of /proc/self/status says."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


def brain(table: Table) -> None:
    for precision in PRECISIONS:
        taken = ours(20, 226_000, precision)
        table.add_row(
            f"whole brain, V 226,000, {precision}",
            f"{taken:.1f} s for N 20; {taken * 50 / 60:.1f} min for N 1000",
        )


def rms(table: Table) -> None:
    """The map of the whole brain, and what it is beside its operations and the exact deviations."""
    encoder, x = encoder_and_features(1000, 226_000)
    taken = seconds(lambda: rms_deviation(encoder, x))
    hidden, _ = encoder.residual_chain()
    chain = Chain(hidden, x)
    operations = 1000 * (chain.forward_operations(D) + 2 * H * H * D) + 2 * 226_000 * H * H
    rate = product_rate(torch.float32)
    table.add_row(
        "rms deviation, V 226,000, N 1,000",
        f"{taken:.0f} s; its {operations / 1e12:.1f} TFLOP at the product's rate "
        f"({rate / 1e9:.0f} GFLOP/s) {operations / rate:.0f} s",
    )
    encoder, x = encoder_and_features(60, 20_000)
    whole, exact = (seconds(lambda f=f: f(encoder, x)) for f in (rms_deviation, jacobian_deviation))
    table.add_row("V 20,000, N 60", f"{whole:.2f} s; exact L1 deviations {exact:.2f} s")
    no_chain = torch.nn.Sequential(torch.nn.Linear(D, H), torch.nn.GELU(), torch.nn.Linear(H, 5000))
    x = torch.randn(30, D)
    exact, truth = timed(lambda: rms_deviation(no_chain, x))
    taken, sketch = timed(lambda: rms_sketch(no_chain, x))
    off = np.abs(sketch.rms / truth - 1)
    table.add_row(
        "no chain, V 5,000, N 30",
        f"exact {exact:.2f} s; 64 directions {taken:.2f} s, off by {100 * off.mean():.1f} % on "
        f"average; errors {100 * (sketch.error / truth).mean():.1f} %; "
        f"r {np.corrcoef(sketch.rms, truth)[0, 1]:.3f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=" ".join(PARTS))
    parser.add_argument("--extra", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.extra:
        n, v, precision, budget, options = arguments.extra
        print(extra_memory(int(n), int(v), precision, float(budget), options.split()))
        return
    unknown = set(arguments.parts).difference(PARTS)
    if unknown:
        parser.error(f"unknown part {unknown.pop()}; choose from {' '.join(PARTS)}")
    for part in arguments.parts:
        table = Table(title=part, title_justify="left", show_header=False)
        globals()[part](table)
        console.print(table)


if __name__ == "__main__":
    main()

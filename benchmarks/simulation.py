"""The placement grid against the same grid by autograd, a few draws of each in one process.

    python benchmarks/simulation.py

There are two baselines: torch.autograd.functional.jacobian, with one backward pass per stimulus;
and one backward pass of the sum over all stimuli, which suffices because there is one output.
"""

import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from jne.cli import register_resolvers
from jne.simulation.config import check_config
from jne.simulation.networks import derived_seed, draw_cells
from jne.simulation.placement_grid import PlacementGrid

DRAWS = 6
PER_STIMULUS, OF_SUM = "one pass per stimulus", "one pass of the sum"


def deviation(jacobians: torch.Tensor) -> torch.Tensor:
    return (jacobians - jacobians.mean(dim=0)).abs().sum(dim=1)


def by_autograd(study: PlacementGrid, draw: int, batched: bool, share: int = 1) -> float:
    """Seconds per draw, scaled up from every `share`-th stimulus where each has its own pass."""
    network = study.networks[0]
    generator = torch.Generator().manual_seed(derived_seed(study.seed, draw, 0))
    x = study.inputs.draw(study.n_stimuli, study.n_features, generator)
    weights = network.draw(study.n_features, derived_seed(study.seed, draw, 1))
    start = time.perf_counter()
    for activation in study.activations:
        for placement in study.placements:
            encoder = weights.with_activation(activation, placement)
            if batched:
                rows = x.clone().requires_grad_()
                (jacobians,) = torch.autograd.grad(encoder(rows).sum(), rows)
            else:
                jacobians = torch.stack(
                    [
                        torch.autograd.functional.jacobian(lambda z, e=encoder: e(z[None])[0, 0], r)
                        for r in x[::share]
                    ]
                )
            deviation(jacobians).std(unbiased=False)
    return (time.perf_counter() - start) * share


def main() -> None:
    register_resolvers()
    conf = Path(__file__).parents[1] / "conf"
    with initialize_config_dir(str(conf), version_base="1.3"):
        composed = compose("simulate", overrides=["tracking.uri=unused://"])
    study = check_config(composed)[1]["placement_grid"]
    times: dict[str, list[float]] = {name: [] for name in ("ours", PER_STIMULUS, OF_SUM)}
    for draw in range(DRAWS + 1):
        start = time.perf_counter()
        draw_cells(
            study.networks[0],
            study.inputs,
            study.activations,
            study.placements,
            n_features=study.n_features,
            n_stimuli=study.n_stimuli,
            seed=study.seed,
            draw=draw,
        )
        times["ours"].append(time.perf_counter() - start)
        times[OF_SUM].append(by_autograd(study, draw, batched=True))
        times[PER_STIMULUS].append(by_autograd(study, draw, batched=False, share=10))
    medians = {name: sorted(values[1:])[DRAWS // 2] for name, values in times.items()}
    for name, median in medians.items():
        print(
            f"{name:<21} {median:7.3f} s per draw of {len(study.activations)} x "
            f"{len(study.placements)} cells, {median / medians['ours']:6.2f} times ours"
        )


if __name__ == "__main__":
    main()

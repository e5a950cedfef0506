"""The placement grid beside the same grid by autograd, a few draws of each in the same run.

    python benchmarks/simulation.py

Two baselines: a Jacobian a stimulus by torch.autograd.functional.jacobian, one backward pass each;
and, as there is one output, a single backward pass of the sum over all stimuli.
"""

import time

import torch
from hydra import compose, initialize_config_dir
from training_overhead import CONF

from jne import cli  # noqa: F401  (registers the config's resolver)
from jne.simulation.config import check_config
from jne.simulation.studies import PlacementGrid, _seed, draw_cells

DRAWS = 6


def deviation(jacobians: torch.Tensor) -> torch.Tensor:
    return (jacobians - jacobians.mean(dim=0)).abs().sum(dim=1)


def by_autograd(study: PlacementGrid, draw: int, batched: bool, share: int = 1) -> float:
    """Seconds of a draw; of every `share`-th stimulus, scaled, where each has its own pass."""
    network = study.networks[0]
    generator = torch.Generator().manual_seed(_seed(study.seed, draw, 0))
    x = study.inputs.draw(study.n_stimuli, study.n_features, generator)
    weights = network.draw(study.n_features, _seed(study.seed, draw, 1))
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
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("simulate", overrides=["tracking.uri=unused://"])
    study = check_config(composed)[1]["placement_grid"]
    times = {"ours": [], "one pass a stimulus": [], "one pass of the sum": []}
    for draw in range(DRAWS + 1):
        start = time.perf_counter()
        draw_cells(
            study.networks[0], study.inputs, study, draw, study.activations, study.placements
        )
        times["ours"].append(time.perf_counter() - start)
        times["one pass of the sum"].append(by_autograd(study, draw, batched=True))
        times["one pass a stimulus"].append(by_autograd(study, draw, batched=False, share=10))
    medians = {name: sorted(values[1:])[DRAWS // 2] for name, values in times.items()}
    for name, median in medians.items():
        print(
            f"{name:<20} {median:7.3f} s a draw of {len(study.activations)} x "
            f"{len(study.placements)} cells, {median / medians['ours']:6.2f} times ours"
        )


if __name__ == "__main__":
    main()

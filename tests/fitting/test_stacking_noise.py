"""How much of the nonlinear part of a stacked readout is noise: formula against pure noise."""

import numpy as np
import torch

from jne.encoders.ridge import RidgeSolver
from jne.fitting.stacking import Parts


def test_predictions_of_noise():
    rng = np.random.default_rng(0)
    x, at = (torch.from_numpy(rng.standard_normal((n, 12))) for n in (60, 30))
    noise = torch.from_numpy(rng.standard_normal((60, 4000)))
    solver = RidgeSolver(x)
    for penalty in (0.1, 30.0, 1e4):
        weights = solver.weights(noise, torch.full((4000,), penalty))
        expected = (at @ weights).square().mean()
        found = solver.noise(at)(torch.tensor([penalty], dtype=torch.float64))
        np.testing.assert_allclose(found, expected, rtol=0.02)


def test_the_nonlinear_part_of_noise():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((80, 5))).float()
    h = (x @ torch.from_numpy(rng.standard_normal((5, 20))).float()).relu()
    parts, noise = Parts(h, x), torch.from_numpy(rng.standard_normal((80, 4000))).float()
    for penalty in (1.0, 300.0):
        maps = parts.solve(noise, torch.full((4000,), penalty))
        g = (h - h.mean(dim=0)) @ maps.readout - (x - x.mean(dim=0)) @ maps.vanishing
        expected = g.square().mean()
        np.testing.assert_allclose(parts.noise(torch.tensor([penalty])), expected, rtol=0.03)

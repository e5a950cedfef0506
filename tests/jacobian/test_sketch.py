"""rms_deviation from random directions, against brute force."""

import numpy as np
import pytest
import torch
from brute_force import all_variants
from torch import nn

from jne import ResidualEncoder, rms_deviation, rms_sketch
from jne.errors import InputError

D = 12


def draw(n=14):
    return torch.randn(n, D, dtype=torch.double, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 9), nn.Tanh(), nn.Linear(9, 40)).double()


def exact(module, x):
    return np.sqrt(np.square(all_variants(module, x)["l2"]).mean(axis=0))


def test_estimates_are_within_their_errors(module):
    """Of 40 outputs and 20 seeds: the mean square is unbiased, errors are those that there are."""
    x, truth = draw(), exact(module, draw())
    sketches = [rms_sketch(module, x, 100, seed=seed) for seed in range(20)]
    squares = np.square([sketch.rms for sketch in sketches])
    np.testing.assert_allclose(squares.mean(), np.square(truth).mean(), rtol=0.02)
    z = np.array([(sketch.rms - truth) / sketch.error for sketch in sketches])
    assert 0.8 < np.sqrt(np.square(z).mean()) < 1.25
    many = rms_sketch(module, x, 4000)
    np.testing.assert_allclose(many.rms, truth, rtol=0.05)
    assert (many.error < truth / np.sqrt(2 * 4000) * 1.1).all()


def test_directions_of_one_feature_are_exact():
    """With a single feature there is nothing to draw."""
    module = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 5)).double()
    x = draw()[:, :1]
    sketch = rms_sketch(module, x, 3)
    np.testing.assert_allclose(sketch.rms, exact(module, x), rtol=1e-9)
    np.testing.assert_allclose(sketch.error, 0, atol=1e-12)


def test_blocks_of_stimuli_are_all_at_once(module):
    whole, shares = rms_sketch(module, draw(), 5), []
    blocks = rms_sketch(module, draw(), 5, max_memory_gb=1e-6, progress=shares.append)
    np.testing.assert_allclose(blocks.rms, whole.rms, rtol=1e-9)
    assert shares == [0.2, 0.4, 0.6, 0.8, 1]


def test_with_a_chain_it_is_exact():
    encoder, x = ResidualEncoder(D, 5, hidden_width=8), draw().float()
    sketch = rms_sketch(encoder, x)
    np.testing.assert_array_equal(sketch.rms, rms_deviation(encoder, x))
    assert not sketch.error.any()


def test_equal_jacobians_deviate_by_0():
    linear = nn.Sequential(nn.Linear(D, 4), nn.Identity(), nn.Linear(4, 3))
    assert not any(values.any() for values in rms_sketch(linear, draw().float(), 2))


def test_what_is_refused(module):
    with pytest.raises(InputError, match="n_directions=1: must be 2 or more"):
        rms_sketch(module, draw(), 1)

    class OnlyBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2

    class Doubled(nn.Module):
        def forward(self, x):
            return OnlyBackward.apply(x)

    with pytest.raises(InputError, match="no forward mode"):
        rms_sketch(Doubled(), draw())

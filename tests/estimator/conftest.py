"""Arrays to fit."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def arrays():
    """Features (90, 6) far from standardised; responses (90, 3): linear, nonlinear, constant."""
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (90, 6)).astype(np.float32)
    z = (x - 5) / 3
    y = np.stack([z @ rng.normal(size=6), np.abs(z[:, 0]) + z[:, 1] ** 2, np.ones(90)], axis=1)
    return x, (40 + 7 * y).astype(np.float32)

"""Numbers that docs/encoders.md gives, of the readout and of training on components."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jne.fitting import readout
from jne.fitting.components import train_on_components


def test_a_tenth_of_the_variance_is_the_hidden_layers():
    torch.manual_seed(0)
    hidden, features = torch.randn(40, 7) * torch.rand(7) + 3, 5 * torch.randn(40, 11) - 2
    scaled = readout.hidden_scale(hidden, features) * hidden
    variances = [values.numpy().var(axis=0).sum() for values in (scaled, features)]
    assert variances[0] / sum(variances) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize(
    ("n_train", "n_outputs", "chosen"),
    [(100, 9_999, False), (100, 10_000, True), (2_500, 10_000, True), (2_501, 10_003, False),
     (3_000, 12_000, True)],
)  # fmt: skip
def test_many_voxels_are_ten_thousand_and_four_per_stimulus(n_train, n_outputs, chosen):
    data = SimpleNamespace(rows={"train": np.arange(n_train)}, n_outputs=n_outputs)
    assert train_on_components("auto", "ridge", data, followed=False) == chosen
    assert not train_on_components("auto", "ridge", data, followed=True)
    assert not train_on_components("auto", "trained", data, followed=False)
    assert train_on_components("components", "trained", data, followed=False)
    assert not train_on_components("voxels", "ridge", data, followed=False)

"""JNE of modules that autograd does not like: in place, in inference mode, without a derivative."""

import numpy as np
import pytest
import torch
from brute_force import brute_force, deviations
from torch import nn
from torch.utils.checkpoint import checkpoint

from jne import measure
from jne.errors import InputError

N = 7
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # of jacrev


class InPlace(nn.Module):
    """tanh(W 2x), its first operation in place on what it is given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return torch.tanh(self.layer(x.mul_(2)))


class OutOfPlace(InPlace):
    def forward(self, x):
        return torch.tanh(self.layer(2 * x))


def in_mode(mode, function, *arguments):
    with {"grad": torch.enable_grad, "none": torch.no_grad, "inference": torch.inference_mode}[
        mode
    ]():
        return function(*arguments)


@pytest.mark.parametrize("mode", ["grad", "none", "inference"])
@pytest.mark.parametrize("kind", [InPlace, lambda: nn.Sequential(nn.ReLU(inplace=True), net())])
def test_a_module_whose_first_operation_is_in_place(mode, kind):
    torch.manual_seed(0)
    module = kind().double()
    x = torch.randn(N, 5, dtype=torch.double)
    before = x.clone()
    found = in_mode(mode, measure, module, x)
    assert torch.equal(x, before)
    if kind is InPlace:
        other = OutOfPlace().double()
        other.load_state_dict(module.state_dict())
    else:
        other = nn.Sequential(nn.ReLU(), module[1])
    np.testing.assert_allclose(found.deviation, brute_force(other, x), rtol=1e-9)


def net():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


@pytest.mark.parametrize("mode", ["grad", "inference"])
def test_a_module_that_was_made_in_inference_mode(mode):
    """Its weights have no derivative: a copy of it has one."""
    torch.manual_seed(0)
    module = in_mode("inference", lambda: net().double())
    x = torch.randn(N, 5, dtype=torch.double)
    other = net().double()
    other.load_state_dict(module.state_dict())
    found = in_mode(mode, measure, module, x)
    np.testing.assert_allclose(found.deviation, brute_force(other, x), rtol=1e-9)
    assert module[0].weight.is_inference()


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.net, self.reentrant = net().double(), reentrant

    def forward(self, x):
        return checkpoint(self.net, x, use_reentrant=self.reentrant)


class Detached(nn.Module):
    """Its responses have a derivative, but not by its features."""

    def forward(self, x):
        with torch.enable_grad():
            return x.detach().requires_grad_().square()


class FailsLater(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(5, 3), 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 6:
            raise KeyError("gone")
        return torch.tanh(self.layer(x))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_whatever_a_foreign_module_raises_is_one_sentence():
    x = torch.randn(N, 5, dtype=torch.double)
    module = Checkpointed(False)
    np.testing.assert_allclose(measure(module, x).deviation, brute_force(module.net, x), rtol=1e-9)
    with pytest.raises(InputError, match=r"^module: cannot be differentiated: .*use_reentrant"):
        measure(Checkpointed(True), x)
    with pytest.raises(InputError, match=r"^module: its responses cannot be differentiated by"):
        measure(Detached(), x)
    with pytest.raises(InputError, match=r"^module: cannot be differentiated: 'gone'"):
        measure(FailsLater(), x)


@pytest.mark.parametrize(("beside", "accepted"), [(1e-5, True), (0.1, False)])
@pytest.mark.parametrize("output", [0, 2])
def test_one_response_that_depends_on_other_stimuli_is_enough_to_refuse_a_module(
    output, beside, accepted
):
    """Rounding is none: a sum over stimuli may be computed in another order."""

    class Beside(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            y[:, output] = y[:, output] + beside * y[:, output].sum()
            return y

    torch.manual_seed(0)
    module, x = nn.Sequential(Beside(4, 3), nn.Tanh()).double(), torch.randn(8, 4)
    if accepted:
        assert np.isfinite(measure(module, x.double()).jne).all()
    else:
        with pytest.raises(InputError, match="same responses whatever stimuli are beside"):
            measure(module, x.double())


class Cube(torch.autograd.Function):
    """z^3 of an author who has written no forward mode."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z**3

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3 * ctx.saved_tensors[0] ** 2


def test_a_module_without_forward_mode_that_has_more_responses_than_features():
    torch.manual_seed(0)

    class Cubed(nn.Linear):
        def forward(self, x):
            return Cube.apply(super().forward(x))

    module, x = Cubed(3, 8).double(), torch.randn(N, 3, dtype=torch.double)
    z, weight = module.weight.detach() @ x.T + module.bias.detach()[:, None], module.weight.detach()
    jacobians = 3 * z.T[:, :, None] ** 2 * weight
    np.testing.assert_allclose(measure(module, x).deviation, deviations(jacobians.numpy()))

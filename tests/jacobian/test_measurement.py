"""JNE of encoders that are not ours, against closed forms and Jacobians by torch.func.jacrev.

N stimuli, D features, V responses.
"""

import numpy as np
import pytest
import torch
from brute_force import brute_force, deviations
from himalaya.kernel_ridge import KernelRidge
from torch import nn

from jne import ResidualEncoder, jne, jne_ss, mean_deviation, measure

N = 7
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # of jacrev


class OfHimalaya(nn.Module):
    """A fitted KernelRidge with the kernel exp(-gamma |x - x'|^2): no weights, only buffers."""

    def __init__(self, fitted):
        super().__init__()
        self.gamma = fitted.kernel_params["gamma"]
        self.register_buffer("x", torch.as_tensor(fitted.X_fit_))
        self.register_buffer("dual", torch.as_tensor(fitted.dual_coef_))

    def forward(self, features):
        squares = (features[:, None] - self.x).square().sum(dim=2)
        return torch.exp(-self.gamma * squares) @ self.dual


@pytest.mark.parametrize("n_voxels", [2, 9])  # reverse and forward mode
def test_a_kernel_ridge_of_himalaya(n_voxels):
    rng = np.random.default_rng(0)
    x, y, tested = (
        rng.normal(size=(30, 4)),
        rng.normal(size=(30, n_voxels)),
        rng.normal(size=(N, 4)),
    )
    fitted = KernelRidge(kernel="rbf", alpha=0.5, kernel_params={"gamma": 0.2}).fit(x, y)
    module = OfHimalaya(fitted)
    np.testing.assert_allclose(module(torch.from_numpy(tested)), fitted.predict(tested), rtol=1e-9)

    found = measure(module, tested)
    difference = tested[:, None] - x  # (N, n, D)
    kernel = np.exp(-0.2 * np.square(difference).sum(axis=2))
    jacobians = np.einsum("in,nv,ind->ivd", kernel, fitted.dual_coef_, -0.4 * difference)
    np.testing.assert_allclose(found.deviation, deviations(jacobians), rtol=1e-10)
    np.testing.assert_array_equal(found.jne, jne(found.deviation))
    np.testing.assert_array_equal(found.mean_deviation, mean_deviation(found.deviation))
    np.testing.assert_array_equal(found.jne_ss, jne_ss(found.deviation))


class TransformerReadout(nn.Module):
    """Responses from the tokens of a stimulus, (n, 5, 8), by self-attention."""

    def __init__(self, n_voxels):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.readout = nn.Linear(8, n_voxels)

    def forward(self, tokens):
        return self.readout(self.encoder(tokens).mean(dim=1))


@pytest.mark.parametrize(("n_voxels", "order"), [(3, "reverse"), (100, "streamed")])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_transformer_on_tokens(n_voxels, order, frozen, caplog):
    """Attention in reverse and in forward mode."""
    caplog.set_level("INFO", "jne")
    torch.manual_seed(0)
    module = TransformerReadout(n_voxels).double().requires_grad_(not frozen)
    x = torch.randn(N, 5, 8, dtype=torch.double)
    found = measure(module, x)
    assert f"{order} order" in caplog.text
    assert all(part.training for part in module.modules())
    assert all(p.requires_grad is not frozen for p in module.parameters())
    assert torch.backends.mha.get_fastpath_enabled()
    np.testing.assert_allclose(found.deviation, brute_force(module.eval(), x), rtol=1e-9)
    chosen = np.array([2, 0])
    some = measure(module, x, voxels=chosen)
    np.testing.assert_allclose(some.deviation, found.deviation[:, chosen], rtol=1e-9)


def test_a_readout_of_neuralpredictors():
    """A core with batch normalisation, and a readout that clips its own weights in place."""
    readouts = pytest.importorskip("neuralpredictors.layers.readouts")
    torch.manual_seed(0)
    core = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ELU())
    mean_activity = torch.zeros(10)
    readout = readouts.FullGaussian2d((4, 6, 6), 10, True, mean_activity=mean_activity)
    module = nn.Sequential(core, readout).double()
    x = torch.randn(N, 2, 6, 6, dtype=torch.double)
    found = measure(module, x)
    module.eval()
    # torch.func refuses what changes weights in place
    rows = [torch.autograd.functional.jacobian(module, row[None])[0] for row in x]  # (V, 1, ...)
    truth = deviations(torch.stack(rows).flatten(start_dim=2).numpy())
    np.testing.assert_allclose(found.deviation, truth, rtol=1e-9)


def test_an_encoder_of_the_mosaic_dataset():
    architectures = pytest.importorskip("mosaic.models.architectures")
    readouts = pytest.importorskip("mosaic.models.readout")
    torch.manual_seed(0)
    core = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.BatchNorm2d(5), nn.GELU())
    readout = readouts.SpatialXFeatureLinear((5, 7, 7), 12, bias=True, init_noise=0.1)
    module = architectures.Encoder(core, readout).double()
    x = torch.randn(N, 3, 15, 15, dtype=torch.double)
    found = measure(module, x)
    np.testing.assert_allclose(found.deviation, brute_force(module.eval(), x), rtol=1e-9)


def test_a_vision_transformer_of_timm():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    settings = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    module = timm.create_model("vit_tiny_patch16_224", num_classes=5, **settings).double()
    x = torch.randn(4, 3, 16, 16, dtype=torch.double)
    found = measure(module, x)
    np.testing.assert_allclose(found.deviation, brute_force(module.eval(), x), rtol=1e-9)


@pytest.mark.parametrize("n_voxels", [6, 70])
def test_blocks_of_voxels_stimuli_and_features_give_the_same(n_voxels):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(20, 9), nn.Tanh(), nn.Linear(9, n_voxels)).double()
    x = torch.randn(50, 20, dtype=torch.double)
    whole = measure(module, x).deviation
    with pytest.raises(ValueError, match="needs at least") as refused:
        measure(module, x, max_memory_gb=1e-6)
    smallest = float(str(refused.value).split()[-1])
    np.testing.assert_allclose(
        measure(module, x, max_memory_gb=smallest).deviation, whole, rtol=1e-12
    )
    np.testing.assert_allclose(whole, brute_force(module, x), rtol=1e-12)


@pytest.mark.parametrize("n_voxels", [4, 50])
def test_one_row_or_direction_at_a_time(n_voxels, monkeypatch):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(20, 9), nn.Tanh(), nn.Linear(9, n_voxels)).double()
    x = torch.randn(11, 20, dtype=torch.double)
    whole = measure(module, x).deviation
    for at_once in (1, 7):
        limit = lambda self, _, k=at_once: setattr(self, "_at_once", k) or 0.0  # noqa: E731
        monkeypatch.setattr("jne.jacobian.autograd.ModuleJacobians.limit_memory", limit)
        np.testing.assert_allclose(measure(module, x).deviation, whole, rtol=1e-12)


def test_the_fast_path_is_taken_and_the_result_the_same():
    torch.manual_seed(0)
    encoder = ResidualEncoder(6, 4, hidden_width=8, activation="gelu").double()
    x = torch.randn(N, 6, dtype=torch.double)
    np.testing.assert_allclose(
        measure(encoder, x).deviation, measure(nn.Sequential(encoder), x).deviation, rtol=1e-9
    )
    assert (measure(nn.Linear(6, 4), x).deviation == 0).all()


class Forward(nn.Module):
    """A module that does what a function does."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.function = function

    def forward(self, x):
        return self.function(self.weight * x)


def test_responses_of_any_shape_are_responses():
    x = torch.randn(N, 3)
    one = measure(Forward(lambda x: x.square().sum(dim=1)), x)
    assert one.deviation.shape == (N, 1)
    several = measure(Forward(lambda x: x.square().reshape(-1, 3, 1)), x)
    np.testing.assert_allclose(several.deviation.sum(axis=1), one.deviation[:, 0], rtol=1e-5)


def test_a_response_that_is_nan_is_nan():
    """It is not taken for one that depends on other stimuli."""
    x = torch.randn(N, 3)
    found = measure(Forward(lambda x: torch.stack([x[:, 0].square(), x[:, 1] * torch.nan], 1)), x)
    assert np.isnan(found.jne[1])


X = np.ones((N, 3), dtype=np.float32)


@pytest.mark.parametrize(
    ("module", "features", "message"),
    [
        (lambda x: x, X, "module: must be a torch.nn.Module, found function"),
        (Forward(torch.tanh), "features", "features: must be an array of real numbers, found str"),
        (Forward(torch.tanh), np.array([["a"]]), "features: must be an array of real numbers"),
        (Forward(torch.tanh), X + 0j, "features: must be an array of real numbers"),
        (Forward(torch.tanh), torch.ones(4, 3, dtype=torch.cfloat), "found complex ones"),
        (Forward(torch.tanh), [[1], [2, 3]], "features: its rows are not of one length"),
        (Forward(torch.tanh), X[0], r"features: must be \(n_stimuli, ...\), found shape \(3,\)"),
        (Forward(torch.tanh), X[:, :0], r"found shape \(7, 0\)"),
        (Forward(torch.tanh), np.float32(3), r"found shape \(\)"),
        (Forward(torch.tanh), X[:2], "features: 2 stimuli, but JNE needs at least 3"),
        (Forward(torch.tanh), np.where(X > 0, np.nan, X), "features: NaN or infinite values"),
        (
            nn.Sequential(nn.Linear(4, 2)),
            X,
            r"cannot be applied to features of shape \(1, 3\): .*mat1 and mat2",
        ),
        (
            nn.Sequential(nn.Embedding(9, 2)),
            X,
            r"cannot be applied to features of shape \(1, 3\): ",
        ),
        (Forward(lambda x: (x, x)), X, "must return a tensor of responses, found tuple"),
        (Forward(lambda x: {"y": x}), X, "must return a tensor of responses, found dict"),
        (Forward(torch.sum), X, r"must return responses \(n, ...\) .* found shape \(\) for n = 1"),
        (Forward(lambda x: x - x.mean(dim=0)), X * np.arange(N)[:, None], "whatever stimuli are"),
        (
            nn.Sequential(nn.Linear(3, 2)).half(),
            X,
            "must be float32 or float64, found torch.float16",
        ),
        (Forward(lambda x: x.detach()), X, "cannot be differentiated by the features"),
        (Forward(lambda x: (x > 0).float()), X, "cannot be differentiated by the features"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(module, features, message):
    with pytest.raises(ValueError, match=message) as refused:
        measure(module, features)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "gpu"}, "device=gpu: write cpu, cuda or cuda:1"),
        ({"voxels": [0, 3]}, "voxels: must be indices of the encoder's 3 outputs"),
        ({"voxels": []}, "voxels: must be indices of the encoder's 3 outputs"),
        ({"max_memory_gb": 0}, "max_memory_gb=0: too small"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        measure(Forward(torch.tanh), X, **settings)

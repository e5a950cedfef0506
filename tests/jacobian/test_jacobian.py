"""Deviations against brute force: autograd Jacobians of all stimuli at once, in float64."""

import numpy as np
import pytest
import torch
from brute_force import all_variants, small_net

from jne import jacobian_deviation, jne, jne_ss, mean_deviation
from jne.encoders import ACTIVATIONS, ResidualEncoder
from jne.errors import InputError
from jne.jacobian import VARIANTS, check_computable
from jne.jacobian.plan import Job, make_plan


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("placement", ["loc1", "loc2", "both"])
@pytest.mark.parametrize(("n_hidden", "skip_first"), [(2, True), (3, False), (4, True)])
def test_deviation_is_brute_force(activation, placement, n_hidden, skip_first):
    torch.manual_seed(0)
    encoder = ResidualEncoder(
        8,
        5,
        hidden_width=8 if skip_first else 11,
        n_hidden=n_hidden,
        activation=activation,
        placement=placement,
        bias=not skip_first,
        skip_first=skip_first,
    ).double()
    x = torch.randn(12, 8, dtype=torch.double)
    truth = all_variants(encoder, x)["l1"]
    s = jacobian_deviation(encoder, x)
    np.testing.assert_allclose(s, truth, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(jne(s), truth.std(axis=0), rtol=1e-10)
    np.testing.assert_allclose(jne_ss(s), (truth - truth.mean(axis=0)) ** 2, atol=1e-12)
    np.testing.assert_allclose(mean_deviation(s), truth.mean(axis=0), rtol=1e-12)


def test_one_hidden_layer():
    encoder = ResidualEncoder(6, 3, hidden_width=7, n_hidden=1).double()
    x = torch.randn(9, 6, dtype=torch.double)
    truth = all_variants(encoder, x)["l1"]
    np.testing.assert_allclose(jacobian_deviation(encoder, x), truth, rtol=1e-12, atol=1e-14)


def test_float32_is_close_to_float64():
    torch.manual_seed(0)
    encoder = ResidualEncoder(64, 40, hidden_width=96, activation="gelu")
    x = torch.randn(30, 64)
    single = jacobian_deviation(encoder, x)
    double = jacobian_deviation(encoder.double(), x.double())
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_encoder_deviates_by_exactly_zero(dtype):
    encoder = ResidualEncoder(20, 6, hidden_width=30, placement="none").to(dtype)
    s = jacobian_deviation(encoder, torch.randn(7, 20, dtype=dtype))
    assert (s == 0).all()
    assert (jne(s) == 0).all()


def test_chosen_voxels_are_the_columns_of_all():
    encoder = ResidualEncoder(10, 9, hidden_width=12)
    x = torch.randn(6, 10)
    chosen = np.array([7, 0, 3])
    np.testing.assert_allclose(
        jacobian_deviation(encoder, x, voxels=chosen),
        jacobian_deviation(encoder, x)[:, chosen],
        rtol=1e-6,
    )


def test_features_are_checked():
    encoder = ResidualEncoder(10, 4, hidden_width=5)
    with pytest.raises(ValueError, match=r"must be \(n_stimuli, 10\)"):
        jacobian_deviation(encoder, torch.randn(3, 9))
    with pytest.raises(ValueError, match="NaN"):
        jacobian_deviation(encoder, torch.full((3, 10), torch.nan))


@pytest.mark.filterwarnings("error")
def test_features_may_be_read_only(tmp_path):
    features = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    np.save(tmp_path / "features.npy", features)
    encoder = ResidualEncoder(8, 5, hidden_width=11)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    s = jacobian_deviation(encoder, mapped)
    np.testing.assert_array_equal(s, jacobian_deviation(encoder, features))


def test_it_works_in_lightnings_inference_mode():
    encoder = ResidualEncoder(10, 4, hidden_width=5, activation="gelu")
    x = torch.randn(5, 10)
    expected = jacobian_deviation(encoder, x)
    with torch.inference_mode():
        np.testing.assert_array_equal(jacobian_deviation(encoder, x.clone()), expected)


# --- orders, variants, precisions ---------------------------------------------------------------


@pytest.fixture(scope="module")
def net():
    return small_net()


@pytest.fixture(scope="module")
def truth(net):
    return all_variants(*net)


@pytest.mark.parametrize("order", ["centred", "reverse"])
def test_plain_variants_in_every_order(net, truth, order):
    encoder, x = net
    found = jacobian_deviation(encoder, x, variant=("l2", "l1"), order=order)
    for name, values in found.items():
        np.testing.assert_allclose(values, truth[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("order", ["streamed", "reverse", "held"])
@pytest.mark.parametrize("variant", [VARIANTS, ("zscore_l1",), ("zscore_l2", "l1")])
def test_zscore_variants_in_every_order(net, truth, order, variant):
    encoder, x = net
    found = jacobian_deviation(encoder, x, variant=variant, order=order)
    assert list(found) == list(variant)
    for name, values in found.items():
        np.testing.assert_allclose(values, truth[name], rtol=1e-11, err_msg=name)


def test_blocks_do_not_change_the_result(net, monkeypatch):
    """Blocks of 3 voxels, and the smallest budget of memory, against one block of all voxels."""
    encoder, x = net
    whole = jacobian_deviation(encoder, x, order="centred")
    monkeypatch.setattr("jne.jacobian.plan._VOXEL_BLOCK", 3)
    np.testing.assert_allclose(jacobian_deviation(encoder, x, order="centred"), whole, rtol=1e-13)
    for variant, order in (
        ("l1", "reverse"),
        ("zscore_l1", "streamed"),
        ("zscore_l1", "held"),
    ):
        smallest = float(smallest_budget(encoder, x, variant, order))
        np.testing.assert_allclose(
            jacobian_deviation(encoder, x, variant=variant, order=order, max_memory_gb=smallest),
            jacobian_deviation(encoder, x, variant=variant, order=order),
            rtol=1e-12,
        )


def smallest_budget(encoder, x, variant, order):
    with pytest.raises(ValueError, match="needs at least") as refused:
        jacobian_deviation(encoder, x, variant=variant, order=order, max_memory_gb=1e-6)
    return str(refused.value).split()[-1]


def test_the_order_follows_the_shapes():
    def chosen(n_voxels, **settings):
        encoder = ResidualEncoder(64, n_voxels, hidden_width=96, **settings)
        job = Job(encoder, torch.randn(5, 64), None, ("l1",), "float32", torch.device("cpu"))
        return make_plan(job, 1.0)

    assert chosen(1).order == "reverse"
    assert chosen(5000).order == "centred"
    assert "5000" not in str(chosen(5000))
    assert "GB of working memory" in str(chosen(5000))


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 0.01), ("int8", 0.01)])
def test_fast_precisions_are_close_at_every_voxel(precision, error):
    """The bound that docs/metrics.md states."""
    torch.manual_seed(0)
    encoder = ResidualEncoder(256, 500, hidden_width=384)
    x = torch.randn(60, 256)
    exact = jne(jacobian_deviation(encoder, x, order="centred"))
    fast = jne(jacobian_deviation(encoder, x, order="centred", precision=precision))
    np.testing.assert_allclose(fast, exact, rtol=error)
    zscore = {"variant": "zscore_l1", "order": "streamed"}
    exact = jne(jacobian_deviation(encoder, x, **zscore))
    fast = jne(jacobian_deviation(encoder, x, precision=precision, **zscore))
    np.testing.assert_allclose(fast, exact, rtol=0.02)


@pytest.mark.parametrize("n_voxels", [3, 30])  # fewer and more outputs than features
def test_any_module_through_torch_func(n_voxels):
    torch.manual_seed(0)
    encoder = ResidualEncoder(9, n_voxels, hidden_width=11, activation="gelu").double()
    module = torch.nn.Sequential(encoder)  # the same function, but without a residual_chain
    x = torch.randn(8, 9, dtype=torch.double)
    analytic = jacobian_deviation(encoder, x, variant=VARIANTS)
    generic = jacobian_deviation(module, x, variant=VARIANTS)
    for name in VARIANTS:
        np.testing.assert_allclose(generic[name], analytic[name], rtol=1e-10, err_msg=name)
    chosen = np.array([2, 0])
    np.testing.assert_allclose(
        jacobian_deviation(module, x, voxels=chosen), analytic["l1"][:, chosen], rtol=1e-10
    )


def test_any_linear_module_deviates_by_exactly_zero():
    module = torch.nn.Linear(6, 4)
    assert (jacobian_deviation(module, torch.randn(7, 6)) == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "l3"}, "variant=l3: choose from l1"),
        ({"variant": ()}, "variant: none chosen"),
        ({"precision": "float16"}, "precision=float16: choose from"),
        ({"order": "sideways"}, "order=.*: choose from"),
        ({"variant": "zscore_l1", "order": "centred"}, "order=centred: cannot give zscore_l1"),
    ],
)
def test_unknown_words_are_refused(net, settings, message):
    with pytest.raises(ValueError, match=message):
        jacobian_deviation(*net, **settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("order", ["centred", "reverse"])
def test_cuda_equals_cpu(net, order):
    encoder, x = net
    cpu = jacobian_deviation(encoder, x, order=order)
    np.testing.assert_allclose(
        jacobian_deviation(encoder, x, order=order, device="cuda"), cpu, rtol=1e-10
    )


def test_the_cheapest_order_that_fits_the_memory():
    """Few operations are no use where they need more memory than there is."""
    torch.manual_seed(0)
    encoder = ResidualEncoder(64, 30, hidden_width=96, activation="tanh").double()
    x = torch.randn(10_000, 64, dtype=torch.double)
    need = {
        order: float(smallest_budget(encoder, x, "l1", order)) for order in ("reverse", "centred")
    }
    assert need["centred"] < need["reverse"]
    job = Job(encoder, x, None, ("l1",), "float32", torch.device("cpu"))
    assert make_plan(job, need["reverse"]).order == "reverse"
    assert make_plan(job, need["centred"]).order == "centred"
    with pytest.raises(InputError, match=rf"needs at least {need['centred']:.2f}$"):
        make_plan(job, need["centred"] - 0.005)


def test_what_is_computable_is_known_without_a_jacobian(net):
    encoder, x = net
    check_computable(encoder, x, variant=["l1"])
    for settings, key in (
        ({"max_memory_gb": 1e-6}, "max_memory_gb"),
        ({"precision": "float16"}, "precision"),
        ({"variant": ["l3"]}, "variant"),
    ):
        with pytest.raises(InputError) as refused:
            check_computable(encoder, x, **{"variant": ["l1"]} | settings)
        assert refused.value.key == key

"""Training on components against training on voxels: the same losses; with SGD the same path."""

import shutil

import numpy as np
import pytest
import torch
from helpers import compose_train, contents, small_cells
from sklearn.metrics import r2_score
from torch.nn.functional import mse_loss

from jne.data.datamodule import EncodingData
from jne.data.prepared import load, prepare
from jne.encoders import ResidualEncoder
from jne.encoders.ridge import RidgeSolver
from jne.errors import InputError
from jne.fitting import components as module
from jne.fitting.components import (
    ComponentModule,
    copy_hidden,
    copy_outputs,
    response_components,
    train_on_components,
)
from jne.fitting.config import FitConfig, TrainerConfig
from jne.fitting.fit import train_module
from jne.fitting.module import EncodingModule, build_optimizer
from jne.results import Results
from jne.stages import Stages
from jne.training.config import check_config

OUTPUTS = ["readout", "linear_path"]
COMPONENTS = ("trainer.response_space=components", "data.voxels_per_roi=12", "data.n_train=60")


def source(**settings):
    given = {"noise": "correlated", "shared_noise": 0.6, "voxels_per_cell": 45, "n_train": 40,
             "n_val": 12}  # fmt: skip
    return small_cells(**given | settings)


def standardised(prepared):
    return EncodingData(prepared, batch_size=None, seed=0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(source(), tmp_path_factory.mktemp("cells"))


@pytest.fixture
def data(prepared):
    return standardised(prepared)


def split(data, name):
    x, y = data.split(name)
    return x.double(), y.double()


def encoders(data, found):
    """One of components, in float64, and the one of voxels that it stands for."""
    torch.manual_seed(0)
    small, large = (
        ResidualEncoder(64, n, hidden_width=16, linear_path=True).double()
        for n in (found.train.shape[1], data.n_outputs)
    )
    copy_hidden(small, large, OUTPUTS)
    copy_outputs(small, large, OUTPUTS, data, found)
    return small, large


def test_components_have_the_products_of_the_responses(data, tmp_path):
    _, y = split(data, "train")
    z = torch.from_numpy(response_components(data, Stages(tmp_path)).train).double()
    assert z.shape == (40, 39)  # centred responses: a stimulus is minus the sum of the others
    torch.testing.assert_close(z @ z.T / 39, y @ y.T / 90, rtol=1e-5, atol=1e-5)
    assert (z.square().mean(dim=0) - 1).abs().max() < 0.5  # none is large or small


def test_voxels_left_out_have_no_part_in_the_components(prepared, tmp_path):
    folder = shutil.copytree(prepared.folder, tmp_path / "prepared")
    responses = np.load(folder / "responses.npy")
    responses[:, 3], responses[5, 7] = 2.0, np.nan
    np.save(folder / "responses.npy", responses)
    data = standardised(load(folder))
    assert data.n_outputs == 88
    z = torch.from_numpy(response_components(data, None).train).double()
    kept = np.delete(responses, [3, 7], axis=1)[data.rows["train"]].astype(np.float64)
    kept = (kept - kept.mean(axis=0)) / kept.std(axis=0)
    expected = torch.from_numpy(kept @ kept.T / 88)
    torch.testing.assert_close(z @ z.T / z.shape[1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("repeats", [1, 4])
def test_losses_are_those_of_the_voxels(tmp_path, repeats):
    """Also where the voxels span fewer dimensions than there are stimuli: each is there 4 times."""
    prepared = prepare(source(voxels_per_cell=45 if repeats == 1 else 15), tmp_path)
    data = standardised(prepared)
    if repeats > 1:
        data = data.with_responses(np.tile(data.responses[:].numpy(), repeats))
    found = response_components(data, Stages(tmp_path))
    assert found.train.shape[1] == (39 if repeats == 1 else 30)
    small, large = encoders(data, found)
    x, y = split(data, "train")
    z = torch.from_numpy(found.train).double()
    torch.testing.assert_close(
        mse_loss(small(x), z), mse_loss(large(x), y), rtol=1e-5, atol=0, check_dtype=False
    )
    x, y = split(data, "val")
    z = torch.from_numpy(found.val).double()
    loss = mse_loss(large(x), y).item()
    assert mse_loss(small(x), z).item() + found.val_outside == pytest.approx(loss, rel=1e-5)
    pooled = r2_score(y.numpy(), large(x).detach().numpy(), multioutput="variance_weighted")
    assert 1 - loss / found.val_variance == pytest.approx(pooled, rel=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_sgd_takes_the_same_path_in_both_spaces(data, tmp_path, decay):
    """Where the readout of components learns V / K times slower: W' W / V = w' w / K."""
    found = response_components(data, Stages(tmp_path))
    small, large = encoders(data, found)
    x, y = split(data, "train")
    z = torch.from_numpy(found.train).double()
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": decay}
    of_components = ComponentModule(64, 39, {"_target_": "jne.encoders.ResidualEncoder"}, optimizer)
    of_components.encoder, of_components.components = small, found
    of_components.outputs, of_components.outputs_decay = OUTPUTS, 90 / 39
    of_voxels = build_optimizer(optimizer, large)
    (group,) = of_voxels.param_groups
    outputs = [p for n, p in large.named_parameters() if n.startswith(tuple(OUTPUTS))]
    group["params"] = [p for n, p in large.named_parameters() if not n.startswith(tuple(OUTPUTS))]
    of_voxels.add_param_group({"params": outputs, "lr": 0.05 * 90 / 39})
    for encoder, targets, steps in (
        (small, z, of_components.configure_optimizers()),
        (large, y, of_voxels),
    ):
        for _ in range(60):
            steps.zero_grad()
            loss = mse_loss(encoder(x), targets)
            loss.backward()
            steps.step()
    assert loss < 0.85
    expected = {name: value.clone() for name, value in large.state_dict().items()}
    copy_hidden(small, large, OUTPUTS)
    copy_outputs(small, large, OUTPUTS, data, found)
    for name, value in large.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=2e-5)


def test_a_decay_that_is_no_term_of_the_loss_is_left_alone():
    decays = {}
    for name in ("Adam", "AdamW"):
        optimizer = {"_target_": f"torch.optim.{name}", "lr": 0.1, "weight_decay": 0.01}
        module = ComponentModule(64, 39, {"_target_": "jne.encoders.ResidualEncoder"}, optimizer)
        module.outputs, module.outputs_decay = ["readout"], 90 / 39
        groups = module.configure_optimizers().param_groups
        decays[name] = [group["weight_decay"] for group in groups]
    assert decays == {"Adam": [0.01, pytest.approx(0.01 * 90 / 39)], "AdamW": [0.01]}


@pytest.mark.parametrize("factor", [0.5, 1, 2])
@pytest.mark.parametrize("decay", [0, 0.01])
def test_one_step_without_a_gradient_is_the_decay_alone(decay, factor):
    """SGD: w - lr decay w, for the outputs times their factor."""
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": decay}
    module = EncodingModule(8, 3, {"_target_": "jne.encoders.ResidualEncoder"}, optimizer)
    module.outputs, module.outputs_decay = ["readout"], factor
    before = {name: value.clone() for name, value in module.encoder.named_parameters()}
    steps = module.configure_optimizers()
    for parameter in module.encoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    steps.step()
    for name, value in module.encoder.named_parameters():
        kept = 1 - 0.1 * decay * (factor if name.startswith("readout") else 1)
        torch.testing.assert_close(value.detach(), kept * before[name].detach(), msg=name)


@pytest.mark.parametrize("same", [True, False])
def test_weight_decay_does_not_depend_on_the_number_of_voxels(data, monkeypatch, same):
    """Every voxel three times over has the same loss, so the same hidden layers."""
    monkeypatch.setattr("jne.fitting.fit._FULL_DECAY", 90 if same else 1000)
    settings = TrainerConfig(
        max_epochs=20, patience=20, batch_size=None, precision="32-true", accelerator="cpu",
        checkpoint_seconds=0, response_space="voxels",
    )  # fmt: skip
    adam = {"_target_": "torch.optim.Adam", "lr": 3e-3, "weight_decay": 0.05}
    encoder = {"_target_": "jne.encoders.ResidualEncoder", "hidden_width": 16}
    torch.manual_seed(0)
    once = EncodingModule(64, 90, encoder, adam)
    thrice = EncodingModule(64, 270, encoder, adam)
    copy_hidden(once.encoder, thrice.encoder, ["readout"])
    weights = once.encoder.readout.state_dict()
    tiled = {name: torch.cat([value] * 3) for name, value in weights.items()}
    thrice.encoder.readout.load_state_dict(tiled)
    three_times = data.with_responses(np.tile(data.responses[:].numpy(), 3))
    for trained, on in ((once, data), (thrice, three_times)):
        config = FitConfig(
            encoder=encoder, optimizer=adam, readout="ridge", trainer=settings, seed=0
        )
        train_module(trained, on, config)
    hidden = [m.encoder.get_submodule("hidden.2").weight for m in (once, thrice)]
    error = (hidden[1] - hidden[0]).norm() / hidden[0].norm()
    assert error < 1e-5 if same else error > 5e-3


def test_blocks_change_nothing_and_a_damaged_file_is_named(data, tmp_path, monkeypatch):
    first = response_components(data, Stages(tmp_path))
    (path,) = tmp_path.glob("components/*/components.npz")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"^{path} cannot be read"):
        response_components(data, Stages(tmp_path))
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    again = response_components(data, Stages(tmp_path / "again"))
    np.testing.assert_allclose(again.train, first.train, atol=1e-4)
    np.testing.assert_allclose(again.val, first.val, atol=1e-4)


@pytest.mark.runs
def test_a_run_on_components(run_train, tmp_path):
    """Resumed bit for bit; the encoder of voxels has the R2 of the table."""
    overrides = (*COMPONENTS, "readout=trained")
    (whole,) = run_train(*overrides, "trainer.max_epochs=6")
    saved = tmp_path / "half.ckpt"

    def keep(path, *_):
        path.with_name("last.ckpt").rename(saved)
        raise InputError("", "that is enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jne.fitting.fit.write_trained", keep)
        with pytest.raises(SystemExit, match="that is enough"):
            run_train(*overrides, "trainer.max_epochs=3")
    again = run_train(*overrides, "trainer.max_epochs=6", f"checkpoint={saved}")
    (resumed,) = set(again) - {whole}
    assert contents(resumed) == contents(whole)
    run = Results(whole)
    encoder = run.encoder()
    y, x = run.array("responses"), torch.tensor(np.array(run.array("features")))
    with torch.no_grad():
        r2 = r2_score(y, encoder(x).numpy(), multioutput="raw_values")
    np.testing.assert_allclose(run.voxels["r2"], r2, rtol=1e-4, atol=1e-5)


def test_size_chooses_the_space(data, monkeypatch):
    chosen = [
        train_on_components(space, readout, data, followed=False)
        for space in ("auto", "voxels", "components")
        for readout in ("ridge", "trained")
    ]
    assert chosen == [False] * 4 + [True] * 2
    monkeypatch.setattr(module, "_MANY_VOXELS", 90)
    assert not train_on_components("auto", "ridge", data, followed=False)  # 90 voxels, 40 stimuli
    monkeypatch.setattr(module, "_PER_STIMULUS", 2)
    assert train_on_components("auto", "ridge", data, followed=False)
    assert not train_on_components("auto", "trained", data, followed=False)
    assert not train_on_components("auto", "ridge", data, followed=True)
    with pytest.raises(InputError, match=r"^jacobian\.trajectory: needs"):
        train_on_components("components", "ridge", data, followed=True)


@pytest.mark.runs
def test_components_need_a_linear_readout(run_train, monkeypatch):
    squared = lambda encoder, x: encoder.readout(encoder.hidden[0](x)).square()  # noqa: E731
    monkeypatch.setattr("jne.encoders.ResidualEncoder.forward", squared)
    with pytest.raises(SystemExit, match=r"set trainer\.response_space=voxels"):
        run_train("readout=trained", "trainer.response_space=components")


def test_too_many_stimuli_for_the_memory(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "memory_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"set trainer\.response_space=voxels"):
        response_components(data.with_responses(data.responses[:].numpy()[:, :50]), None)


@pytest.mark.parametrize("kind", ["voxels", "components", "ridge"])
def test_the_r2_of_the_curves_means_the_same_in_every_training(data, kind):
    """The R2 of all voxels pooled, and the loss that goes with it."""
    config, _ = check_config(compose_train("unused", "encoder.hidden_width=16"))
    encoder = {"_target_": "jne.encoders.RidgeRegression"} if kind == "ridge" else config.encoder
    trained = EncodingModule(data.n_features, data.n_outputs, encoder, config.optimizer)
    space = "components" if kind == "components" else "voxels"
    trainer = config.trainer.model_copy(update={"response_space": space, "max_epochs": 3})
    readout = "ridge" if kind == "ridge" else "trained"
    settings = config.model_copy(update={"trainer": trainer, "readout": readout})
    history = train_module(trained, data, settings)
    x, y = split(data, "val")
    with torch.no_grad():
        predictions = trained.encoder(x.float()).double()
    if kind == "ridge":  # whose weights have seen the validation stimuli since
        solver = RidgeSolver(data.split("train")[0])
        weights = solver.weights(data.split("train")[1], torch.from_numpy(history.readout_penalty))
        predictions = data.split("val")[0] @ weights
    row = history.epochs.iloc[history.best_epoch - 1]
    assert row["val/loss"] == pytest.approx(float(mse_loss(predictions, y)), rel=1e-5)
    pooled = r2_score(y.numpy(), predictions.numpy(), multioutput="variance_weighted")
    assert row["val/r2"] == pytest.approx(pooled, abs=1e-5)

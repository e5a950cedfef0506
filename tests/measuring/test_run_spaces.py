"""A run whose data have feature spaces: JNE and evidence of each, against the public functions."""

import numpy as np
import pytest
import torch

from jne import ResidualEncoder, Results, jacobian_deviation, jne, rms_deviation
from jne.data.datamodule import EncodingData, StandardisedData
from jne.jacobian import in_space
from jne.measuring.evidence import nonlinear_part, space_parts

SPACES = {"words": slice(0, 40), "edges": slice(40, 64)}
SIZES = ("data.n_train=200", "data.n_features=64", "trainer.max_epochs=5")


@pytest.mark.runs
@pytest.mark.parametrize("more", [(), ("data.folds=2", "jacobian.voxels=V1")])
def test_every_space_has_its_numbers(run_train, monkeypatch, more):
    monkeypatch.setattr(EncodingData, "feature_spaces", SPACES, raising=False)
    measured = []
    evidence = []
    spy(monkeypatch, "jne.training.steps.measure_nonlinearity", measured)
    spy(monkeypatch, "jne.measuring.evidence.space_evidence_of", evidence)
    (folder,) = run_train(*SIZES, *more)
    run = Results(folder)
    (nonlinearity,) = measured
    (of_spaces,) = evidence
    assert list(nonlinearity.spaces) == list(SPACES)
    assert of_spaces.components == ("words", "edges", "interaction")
    assert not list(folder.glob("*words*"))
    chosen = np.isfinite(run.voxels["jne"])
    squares = sum(nonlinearity.spaces[space]["rms_deviation"] ** 2 for space in SPACES)
    np.testing.assert_allclose(np.sqrt(squares), run.voxels["rms_deviation"], rtol=1e-5)
    total = sum(nonlinearity.spaces[space]["mean_deviation"] for space in SPACES)
    np.testing.assert_allclose(total, run.voxels["mean_deviation"], rtol=1e-5)
    assert chosen.any()
    if more:
        return
    encoder, x = run.encoder(), torch.tensor(np.array(run.array("features")))
    arrays = jacobian_deviation(encoder, x, variant=["l1"], spaces=SPACES, gain_shape=True)
    rms = rms_deviation(encoder, x, spaces=SPACES)
    for space in SPACES:
        columns = nonlinearity.spaces[space]
        np.testing.assert_allclose(columns["jne"], jne(arrays[in_space("l1", space)]), rtol=1e-4)
        np.testing.assert_allclose(columns["rms_deviation"], rms[space], rtol=1e-4)


def spy(monkeypatch, name, results):
    module, _, attribute = name.rpartition(".")
    original = getattr(__import__(module, fromlist=["x"]), attribute)

    def kept(*arguments, **settings):
        results.append(original(*arguments, **settings))
        return results[-1]

    monkeypatch.setattr(name, kept)


def test_components_add_up_to_the_nonlinear_part_and_are_by_hand(cohort):
    encoder, data = cohort
    everything = np.arange(data.n_trained)
    parts = [part[:, everything] for part in space_parts(encoder, data, SPACES)]
    whole = nonlinear_part(encoder, data)[:, everything]
    np.testing.assert_allclose(sum(parts), whole, atol=1e-5)
    seen = np.concatenate([data.rows["train"], data.rows["val"]])
    for (_, columns), part in zip(SPACES.items(), parts[:2], strict=True):
        held = torch.zeros_like(data.features)
        held[:, columns] = data.features[:, columns]
        with torch.no_grad():
            f = encoder(held).numpy()
        design = np.column_stack([np.ones(len(held)), data.features.numpy()]).astype(float)
        weights = np.linalg.lstsq(design[seen], f[seen], rcond=None)[0]
        test = data.rows["test"]
        np.testing.assert_allclose(part, f[test] - design[test] @ weights, atol=1e-4)


@pytest.fixture
def cohort():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 64)), rng.standard_normal((300, 7))
    rows = dict(zip(("train", "val", "test"), np.split(np.arange(300), [180, 220]), strict=True))
    data = StandardisedData(
        x.astype(np.float32), y.astype(np.float32), rows, batch_size=None, seed=0
    )
    return ResidualEncoder(64, 7, hidden_width=32, linear_path=True).eval(), data

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
    two = property(lambda _: SPACES, lambda *_: None)  # of a cohort that has one
    monkeypatch.setattr(EncodingData, "feature_spaces", two, raising=False)
    (folder,) = run_train(*SIZES, *more)
    run = Results(folder)
    assert not list(folder.glob("*words*"))
    table = run.spaces.unstack(sort=False)
    assert list(table["nonlinear_z"]) == ["words", "edges", "interaction"]
    np.testing.assert_allclose(
        np.square(table["rms_deviation"][[*SPACES]]).sum(axis=1),
        np.square(run.voxels["rms_deviation"]),
        rtol=1e-4,
    )
    mean = table["mean_deviation"][[*SPACES]].sum(axis=1, min_count=2)
    np.testing.assert_allclose(mean, run.voxels["mean_deviation"], rtol=1e-4)
    assert mean.notna().any()
    assert set(run.voxels["nonlinear_in"]) <= {*SPACES, "interaction", "linear"}
    if more:
        return
    encoder, x = run.encoder(), torch.tensor(np.array(run.array("features")))
    arrays = jacobian_deviation(encoder, x, variant=["l1"], spaces=SPACES, gain_shape=True)
    rms = rms_deviation(encoder, x, spaces=SPACES)
    for space in SPACES:
        expected = jne(arrays[in_space("l1", space)])
        np.testing.assert_allclose(table["jne"][space], expected, rtol=1e-3)
        np.testing.assert_allclose(table["rms_deviation"][space], rms[space], rtol=1e-3)


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

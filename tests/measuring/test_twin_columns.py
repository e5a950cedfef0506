"""JNE of twins, draw after draw, from deviations that the test makes, and by autograd."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import compose_train, small_cells

from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.data.responses import Twins
from jne.encoders import ResidualEncoder
from jne.measuring.nonlinearity import _twin_columns, chosen_outputs, jne_of, twins_of
from jne.training.config import check_config

WITH_TWINS = np.array([1, 3, 4, 8])
"""Which of the trained voxels have a twin."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return EncodingData(
        prepare(small_cells(n_test=6), tmp_path_factory.mktemp("cells")), batch_size=None, seed=0
    )


@pytest.fixture(scope="module")
def settings():
    return check_config(compose_train("unused", "jacobian.variants=[l1,l2]"))[0].jacobian


def with_twins(data, n_draws):
    n = n_draws * len(WITH_TWINS)
    twins = Twins(
        WITH_TWINS, n_draws, np.zeros((len(data.features), n), np.float32),
        torch.zeros(n), torch.ones(n), "made",
    )  # fmt: skip
    return data.with_twins(twins)


@pytest.mark.parametrize("n_draws", [1, 2, 3])
def test_each_voxel_has_the_jne_of_its_own_twins(data, tmp_path, settings, n_draws):
    data = with_twins(data, n_draws)
    measured = [0, 3, 8, 9]  # of which 3 and 8 have twins
    deviation = np.random.default_rng(0).random((6, data.n_outputs))

    def compute(encoder, data, outputs, settings, path, title, only_jne):
        np.save(path, deviation[:, outputs])

    jne = np.random.default_rng(1).random(len(data.voxel_status))
    columns = _twin_columns(None, data, np.array(measured), jne, settings, tmp_path, compute)
    twins = np.full((n_draws, len(jne)), np.nan)
    for draw in range(n_draws):
        for k, voxel in enumerate(WITH_TWINS):
            if voxel in measured:
                output = data.n_trained + draw * len(WITH_TWINS) + k
                twins[draw, data.kept[voxel]] = deviation[:, output].std()
    expected = {"jne_twin": twins.sum(axis=0) / n_draws}
    expected["w"] = jne - expected["jne_twin"]
    if n_draws > 1:
        expected |= {f"jne_twin_{draw + 1}": twins[draw] for draw in range(n_draws)}
    assert list(columns) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(columns[name], values, err_msg=name)
    assert not list(tmp_path.iterdir())


def test_without_a_measured_voxel_that_has_a_twin_all_are_missing(data, tmp_path, settings):
    data = with_twins(data, 2)
    jne = np.ones(len(data.voxel_status))
    columns = _twin_columns(None, data, np.array([0, 2]), jne, settings, tmp_path, None)
    assert all(np.isnan(values).all() for values in columns.values())


def test_outputs_of_twins_follow_those_of_the_voxels(data):
    n = data.n_trained
    data = with_twins(data, 2)
    assert twins_of(np.arange(n), data).tolist() == list(range(n, n + 8))
    assert twins_of(np.array([4, 5]), data).tolist() == [n + 2, n + 6]


def test_the_jne_of_some_outputs_is_the_spread_of_their_jacobians(data, tmp_path, settings):
    """And nothing else is computed, or left in the folder."""
    torch.manual_seed(0)
    encoder = ResidualEncoder(data.n_features, data.n_outputs, hidden_width=8, activation="tanh")
    outputs = np.array([5, 0, 11])
    found = jne_of([encoder], data, outputs, settings, tmp_path, "Jacobians")
    features = data.split("test")[0]
    jacobians = torch.stack([torch.func.jacrev(encoder)(x)[outputs] for x in features])
    jacobians = jacobians.detach().double().numpy()
    deviation = np.abs(jacobians - jacobians.mean(axis=0)).sum(axis=2)
    np.testing.assert_allclose(found, deviation.std(axis=0), rtol=1e-3)
    assert not list(tmp_path.iterdir())
    assert jne_of([encoder], data, outputs[:0], settings, tmp_path, "Jacobians").shape == (0,)


def test_significant_outputs_have_p_below_alpha(data, settings):
    chosen = settings.model_copy(update={"voxels": "significant"})
    p = np.array([0.01, 0.05, 0.2, np.nan, 0.049])
    scores = SimpleNamespace(columns={"p_fdr": p, "p": np.zeros(5), "r2": np.zeros(5)})
    assert chosen_outputs(data, scores, chosen, 0.05).tolist() == [0, 4]
    regions = data.prepared.voxels["roi"].to_numpy()[data.kept]
    one = regions[-1]
    chosen = settings.model_copy(update={"voxels": [one]})
    assert chosen_outputs(data, None, chosen, 0.05).tolist() == [
        k for k, roi in enumerate(regions) if roi == one
    ]

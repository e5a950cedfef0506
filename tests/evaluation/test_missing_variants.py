"""Variants of JNE that a run did not store: computed once, kept outside the run's folder."""

import pickle

import numpy as np
import pytest
from finished_run import CONSTANT, N_VOXELS, contents, evaluate_config, write_run

from jne.analysis.nonlinearity import jne
from jne.errors import InputError
from jne.evaluation import missing_variants as module
from jne.evaluation.config import JacobianConfig
from jne.evaluation.missing_variants import missing_variants
from jne.jacobian import jacobian_deviation
from jne.stages import Stages


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "runs" / "a")


@pytest.fixture
def config(tmp_path):
    return evaluate_config(tmp_path)


@pytest.fixture
def computed(monkeypatch):
    """The settings of each call of the engine."""
    calls = []

    def compute(encoder, features, **settings):
        calls.append(settings)
        return jacobian_deviation(encoder, features, **settings | {"device": "cpu"})

    monkeypatch.setattr(module, "jacobian_deviation", compute)
    return calls


def ask(run, config, left_out=()):
    """The missing variants of all voxels that have a JNE, but for those left out."""
    analysed = run.voxels["jne"].notna() & ~run.voxels["voxel"].isin(left_out)
    stages = Stages(config.stages)
    table = run.voxels.assign(analysed=analysed)
    return missing_variants(run, table, config, stages, lambda done: None)


def test_they_are_computed_once_and_the_run_stays_unchanged(run, config, computed, tmp_path):
    before = contents(run.path)
    first = ask(run, config)
    assert list(first) == ["jne_l2", "jne_zscore_l1", "jne_zscore_l2"]
    files = sorted((tmp_path / "stages" / "variants").glob("*/*.npy"))
    assert [f"jne_{file.stem}" for file in files] == list(first)
    trained = np.delete(np.arange(N_VOXELS), CONSTANT)
    every_trained = jacobian_deviation(run.encoder(), np.array(run.array("features")), variant="l2")
    for file, (name, values) in zip(files, first.items(), strict=True):
        kept = np.load(file, allow_pickle=False)
        np.testing.assert_array_equal(kept, values)
        assert kept.dtype == np.float64
        assert np.isnan(kept[CONSTANT])
        if name == "jne_l2":
            np.testing.assert_allclose(kept[trained], jne(every_trained), rtol=1e-4)

    second = ask(run, config)
    assert len(computed) == 1
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values)
    assert contents(run.path) == before


@pytest.mark.runs
def test_others_are_computed_for_other_voxels_weights_or_activations(
    run, config, computed, tmp_path
):
    values = ask(run, config)["jne_l2"]
    fewer = ask(run, config, left_out=[0, 1])["jne_l2"]
    assert np.isnan(fewer[:2]).all()
    np.testing.assert_allclose(fewer[5:], values[5:], rtol=1e-5)
    ask(write_run(tmp_path / "runs" / "seed", seed=1), config)
    same_weights = ask(write_run(tmp_path / "runs" / "gelu", activation="gelu"), config)["jne_l2"]
    assert len(computed) == 4
    assert (same_weights[5:] != values[5:]).all()


class _Opened:
    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


@pytest.mark.parametrize("damage", ["pickle", "half"])
def test_a_damaged_file_is_named_and_never_unpickled(run, config, tmp_path, damage):
    ask(run, config)
    (file,) = (tmp_path / "stages" / "variants").glob("*/l2.npy")
    whole = file.read_bytes()
    file.write_bytes(pickle.dumps(_Opened()) if damage == "pickle" else whole[:-20])
    with pytest.raises(InputError, match=r"cannot be read"):
        ask(run, config)


def test_a_run_that_stored_them_needs_nothing(run, config, computed, tmp_path):
    run.voxels = run.voxels.assign(jne_l2=1.0, jne_zscore_l1=1.0, jne_zscore_l2=1.0)
    assert ask(run, config) == {}
    assert not (tmp_path / "stages").exists()


def test_device_and_memory_are_those_of_the_config(run, config, computed):
    settings = JacobianConfig.model_construct(device="cuda:1", max_memory_gb=0.5)
    ask(run, config.model_copy(update={"jacobian": settings}))
    assert computed[0]["device"] == "cuda:1"
    assert computed[0]["max_memory_gb"] == 0.5


def test_too_little_memory_is_one_sentence_with_the_key(run, tmp_path):
    config = evaluate_config(tmp_path, "jacobian.max_memory_gb=0.001")
    with pytest.raises(InputError, match=r"^jacobian\.max_memory_gb=0\.001: too small: .* least"):
        ask(run, config)
    assert not list((tmp_path / "stages" / "variants").glob("[!.]*"))

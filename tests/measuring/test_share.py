"""The nonlinear share of a run's data: what `nonlinear_share` gives, by voxel and region."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from jne import nonlinear_share
from jne.analysis.noise_ceiling import averages, noise_ceiling
from jne.analysis.repeats import repeats_of
from jne.data.datamodule import EncodingData
from jne.data.folds import Belonging
from jne.data.prepared import load, write_prepared
from jne.data.source import Source
from jne.errors import InputError
from jne.measuring.share import ShareConfig, measure_share
from jne.stages import Stages
from jne.utils.files import write_json

N, D, V = 160, 12, 9
ALL = ShareConfig(n_components=None)


class Recorded(Source):
    def write(self, folder):
        raise NotImplementedError


def draw():
    """Features, and trials of which every other voxel is nonlinear; voxel 5 is constant."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D))
    signal = 2 * x @ rng.standard_normal((D, V)) / np.sqrt(D)
    signal[:, ::2] += np.square(x[:, :V])[:, ::2] - 1
    trials = 10 + 3 * (signal[:, :, None] + rng.standard_normal((N, V, 3)))
    trials[:, 5] = 1.0
    return x, trials


def write(folder, x, trials, *, repeats=True, ceiling=True):
    folder.mkdir()
    voxels = pd.DataFrame({"voxel": range(V), "roi": ["V1"] * 3 + [""] + ["V2"] * (V - 4)})
    averaged = averages(trials)
    if ceiling:
        voxels["noise_ceiling"] = noise_ceiling(averaged.ncsnr, 1 / trials.shape[2])
    split = ["train"] * 100 + ["val"] * 20 + ["test"] * 40
    stimuli = pd.DataFrame({"stimulus": range(N), "split": split})
    source = Recorded(name="own", subject="s1")
    write_prepared(source, folder, x, averaged.mean, stimuli, voxels,
                   repeats_of(trials) if repeats else None)  # fmt: skip
    write_json(folder / "provenance.json", {})
    return folder


def data_of(folder, *, shuffle=False):
    return EncodingData(load(folder), batch_size=None, seed=0, shuffle=shuffle)


@pytest.fixture
def recorded(tmp_path):
    x, trials = draw()
    return x, trials, write(tmp_path / "data", x, trials)


def test_columns_are_those_of_the_plain_function(recorded, tmp_path):
    x, trials, folder = recorded
    data = data_of(folder)
    share = measure_share(data, ALL, Stages(tmp_path / "stages"))
    expected = nonlinear_share(x, trials)
    variance = trials.mean(axis=2).var(axis=0, ddof=1)
    for name, values in {
        "nonlinear_share": expected.share,
        "nonlinear_share_low": expected.low,
        "nonlinear_share_high": expected.high,
        "signal_share": expected.signal / variance,
        "linear_share": expected.linear / variance,
    }.items():
        assert share.columns[name].shape == (V - 1,)
        np.testing.assert_allclose(share.columns[name], values[data.kept], rtol=2e-4, err_msg=name)
    assert share.source == "repeats"


def test_groups_are_left_out_together(recorded, tmp_path):
    x, trials, folder = recorded
    groups, ungrouped = np.arange(N) // 4, data_of(folder)
    prepared = load(folder)
    data = EncodingData(
        prepared,
        batch_size=None,
        seed=0,
        rows={split: prepared.rows(split) for split in ("train", "val", "test")},
        belonging=Belonging(groups),
    )
    share = measure_share(data, ALL, Stages(tmp_path / "stages"))
    expected = nonlinear_share(x, trials, groups=groups)
    found = share.columns["linear_share"]  # which does not depend on blocks
    linear = expected.linear / trials.mean(axis=2).var(axis=0, ddof=1)
    np.testing.assert_allclose(found, linear[data.kept], rtol=2e-4)
    alone = measure_share(ungrouped, ALL, Stages(tmp_path / "stages"))
    assert np.abs(alone.columns["linear_share"] - found).max() > 1e-3


def test_a_region_is_the_ratio_of_the_sums_over_its_standardised_voxels(recorded, tmp_path):
    x, trials, folder = recorded
    data = data_of(folder)
    regions = measure_share(data, ALL, Stages(tmp_path / "stages")).regions
    whole = nonlinear_share(x, trials)
    unit = np.square(trials.mean(axis=2)[:100].std(axis=0))
    table = regions.table(regions.each())
    assert list(table.index) == ["V1", "V2", "all"]
    for name, inside in {"V1": [0, 1, 2], "V2": [4, 6, 7, 8], "all": data.kept}.items():
        expected = 1 - (whole.linear / unit)[inside].sum() / (whole.signal / unit)[inside].sum()
        row = table.loc[name]
        assert row["nonlinear_share"] == pytest.approx(expected, abs=0.01)  # Beale's correction
        assert row["nonlinear_share_low"] < expected < row["nonlinear_share_high"]
        variance = (trials.mean(axis=2).var(axis=0, ddof=1)[inside] / unit[inside]).sum()
        assert row["signal_share"] == pytest.approx(
            (whole.signal / unit)[inside].sum() / variance, rel=1e-4
        )


def test_a_noise_ceiling_stands_for_repeats(recorded, tmp_path):
    """It says of the test stimuli what part of their variance is signal."""
    x, trials, _ = recorded
    folder = write(tmp_path / "ceiling", x, trials, repeats=False)
    data = data_of(folder)
    share = measure_share(data, ALL, Stages(tmp_path / "stages"))
    mean = trials.mean(axis=2)
    around = np.square(mean[120:] - mean.mean(axis=0)).mean(axis=0) * N / (N - 1)
    expected = data.prepared.voxels["noise_ceiling"] * around / mean.var(axis=0, ddof=1)
    np.testing.assert_allclose(share.columns["signal_share"], expected[data.kept], rtol=1e-4)
    linear = nonlinear_share(x, trials).linear / mean.var(axis=0, ddof=1)
    np.testing.assert_allclose(share.columns["linear_share"], linear[data.kept], rtol=1e-4)
    assert share.source == "noise ceiling"


def test_without_repeats_and_ceiling_and_for_shuffled_data_there_is_none(recorded, tmp_path):
    x, trials, folder = recorded
    bare = data_of(write(tmp_path / "bare", x, trials, repeats=False, ceiling=False))
    assert measure_share(bare, ALL, Stages(tmp_path / "stages")) is None
    assert measure_share(data_of(folder, shuffle=True), ALL, Stages(tmp_path / "stages")) is None


def test_too_many_features_are_said_and_components_measured(recorded, tmp_path, capsys):
    x, trials, _ = recorded
    wide = np.column_stack([np.sin((k + 1) * x) for k in range(8)])
    data, stages = data_of(write(tmp_path / "wide", wide, trials)), Stages(tmp_path / "stages")
    assert measure_share(data, ALL, stages) is None
    said = " ".join(capsys.readouterr().out.split())
    assert "no nonlinear share: share.n_components=null: 160 stimuli are too few for 96" in said
    with pytest.raises(InputError, match=r"^share.n_components=90: .*there may be 80"):
        measure_share(data, ShareConfig(n_components=90), stages)
    share = measure_share(data, ShareConfig(n_components=10), stages)
    assert np.isfinite(share.columns["nonlinear_share"]).all()


def test_a_feature_that_one_stimulus_drives_is_a_caveat(recorded, tmp_path):
    x, trials, folder = recorded
    assert measure_share(data_of(folder), ALL, Stages(tmp_path / "stages")).caveat == ""
    rare = x.copy()
    rare[:, 0] = 0
    rare[[3, 100], 0] = 1, 0.01
    data = data_of(write(tmp_path / "rare", rare, trials))
    for _ in range(2):  # also where it was measured before
        caveat = measure_share(data, ALL, Stages(tmp_path / "stages")).caveat
        assert "1 of 160 stimuli decide alone what is fitted to them" in caveat


def test_it_is_computed_once(recorded, tmp_path, monkeypatch):
    _, _, folder = recorded
    stages = Stages(tmp_path / "stages")
    first = measure_share(data_of(folder), ALL, stages)
    monkeypatch.setattr("jne.measuring.share.LeaveOneOut", None)  # nothing is computed any more
    again = measure_share(data_of(folder), ALL, stages)
    np.testing.assert_array_equal(
        again.columns["nonlinear_share"], first.columns["nonlinear_share"]
    )
    assert again.regions.rois == ["", "V1", "V2"]


def test_a_voxel_without_known_noise_is_left_out_of_its_region(recorded, tmp_path):
    x, trials, folder = recorded
    repeats = load(folder).repeats
    noise = repeats.noise.copy()
    noise[:, 0] = np.nan
    np.savez(folder / "repeats.npz", **vars(replace(repeats, noise=noise)))
    share = measure_share(data_of(folder), ALL, Stages(tmp_path / "stages"))
    assert np.isnan(share.columns["nonlinear_share"]).tolist() == [True] + [False] * (V - 2)
    whole = nonlinear_share(x, trials)
    unit = np.square(trials.mean(axis=2)[:100].std(axis=0))
    expected = 1 - (whole.linear / unit)[[1, 2]].sum() / (whole.signal / unit)[[1, 2]].sum()
    found = share.regions.table({"V1": ["V1"]})["nonlinear_share"]
    assert found.item() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("change", ["cut", "other", "pickle"])
def test_damaged_repeats_are_one_sentence(recorded, change):
    folder = recorded[2]
    path = folder / "repeats.npz"
    if change == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif change == "other":
        np.savez(path, block=np.arange(3), weight=np.ones(3), noise=np.ones((3, 2)))
    else:
        np.savez(path, block=np.array([{}], dtype=object), weight=1, noise=1)
    with pytest.raises(InputError, match=r"^data: .*repeats.npz"):
        assert load(folder).repeats

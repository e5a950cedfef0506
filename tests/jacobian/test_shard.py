"""Shards of a computation, beside each other, are the whole: the same bytes, in every order."""

import numpy as np
import pytest
import torch
from brute_force import small_net
from torch import nn

from jne import jacobian_deviation
from jne.encoders import ResidualEncoder
from jne.jacobian import GAIN_SHAPE
from jne.jacobian.plan import Plan
from jne.jacobian.shard import share_of


@pytest.mark.parametrize("n_shards", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("settings", "n_shares"),
    [
        ({"variant": ["l1", "l2"], "order": "centred"}, 3),
        ({"variant": ["l1"], "precision": "int8"}, 3),
        ({"variant": ["l1"], "precision": "bfloat16"}, 3),
        ({"variant": ["l1"], "order": "centred", "max_memory_gb": 0.0302}, 2),
        ({"variant": ["l1"], "order": "reverse", "max_memory_gb": 0.0306}, 3),
        ({"variant": ["zscore_l1", "l1"], "max_memory_gb": 0.0304}, 3),
        ({"variant": ["l1"], "voxels": np.arange(1999, 0, -2)}, 3),
    ],
)
def test_shards_are_the_whole(monkeypatch, settings, n_shares, n_shards):
    monkeypatch.setattr("jne.jacobian.plan._VOXEL_BLOCK", 128)
    monkeypatch.setattr("jne.jacobian.plan._VOXEL_BLOCK_IN_GROUPS", 64)
    torch.manual_seed(0)
    encoder = ResidualEncoder(24, 2000, hidden_width=40, activation="gelu")
    check(encoder, torch.randn(6, 24), n_shards, n_shares, gain_shape=True, **settings)


def test_shards_of_a_module_without_a_chain():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 700))
    x = torch.randn(20, 12)
    check(module, x, 3, 2, variant=["l1"], max_memory_gb=0.0304, order="reverse")


def check(encoder, x, n_shards, n_shares, **settings):
    """n_shares: the fewest shards with voxels, where there are as many shards."""
    whole = jacobian_deviation(encoder, x, **settings)
    shards = [
        jacobian_deviation(encoder, x, shard=(k, n_shards), **settings)
        for k in range(1, n_shards + 1)
    ]
    assert sum(shard["l1"].size > 0 for shard in shards) >= min(n_shards, n_shares)
    for name, values in whole.items():
        together = np.concatenate([shard[name] for shard in shards], axis=1)
        assert together.tobytes() == values.tobytes(), name


def test_an_encoder_without_activations():
    encoder = ResidualEncoder(12, 30, hidden_width=8, placement="none")
    (shard,) = jacobian_deviation(
        encoder, torch.randn(5, 12), variant=["l1"], shard=(1, 1)
    ).values()
    assert shard.shape == (5, 30)
    assert (shard == 0).all()


@pytest.mark.parametrize(("block", "group", "n_groups"), [(5, 100, 1), (5, 20, 5), (100, 100, 1)])
@pytest.mark.parametrize("n_shards", [1, 3, 4, 150])
def test_shares_are_whole_blocks_that_cover_all_voxels_once(block, group, n_groups, n_shards):
    plan = Plan("centred", block, group, n_groups, 0, 0.0, 0.0)
    shares = [share_of(plan, 97, (k, n_shards)) for k in range(1, n_shards + 1)]
    assert np.concatenate([np.arange(97)[share] for share in shares]).tolist() == list(range(97))
    size = group if n_groups > 1 else block
    assert all(share.start % size == 0 for share in shares if share.stop > share.start)
    counts = [-(-(share.stop - share.start) // size) for share in shares]
    assert max(counts) - min(counts) <= 1


def test_a_shard_without_voxels_writes_no_file(tmp_path):
    encoder, x = small_net()
    path = tmp_path / "deviation.npy"
    found = jacobian_deviation(
        encoder, x, variant=["l1"], gain_shape=True, shard=(1, 2), order="centred", path=path
    )
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(
        ("l1", *GAIN_SHAPE), (14, 0)
    )
    assert not list(tmp_path.iterdir())

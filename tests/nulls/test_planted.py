"""Planted twins against what they are said to be, and `python train.py control=planted`."""

import numpy as np
import pytest
import torch
from helpers import TINY_COHORT, contents, small_cells

from jne.analysis.planted_share import largest_share, planted_share
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.encoders import ResidualEncoder
from jne.fitting.fit import Fitted
from jne.nulls.config import ControlConfig
from jne.nulls.planted import planted_twins
from jne.nulls.twins import TwinParts
from jne.results import Results
from jne.stages import Stages

PLANTED = "control.planted=[0.2,0.5]"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    source = small_cells(n_train=400, n_val=50)
    return EncodingData(prepare(source, tmp_path_factory.mktemp("cells")), batch_size=None, seed=0)


def test_a_planted_twin_has_the_share_that_was_planted(data, tmp_path):
    torch.manual_seed(0)
    encoder = ResidualEncoder(64, 12, hidden_width=32)
    parts = TwinParts(data, ControlConfig(kind="twins"), 0, Stages(tmp_path))
    twins, power = planted_twins(parts, Fitted(encoder, None, "fit/0"), [0.2, 0.5])
    assert twins.n_draws == 3
    raw = twins.responses * twins.scale.numpy() + twins.mean.numpy()
    ((linear, noise),) = parts.parts(slice(0, 12), 1)
    linear, noise = linear.double().numpy(), noise.double().numpy()
    np.testing.assert_allclose(raw[:, :12], linear + noise, atol=1e-4)
    rows = parts.rows
    x = data.features.double().numpy()[rows]
    with torch.no_grad():
        predicted = encoder(data.features).double().numpy()[rows]
    of_linear, of_noise = linear[rows].var(axis=0, ddof=1), noise[rows].var(axis=0, ddof=1)
    np.testing.assert_allclose(power, of_linear / (of_linear + of_noise), rtol=1e-4)
    for v in range(12):
        design = np.column_stack([np.ones(len(rows)), x, predicted[:, v]])
        for level, a in ((1, 0.2), (2, min(0.5, float(largest_share(power[v]))))):
            added = of_linear[v] * a / (1 - a)
            kept = np.sqrt(1 - added / of_noise[v])
            nonlinear = raw[rows, 12 * level + v] - linear[rows, v] - kept * noise[rows, v]
            assert nonlinear.var() == pytest.approx(added, rel=0.01)
            assert added / (added + of_linear[v]) == pytest.approx(a)
            # It is the prediction, and what a linear fit can say of it is taken out
            weights, *_ = np.linalg.lstsq(design, nonlinear, rcond=None)
            np.testing.assert_allclose(design @ weights, nonlinear, atol=1e-3)
            assert abs(np.corrcoef(nonlinear, linear[rows, v])[0, 1]) < 0.1
    assert power[:6].mean() == pytest.approx(0.5, abs=0.12)  # alpha 0, ceiling .5
    assert power[6:].mean() == pytest.approx(0.25, abs=0.12)  # alpha .5


@pytest.mark.runs
def test_the_results_of_a_run_with_planted_twins(run_train):
    settings = ("control=planted", PLANTED, "control.share=0.5", "jacobian.voxels=[V1,V2,V4]")
    (folder,) = run_train(*settings)
    (again,) = set(run_train(*settings)) - {folder}
    (plain,) = set(run_train(*settings[:1], "control.planted=[]", *settings[2:])) - {
        folder,
        again,
    }
    assert contents(folder) == contents(again)
    voxels = Results(folder).voxels
    found = planted_share(
        *(voxels[c].to_numpy() for c in ("jne_planted_fit", "linear_power")),
        np.minimum(
            np.array([[0], [0.2], [0.5]]),
            1 - voxels["linear_power"] / (0.95 + 0.05 * voxels["linear_power"]),
        ),
        voxels[["jne_planted_0", "jne_planted_20", "jne_planted_50"]].to_numpy().T,
    )
    for name, values in zip(("", "_low", "_high"), found, strict=True):
        np.testing.assert_allclose(voxels[f"planted_share{name}"], values)
    there = voxels["w"].notna()
    assert 0 < there.sum() < 18
    for name in ("linear_power", "jne_planted_fit", "jne_planted_0", "jne_planted_50"):
        assert (voxels[name].notna() == there).all()
    assert not list(folder.glob("planted*"))
    # The first training, and with it W, is that of control=twins
    other = Results(plain).voxels
    np.testing.assert_array_equal(voxels["w"], other["w"])
    assert "planted_share" not in other


@pytest.mark.runs
def test_planting_into_a_linear_encoder_says_nothing(run_script):
    (folder,) = run_script(
        "train.py", *TINY_COHORT, "control=planted", "encoder=linear", "trainer.max_epochs=1"
    )
    voxels = Results(folder).voxels
    assert not voxels["jne_planted_60"].any()
    assert voxels["planted_share"].isna().all()

"""A run on two feature spaces, from the command line to the report."""

import json
from pathlib import Path

import numpy as np
import pytest
from finished_run import evaluate_config
from helpers import TINY
from PIL import Image
from space_arrays import WIDTHS, write_arrays

from jne import Results
from jne.analysis.prediction import r2_score
from jne.errors import InputError
from jne.evaluation.external_test import external_test

pytestmark = pytest.mark.runs


@pytest.fixture
def overrides(tmp_path):
    files = write_arrays(tmp_path)
    spaces = ", ".join(f"{name}: {file}" for name, file in files.items())
    (tmp_path / "voxels.csv").write_text("roi\nV1\nV1\nV1\nV4\nV4\nV4\n")
    data = (
        "data=arrays",
        f"data.root={tmp_path}",
        "data.responses=y.npy",
        "data.voxels=voxels.csv",
    )
    return [*TINY, *data, f"data.features={{{spaces}}}"]


def test_a_run_on_two_spaces(run_script, overrides, tmp_path, capfd):
    (folder,) = run_script("train.py", *overrides, "baseline=[ridge,banded,partition]")
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("R²")]
    assert len(lines) == 2
    assert not any("interaction" in line for line in lines)  # linear fits have none
    run = Results(folder)
    assert run.feature_spaces == {"narrow": slice(0, 5), "wide": slice(5, 25)}
    assert run.array("features").shape[1] == 25
    split = run.spaces["r2_split"].unstack(sort=False)
    assert list(split.columns) == ["narrow", "wide", "interaction"]
    assert split.pop("interaction").isna().all()
    np.testing.assert_allclose(split.sum(axis=1), run.voxels["r2_banded"], atol=1e-5)
    unique = run.spaces["r2_unique"].unstack(sort=False).drop(columns="interaction")
    whole = unique.sum(axis=1).to_numpy() + run.voxels["r2_shared"]
    np.testing.assert_allclose(whole, run.voxels["r2_banded"], atol=1e-5)
    assert (unique["wide"][:3].abs() < 0.1).all()  # these are of the narrow space alone
    assert (unique["wide"][3:] > 0.1).all()
    metrics = run.summary["metrics"]
    assert metrics["space/wide/r2_split"] == pytest.approx(split["wide"].mean(), abs=1e-5)
    assert metrics["r2_banded/mean"] == pytest.approx(run.voxels["r2_banded"].mean())
    arrays = [np.load(tmp_path / f"{name}.npy") for name in run.feature_spaces]
    predicted = run.predict(np.concatenate(arrays, axis=1))  # in the units of the files
    truth = np.load(tmp_path / "y.npy")
    assert r2_score(truth, predicted).mean() > 0.3


def test_an_external_test_set_has_the_same_spaces(run_script, overrides, tmp_path):
    """Here the stimuli of the run again, so the encoder does as well on them as on its own."""
    run = Results(run_script("train.py", *overrides)[0])

    def tested(spaces):
        files = (f"test.features={{{spaces}}}", "test.responses=y.npy")
        config = evaluate_config(tmp_path, "test=arrays", f"test.root={tmp_path}", *files)
        return external_test(run, config, lambda _: None)

    expected = np.load(tmp_path / "y.npy")
    features = np.concatenate([np.load(tmp_path / f"{name}.npy") for name in WIDTHS], axis=1)
    r2 = tested("narrow: narrow.npy, wide: wide.npy").columns["r2_ood"]
    np.testing.assert_allclose(r2, r2_score(expected, run.predict(features)), atol=1e-4)
    for spaces in ("other: narrow.npy, wide: wide.npy", "wide: wide.npy, narrow: narrow.npy"):
        with pytest.raises(InputError, match=r"^features: .* takes narrow \(5\), wide \(20\)"):
            tested(spaces)


def test_features_of_images_and_of_a_file_side_by_side(run_script, overrides, tmp_path):
    """Two layers of a model are two spaces; the prepared folder says which columns are whose."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k in range(150):
        pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{k:03d}.png")
    data = [word for word in overrides if not word.startswith("data.features")]
    timm = ("features.spaces.timm.model=test_vit", "features.spaces.timm.pretrained=false")
    file = f"features.spaces.precomputed.path={tmp_path / 'wide.npy'}"
    (folder,) = run_script(
        "train.py", *data, "data.images=images", "features=[precomputed,timm]", *timm,
        "features.spaces.timm.layer=[1,2]", file,
    )  # fmt: skip
    run = Results(folder)
    assert list(run.feature_spaces) == ["precomputed", "timm_layer_1", "timm_layer_2"]
    assert run.status["params"]["features"] == "precomputed+test_vit"
    prepared = Path(run.status["prepared"])
    widths = json.loads((prepared / "feature_spaces.json").read_text())
    assert widths["precomputed"] == 20
    assert np.load(prepared / "features.npy").shape[1] == sum(widths.values())
    assert "r2_split" not in run.spaces
    assert (run.spaces["jne"].unstack().count(axis=1) == 3).all()

"""LAION-fMRI's images out of distribution as an external test set of a trained encoder."""

import sys
from pathlib import Path

import numpy as np
import pytest
from finished_run import evaluate_config
from helpers import ROOT, no_figures, run_quietly

sys.path.insert(0, str(Path(ROOT) / "tests" / "data"))
from laion_tree import OOD, write_laion
from test_laion import overrides, places, plain_reading

from jne.data.prepared import load
from jne.errors import InputError
from jne.evaluation.external_test import external_test
from jne.results import Results

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory, store):
    folder = tmp_path_factory.mktemp("laion_ood")
    root = write_laion(folder / "laion")
    training = ("encoder.hidden_width=8", "trainer.max_epochs=2", "stats.n_bootstrap=20",
                "optimizer.weight_decay=0", "evidence=false")  # fmt: skip
    with no_figures():
        (run,) = run_quietly(folder / "out", store, "train.py", *overrides(root), *training)
    return root, Results(run)


def config_of(root, output, *more):
    return evaluate_config(output, "test=ood", f"test.root={root}", "features=laion_clip", *more)


def test_images_out_of_distribution_in_the_voxels_of_the_run(trained, tmp_path):
    root, run = trained
    result = external_test(run, config_of(root, tmp_path), lambda _: None)
    (folder,) = (tmp_path / "prepared").glob("ood-*")
    prepared, trials = load(folder), plain_reading(root)
    assert dict(zip(prepared.stimuli["stimulus"], prepared.stimuli["category"], strict=True)) == OOD
    assert (prepared.stimuli["n_repeats"] == 4).all()
    assert (prepared.stimuli["split"] == "test").all()
    assert places(prepared) == places(run)
    for row, name in enumerate(prepared.stimuli["stimulus"]):
        expected = [np.mean(trials[name].get(place, np.nan)) for place in places(run)]
        np.testing.assert_allclose(prepared.responses[row], expected, rtol=1e-5, atol=2e-6)
    # The ceiling of the map, for 4 repeats in place of those of the run's own test images
    whole = (run.voxels["n_invalid_sessions"] == 0) & run.voxels["noise_ceiling"].notna()
    odds = np.square(run.voxels["ncsnr"][whole])
    np.testing.assert_allclose(
        result.columns["noise_ceiling_ood"][whole], odds / (odds + 1 / 4), rtol=1e-6
    )
    assert np.isfinite(result.columns["r_ood"][run.voxels["status"] == "ok"]).any()
    assert result.deviation.shape == (len(OOD), (run.voxels["status"] == "ok").sum())
    assert list(result.stimuli["category"]) == list(prepared.stimuli["category"])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["test=nsd_synthetic"], "does not belong; choose runs on other data"),
        (["features=laion_dinov2"], "features=laion_dinov2: the encoder of subj01 in"),
    ],
)
def test_what_is_refused(trained, tmp_path, more, expected):
    root, run = trained
    config = config_of(root, tmp_path, *more)
    with pytest.raises(InputError, match=expected):
        external_test(run, config, lambda _: None)

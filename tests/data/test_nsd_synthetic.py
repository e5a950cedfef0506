"""NSD-synthetic against a plain reading of the same files."""

import h5py
import numpy as np
import pandas as pd
import pytest
from nsd_synthetic_tree import INVALID, N_IMAGES, N_TRIALS, order, write_nsd_synthetic
from nsd_tree import BETAS, GRID, SUBJECT, write_nsd
from PIL import Image
from scipy.io import savemat

from jne.analysis.noise_ceiling import noise_ceiling_snr
from jne.data.nsd_synthetic import NSDSynthetic, SyntheticImages
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.features import Precomputed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("nsd")
    write_nsd(root)
    return write_nsd_synthetic(root)


@pytest.fixture
def make(root, tmp_path):
    """A source of some voxels, with features of the 284 images."""
    i, j, k = np.unravel_index([33, 61, 7, np.ravel_multi_index(INVALID, GRID)], GRID)
    voxels = pd.DataFrame({"voxel": range(4), "roi": "V1", "i": i, "j": j, "k": k})
    voxels.to_csv(tmp_path / "voxels.csv", index=False)
    features = np.random.default_rng(0).standard_normal((N_IMAGES, 5), dtype=np.float32)
    np.save(tmp_path / "features.npy", features)
    own = Precomputed(
        name="p", layer=None, path=tmp_path / "features.npy", key=None, first_layer=1, ids=None
    )

    def source(**changes):
        settings = {
            "name": "nsd_synthetic", "subject": SUBJECT, "root": root, "space": "func1pt8mm",
            "betas": f"nsdsynthetic{BETAS}", "voxel_table": tmp_path / "voxels.csv",
            "zscore": "run", "pixels": "sqrt", "image_features": own,
        }  # fmt: skip
        return NSDSynthetic(**(settings | changes))

    return source


def raw(root, place):
    """The trials (744,) of a voxel, in percent signal change."""
    folder = root / "nsddata_betas" / "ppdata" / SUBJECT / "func1pt8mm" / f"nsdsynthetic{BETAS}"
    with h5py.File(folder / "betas_nsdsynthetic.hdf5") as file:
        return file["betas"][()].T[place] / 300


@pytest.mark.parametrize("zscore", ["run", "session", "none"])
def test_every_value_is_that_of_a_plain_reading(make, root, tmp_path, zscore):
    prepared = prepare(make(zscore=zscore), tmp_path / "prepared")
    shown = order() - 1
    assert set(prepared.stimuli["split"]) == {"test"}
    assert list(prepared.stimuli["n_repeats"]) == list(np.bincount(shown))
    assert list(prepared.stimuli["category"])[::71] == ["noise", "scenes", "gratings", "colour"]
    np.testing.assert_array_equal(prepared.features, np.load(tmp_path / "features.npy"))
    repeats = np.full((N_IMAGES, 1, 10), np.nan)
    for column, row in enumerate(prepared.voxels.itertuples()):
        values = raw(root, (row.i, row.j, row.k))
        if not values.any():
            assert np.isnan(prepared.responses[:, column]).all()
            assert row.n_invalid_trials == N_TRIALS
            continue
        length = {"run": 93, "session": N_TRIALS, "none": 0}[zscore]
        for start in range(0, N_TRIALS, length) if length else ():
            part = values[start : start + length]
            values[start : start + length] = (part - part.mean()) / part.std()
        expected = [values[shown == image].mean() for image in range(N_IMAGES)]
        np.testing.assert_allclose(prepared.responses[:, column], expected, rtol=1e-4, atol=1e-5)
        repeats[:] = np.nan
        for image in range(N_IMAGES):
            found = values[shown == image]
            repeats[image, 0, : len(found)] = found
        ncsnr = noise_ceiling_snr(repeats)[0]
        assert row.ncsnr == pytest.approx(ncsnr, rel=1e-5)
        inverse = (236 / 2 + 32 / 4 + 8 / 8 + 8 / 10) / N_IMAGES
        assert row.noise_ceiling == pytest.approx(ncsnr**2 / (ncsnr**2 + inverse), rel=1e-5)


def test_images_are_the_middle_and_on_a_linear_display(root):
    stimuli = root / "nsddata_stimuli" / "stimuli" / "nsdsynthetic"
    files = (
        stimuli / "nsdsynthetic_stimuli.hdf5",
        stimuli / f"nsdsynthetic_colorstimuli_{SUBJECT}.hdf5",
    )
    images = SyntheticImages(*files, gamma=True)
    stored = SyntheticImages(*files, gamma=False)
    assert len(images) == N_IMAGES
    for number, (file, row) in {4: (files[0], 3), 221: (files[1], 0), 284: (files[1], 63)}.items():
        with h5py.File(file) as opened:
            pixels = opened["imgBrick"][row]
        side = pixels.shape[0]
        middle = pixels[:, side // 2 : side // 2 + side]
        assert images.names[number - 1] == f"nsdsynthetic{number:03d}"
        np.testing.assert_array_equal(np.asarray(stored.read(number - 1)), middle)
        expected = np.rint(np.sqrt(middle / 255) * 255)
        np.testing.assert_allclose(np.asarray(images.read(number - 1)), expected, atol=1)
        assert isinstance(images.read(0), Image.Image)
    assert images.fingerprint() != stored.fingerprint()


@pytest.mark.runs
def test_fsaverage_is_read_as_percent(make, tmp_path):
    root = write_nsd_synthetic(tmp_path / "nsd", "fsaverage")
    voxels = pd.DataFrame({"voxel": [0, 1], "roi": "", "hemisphere": ["left", "right"]})
    voxels.assign(vertex=[7, 31], mesh="fsaverage").to_csv(tmp_path / "voxels.csv", index=False)
    prepared = prepare(make(root=root, space="fsaverage", zscore="none"), tmp_path / "prepared")
    import nibabel as nib

    for column, (side, vertex) in enumerate((("lh", 7), ("rh", 31))):
        path = next(root.rglob(f"{side}.betas_nsdsynthetic.mgh"))
        trials = nib.load(path).get_fdata(dtype=np.float32)[vertex, 0, 0]
        expected = [trials[order() == image + 1].mean() for image in range(N_IMAGES)]
        np.testing.assert_allclose(prepared.responses[:, column], expected, rtol=1e-5, atol=1e-6)


def refused(source, tmp_path):
    with pytest.raises(InputError) as error:
        prepare(source, tmp_path / "prepared")
    return str(error.value)


def test_what_is_missing_is_named(make, tmp_path):
    sentence = refused(make(subject="subj02"), tmp_path)
    assert sentence.startswith("data.root=")
    assert "no NSD-synthetic of subj02 in it: no" in sentence


@pytest.mark.parametrize(
    "content",
    [
        {"masterordering": np.zeros((1, N_TRIALS))},
        {"masterordering": order()[None, :-1]},
        {"masterordering": np.where(order() == 284, 1, order())[None]},
        {"other": np.zeros(3)},
    ],
)
def test_another_order_is_refused(make, tmp_path, content):
    root = tmp_path / "nsd"
    write_nsd(root)
    write_nsd_synthetic(root)
    savemat(next(root.rglob("nsdsynthetic_expdesign.mat")), content)
    sentence = refused(make(root=root), tmp_path)
    assert sentence.startswith("data.root: ")
    assert "masterordering" in sentence


def test_damaged_files_are_named(make, tmp_path):
    root = tmp_path / "nsd"
    write_nsd(root)
    write_nsd_synthetic(root)
    path = next(root.rglob("nsdsynthetic_expdesign.mat"))
    for damaged in (b"", b"no matlab file" * 20, path.read_bytes()[:200]):
        path.write_bytes(damaged)
        assert "cannot be read" in refused(make(root=root), tmp_path)


def test_too_few_images_are_refused(make, tmp_path, root):
    stimuli = root / "nsddata_stimuli" / "stimuli" / "nsdsynthetic"
    shared = stimuli / "nsdsynthetic_stimuli.hdf5"
    with pytest.raises(InputError, match="has 220 images, expected 64"):
        SyntheticImages(shared, shared, gamma=True)

"""Sessions in any layout, averaged in any number of blocks, against plain reading and one block."""

import os
import sys

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from data_sources import source
from nsd_tree import write_nsd

from jne.analysis.repeats import repeats_of
from jne.data.averaging import by_session
from jne.data.averaging.means import Means, Repeats, standardise, units_of
from jne.data.nifti import read_stored
from jne.data.nsd import sessions
from jne.data.nsd.sessions import Hdf5Session, NiftiSession
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.utils.blocks import even_blocks

SHAPE = (9, 4, 5, 6)  # n_trials, Z, Y, X
LAYOUTS = {
    "as released": {"chunks": (9, 1, 1, 1)},
    "compressed": {"chunks": (9, 1, 1, 1), "compression": "gzip"},
    "checksums": {"chunks": (9, 1, 1, 1), "fletcher32": True},
    "several voxels": {"chunks": (9, 3, 2, 4), "compression": "gzip"},
    "by trial": {"chunks": (1, 4, 5, 6)},
    "contiguous": {},
}


@pytest.fixture
def places():
    """Most voxels of SHAPE, in a random order."""
    chosen = np.random.default_rng(1).permutation(np.prod(SHAPE[1:]))[:90]
    return np.unravel_index(chosen, SHAPE[1:])


def write_hdf5(path, dtype="i2", *, written=slice(None), file=None, **layout):
    values = np.random.default_rng(0).integers(-500, 500, SHAPE)
    with h5py.File(path, "w", **(file or {})) as opened:
        betas = opened.create_dataset("betas", SHAPE, dtype, **layout)
        for z in np.random.default_rng(2).permutation(SHAPE[1]):  # chunks in no order
            betas[:, z, written] = values[:, z, written]
    with h5py.File(path) as opened:
        return opened["betas"][()]


@pytest.mark.parametrize("at_once", [30, 2**22])
@pytest.mark.parametrize(
    ("layout", "more"),
    [
        *((layout, {}) for layout in LAYOUTS),
        ("as released", {"dtype": ">i2"}),
        ("as released", {"file": {"userblock_size": 512}}),  # as MATLAB writes
        ("as released", {"file": {"libver": "latest"}}),
        ("as released", {"written": slice(0, 3)}),
    ],
)
def test_each_layout_is_read_as_h5py_reads_it(tmp_path, places, monkeypatch, at_once, layout, more):
    monkeypatch.setattr(sessions, "_AT_ONCE", at_once)
    monkeypatch.setattr(sessions, "_GAP", at_once // 10)
    path = tmp_path / "betas.hdf5"
    expected = write_hdf5(path, **LAYOUTS[layout], **more)[(slice(None), *places)].T
    session = Hdf5Session(path, SHAPE, places)
    for chosen in (slice(None), slice(0, 1), slice(20, 61)):
        np.testing.assert_array_equal(session.read(chosen), expected[chosen])
    direct = layout == "as released" and "written" not in more
    assert (session._offsets is not None) == direct


def test_a_file_that_is_cut_short_later_is_named(tmp_path, places):
    path = tmp_path / "betas.hdf5"
    write_hdf5(path, **LAYOUTS["as released"])
    session = Hdf5Session(path, SHAPE, places)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match=r"^data.root: .*betas.hdf5 cannot be read \(it is cut"):
        session.read(slice(None))


def test_a_compressed_image_is_unpacked_once(tmp_path, places):
    values = np.random.default_rng(0).integers(-500, 500, SHAPE).astype(np.int16)
    path, unpacked = tmp_path / "betas.nii.gz", tmp_path / "unpacked.npy"
    nib.save(nib.Nifti1Image(values.T, np.eye(4)), path)
    expected = values[(slice(None), *places)].T
    session = NiftiSession(path, SHAPE, places, unpacked)
    np.testing.assert_array_equal(session.read(slice(10, 50)), expected[10:50])
    path.write_bytes(b"")
    np.testing.assert_array_equal(session.read(slice(40, 90)), expected[40:])


@pytest.mark.parametrize("with_isal", [False, True])
def test_a_compressed_image_is_the_same_by_either_unpacker(tmp_path, monkeypatch, with_isal):
    if with_isal:
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal.igzip", None)  # as if it were not installed
    values = np.random.default_rng(0).integers(-500, 500, SHAPE).astype(np.int16)
    path = tmp_path / "betas.nii.gz"
    nib.save(nib.Nifti1Image(values.T, np.eye(4)), path)
    np.testing.assert_array_equal(read_stored(path), values.T)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"betas\.nii\.gz cannot be read"):
        read_stored(path)


@pytest.mark.parametrize("ddof", [0, 1])
def test_standardised_bytes_are_those_of_the_plain_formula(ddof):
    rng = np.random.default_rng(0)
    betas = (rng.standard_normal((40, 1100)) * rng.gamma(1, 3, 1100)).astype(np.float32)
    betas[3, 5], betas[:, 7], betas[9, 600] = np.nan, 0.1, np.inf
    unit = np.repeat([4, 2, 3], [20, 9, 11])
    for number in (unit, rng.permutation(unit)):  # runs in one piece, or mixed
        expected, found = betas.copy(), betas.copy()
        valid = standardise(found, number, ddof=ddof)
        for u, run in enumerate(np.unique(number)):
            values = betas[number == run].astype(np.float64)
            finite = np.isfinite(values).all(axis=0)
            np.testing.assert_array_equal(valid[u], finite & (np.ptp(values, axis=0) > 0))
            values[:, ~finite] = 0
            spread = values.std(axis=0, ddof=ddof)
            expected[number == run] = (values - values.mean(axis=0)) / np.where(spread, spread, 1)
        np.testing.assert_array_equal(found, expected)


def test_means_are_those_over_valid_trials():
    """Images shown up to four times within a session and between sessions, one by one."""
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({"session": np.repeat([1, 2, 5], 30), "run": np.tile([1, 1, 2], 30)})
    trials["row"] = np.concatenate([np.arange(25), rng.integers(0, 25, 65)])
    unit = units_of(trials, "run")
    repeats = Repeats(trials, unit)
    means, values = (
        Means(repeats, 40, squares=True, noise=True),
        rng.standard_normal((90, 40)).astype(np.float32),
    )
    valid = rng.random((unit.max() + 1, 40)) > 0.2
    valid[:, :20] = True
    for k, number in enumerate(repeats.numbers):
        inside = trials["session"] == number
        means.add(k, values[inside], valid[np.unique(unit[inside])])
    for v in range(40):
        counted = valid[unit, v]
        assert means.squares[v] == pytest.approx(np.square(values[counted, v]).sum())
        for row in range(25):
            some = values[counted & (trials["row"] == row), v]
            assert means.count[row, v] == len(some)
            expected = some.mean(dtype=np.float64) if len(some) else 0
            assert means.values[row, v] == pytest.approx(expected, rel=1e-6, abs=1e-7)
    shown = [values[trials["row"] == row] for row in range(25)]
    padded = np.full((25, 40, max(map(len, shown))), np.nan)
    for row, some in enumerate(shown):
        padded[row, :, : len(some)] = some.T
    noise = means.kept_repeats().noise
    np.testing.assert_allclose(noise[:, :20], repeats_of(padded).noise[:, :20], rtol=1e-4)
    assert np.isnan(noise[:, ~means.valid.all(axis=0)]).all()


def contents(prepared) -> dict[str, bytes]:
    names = ("responses.npy", "features.npy", "voxels.csv", "stimuli.csv", "repeats.npz")
    return {name: (prepared.folder / name).read_bytes() for name in names}


@pytest.fixture
def small_blocks(monkeypatch):
    """Thirteen blocks of the tree's brain."""
    monkeypatch.setattr(by_session, "VOXELS_AT_ONCE", 8)
    monkeypatch.setattr(by_session, "_MEANS_BYTES", 0)


@pytest.mark.runs
@pytest.mark.parametrize("noise_ceiling", ["ncsnr", "repeats", "repeats_as_nsd"])
def test_blocks_do_not_change_a_byte(tree, features, tmp_path, request, noise_ceiling):
    settings = ("data.voxels=brainmask", f"data.noise_ceiling={noise_ceiling}")
    whole = prepare(source(tmp_path, tree, features, *settings), tmp_path / "whole")
    request.getfixturevalue("small_blocks")
    found = prepare(source(tmp_path, tree, features, *settings), tmp_path / "blocks")
    assert contents(found) == contents(whole)
    assert {p.name for p in found.folder.iterdir()} == {p.name for p in whole.folder.iterdir()}


@pytest.mark.runs
def test_blocks_of_compressed_images_and_of_surfaces(
    tree, surface, features, tmp_path, small_blocks
):
    other = write_nsd(tmp_path / "nifti", "nii.gz")
    plain = prepare(source(tmp_path, tree, features), tmp_path / "a")
    nifti = prepare(source(tmp_path, other, features), tmp_path / "b")
    np.testing.assert_array_equal(plain.responses, nifti.responses)
    settings = ("data.space=fsaverage", "data.voxels=[nsdgeneral]")
    blocks = prepare(source(tmp_path, surface, features, *settings), tmp_path / "c")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_session, "VOXELS_AT_ONCE", 512)
        whole = prepare(source(tmp_path, surface, features, *settings), tmp_path / "d")
    assert contents(blocks) == contents(whole)


@pytest.mark.runs
@pytest.mark.parametrize(
    "moment", [2, 27, *(pytest.param(m, marks=pytest.mark.slow) for m in (1, 7, 10, 26, 29))]
)
def test_an_interrupted_preparation_continues_with_its_block(
    tree, features, tmp_path, monkeypatch, small_blocks, moment
):
    settings = ("data.voxels=brainmask",)
    whole = contents(prepare(source(tmp_path, tree, features, *settings), tmp_path / "whole"))
    replace, read, count = os.replace, Hdf5Session.read, {"renames": 0, "reads": 0}

    def failing(*names):
        count["renames"] += 1
        if count["renames"] == moment:
            raise KeyboardInterrupt
        replace(*names)

    def counted(session, chosen):
        count["reads"] += 1
        return read(session, chosen)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare(source(tmp_path, tree, features, *settings), tmp_path / "out")
    monkeypatch.setattr(Hdf5Session, "read", counted)
    found = prepare(source(tmp_path, tree, features, *settings), tmp_path / "out")
    assert contents(found) == whole
    assert not (found.folder / "averaging").exists()
    n_blocks, n_sessions = 13, 3
    done = min((moment - 1) // 2, n_blocks)  # two renames each
    assert count["reads"] == n_sessions * (n_blocks - done)


@pytest.mark.runs
def test_what_was_left_half_written_is_not_taken_for_data(tree, features, tmp_path):
    whole = prepare(source(tmp_path, tree, features), tmp_path / "whole")
    partial = tmp_path / "out" / f".{whole.folder.name}.partial"
    partial.mkdir(parents=True)
    np.save(partial / "responses.npy", np.zeros_like(whole.responses))
    np.save(partial / "rows_0.npy", np.zeros(3))
    np.savez(partial / "state.npz", done=3)
    found = prepare(source(tmp_path, tree, features), tmp_path / "out")
    assert contents(found) == contents(whole)
    assert {p.name for p in found.folder.iterdir()} == {p.name for p in whole.folder.iterdir()}


def test_even_blocks():
    for n in (0, 1, 2, 511, 512, 513, 1025, 5000):
        blocks = list(even_blocks(n, 512))
        assert [i for block in blocks for i in range(n)[block]] == list(range(n))
        sizes = [block.stop - block.start for block in blocks]
        assert not sizes or (max(sizes) <= 512 and max(sizes) - min(sizes) <= 1)

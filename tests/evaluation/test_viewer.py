"""What the interactive brain is given, unpacked again."""

import base64
import gzip
import io
import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from finished_run import evaluate_config, write_run

from jne.columns import maps, maps_of
from jne.evaluation.subjects import by_subject
from jne.evaluation.viewer import pack, viewer
from jne.evaluation.voxels import voxel_tables

SPACE = {"shape": [4, 5, 6], "affine": np.diag([2.0, 2, 2, 1]).tolist()}


def unpack(text):
    """As brain.js does it."""
    content = gzip.decompress(base64.b64decode(text))
    length = int.from_bytes(content[:4], "little")
    start = -(-(4 + length) // 8) * 8

    def array(value):
        if "array" not in value:
            return value
        dtype = np.dtype(f"<{value['array']}")
        return np.frombuffer(content, dtype, value["n"], start + value["at"])

    return json.loads(content[4 : 4 + length], object_hook=array)


@pytest.fixture
def data(tmp_path):
    run = write_run(tmp_path / "run")
    (found,) = voxel_tables(by_subject([run]), evaluate_config(tmp_path, "variants=[l1]"))
    return found


def test_arrays_are_packed_and_unpacked():
    content = {
        "a": [np.arange(3, dtype="u1"), {"b": np.array([1.5, np.nan], dtype="<f4")}],
        "c": "text",
        "d": np.array([-7, 9], dtype="<i2"),
    }
    found = unpack(pack(content))
    np.testing.assert_array_equal(found["a"][0], [0, 1, 2])
    np.testing.assert_array_equal(found["a"][1]["b"], [1.5, np.nan])
    np.testing.assert_array_equal(found["d"], [-7, 9])
    assert found["c"] == "text"


def values_of(shown, name):
    measure = next(one for one in shown["measures"] if one["name"] == name)
    steps = shown["values"][name].astype(float)
    steps[steps == 65535] = np.nan
    return measure["low"] + steps / 65534 * (measure["high"] - measure["low"])


def test_voxel_values_in_a_volume(data):
    n = len(data.voxels)
    i, j, k = np.unravel_index(np.random.default_rng(0).permutation(120)[:n], (4, 5, 6))
    data.voxels.insert(0, "i", i)
    data.voxels.insert(0, "j", j)
    data.voxels.insert(0, "k", k)
    data.subject.nonlinear.space = SPACE
    found = viewer([data])
    content = unpack(found["data"])
    (shown,) = content["subjects"]
    np.testing.assert_array_equal(shown["at"], i + 4 * (j + 5 * k))  # as in a NIfTI file
    assert (shown["shape"], shown["corner"]) == ([4, 5, 6], [0, 0, 0])
    expected = data.voxels["jne"].to_numpy()
    np.testing.assert_allclose(values_of(shown, "jne"), expected, atol=np.nanmax(expected) / 60000)
    assert [content["rois"][r] for r in shown["roi"]] == list(data.voxels["roi"])
    assert any("no mean image" in line for line in found["notes"])


def test_the_brain_starts_on_the_share_of_the_nonlinear_voxels(data):
    n = len(data.voxels)
    data.voxels["hemisphere"], data.voxels["vertex"] = "left", pd.array(range(n), dtype="Int64")
    (plain,) = unpack(viewer([data])["data"])["subjects"]
    assert plain["mask"] == ""
    assert plain["measures"][0]["name"] == "jne"
    data.voxels["nonlinear"] = pd.array([*(np.arange(n - 1) % 3 == 0), None], dtype="boolean")
    for first in ("validated_share", "nonlinear_share"):
        data.voxels[first] = np.linspace(0, 1, n)
        (shown,) = unpack(viewer([data])["data"])["subjects"]
        assert shown["measures"][0]["name"] == first.replace("_", "")
    assert shown["mask"] == "nonlinear voxels only (q ≤ 0.1: 5 of 14)"
    masked = {measure["name"]: measure["masked"] for measure in shown["measures"]}
    assert masked["nonlinearshare"]
    assert masked["validatedshare"]
    assert masked["jne"]
    assert not masked["r2"]
    assert not masked["nonlinear"]


def test_a_volume_is_cut_around_the_voxels_and_keeps_its_coordinates(data):
    index = np.random.default_rng(0).integers(30, 50, (3, len(data.voxels)))
    for name, values in zip("ijk", index, strict=True):
        data.voxels.insert(0, name, values)
    affine = np.array([[-1.8, 0, 0, 90], [0, 1.8, 0, -30], [0, 0, 1.8, 20], [0, 0, 0, 1]])
    data.subject.nonlinear.space = {"shape": [81, 104, 83], "affine": affine.tolist()}
    (shown,) = unpack(viewer([data])["data"])["subjects"]
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(shown["header"].tobytes()))
    assert header.get_data_shape() == tuple(shown["shape"])
    at = np.stack(np.unravel_index(shown["at"], shown["shape"], order="F"))
    ones = np.ones(len(data.voxels))
    found = header.get_best_affine() @ np.vstack([at, ones])
    np.testing.assert_allclose(found, affine @ np.vstack([index, ones]), atol=1e-4)
    np.testing.assert_array_equal(at + np.array(shown["corner"])[:, None], index)


def test_voxel_values_on_a_surface(data):
    n = len(data.voxels)
    vertex = pd.array([*range(100, 100 + n - 1), None], dtype="Int64")
    data.voxels["hemisphere"] = ["left"] * 7 + ["right"] * (n - 8) + [""]
    data.voxels["vertex"] = vertex
    content = unpack(viewer([data])["data"])
    (shown,) = content["subjects"]
    assert shown["mesh"] == "fsaverage5"
    np.testing.assert_array_equal(shown["left"]["at"], range(100, 107))
    np.testing.assert_array_equal(shown["right"]["at"], range(107, 114))
    both = np.concatenate([shown[side]["values"]["r2"] for side in ("left", "right")])
    found = values_of(shown | {"values": {"r2": both}}, "r2")
    np.testing.assert_allclose(found, data.voxels["r2_nonlinear"][: n - 1], atol=1e-4)
    for side in ("left", "right"):
        mesh = content["meshes"]["fsaverage5"][side]
        assert len(mesh["inflated"]["points"]) == 3 * 10242


@pytest.mark.runs
def test_without_positions_there_is_no_brain(data):
    assert viewer([data]) is None


@pytest.mark.runs
def test_measures_that_a_table_does_not_have_are_left_out(data):
    names = [measure.name for measure in maps_of(data.voxels)]
    assert "jne" in names
    assert "nonlinear_share" not in names
    assert len({measure.file_name for measure in maps()}) == len(maps())
    assert all(measure.file_name.isalnum() for measure in maps()), "they are in the names of files"

"""spaces.csv and feature_spaces.json: written, read back, and refused where they are damaged."""

import json

import numpy as np
import pandas as pd
import pytest

from jne.errors import InputError
from jne.results.spaces import (
    FEATURE_SPACES,
    SPACES,
    read_feature_spaces,
    read_spaces,
    space_metrics,
    space_regions,
    write_spaces,
)

FEATURE = {"clip": slice(0, 3), "depth": slice(3, 5)}
VOXELS = pd.DataFrame({"voxel": ["01", "1", "x", "-y"], "roi": ["V4", "V1", "", "V4"]})
SPLIT = np.array([[0.1, 0.2, np.nan, 0.4], [0.5, 0.6, np.nan, 0.8]], dtype=np.float32)


@pytest.fixture
def table(tmp_path):
    measured = {space: {"r2_split": split} for space, split in zip(FEATURE, SPLIT, strict=True)}
    return write_spaces(tmp_path, VOXELS, FEATURE, measured)


def test_what_is_written_is_read(tmp_path, table):
    assert read_feature_spaces(tmp_path, 5) == FEATURE
    spaces = read_spaces(tmp_path, VOXELS, FEATURE)
    assert spaces.index.names == ["voxel", "space"]
    assert spaces.loc[("-y", "depth"), "r2_split"] == pytest.approx(0.8)
    np.testing.assert_allclose(spaces["r2_split"].unstack(sort=False).to_numpy().T, SPLIT)
    np.testing.assert_allclose(table["r2_split"], spaces["r2_split"])


def test_without_a_measure_there_is_no_table(tmp_path):
    assert write_spaces(tmp_path, VOXELS, FEATURE, {}) is None
    assert read_feature_spaces(tmp_path, 5) == FEATURE
    assert read_spaces(tmp_path, VOXELS, FEATURE) is None
    assert read_feature_spaces(tmp_path / "of_one_space", 5) is None


def test_an_interaction_is_a_row_of_its_own(tmp_path):
    """Measures that a row does not have are NaN."""
    z = np.arange(4.0)
    measured = {"interaction": {"nonlinear_z": z}, "depth": {"jne": z + 1}}
    write_spaces(tmp_path, VOXELS, FEATURE, measured)
    spaces = read_spaces(tmp_path, VOXELS, FEATURE)
    assert list(spaces.loc["x"].index) == ["clip", "depth", "interaction"]
    np.testing.assert_array_equal(spaces.xs("interaction", level="space")["nonlinear_z"], z)
    np.testing.assert_array_equal(spaces.xs("depth", level="space")["jne"], z + 1)
    assert spaces.xs("clip", level="space").isna().all(axis=None)
    regions = space_regions(spaces, VOXELS)
    assert regions.loc[("V4", "interaction"), "nonlinear_z"] == 1.5


def test_means_by_region(table):
    regions = space_regions(table, VOXELS)
    assert list(dict.fromkeys(regions.index.get_level_values("roi"))) == ["V1", "V4", "all"]
    assert regions.loc[("V4", "clip"), "r2_split"] == pytest.approx(0.25)
    assert regions.loc[("all", "depth"), "r2_split"] == pytest.approx(1.9 / 3)
    metrics = space_metrics(regions.loc[["all"]].droplevel("roi"))
    assert metrics == {
        "space/clip/r2_split": pytest.approx(0.7 / 3),
        "space/depth/r2_split": pytest.approx(1.9 / 3),
    }


@pytest.mark.parametrize("damage", [lambda t: t[1:], lambda t: t[::-1], lambda t: t.assign(x="a"),
                                    lambda t: t.drop(columns="space")])  # fmt: skip
def test_a_damaged_table_is_refused(tmp_path, table, damage):
    damage(pd.read_csv(tmp_path / SPACES, dtype=str)).to_csv(tmp_path / SPACES, index=False)
    with pytest.raises(InputError, match=r"spaces.csv must hold numbers, a row for each voxel and"):
        read_spaces(tmp_path, VOXELS, FEATURE)


def test_damaged_spaces_are_refused(tmp_path, table):
    with pytest.raises(InputError, match="number of columns of each feature space, 6 in all"):
        read_feature_spaces(tmp_path, 6)
    (tmp_path / FEATURE_SPACES).write_text(json.dumps({"clip": 3})[:-1])
    with pytest.raises(InputError, match=r"feature_spaces.json cannot be read"):
        read_feature_spaces(tmp_path, 5)
    (tmp_path / SPACES).write_text("")
    with pytest.raises(InputError, match=r"spaces.csv cannot be read"):
        read_spaces(tmp_path, VOXELS, FEATURE)

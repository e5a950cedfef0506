"""The voxel table of a report: CSV, or Parquet for a whole brain."""

import numpy as np
import pandas as pd

from jne.utils import tables


def test_large_tables_are_parquet_and_the_same(tmp_path, monkeypatch):
    table = pd.DataFrame(
        {
            "roi": ["V1", "", "FFA-1"],
            "jne": [0.1, np.nan, 1 / 3],
            "nonlinear": pd.array([True, None, False], dtype="boolean"),
        }
    )
    written = tables.write_large_table(tmp_path / "voxels", table)
    assert written == tmp_path / "voxels.csv"
    pd.testing.assert_series_equal(tables.read_table(written)["jne"], table["jne"])
    monkeypatch.setattr(tables, "_MAX_CSV_ROWS", 2)
    written = tables.write_large_table(tmp_path / "voxels", table)
    assert written == tmp_path / "voxels.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(written), table)

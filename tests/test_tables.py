"""Tables hold what was put into them, and nothing that a spreadsheet would run."""

import csv

import numpy as np
import pandas as pd
import pytest
from finished_run import write_run

from jne.errors import InputError
from jne.results import Results
from jne.utils.tables import read_table, write_table

FORMULAS = (
    "=1+1", "+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "=HYPERLINK(\"http://x\",\"a\")",
    "＝1", "＋1", "－1", "＠x", "'=1", "''+1", "-rf", "=cmd|' /C calc'!A0", "+\r\n=1", "=\"a,b\"",
)  # fmt: skip
NAMES = (
    "V1", "", "'", "'x", "-", "=", "+", "@", "'-", " =1", "NA", "null", "None", "nan", "N/A",
    "a\rb", "a\r\nb", "a\nb", "a,b", 'a"b', "#N/A", "\\", "é", " pad ", "inf", "1e5x", "a=b",
    "x@y.z",
)  # fmt: skip


@pytest.mark.runs
@pytest.mark.parametrize("column", ["roi", "stimulus", "anything"])
def test_text_is_read_back_as_it_was(tmp_path, column):
    """In one column, and each alone, beside numbers that look like formulas."""
    together = pd.DataFrame({column: [*FORMULAS, *NAMES], "n": -1.5})
    write_table(tmp_path / "t.csv", together)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), together)
    for name in (*FORMULAS, *NAMES):
        alone = pd.DataFrame({column: [name, "other"], "n": [-1, 2], "x": [-np.inf, np.nan]})
        write_table(tmp_path / "t.csv", alone)
        pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), alone, obj=repr(name))


def test_no_cell_of_text_is_a_formula(tmp_path):
    """As another reader of CSV files sees the cells: headings, too."""
    table = pd.DataFrame({"roi": FORMULAS, "=heading": range(len(FORMULAS)), "r2": -0.5})
    write_table(tmp_path / "t.csv", table)
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [len(row) for row in rows] == [3] * (len(FORMULAS) + 1)
    assert not any(cell[:1] in tuple("=+@\t\r\n－＝＋＠") for row in rows for cell in row if cell)
    assert [row[0] for row in rows[1:]] == [f"'{name}" for name in FORMULAS]
    assert {row[2] for row in rows[1:]} == {"-0.5"}  # a number is none
    assert list(read_table(tmp_path / "t.csv")) == list(table)


def test_harmless_tables_have_the_bytes_that_they_had(tmp_path):
    table = pd.DataFrame(
        {
            "roi": ["V1", "", "FFA-1", "-", 'a"b,c'],
            "x": [-1.5, np.nan, 0.1, 1e-30, np.inf],
            "n": [-1, 2, 3, 4, 5],
            "b": [True, False, True, True, False],
        }
    )
    write_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_text() == table.to_csv(index=False)


def test_numbers_below_zero_that_were_read_as_text_are_numbers(tmp_path):
    """As those of a user's table of stimuli, which is read as text."""
    texts = ["-1.5", "2", "-3e-05", "-7"]
    write_table(tmp_path / "t.csv", pd.DataFrame({"brightness": texts, "image": texts}))
    table = read_table(tmp_path / "t.csv")
    assert list(table["brightness"]) == [-1.5, 2, -3e-05, -7]
    assert list(table["image"]) == texts


def test_tables_that_somebody_wrote_are_read(tmp_path):
    """They hold formulas without an apostrophe."""
    table = pd.DataFrame({"roi": ["=1", "-rf", "@x", "V1"], "r2": [-1.0, 0, 1, np.nan]})
    table.to_csv(tmp_path / "t.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table)


def test_the_names_of_a_run_are_those_of_its_data(tmp_path):
    run = write_run(tmp_path / "run", stimuli={"category": [*FORMULAS, *("=x" for _ in range(6))]})
    voxels = run.voxels.assign(roi=["=1+1"] * 5 + ["NA"] * 5 + ["\t@x"] * 5)
    write_table(run.path / "voxels.csv", voxels)
    again = Results(run.path)
    assert set(again.voxels["roi"]) == {"=1+1", "NA", "\t@x"}
    assert list(again.stimuli["category"][: len(FORMULAS)]) == list(FORMULAS)


@pytest.mark.parametrize("content", [b"roi,r2\nV1,\0\n", b"x" * 10**5, b"\0" * 10])
def test_what_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"t\.csv cannot be read \(it is no table\)"):
        read_table(tmp_path / "t.csv")


def test_large_tables_have_the_bytes_that_pandas_writes(tmp_path):
    rng = np.random.default_rng(0)
    odd = [
        0,
        -0.0,
        1,
        -7,
        1e-4,
        9.9999e-5,
        1e6,
        999999.5,
        1e15,
        1e16,
        1e22,
        np.nan,
        np.inf,
        -np.inf,
    ]
    n = 12_000
    table = pd.DataFrame({"roi": rng.choice(["V1", "a, b", 'c"d', "", "=e"], n)})
    for name, dtype in (("wide", np.float64), ("narrow", np.float32)):
        table[name] = (rng.standard_normal(n) * 10.0 ** rng.integers(-12, 13, n)).astype(dtype)
        table.loc[: len(odd) - 1, name] = np.array(odd, dtype)
    table["whole"], table["flag"] = np.arange(n), np.arange(n) % 2 == 0
    write_table(tmp_path / "a.csv", table)
    table["roi"] = table["roi"].replace("=e", "'=e")
    table.to_csv(tmp_path / "b.csv", index=False)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()

"""Statuses, summaries and partial arrays that are damaged are never trusted."""

import json

import numpy as np
import pytest

from jne.errors import InputError
from jne.jacobian.resumable import ResumableArrays
from jne.results.folder import earlier_attempts, finished_status, metrics_of, status_of
from jne.tracking import track

CONTENTS = ("", "[]", "null", "3", "{", '"x"', "[" * 100_000)


@pytest.mark.parametrize("content", CONTENTS)
def test_a_damaged_status_or_summary(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    (tmp_path / "summary.json").write_text(content)
    assert status_of(tmp_path) == {}
    assert finished_status(tmp_path) is None
    assert earlier_attempts([tmp_path], "abc") == []
    with pytest.raises(InputError, match=r"summary\.json cannot be read"):
        metrics_of(tmp_path)


@pytest.mark.parametrize(
    "content", [*CONTENTS, '{"identity": "a"}', '{"identity": "a", "done": "x"}']
)
def test_a_damaged_state_of_an_interrupted_computation(tmp_path, content):
    """It starts from zero."""
    files = {"l1": tmp_path / "s.npy"}
    np.save(tmp_path / "s.npy.partial.npy", np.zeros((2, 3), np.float32))
    (tmp_path / "s.npy.partial.npy").rename(tmp_path / "s.npy.partial")
    (tmp_path / "s.npy.partial.json").write_text(content)
    with ResumableArrays(["l1"], files, (2, 3), np.float32, "a") as arrays:
        assert arrays.done == 0
        arrays.arrays["l1"][:] = 1
    assert (np.load(tmp_path / "s.npy") == 1).all()


@pytest.mark.parametrize("damage", ["cut", "shape", "dtype", "objects", "missing"])
def test_damaged_arrays_of_an_interrupted_computation(tmp_path, damage):
    files = {"l1": tmp_path / "s.npy"}
    partial = tmp_path / "s.npy.partial"
    array = {
        "shape": np.zeros((3, 2), np.float32),
        "dtype": np.zeros((2, 3)),
        "objects": np.array([[None] * 3] * 2),
    }.get(damage, np.zeros((2, 3), np.float32))
    with partial.open("wb") as file:
        np.save(file, array, allow_pickle=True)
    if damage == "cut":
        partial.write_bytes(partial.read_bytes()[:90])
    if damage == "missing":
        partial.unlink()
    (tmp_path / "s.npy.partial.json").write_text(json.dumps({"identity": "a", "done": 1}))
    with ResumableArrays(["l1"], files, (2, 3), np.float32, "a") as arrays:
        assert arrays.done == 0


@pytest.mark.runs
@pytest.mark.parametrize(
    "content", [*CONTENTS, '{"metrics": [["a", "b", 1, 2]]}', '{"metrics": 3}']
)
def test_a_damaged_journal_does_not_stop_a_run(tmp_path, store, capsys, content):
    (tmp_path / "unrecorded.json").write_text(content)
    place = {"uri": store, "experiment": "jne", "artifacts": str(tmp_path / "artifacts")}
    with track(place, "fail_at_start", "journal", {}, tmp_path) as tracked:
        tracked.log_metrics({"x": 1.0})
    assert "unrecorded.json is damaged" in capsys.readouterr().out.replace("\n", "")

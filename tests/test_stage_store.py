"""The store of stages: made once, whole or not at all, continued, listed and pruned."""

import importlib
import json
import os
import subprocess
import sys
import threading

import pytest
import torch

from jne.stages import Stages, code_digest, digest_of, prune, stored


def write(name="x.txt", text="a"):
    def stage(folder):
        (folder / name).write_text(text)

    return stage


def test_a_stage_is_made_once_for_the_same_values(tmp_path):
    made = []
    stages = Stages(tmp_path)

    def count(folder):
        made.append(sorted(path.name for path in folder.iterdir()))

    folders = {stages.make("fit", {"a": 1, "b": [2.5, None]}, count) for _ in range(3)}
    folders.add(stages.make("fit", {"b": [2.5, None], "a": 1}, count))
    assert made == [[]]
    (folder,) = folders
    about = json.loads((folder / "stage.json").read_text())
    assert (about["kind"], about["values"]) == ("fit", {"a": 1, "b": [2.5, None]})
    for kind, values in (
        ("fit", {"a": 2, "b": [2.5, None]}),
        ("baseline", {"a": 1, "b": [2.5, None]}),
    ):
        assert stages.make(kind, values, count) != folder
    assert len(made) == 3
    assert set(stages.used) == {
        f"{path.parent.name}/{path.name}" for path in tmp_path.glob("*/[!.]*")
    }


def test_values_are_plain():
    assert digest_of({"a": [1, "x", None, True]}) == digest_of({"a": (1, "x", None, True)})
    for value in (float("nan"), object(), {1, 2}):
        with pytest.raises((ValueError, TypeError)):
            digest_of(value)


def test_what_was_interrupted_is_continued_and_never_taken_for_whole(tmp_path):
    stages, seen = Stages(tmp_path), []

    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.make("fit", {}, fail)
    assert not list(tmp_path.glob("fit/[!.]*"))
    folder = stages.make("fit", {}, lambda path: seen.extend(path.iterdir()))
    assert [path.name for path in seen] == ["half.txt"]
    assert (folder / "half.txt").read_text() == "half"


def test_a_class_of_the_users_is_known_by_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for text in ("x = 1", "x = 2", "x = 1"):
        (tmp_path / "own_encoder.py").write_text(f"class Own:\n    {text}\n")
        sys.modules.pop("own_encoder", None)
        importlib.invalidate_caches()
        digests.append(code_digest([torch.nn.Linear, importlib.import_module("own_encoder").Own]))
    assert digests[0] == digests[2] != digests[1]
    assert code_digest([torch.nn.Linear]) == code_digest([torch.nn.ReLU, dict]) != digests[0]
    nowhere = type("Nowhere", (), {"__module__": "nowhere"})
    assert code_digest([nowhere]) != code_digest([nowhere])


CODE = """
import sys, time
from pathlib import Path
from jne.stages import Stages
def slow(folder):
    time.sleep(.5)
    (folder / "x").write_text(sys.argv[2])
    with open(Path(sys.argv[1]) / "made", "a") as file:
        file.write("1")
Stages(Path(sys.argv[1]) / "stages").make("fit", {}, slow)
"""


@pytest.mark.runs
def test_of_several_processes_one_makes_it(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path), str(k)]) for k in range(4)
    ]
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "made").read_text() == "1"


def test_what_no_run_uses_is_pruned_and_nothing_else(tmp_path):
    stages = Stages(tmp_path / "stages")
    used, unused = (stages.make("fit", {"n": n}, write(text="a" * 1000)) for n in range(2))
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    status = {"stages": {f"fit/{used.name}": ""}, "prepared": str(tmp_path / "prepared" / "p-1")}
    (run / "status.json").write_text(json.dumps(status))
    for name in ("p-1", "p-2"):
        (tmp_path / "prepared" / name).mkdir(parents=True)
    with pytest.raises(ZeroDivisionError):
        stages.make("fit", {"n": 2}, lambda _: 1 / 0)
    users = {stage.path.name: [user.name for user in stage.users] for stage in stored(tmp_path)}
    assert users.pop(used.name) == users.pop("p-1") == ["first"]
    assert len(users) == 3
    assert not any(users.values())
    (size,) = (stage.n_bytes for stage in stored(tmp_path) if stage.path == used)
    assert 1000 < size < 2000

    making, go = threading.Event(), threading.Event()  # one that is being made stays

    def wait(_):
        making.set()
        go.wait(10)

    thread = threading.Thread(target=lambda: stages.make("fit", {"n": 3}, wait))
    thread.start()
    making.wait(10)
    prune(stored(tmp_path))
    go.set()
    thread.join()
    left = {path.name for path in tmp_path.glob("*/*/[!.]*")} | set(
        os.listdir(tmp_path / "prepared")
    )
    assert unused.name not in left
    assert "p-2" not in left
    assert {used.name, "p-1"} <= left
    assert len(list((tmp_path / "stages" / "fit").glob("[!.]*"))) == 2


@pytest.mark.runs
def test_the_command_lists_and_prunes(tmp_path):
    Stages(tmp_path / "stages").make("fit", {}, write())
    command = [sys.executable, "-m", "jne", "stages", str(tmp_path)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ": no run" in listed
    assert "1 stages, 0.00 MB; no run uses 1, 0.00 MB, which --prune deletes" in listed
    subprocess.run([*command, "--prune"], check=True, capture_output=True)
    assert not list(tmp_path.glob("stages/fit/[!.]*"))

"""Where a run may write: folders that are new, empty or its own; and what its status says."""

import errno
import json
import os
import signal

import pytest
from finished_run import contents, write_run
from helpers import TINY, TINY_COHORT, status

from jne.errors import InputError
from jne.results.folder import check_parent, free_folder, is_ours, open_run, status_of
from jne.utils.signals import Stopped

THEIRS = ("features.npy", "voxels.csv", "config.yaml", ".notes.tmp", ".x.0123abcd.tmp")


@pytest.fixture
def theirs(tmp_path):
    """A folder of the user's, with names that a run has too."""
    folder = tmp_path / "data"
    (folder / "figures").mkdir(parents=True)
    for name in (*THEIRS, "figures/.x.0123abcd.tmp"):
        (folder / name).write_text("mine")
    return folder


@pytest.mark.runs
@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "simulate.py", "sweep"])
def test_a_folder_of_the_users_is_refused_by_name(run_script, theirs, tmp_path, script):
    before = contents(theirs)
    settings = {
        "train.py": (*TINY_COHORT, *TINY),
        "evaluate.py": (f"runs=[{write_run(tmp_path / 'run').path}]", "voxels=all"),
        "simulate.py": (),
        "sweep": ("-m", *TINY_COHORT, *TINY),
    }[script]
    key = "hydra.sweep.dir" if script == "sweep" else "hydra.run.dir"
    name = "train.py" if script == "sweep" else script
    with pytest.raises(SystemExit, match=f"{key}: {theirs} .*config.yaml, features.npy"):
        run_script(name, f"{key}={theirs}", *settings)
    assert contents(theirs) == before


def test_of_the_temporary_files_only_ours_go_and_only_from_our_folders(tmp_path):
    with open_run(tmp_path / "run", {}) as folder:
        pass
    ours = [folder.path / ".x.npy.0123abcd.tmp", folder.figures / ".x.0123abcd.tmp"]
    users = [
        folder.path / ".x.tmp",
        folder.path / ".x.0123ABCD.tmp",
        folder.path / "x.0123abcd.tmp",
    ]
    (tmp_path / "elsewhere").mkdir()
    (folder.path / "link").symlink_to(tmp_path / "elsewhere")
    users.append(tmp_path / "elsewhere" / ".x.0123abcd.tmp")
    for path in ours + users:
        path.write_text("")
    with open_run(folder.path, {}):
        pass
    assert [path.exists() for path in ours + users] == [False] * 2 + [True] * 4


@pytest.mark.parametrize(
    "names", [(), (".lock",), (".lock", ".spare", ".status.json.0123abcd.tmp", "train.log")]
)
def test_a_folder_is_ours_that_was_left_before_its_status_was_written(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("")
    assert is_ours(tmp_path)
    (tmp_path / "mine.txt").write_text("")
    assert not is_ours(tmp_path)
    assert free_folder(tmp_path) != tmp_path


def test_a_folder_of_sweeps_is_known_by_its_callback_or_its_jobs(tmp_path):
    (tmp_path / "0_job").mkdir()
    (tmp_path / "multirun.yaml").write_text("hydra: {}")  # of another project
    with pytest.raises(InputError, match=r"hydra\.sweep\.dir: .*0_job, multirun.yaml"):
        check_parent(tmp_path, "hydra.sweep.dir")
    (tmp_path / "multirun.yaml").write_text("_target_: jne.runs.sweep.SweepCallback")
    check_parent(tmp_path, "hydra.sweep.dir")
    (tmp_path / "multirun.yaml").unlink()
    (tmp_path / "0_job" / "status.json").write_text('{"status": "FINISHED"}')
    check_parent(tmp_path, "hydra.sweep.dir")


@pytest.mark.parametrize(
    ("earlier", "message"),
    [
        ({"identity": "b", "status": "RUNNING"}, "holds another run"),
        ({"identity": "b", "status": "FINISHED", "kind": "train"}, "holds another run"),
        (
            {"identity": "a", "status": "FINISHED", "kind": "train"},
            "has finished this run meanwhile",
        ),
        ({"identity": "", "status": "FINISHED", "kind": "report"}, "holds another run"),
    ],
)
def test_the_folder_is_looked_at_again_once_it_is_locked(tmp_path, monkeypatch, earlier, message):
    """Two starts with one hydra.run.dir: what the other wrote since the folder was chosen stays."""
    (tmp_path / "status.json").write_text(json.dumps(earlier))
    (tmp_path / "voxels.csv").write_text("theirs")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=message), open_run(tmp_path, {}, "a", "train"):
        pass
    (tmp_path / ".lock").unlink()
    assert contents(tmp_path) == before


def test_a_report_written_again_is_another_run(tmp_path):
    with open_run(tmp_path, {}, kind="report") as first:
        first.note(mlflow_run_id="1", params={"seed": 0})
    with open_run(tmp_path, {}, kind="report") as second:
        assert second.status["run_key"] != first.status["run_key"]
        assert not {"mlflow_run_id", "params"} & set(second.status)


def test_the_next_attempt_keeps_the_key_of_the_run(tmp_path):
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, {}, "a", "train") as first:
        raise ZeroDivisionError
    with open_run(tmp_path, {}, "a", "train") as second:
        assert second.status["run_key"] == first.status["run_key"]
        assert second.attempt == 2


def raised(error: BaseException, path) -> dict:
    """The status of a run that ends with an error."""
    with pytest.raises((type(error), InputError)), open_run(path, {}):
        raise error
    return status(path)


@pytest.mark.parametrize(
    ("error", "expected", "sentence"),
    [
        (Stopped(130), "KILLED", "Ctrl-C"),
        (Stopped(143), "KILLED", "SIGTERM"),
        (SystemExit(0), "FAILED", "code of yours called sys.exit(0)"),
        (OSError(errno.ENOSPC, "No space"), "FAILED", "InputError: output: no space is left on"),
        (OSError(errno.EDQUOT, "Quota"), "FAILED", "InputError: output: the quota on"),
        (ValueError("a bug"), "FAILED", "ValueError: a bug"),
    ],
)
def test_the_status_says_how_a_run_ended(tmp_path, error, expected, sentence):
    left = raised(error, tmp_path)
    assert (left["status"], left["error"][: len(sentence)]) == (expected, sentence)
    assert not (tmp_path / ".spare").exists()


def test_the_status_has_space_where_the_disk_is_full(tmp_path, monkeypatch):
    """Nothing can be written as long as the spare file is there."""
    write = os.replace

    def full(source, target):
        if (tmp_path / ".spare").exists() and status_of(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="no space is left"), open_run(tmp_path, {}):
        pass
    assert status(tmp_path)["status"] == "FAILED"


@pytest.fixture
def as_in_a_terminal():
    """A shell that runs the tests in its background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_in_order(tmp_path, number, code, as_in_a_terminal):
    with pytest.raises(Stopped) as stopped, open_run(tmp_path, {}):
        os.kill(os.getpid(), number)
    assert stopped.value.code == code
    assert status(tmp_path)["status"] == "KILLED"

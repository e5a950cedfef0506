"""How the scripts start and fail: one sentence that blames the right key."""

import errno
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, TINY, TINY_COHORT, compose_train, status
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from jne.cli import _options_first, _with_subject, never_exits, user_message
from jne.errors import InputError
from jne.utils import files


def raised_by(function, *arguments) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*arguments)
    return caught.value


def test_an_unreadable_input_is_not_blamed_on_the_output(monkeypatch, tmp_path):
    """The package's own code reads a file: the sentence names the file and no key."""

    def denied(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    path = tmp_path / "status.json"
    monkeypatch.setattr(Path, "write_text", denied)
    error = raised_by(files.write_json, path, {})
    assert user_message(error).startswith(f"cannot open {tmp_path}")


def test_a_folder_that_hydra_cannot_make_is_the_output(tmp_path):
    (tmp_path / "file").write_text("in the way")
    error = raised_by((tmp_path / "file" / "below").mkdir)
    assert user_message(error) == (
        f"output: cannot write to {tmp_path / 'file' / 'below'} (Not a directory)"
    )


def test_a_folder_that_cannot_be_written_is_blamed_on_its_key(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^features.cache: cannot write to .* \(File exists\)"):
        files.make_folder(tmp_path / "file", "features.cache")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match=r"^features.cache: cannot write to .*permission denied"):
        files.make_folder(tmp_path, "features.cache")
    with pytest.raises(InputError, match=r"^output: cannot write to .*permission denied"):
        files.write_json(tmp_path / "x.json", 1)


@pytest.mark.runs
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data=nsd", "features=clip_vit_b32"), r"data.root: this key needs a value; write data.r"),
        (("data=algonauts", "features=clip_vit_b32"), r"data.root: this key needs a value"),
        (("data=nsd", "data.root=x", "features=precomputed"), r"features.path: this key needs"),
    ],
)
def test_a_key_without_a_value_is_named(run_script, overrides, message):
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        run_script("train.py", *overrides)


@pytest.mark.runs
def test_a_home_folder_may_be_written_short(run_script, tmp_path, monkeypatch):
    """Unquoted too, which the shell leaves as it is and Hydra cannot read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in ("~/nsd", "'~/nsd'"):
        with pytest.raises(SystemExit, match=f"data.root={tmp_path}/nsd: not an NSD tree"):
            run_script("train.py", "data=nsd", f"data.root={root}", "features=clip_vit_b32")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        user_message(ZeroDivisionError())


def odd_values(n: int) -> list[str]:
    draw = random.Random(0)
    characters = [*"ab'\"\\ ,:()[]{}=$#&;|!`~*?%\té", "${", "\\'", "it's"]
    return ["".join(draw.choices(characters, k=draw.randint(1, 7))) for _ in range(n)]


@pytest.mark.runs
def test_what_to_quote_is_said_so_that_it_can_be_pasted():
    """A shell and Hydra make of it the value that Hydra could not read."""
    parser = OverridesParser.create()
    n_refused = 0
    for value in ["/data/it's", "a 'b'", '"a"b"', "x'", "(a", *odd_values(2000)]:
        try:
            parser.parse_overrides([f"data.root={value}"])
        except OverrideParseException as error:
            n_refused += 1
            sentence = user_message(error)
            assert sentence.startswith("data.root: Hydra cannot read the value")
            pasted = sentence.rpartition("quote it, in the shell as ")[2]
            (word,) = shlex.split(pasted)
            (override,) = parser.parse_overrides([word])
            assert (override.key_or_group, override.value()) == ("data.root", value)
    assert n_refused > 500


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a=1 -m b=2,3", "-m a=1 b=2,3"),
        ("a=1 b=2 --multirun", "--multirun a=1 b=2"),
        ("a=1 --config-dir some/folder -m ~b +c=3", "--config-dir some/folder -m a=1 ~b +c=3"),
        ("-m a=1 --cfg job b=2", "-m --cfg job a=1 b=2"),
    ],
)
def test_an_option_may_stand_anywhere(line, expected):
    assert _options_first(line.split()) == expected.split()


@pytest.mark.slow  # a real process: the tests themselves sort options first
def test_a_sweep_whose_option_stands_in_the_middle(tmp_path):
    made = subprocess.run(
        [sys.executable, "train.py", "seed=0", "-m", "trainer.patience=0", f"output={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "usage" not in made.stderr
    assert "trainer.patience=0" in made.stdout


@pytest.mark.parametrize("code", [0, 3, None, "text"])
def test_a_script_whose_code_exits_fails(code):
    with pytest.raises(InputError, match=r"code of yours called sys.exit\("):
        never_exits(lambda _: sys.exit(code))(None)


@pytest.mark.runs
def test_an_output_below_proc(run_script):
    for script in ("train.py", "evaluate.py", "simulate.py"):
        with pytest.raises(SystemExit, match=r"output: cannot write to /proc/x \(No such file"):
            run_script(script, "output=/proc/x")


@pytest.mark.slow  # real processes
@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "simulate.py"])
@pytest.mark.parametrize("seconds", [1.5, 4.0, 7.0])
def test_ctrl_c_is_one_line(finished_run, tmp_path, script, seconds):
    """Whatever is done then: imports, a computation, the record."""
    output = tmp_path / "outputs"
    shutil.copytree(finished_run, output)
    (run,) = (output / "runs").iterdir()
    settings = {
        "train.py": (*TINY_COHORT, *TINY, "trainer.max_epochs=99999", "trainer.patience=99999"),
        "evaluate.py": (f"runs=[{run}]", "voxels=all", "stats.n_bootstrap=100000"),
        "simulate.py": ("simulation=depth",),
    }[script]
    command = [sys.executable, script, f"output={output}", *settings]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGINT)
    printed = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert printed[1].splitlines()[-1] == "ended by Ctrl-C"
    assert "Traceback" not in "".join(printed)
    for path in output.glob("*/*/**/status.json"):
        assert status(path.parent)["status"] in ("KILLED", "FINISHED")


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s1", "subj01", "sub-01", "sub-1", "1", "01"])
def test_a_subject_has_several_names(name):
    assert _with_subject(f"subject={name}", []) == "subject=s1"
    assert _with_subject(f"subject={name},subj12", []) == "subject=s1,s12"


@pytest.mark.parametrize("word", ["subject=monkey", "subject=range(1,3)", "seed=1", "subject=s0"])
def test_other_words_stay_as_they_are(word):
    assert _with_subject(word, []) == word


def test_a_subject_of_the_users_own_is_meant_where_there_is_one(tmp_path):
    (tmp_path / "subject").mkdir()
    (tmp_path / "subject" / "subj01.yaml").write_text("")
    for words in (["--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}"]):
        assert _with_subject("subject=subj01,subj02", words) == "subject=subj01,s2"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "synthetic_subj01_nonlinear_relu_both_s0"),
        (["control=shuffle", "seed=3"], "synthetic_subj01_nonlinear_relu_both_shuffle_s3"),
        (
            ["data=nsd", "data.root=x", "features=clip_vit_b32", "features.layer=7"],
            "nsd_subj01_clip_vit_b32_layer7_nonlinear_relu_both_s0",
        ),
        (
            ["experiment=v4", "data.root=x", "encoder=linear"],
            "v4_201025_monkey_PE_layer7_linear_s0",
        ),
        (["name=mine"], "mine"),
    ],
)
def test_the_name_of_a_run_says_what_it_is(overrides, name, tmp_path):
    assert compose_train(tmp_path, *overrides).name == name

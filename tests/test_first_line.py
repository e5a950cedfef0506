"""The first line of a command: at once, on a terminal, and nowhere else."""

import os
import pty
import subprocess
import sys

import pytest
from helpers import ROOT

from jne import __version__

LINE = f"jne {__version__}: loading\r\n"


def printed(words: list[str]) -> str:
    """What a process of Python writes to stderr where that is a terminal."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "JNE_LOADING"}
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    content = b""
    try:
        while piece := os.read(ours, 1024):
            content += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    process.wait()
    return content.decode()


@pytest.mark.parametrize("command", [["train.py"], ["evaluate.py"], ["-m", "jne", "simulate"]])
def test_a_script_begins_by_saying_that_it_is_loading(command):
    text = printed([*command, "no_such_key=1"])
    assert text.startswith(LINE)
    assert text.count(LINE) == 1
    assert "no_such_key" in text.removeprefix(LINE)


@pytest.mark.parametrize("option", ["--help", "-sc=query=bash", "--cfg=job"])
def test_what_only_prints_has_no_such_line(option):
    code = f"import sys; from jne.utils.loading import say_loading; sys.argv[1:] = [{option!r}]"
    assert printed(["-c", f"{code}; say_loading()"]) == ""
    assert printed(["-c", f"{code}; sys.argv[1:] = ['-m']; say_loading()"]) == LINE


def test_a_pipe_gets_no_such_line():
    words = [sys.executable, "train.py", "no_such_key=1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "loading" not in done.stdout + done.stderr

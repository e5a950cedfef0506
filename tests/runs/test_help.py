"""--help: the keys as they are composed, each with the comment of its file."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from jne.runs.help import _comments_in

SCRIPTS = ("train.py", "evaluate.py", "simulate.py")


def shown(*words: str, folder: Path = Path(ROOT)) -> str:
    command = [sys.executable, *words, "--help"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_what_hydra_composes(script):
    """Read as YAML, it is what --cfg job prints, which is Hydra's own."""
    keys = shown(script).split("command line:")[1].rpartition("Documentation:")[0]
    composed = subprocess.run(
        [sys.executable, script, "--cfg=job"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert yaml.safe_load(keys) == yaml.safe_load(composed)
    assert max(map(len, re.findall("^ *#.*$", keys, re.MULTILINE))) <= 80


@pytest.mark.parametrize(
    ("words", "comment"),
    [
        (["train.py"], "patience: 8  # epochs without a lower validation loss"),
        (["train.py", "data=nsd"], "# the folder that holds nsddata, nsddata_betas"),
        (["train.py"], "# If the store cannot be reached: fail; fail_at_start, but"),
        (["simulate.py", "simulation=depth"], "width: 768  # of the hidden layers"),
    ],
)
def test_the_comments_are_those_of_the_choices(words, comment):
    text = shown(*words)
    assert comment in text
    assert "conf/" not in text
    assert text.rstrip().splitlines()[-1].startswith("Documentation: ")


def test_comments_are_read_as_yaml_reads_them():
    text = """# @package nothing
# of the file
a: "x # y"  # one
b: {c: 1}
# two
# lines
d:
  - e
  # three
  f: x#y
  g: [1, 2]  # of g: # too
"""
    assert _comments_in(text, "group") == {
        "group.a": "of the file one",
        "group.d": "two lines",
        "group.d.f": "three",
        "group.d.g": "of g: # too",
    }
    assert yaml.safe_load(text.replace("  - e\n", "")) == {
        "a": "x # y",
        "b": {"c": 1},
        "d": {"f": "x#y", "g": [1, 2]},
    }


def test_no_comment_of_a_key_is_lost():
    """Of the keys that train.py has by default: as many as grep finds in their files."""
    text = " ".join(shown("train.py").replace("#", " ").split())
    for name in ("train", "jacobian/default", "trainer/default", "stats/default"):
        content = Path(ROOT, "conf", f"{name}.yaml").read_text().partition("\nhydra:")[0]
        for comment in re.findall(r"^[^#\n]*\S  # (.*)$", content, re.MULTILINE):
            assert " ".join(comment.replace("#", " ").split()) in text

"""What README and docs/ tell a reader to type works; links and the table of contents are whole."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, TINY, TINY_COHORT, only_run, run_quietly
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from jne import ResidualEncoder
from jne.__main__ import _COMMANDS
from jne.runs.feature_choices import with_combinations

DOCS = Path(ROOT, "docs")
PAGES = [
    *sorted(Path(ROOT).glob("*.md")),
    *sorted(DOCS.glob("*.md")),
    *sorted(DOCS.glob("notes/*.md")),
]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_FIRST = ("README.md", "docs/index.md", "docs/quickstart.md")  # what a newcomer reads
_COSTLY = [
    pytest.param(page, id=name, marks=pytest.mark.runs if name in _FIRST else pytest.mark.slow)
    for page, name in zip(PAGES, _NAMES, strict=True)
]  # composing takes a tenth of a second


def _blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in _FENCE.findall(page.read_text()) if name == language]


def _commands(page: Path) -> list[list[str]]:
    """The command lines in the page's blocks of shell, without comments and environment."""
    text = "".join(_blocks(page, "sh")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    lines = [[word for word in line if word != "..."] for line in lines]
    return [[word for word in line if not word.startswith("PYTHONPATH=")] for line in lines if line]


def _overrides(words: list[str]) -> list[list[str]]:
    """The overrides of a single run, or of the first and the last job of a sweep."""
    if "-m" not in words:
        return [words]
    words = [word for word in words if word != "-m"]
    jobs: list[list[str]] = [[], []]
    for word, parsed in zip(words, OverridesParser.create().parse_overrides(words), strict=True):
        values = [word]
        if parsed.is_sweep_override():
            key = parsed.get_key_element()
            values = [f"{key}={value}" for value in parsed.sweep_string_iterator()]
        jobs[0].append(values[0])
        jobs[1].append(values[-1])
    return jobs


@pytest.mark.parametrize("page", _COSTLY)
def test_commands_are_those_of_the_program(page):
    """Scripts compose with these overrides; other commands and make's targets are there."""
    targets = re.findall(r"^([\w-]+):", Path(ROOT, "Makefile").read_text(), re.MULTILINE)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(Path(ROOT, "conf")), version_base="1.3"):
        for command in _commands(page):
            match command:
                case ["make", target]:
                    assert target in targets
                case ["python", file, *_] if file.startswith("benchmarks/"):
                    assert Path(ROOT, file).exists()
                case ["python", "train.py" | "evaluate.py" | "simulate.py" as script, *words]:
                    _check_composes(script.removesuffix(".py"), words)
                case ["jne", "train" | "evaluate" | "simulate" as script, *words]:
                    _check_composes(script, words)
                case ["jne", word, *_] if not word.startswith("-"):
                    assert word in _COMMANDS


def _check_composes(script: str, words: list[str]) -> None:
    if any(word.startswith(("-s", "--", "hydra.searchpath")) for word in words):
        return  # a folder of the reader's, or what Hydra answers itself
    if script == "simulate" and "simulation=width" in words:
        return  # the reader's study, which tests/simulation runs
    for overrides in _overrides(list(map(with_combinations, words))):
        compose(script, overrides=overrides)


@pytest.mark.slow
def test_the_five_minutes_run(tmp_path):
    """Whole, on a tiny cohort."""
    store, ran = f"sqlite:///{tmp_path / 'mlflow.db'}", []
    for command in _commands(DOCS / "quickstart.md"):
        match command:
            case ["jne", "train", *words] if not any(word.startswith("data") for word in words):
                ran += run_quietly(tmp_path, store, "train.py", *TINY_COHORT, *TINY, *words)
            case ["jne", "evaluate"]:
                ran += run_quietly(tmp_path, store, "evaluate.py", "voxels=all")
    assert len(ran) == 3
    assert (ran[-1] / "report.html").exists()


@pytest.mark.runs
@pytest.mark.parametrize("name", _FIRST)
def test_python_runs(name, finished_run):
    """On an encoder and a results folder, which the reader has."""
    torch.manual_seed(0)
    encoder, features = ResidualEncoder(8, 3, hidden_width=16), torch.randn(20, 8)
    names = dict.fromkeys(("encoder", "module"), encoder)
    names |= dict.fromkeys(("features", "test_features", "X", "X_train", "X_test"), features)
    names |= dict.fromkeys(("y", "y_train", "y_test"), torch.randn(20, 3))
    names["y_repeats"] = torch.randn(20, 3, 4)
    names["raw_features"] = np.random.default_rng(0).random((20, 64))  # of the finished run
    blocks = _blocks(Path(ROOT, name), "python")
    assert blocks
    for code in blocks:
        exec(code.replace("outputs/runs/...", str(only_run(finished_run))), names)


def test_the_light_installation_has_what_docs_import_from_it():
    (code,) = [c for c in _blocks(DOCS / "install.md", "python") if "ResidualEncoder" in c]
    exec(code, {})


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_links_are_whole(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text())):
        if target.startswith(("http:", "https:")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if path.parent == DOCS / "gallery":  # made from the examples
            source = "GALLERY_HEADER.rst" if path.stem == "index" else f"{path.stem}.py"
            path = Path(ROOT, "examples", source)
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            anchors = [
                re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings
            ]
            assert anchor in anchors, f"{page.name}: {target}"


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text()
    entries = "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL))
    listed = {re.sub(r".*<(.*)>", r"\1", line) for line in entries.splitlines()}
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES if DOCS in page.parents}
    pages -= {"index"}
    assert pages <= listed
    written = {line for line in listed if re.fullmatch(r"[a-z]+|notes/[a-z]+", line)}
    assert written <= pages


def test_messages_that_are_explained_are_those_of_the_program():
    """Each is in the source as it stands, but for line ends between strings, and capitals."""
    text = "".join(path.read_text() for path in sorted(Path(ROOT, "src").rglob("*.py")))
    source = re.sub(r'"\s*f?"', "", text)
    page = Path(ROOT, "docs", "troubleshooting.md").read_text()
    messages = [
        m
        for line in page.splitlines()
        if line.startswith("`")
        for m in re.findall("`([^`]+)`", line)
    ]
    assert len(messages) > 15
    for message in messages:
        pattern = re.sub(r"[A-Z]{3,}", r"[^\"]{1,30}", re.escape(message))
        assert re.search(pattern, source), message

"""Words: the field's before ours, and names that say what a value is."""

import ast
import re
from pathlib import Path

import pytest
from helpers import ROOT

SOURCES = sorted([*Path(ROOT, "src").rglob("*.py"), *Path(ROOT, "examples").glob("*.py")])
DOCS = Path(ROOT, "docs")
USER_PAGES = [
    Path(ROOT, "README.md"),
    *(page for page in DOCS.glob("*.md") if page.stem not in ("architecture", "changelog")),
    *DOCS.glob("notes/*.md"),
    DOCS / "api" / "index.rst",
]
# A noun says what the value is: experiment, names, residuals, ...
NOT_NOUNS = {"found", "there", "asked", "known", "said", "shown", "of"}
RETIRED_NAMES = {
    "MADE_UP", "NOT_MEASURED", "N_LIKE", "MOST_OF_NOISE", "Found", "_Entered", "as_they_are",
    "claimed", "in_components", "jne_beside_planted", "jne_control", "second_test", "settle",
    "survey", "trained_voxels",
}  # fmt: skip
RETIRED_WORDS = (
    r"made[- ]up",
    r"fair coins\?",
    "a brain to turn",
    "second test set",
    "ridge regression on the features leaves of",
    r"\b(?:jne_beside_planted|jne_control)\b",
    r"\.place\.json",
    r"\bsurvey of the responses\b",
)


def _names(tree: ast.AST) -> dict[str, int]:
    """Variables, arguments, attributes, functions, classes and modules, each with a line of it."""
    names: dict[str, int] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                names[name] = node.lineno
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names[name] = node.lineno
            case ast.alias(name=name, asname=alias):
                names[alias or name.rpartition(".")[2]] = node.lineno
            case ast.keyword(arg=str(name)):
                names[name] = node.value.lineno
            case ast.Constant(value=str(name)) if name in RETIRED_NAMES:  # such as a column
                names[name] = node.lineno
    return names


@pytest.fixture(scope="module")
def names_in_src() -> dict[Path, dict[str, int]]:
    return {path: _names(ast.parse(path.read_text())) for path in SOURCES}


@pytest.mark.parametrize("banned", [NOT_NOUNS, RETIRED_NAMES], ids=["not nouns", "retired"])
def test_names_in_the_source_are_nouns_of_the_field(names_in_src, banned):
    hits = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path, names in names_in_src.items()
        for name, line in names.items()
        if name in banned or name.lstrip("_") in banned
    ]
    assert not hits


def test_no_module_has_a_retired_name():
    assert not {path.stem for path in SOURCES} & RETIRED_NAMES


def _sentences(path: Path) -> str:
    return " ".join(path.read_text().split())


@pytest.mark.parametrize("word", RETIRED_WORDS)
def test_retired_words_are_neither_in_the_docs_nor_in_the_source(word):
    pages = [*SOURCES, *USER_PAGES, *Path(ROOT, "conf").rglob("*.yaml")]
    assert not [str(page) for page in pages if re.search(word, _sentences(page), re.IGNORECASE)]


@pytest.mark.parametrize("page", USER_PAGES, ids=lambda page: page.name)
def test_user_docs_do_not_speak_of_wings(page):
    assert not re.search(r"\bwings?\b", page.read_text(), re.IGNORECASE)


def _terms() -> list[str]:
    """Of the glossary, in its order."""
    (glossary,) = re.findall(
        r"```{glossary}\n(.*?)```", (DOCS / "glossary.md").read_text(), re.DOTALL
    )
    return re.findall(r"^(\S.*)$", glossary, re.MULTILINE)


def test_the_glossary_is_in_alphabetical_order_and_has_what_a_user_meets():
    terms = _terms()
    assert terms == sorted(terms, key=str.lower)
    assert {
        "baseline", "component", "deviation", "external test set", "fit", "fold", "gain change",
        "JNE", "linear path", "member", "noise ceiling", "nonlinear share",
        "null model", "prepared data", "q", "shape change", "shard", "stage",
        "evidence", "nonlinear part", "validated share",
    } <= set(terms)  # fmt: skip


@pytest.mark.parametrize(
    ("term", "explained"),
    [
        ("validated share", "how much of that an encoder has found"),
        ("JNE", "Jacobian-based nonlinearity evaluation"),
        ("mean deviation", "how far, on average, the map at an image is from the mean map"),
        ("noise ceiling", "the largest R² that the noise of the responses allows"),
        ("readout", "(the last layer)"),
        ("components](", "#training-on-components"),
        ("shards", "#one-run-on-several-machines"),
        ("external test set", "other stimuli, same subjects"),
    ],
)
def test_a_term_is_explained_where_it_is_first_used(term, explained):
    """In the README, and then on the page of all commands."""
    text = " ".join(_sentences(Path(ROOT, name)) for name in ("README.md", "docs/commands.md"))
    first, explanation = text.index(term), text.index(explained)
    assert explanation < first + 600
    assert "docs/glossary.md" in text

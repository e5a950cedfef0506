"""The official splits of LAION-fMRI by name, from the JSON files of its authors' package."""

from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from jne.data.laion.labels import PEOPLE, parse
from jne.errors import InputError
from jne.utils.plain import read_json
from jne.utils.progress import say
from jne.utils.reading import reading

_PACKAGE, _INSIDE = "laion_fmri", Path("splits", "data")
_SOURCE = "github.com/ViCCo-Group/LAION-fMRI"
_OWN, _SHARED, _POOLED = "own", "shared", "pooled"


@dataclass(frozen=True)
class OfficialSplit:
    """The images of a split, by their names."""

    name: str
    pool: str
    """The folder of the pool; the text in the file numbers people otherwise."""
    train: frozenset[str]
    test: frozenset[str]
    generation: str
    """Of `random_*`, in words; empty for others."""
    caveat: str
    """What is wrong with that generation: a sentence, or nothing."""

    @classmethod
    def read(cls, path: Path, person: str) -> "OfficialSplit":
        """Raises InputError, naming `data.split`, where the file is no split of these images."""
        with reading(path, "data.split"):
            content = read_json(path)
        variants = content.get("variants") if isinstance(content, dict) else None
        if not isinstance(variants, list) or len(variants) != 1:
            raise InputError("data.split", f"{path} must hold one variant of a split")
        train, test = (_names(variants[0], key, path) for key in ("train_ids", "test_ids"))
        both = sorted(train & test)
        if both:
            raise InputError(
                "data.split",
                f"{path} has {len(both)} images in both parts, such as {both[0]}",
            )
        pool = path.parent.name
        if pool != _POOLED:
            _check_owners(train | test, path, person)
        name = path.stem
        generation, caveat = _generation(content, pool) if name.startswith("random_") else ("", "")
        return cls(name, pool, train, test, generation, caveat)


def split_file(folder: Path | None, pool: str, name: str, person: str) -> Path:
    """Where a split is. folder: None for that of the installed package.

    Raises InputError where there is no such split, naming those that there are.
    """
    if folder is None:
        spec = find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise InputError(
                "data.splits",
                f"the authors' package is not installed; give its folder {_PACKAGE / _INSIDE} "
                f"({_SOURCE})",
            )
        folder = Path(spec.origin).parent / _INSIDE
    where = folder / {_OWN: person}.get(pool, pool)
    path = where / f"{name}.json"
    with reading(folder, "data.splits"):
        if not where.is_dir():
            raise InputError("data.splits", f"no folder {where}", value=folder)
        if not path.exists():
            names = ", ".join(sorted(file.stem for file in where.glob("*.json"))) or "nothing"
            raise InputError("data.split", f"{where} has {names}", value=name)
    return path


def stimulus_table(
    labels: pd.Series, split: OfficialSplit, n_val: float, seed: int
) -> pd.DataFrame:
    """One row per image of the split that was seen: stimulus, split, n_repeats, category, image.

    labels: the image of each trial. n_val: a share or a number of the train images. Raises
    InputError where it leaves none to train on.
    """
    n_repeats = labels.value_counts().sort_index()
    names = [name for name in n_repeats.index if name in split.train or name in split.test]
    part = np.array(["test" if name in split.test else "train" for name in names], dtype="<U5")
    train = np.flatnonzero(part == "train")
    size = n_val if isinstance(n_val, int) else ceil(n_val * len(train))
    if len(train) < 2 or size >= len(train):
        raise InputError(
            "data.n_val",
            f"of the {len(train)} train images of {split.name} that were seen this leaves none to "
            f"train on; give a smaller number or a share, or download more sessions",
            value=n_val,
        )
    part[train_test_split(train, test_size=size, random_state=seed)[1]] = "val"
    return pd.DataFrame(
        {
            "stimulus": names,
            "split": part,
            "n_repeats": n_repeats[names].to_numpy(),
            "category": [parse(name, "a split").category for name in names],
            "image": names,
        }
    )


def report(split: OfficialSplit, labels: pd.Series, stimuli: pd.DataFrame) -> None:
    """Print what the split is, how much of it was seen, and what is left out."""
    n = stimuli["split"].value_counts()
    sentence = (
        f"split      {split.name} of {split.pool}: {n['train']} train, {n['val']} val, {n['test']} "
        f"test images"
    )
    if split.generation:
        sentence += f"; {split.generation}"
    say(sentence, highlight=False, soft_wrap=True)
    left_out = labels.nunique() - len(stimuli)
    if left_out:
        say(f"split      {left_out} images that were seen are in neither part, and left out")
    unseen = len(split.train) + len(split.test) - len(stimuli)
    if unseen and split.pool != _POOLED:
        say(
            f"split      {unseen} of its images have no trial in the sessions that are there",
            style="yellow",
        )
    if split.caveat:
        say(f"split      {split.caveat}", style="yellow", soft_wrap=True)


def _names(variant: Any, key: str, path: Path) -> frozenset[str]:
    names = variant.get(key) if isinstance(variant, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise InputError("data.split", f"{path} must hold the names of images as {key}")
    if len(set(names)) < len(names):
        raise InputError("data.split", f"{path} names an image twice in {key}")
    return frozenset(names)


def _check_owners(names: frozenset[str], path: Path, person: str) -> None:
    for name in names:
        if parse(name, str(path)).owner not in ("", PEOPLE[person]):
            raise InputError(
                "data.split",
                f"{path} names {name}, which {person} did not see (whose own images end in "
                f"{PEOPLE[person]}); it is of another person",
            )


def _generation(content: dict[str, Any], pool: str) -> tuple[str, str]:
    """Which of the three versions of the authors a random split is, and what is wrong with it."""
    params = content.get("params")
    revision = params.get("revision") if isinstance(params, dict) else None
    splitter = str(content.get("splitter"))
    if "kfold" not in splitter:
        return (
            f"first generation ({splitter})",
            "the test images of random_0 to random_4 overlap in this generation: do not average "
            "over them; later files are one partition into five folds",
        )
    if revision is None and pool not in (_SHARED, _POOLED):
        return (
            "second generation, five folds",
            "identified duplicates are on both sides in this generation; the files of 28 September "
            "2026 and later keep them together",
        )
    return ("five folds" if revision is None else f"revision {revision}, five folds"), ""

"""How the stimuli of a data set are split into train, val and test."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from sklearn.model_selection import GroupShuffleSplit

from jne.data.folds import Belonging
from jne.errors import InputError
from jne.utils.progress import console

SPLITS = ("train", "val", "test")
MIN_TEST_STIMULI = 3  # the fewest over which a standard deviation of Jacobians means anything
_ALONE = Belonging()
_FEWEST = {
    "test": (MIN_TEST_STIMULI, "JNE needs"),
    "train": (2, "training needs"),
    "val": (2, "validation needs"),
}
# The keys by which sources set the size of each split; a source has some of them.
_KEYS = {
    "test": ("n_test", "split"),
    "train": ("n_train", "n_val", "n_test", "split"),
    "val": ("n_val", "n_test", "split"),
}

Share = Annotated[float, Field(gt=0, lt=1)]
"""A split's size as a share of the stimuli."""
Count = Annotated[int, Field(ge=1)]
"""A split's size as a number of stimuli."""


def random_split(
    n: int, n_val: float, n_test: float, seed: int, belonging: Belonging = _ALONE
) -> NDArray[np.str_]:
    """Draw train, val or test for each of n stimuli.

    Parameters
    ----------
    n : int
        Number of stimuli.
    n_val, n_test : float or int
        Shares (float) or numbers (int) of stimuli, from the keys `data.n_val` and `data.n_test`.
    seed : int
        Of the draw.
    belonging : Belonging, optional
        Groups stay whole, so the sizes are near what was asked for. Where rows are purged and there
        are no groups, the last ones are for test, those before them for val.

    Returns
    -------
    (n,) array of str

    Raises
    ------
    InputError
        Where they leave no stimulus to train on.
    """
    test, val = (round(size * n) if isinstance(size, float) else size for size in (n_test, n_val))
    if test + val >= n:
        raise InputError(
            "data.n_test",
            f"this and data.n_val take {test} + {val} of {n} stimuli and leave none to train on",
            value=n_test,
        )
    split = np.full(n, "train", dtype="<U5")
    if belonging.groups is not None:
        rest = np.arange(n)
        for name, size in (("test", test), ("val", val)):
            cut = GroupShuffleSplit(1, test_size=size / len(rest), random_state=seed)
            left, out = next(cut.split(rest, groups=belonging.groups[rest]))
            split[rest[out]] = name
            rest = rest[left]
        return split
    if belonging.purge:
        order = np.arange(n)[::-1]
    else:
        order = np.random.default_rng(seed).permutation(n)
    split[order[:test]] = "test"
    split[order[test : test + val]] = "val"
    return split


def check_split(split: pd.Series, source: BaseModel, needed: Sequence[str] = SPLITS) -> None:
    """Check that each split has enough stimuli; warn if more validate than train.

    split: each stimulus's. source: where the stimuli come from. needed: the splits to check. Raises
    InputError, naming the keys that this source has for the size of the split.
    """
    counts = split.value_counts()
    for name, (fewest, who_needs) in _FEWEST.items():
        if name in needed and counts.get(name, 0) < fewest:
            keys = [f"data.{key}" for key in _KEYS[name] if key in type(source).model_fields]
            hint = f"; change {' or '.join(keys)}" if keys else ""
            raise InputError(
                "data",
                f"{counts.get(name, 0)} {name} stimuli, but {who_needs} at least {fewest}{hint}",
            )
    if counts.get("val", 0) > counts.get("train", 0):
        hint = "; change data.n_val" if "n_val" in type(source).model_fields else ""
        console.print(
            f"[yellow]{counts['train']} stimuli to train on are fewer than the {counts['val']} to "
            f"validate on{hint}[/yellow]",
            soft_wrap=True,
        )

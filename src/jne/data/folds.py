"""Which stimuli train and which are held out: by scikit-learn's splitters, groups in one piece.

A split is (train, held out), positions in some rows, as scikit-learn has them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import BaseCrossValidator, GroupKFold, KFold, PredefinedSplit

from jne.errors import InputError

if TYPE_CHECKING:
    from jne.data.datamodule import StandardisedData

N_FOLDS = 5
_FEWEST = 3  # stimuli in each part of a fold

Split = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Belonging:
    """Which of N stimuli belong together."""

    groups: NDArray[np.int64] | None = None
    """(N,), the number of each stimulus's group; None where they are independent."""
    purge: int = 0
    """Stimuli that are so many rows or fewer from one that is held out do not train."""

    def folds(self, rows: NDArray[np.int64], n_folds: int, seed: int = 0) -> list[Split]:
        """Splits of some of the stimuli, each held out once.

        At random; whole groups, where there are any; or else, where rows are purged, runs of
        consecutive rows. Fewer splits than `n_folds` where there are fewer groups. Raises
        InputError where there is one group alone.
        """
        order = np.arange(len(rows))
        splitter: GroupKFold | KFold
        if self.groups is not None:
            n_groups = len(np.unique(self.groups[rows]))
            if n_groups < 2:
                raise InputError("data.groups", f"{len(rows)} stimuli of one group cannot be cut")
            splitter = GroupKFold(min(n_folds, n_groups), shuffle=True, random_state=seed)
            cut = splitter.split(rows, groups=self.groups[rows])
        elif self.purge:
            order = np.argsort(rows, kind="stable")
            cut = KFold(n_folds).split(rows)
        else:
            cut = KFold(n_folds, shuffle=True, random_state=seed).split(rows)
        return [(self.purged(rows, order[train], order[out]), order[out]) for train, out in cut]

    def clusters(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """(n,) numbers from 0 of what may share noise among some stimuli; None where nothing does.

        Their groups; or else, where rows are purged, runs of `purge` rows.
        """
        if self.groups is None and not self.purge:
            return None
        names = rows // self.purge if self.groups is None else self.groups[rows]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)

    def apart(self, rows: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        """The rows of train, val and test, less those of the first two that are purged.

        Raises InputError where a group is in two of them.
        """
        if self.groups is not None:
            for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
                shared = np.intersect1d(self.groups[rows[one]], self.groups[rows[other]])
                if len(shared):
                    row = np.flatnonzero(self.groups == shared[0])[0]
                    raise InputError(
                        "data.groups",
                        f"the group of row {row} of the stimulus table is in both {one} and "
                        f"{other}; give a split that keeps groups whole, or data.folds",
                    )
        every = np.concatenate([rows["train"], rows["val"], rows["test"]])
        n_train, n_val = len(rows["train"]), len(rows["val"])
        train, val, test = np.split(np.arange(len(every)), [n_train, n_train + n_val])
        train = self.purged(every, train, np.concatenate([val, test]))
        val = self.purged(every, val, test)
        for name, left in (("train on", train), ("validate on", val)):
            if len(left) < 2:
                raise InputError(
                    "data.purge", f"leaves {len(left)} stimuli to {name}; lower it", self.purge
                )
        return {"train": every[train], "val": every[val], "test": rows["test"]}

    def purged(
        self, rows: NDArray[np.int64], train: NDArray[np.int64], out: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Those of `train` that are far enough from all of `out`, positions in `rows` both."""
        if not self.purge:
            return train
        held_out = np.concatenate([[-np.inf], np.sort(rows[out]), [np.inf]])
        after = np.searchsorted(held_out, rows[train])
        distance = np.minimum(held_out[after] - rows[train], rows[train] - held_out[after - 1])
        return train[distance > self.purge]


@dataclass(frozen=True)
class Cutting:
    """How a data set is cut: keys of every file in conf/data."""

    folds: int | str | BaseCrossValidator = 1
    """In how many folds every stimulus is tested once, or the column of the stimulus table that has
    them, or a splitter; 1: the split of that table."""
    groups: str | None = None
    """The column of the stimulus table whose values are kept in one piece."""
    purge: int = 0
    """See `Belonging`."""

    def belonging(self, stimuli: pd.DataFrame) -> Belonging:
        """Raises InputError where there is no such column, or it has missing values."""
        if self.groups is None:
            return Belonging(None, self.purge)
        return Belonging(_numbers(stimuli, self.groups, "data.groups"), self.purge)

    def cut(
        self, belonging: Belonging, stimuli: pd.DataFrame, seed: int
    ) -> list[dict[str, NDArray[np.int64]]]:
        """Rows of train, val and test of each fold; the same share validates as in the table.

        Raises InputError where there are not enough, or the column of folds is none.
        """
        n, n_val = len(stimuli), max((stimuli["split"] == "val").sum(), 1)
        result = []
        for rest, test in self._folds(belonging, stimuli, seed):
            # The first of as many parts as make one of them the validation stimuli
            train, val = belonging.folds(rest, max(2, round(n / n_val)), seed)[0]
            rows = {"train": rest[train], "val": rest[val], "test": test}
            few = {name: len(chosen) for name, chosen in rows.items()}
            if min(few.values()) < _FEWEST:
                raise InputError(
                    "data.folds", f"leaves {few} stimuli in a fold; give fewer", self.folds
                )
            result.append({name: np.sort(chosen) for name, chosen in rows.items()})
        return result

    def _folds(self, belonging: Belonging, stimuli: pd.DataFrame, seed: int) -> list[Split]:
        every = np.arange(len(stimuli))
        if isinstance(self.folds, int):
            n_groups = len(every if belonging.groups is None else np.unique(belonging.groups))
            if n_groups < self.folds:
                what = "stimuli" if belonging.groups is None else f"groups of {self.groups}"
                raise InputError("data.folds", f"{n_groups} {what} are fewer", self.folds)
            return belonging.folds(every, self.folds, seed)
        if isinstance(self.folds, str):
            numbers = _numbers(stimuli, self.folds, "data.folds")
        else:
            numbers = _numbers_of(self.folds, every, belonging.groups)
        if belonging.groups is not None:
            pairs = np.unique(np.stack([belonging.groups, numbers]), axis=1)
            if pairs.shape[1] > len(np.unique(belonging.groups)):
                raise InputError("data.folds", f"cuts a group of {self.groups}", self.folds)
        if not numbers.any():
            raise InputError("data.folds", "has one value alone; a fold each is needed", self.folds)
        cut = PredefinedSplit(numbers).split()
        return [(belonging.purged(every, train, out), out) for train, out in cut]


def _numbers_of(
    splitter: BaseCrossValidator, every: NDArray[np.int64], groups: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """(N,), the fold in which a splitter tests each stimulus.

    Raises InputError where it cannot cut them, or tests one more than once or never.
    """
    numbers, n_tests = np.zeros_like(every), np.zeros_like(every)
    try:
        for k, (_, out) in enumerate(splitter.split(every, groups=groups)):
            numbers[out], n_tests[out] = k, n_tests[out] + 1
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("data.folds", f"cannot cut these stimuli ({reason})", splitter) from error
    if (n_tests != 1).any():
        row = int(np.argmax(n_tests != 1))
        raise InputError(
            "data.folds",
            f"tests the stimulus of row {row} {n_tests[row]} times; it must be once",
            splitter,
        )
    return numbers


def _numbers(stimuli: pd.DataFrame, column: str, key: str) -> NDArray[np.int64]:
    """(N,) from 0, of the values of a column. Raises InputError where there is none, or a gap."""
    if column not in stimuli:
        raise InputError(
            key,
            f"not a column of the stimulus table, which has {', '.join(stimuli.columns)}",
            column,
        )
    if stimuli[column].isna().any():
        raise InputError(key, "has missing values; give each a name", column)
    return pd.factorize(stimuli[column])[0].astype(np.int64)


def validation_split(data: "StandardisedData") -> list[Split]:
    """The one split of training and validation stimuli, in this order."""
    n = len(data.rows["train"])
    return [(np.arange(n), np.arange(n, n + len(data.rows["val"])))]


def cross_validation(data: "StandardisedData") -> list[Split]:
    """Five splits of training and validation stimuli, in this order."""
    return data.belonging.folds(np.concatenate([data.rows["train"], data.rows["val"]]), N_FOLDS)


def untested(rows: NDArray[np.int64], data: "StandardisedData") -> NDArray[np.bool_]:
    """(n,), which of some stimuli, of another fold perhaps, are not tested in this one."""
    return ~np.isin(rows, data.rows.get("test", rows[:0]))

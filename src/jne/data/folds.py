"""Which stimuli train and which are held out: by scikit-learn's splitters, groups in one piece.

A split is (train, held out), positions in some rows, as scikit-learn has them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold

from jne.errors import InputError

if TYPE_CHECKING:
    from jne.data.datamodule import StandardisedData

N_FOLDS = 5

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

    folds: int = 1
    """In how many folds every stimulus is tested once; 1: the split of the stimulus table."""
    groups: str | None = None
    """The column of the stimulus table whose values are kept in one piece."""
    purge: int = 0
    """See `Belonging`."""

    def belonging(self, stimuli: pd.DataFrame) -> Belonging:
        """Raises InputError where there is no such column, or it has missing values."""
        if self.groups is None:
            return Belonging(None, self.purge)
        if self.groups not in stimuli:
            raise InputError(
                "data.groups",
                f"not a column of the stimulus table, which has {', '.join(stimuli.columns)}",
                self.groups,
            )
        if stimuli[self.groups].isna().any():
            raise InputError("data.groups", "has missing values; give each a name", self.groups)
        return Belonging(pd.factorize(stimuli[self.groups])[0].astype(np.int64), self.purge)

    def cut(
        self, belonging: Belonging, n_val: int, n: int, seed: int
    ) -> list[dict[str, NDArray[np.int64]]]:
        """Rows of train, val and test of each fold; the same share validates as in the table.

        n_val: of n stimuli, in the table. Raises InputError where there are not enough.
        """
        every = np.arange(n)
        n_groups = n if belonging.groups is None else len(np.unique(belonging.groups))
        if n_groups < self.folds:
            what = "stimuli" if belonging.groups is None else f"groups of {self.groups}"
            raise InputError("data.folds", f"{n_groups} {what} are fewer", self.folds)
        result = []
        for rest, test in belonging.folds(every, self.folds, seed):
            # The first of as many parts as make one of them the validation stimuli
            n_parts = max(2, round(n / max(n_val, 1)))
            train, val = belonging.folds(rest, n_parts, seed)[0]
            rows = {"train": rest[train], "val": rest[val], "test": test}
            fewest = {name: len(chosen) for name, chosen in rows.items()}
            if min(fewest.values()) < 3:
                raise InputError(
                    "data.folds", f"leaves {fewest} stimuli in a fold; give fewer", self.folds
                )
            result.append({name: np.sort(chosen) for name, chosen in rows.items()})
        return result


def validation_split(data: "StandardisedData") -> list[Split]:
    """The one split of training and validation stimuli, in this order."""
    n = len(data.rows["train"])
    return [(np.arange(n), np.arange(n, n + len(data.rows["val"])))]


def cross_validation(data: "StandardisedData") -> list[Split]:
    """Five splits of training and validation stimuli, in this order."""
    return data.belonging.folds(np.concatenate([data.rows["train"], data.rows["val"]]), N_FOLDS)

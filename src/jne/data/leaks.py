"""Stimuli to test on that an encoder has seen: found in the rows of prepared data, and said.

Identical are rows with the same features, bit for bit, the same image or the same id. Near copies
lie closer than 1/20 of the usual distance between two stimuli (of standardised features), and apart
from all other pairs: of the pairs within three times that distance, at least half are within it. In
d dimensions 1 of 3^d would be, so that few features raise no alarm. In order are rows whose
features have a lag-1 autocorrelation above .3, which independent rows of any spectrum do not reach,
if most held-out stimuli stand beside one to train on.

N stimuli, D features.
"""

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.data.responses import check_vary
from jne.errors import InputError

if TYPE_CHECKING:
    from jne.data.prepared import Prepared

Leaks = Literal["refuse", "warn", "allow"]
"""What to do where held-out stimuli are among those to train on: refuse, say so, or nothing."""

ROWS = "rows_1"
"""The name of what is found in checks.json; another number when other things are found."""

_NEAR = 1 / 20
_AUTOCORRELATION = 0.3
_MOST = 0.5
_AT_ONCE = 512  # rows
_HELD_OUT = ("test", "val")
_KINDS = {
    "features": "the same features",
    "responses": "the same features and responses",
    "image": "the same image",
    "id": "the same id",
}


def row_findings(prepared: "Prepared") -> dict[str, Any]:
    """What is odd about the rows, in plain numbers; `row_warnings` says it.

    Raises InputError where all features are constant.
    """
    split = prepared.stimuli["split"].to_numpy()
    features = prepared.features
    check_vary(features[split == "train"], prepared.features_key)
    alike = _codes(features, np.arange(len(features)))
    shared = np.flatnonzero(pd.Series(alike).duplicated(keep=False))
    whole = np.arange(len(features)) + len(features)  # rows that share their features with no other
    both = [alike[shared], _codes(prepared.responses, shared)]
    whole[shared] = pd.Series(shared).groupby(both).ngroup()
    same = {"features": alike, "responses": whole}
    for kind, column in (("image", "image"), ("id", "stimulus")):
        if column in prepared.stimuli:
            same[kind] = pd.factorize(prepared.stimuli[column].replace("", None))[0]
    seen = {kind: _seen(codes, split) for kind, codes in same.items()}
    identical = np.any([*seen.values()], axis=0)
    standardised = _standardised(features)
    near = _near(standardised, split, identical)
    repeated = pd.Series(alike).groupby([alike, split]).transform("size").to_numpy() > 1
    lag1, beside = _order(standardised, split)
    return {
        "n": _count(np.ones(len(split), dtype=bool), split),
        "identical": _count(identical, split),
        "same": {kind: int(rows.sum()) for kind, rows in seen.items()},
        "near": _count(near, split),
        "repeated": int(repeated.sum()),
        "autocorrelation": lag1,
        "beside": beside,
    }


def row_warnings(findings: dict[str, Any], leaks: Leaks, *, in_order: bool) -> list[str]:
    """Sentences on `row_findings`; [] where nothing is odd.

    in_order: whether the rows may be in the order in which stimuli were shown. Raises InputError
    where held-out stimuli are among those that an encoder learns from and `leaks` refuses that.
    """
    leak = _leak(findings)
    if leak and leaks == "refuse":
        raise InputError(
            "data.leaks",
            f"{leak}; keep all rows of an image in one split (data.split=fixed), or average them; "
            f"data.leaks=warn goes on, and data.leaks=allow is for features that are few, or "
            f"categories, and repeat by design",
            value="refuse",
        )
    sentences = [
        leak,
        _near_copies(findings),
        _repeats(findings),
        _neighbours(findings) if in_order else "",
    ]
    return [sentence for sentence in sentences if sentence]


def _leak(findings: dict[str, Any]) -> str:
    held_out = _held_out_counts(findings["identical"], findings["n"])
    how = ", ".join(f"{n} by {_KINDS[kind]}" for kind, n in findings["same"].items() if n)
    return held_out and (
        f"{held_out} are among those that the encoder learns from ({how}), so that their scores "
        f"are not those of new stimuli"
    )


def _near_copies(findings: dict[str, Any]) -> str:
    held_out = _held_out_counts(findings["near"], findings["n"])
    return held_out and (
        f"{held_out} are nearly copies of stimuli to train on (features closer than 1/20 of the "
        f"usual distance), so that their scores may not be those of new stimuli"
    )


def _repeats(findings: dict[str, Any]) -> str:
    if not findings["repeated"]:
        return ""
    return (
        f"{findings['repeated']} of {sum(findings['n'].values())} stimuli have the features of "
        f"another in their split, but p values and cross-validation take rows for independent: "
        f"repeats of an image belong on a third axis of the responses (data.leaks=allow, where "
        f"features are few, or categories, and repeat by design)"
    )


def _neighbours(findings: dict[str, Any]) -> str:
    limit = max(_AUTOCORRELATION, 4 / np.sqrt(sum(findings["n"].values())))
    if findings["autocorrelation"] <= limit or findings["beside"] <= _MOST:
        return ""
    return (
        f"stimuli resemble the one before (lag-1 autocorrelation of the features "
        f"{findings['autocorrelation']:.2f}), and {100 * findings['beside']:.0f} % of those held "
        f"out stand beside one to train on: if rows are in the order in which stimuli were shown, "
        f"R² and p values are too good, and need whole runs or blocks of rows (data.groups, "
        f"data.purge, or data.split=fixed); if they are only sorted, set data.leaks=allow"
    )


def _held_out_counts(counts: dict[str, int], n: dict[str, int]) -> str:
    """3 of 50 test stimuli and 2 of 40 validation stimuli."""
    names = {"test": "test stimuli", "val": "validation stimuli"}
    return " and ".join(f"{counts[s]} of {n[s]} {names[s]}" for s in _HELD_OUT if counts[s])


def _count(rows: NDArray[np.bool_], split: NDArray) -> dict[str, int]:
    names = ("train", *_HELD_OUT)
    return {name: int((rows & (split == name)).sum()) for name in names}


def _codes(values: NDArray, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each of some rows of an array: the same for equal rows, and for no others."""
    digests = [
        hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        for start in range(0, len(rows), _AT_ONCE)
        for row in values[rows[start : start + _AT_ONCE]] + 0.0  # -0 becomes 0
    ]
    return pd.factorize(np.array(digests, dtype=object))[0]


def _seen(codes: NDArray[np.int64], split: NDArray) -> NDArray[np.bool_]:
    """Which rows (N,) an encoder learns from under another split; -1 stands for no code.

    Test stimuli among those to train or validate on; validation stimuli among those to train on.
    """
    train, val, test = (split == name for name in ("train", "val", "test"))
    coded = codes >= 0
    learned, trained = np.isin(codes, codes[train | val]), np.isin(codes, codes[train])
    return coded & ((test & learned) | (val & trained))


def _standardised(features: NDArray[np.float32]) -> Tensor:
    x = torch.from_numpy(np.array(features))
    x -= x.mean(dim=0)
    scale = x.square().mean(dim=0).sqrt()
    return x / torch.where(scale > 0, scale, 1)


def _near(x: Tensor, split: NDArray, identical: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which held-out rows (N,), apart from identical ones, are nearly copies of a training row.

    x: standardised features (N, D).
    """
    train = split == "train"
    seen, near = x[train], np.zeros(len(x), dtype=bool)
    squares = seen.square().sum(dim=1)
    held = np.flatnonzero(~train & ~identical)
    usual, n_near, n_wide = None, 0, 0
    for start in range(0, len(held), _AT_ONCE):
        rows = held[start : start + _AT_ONCE]
        distance = squares + x[rows].square().sum(dim=1, keepdim=True) - 2 * x[rows] @ seen.T
        if usual is None:
            usual = distance[:64].median()
        close = distance < _NEAR**2 * usual
        near[rows] = close.any(dim=1).numpy()
        n_near += int(close.sum())
        n_wide += int((distance < (3 * _NEAR) ** 2 * usual).sum())
    return near & (2 * n_near >= n_wide)


def _order(x: Tensor, split: NDArray) -> tuple[float, float]:
    """The lag-1 autocorrelation of standardised features (N, D), and the share of the held-out rows
    that stand beside one to train on.
    """
    train = np.concatenate([[False], split == "train", [False]])
    beside = (train[:-2] | train[2:])[split != "train"]
    total = float(x.square().sum())
    lag1 = float((x[1:] * x[:-1]).sum()) / total if total else 0.0
    return lag1, float(beside.mean()) if len(beside) else 0.0

"""What a subject saw: the trials, the split of the images, and a report on the sessions."""

from collections.abc import Collection
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from jne.data.nsd.images import N_IMAGES
from jne.data.splits import MIN_TEST_STIMULI
from jne.errors import InputError
from jne.utils.progress import console
from jne.utils.reading import reading

_N_SHARED = 1000  # 10KID up to this: the images that all subjects saw
_COLUMNS = ("SESSION", "RUN", "73KID", "10KID")
# The sessions of subj01 to subj08. The last three of each were withheld until 20 August 2023.
_N_SESSIONS = dict(
    zip((f"subj{n:02d}" for n in range(1, 9)), (40, 40, 32, 30, 40, 32, 40, 30), strict=True)
)
_N_WITHHELD = 3


def read_trials(path: Path, sessions: Collection[int]) -> pd.DataFrame:
    """One row per trial of some sessions in responses.tsv, in its order.

    Columns, all integers but `shared`: session, run, id (73KID counted from 0), shared, row (of the
    image among those shown). Raises InputError, naming `data.root`, where trials are missing.
    """
    with reading(path, "data.root"):
        table = pd.read_csv(path, sep="\t", usecols=lambda name: name in _COLUMNS, low_memory=False)
        for column in _COLUMNS:
            if column not in table:
                raise InputError("data.root", f"{path} has no column {column}")
        table = table[table["SESSION"].isin(sessions)].astype(np.int64)
    absent = sorted(set(sessions).difference(table["SESSION"]))
    if absent:
        raise InputError(
            "data.root", f"{path} has no trials of session {absent[0]}, but there are betas of it"
        )
    if not table["73KID"].between(1, N_IMAGES).all():
        raise InputError("data.root", f"{path} has a 73KID that is not from 1 to {N_IMAGES}")
    ids = table["73KID"].to_numpy() - 1
    return pd.DataFrame(
        {
            "session": table["SESSION"].to_numpy(),
            "run": table["RUN"].to_numpy(),
            "id": ids,
            "shared": table["10KID"].to_numpy() <= _N_SHARED,
            "row": np.unique(ids, return_inverse=True)[1],
        }
    )


def stimulus_table(trials: pd.DataFrame, n_val: float, seed: int, subject: str) -> pd.DataFrame:
    """One row per image, by its number: stimulus (its number), split, n_repeats.

    trials: as of `read_trials`. n_val: a share or a number of the images that are not shared.
    Raises InputError where too few images are left to test or to train on.
    """
    images = trials.groupby("id").agg(shared=("shared", "first"), n_repeats=("run", "size"))
    shared = images["shared"].to_numpy()
    if shared.sum() < MIN_TEST_STIMULI:
        raise InputError(
            "data.root",
            "the test stimuli are the shared images of the sessions that are there, "
            f"which are {shared.sum()}, but JNE needs at least {MIN_TEST_STIMULI}; download more "
            f"sessions of {subject}",
        )
    others = np.flatnonzero(~shared)
    size = n_val if isinstance(n_val, int) else ceil(n_val * len(others))
    if size >= len(others) - 1:
        raise InputError(
            "data.n_val",
            f"of the {len(others)} images that are not shared this leaves none to train on; give a "
            f"smaller number or a share",
            value=n_val,
        )
    split = np.where(shared, "test", "train").astype("<U5")
    _, val = train_test_split(others, test_size=size, random_state=seed)
    split[val] = "val"
    n_repeats = images["n_repeats"].to_numpy()
    return pd.DataFrame(
        {"stimulus": images.index.to_numpy(), "split": split, "n_repeats": n_repeats}
    )


def report_sessions(subject: str, sessions: Collection[int], stimuli: pd.DataFrame) -> None:
    """Print which sessions were found and which were not, and how often the images were seen."""
    n_released = _N_SESSIONS.get(subject, 0)
    absent = sorted(set(range(1, max(n_released, *sessions) + 1)).difference(sessions))
    last = range(n_released - _N_WITHHELD + 1, n_released + 1) if n_released else ()
    withheld = [session for session in absent if session in last]
    missing = [session for session in absent if session not in withheld]
    sentence = f"sessions   {len(sessions)} found ({_ranges(sessions)})"
    if missing:
        sentence += f"; {len(missing)} missing ({_ranges(missing)})"
    if withheld:
        sentence += (
            f"; {len(withheld)} missing that were withheld until 20 August 2023 "
            f"({_ranges(withheld)})"
        )
    style = "yellow" if absent else None
    console.print(sentence, style=style, highlight=False, soft_wrap=True)
    words = {1: "once", 2: "twice", 3: "three times"}
    times, counts = np.unique(stimuli["n_repeats"], return_counts=True)
    seen = ", ".join(
        f"{count} {words.get(n, f'{n} times')}" for n, count in zip(times, counts, strict=True)
    )
    console.print(f"images     {len(stimuli)} seen: {seen}", highlight=False, soft_wrap=True)


def _ranges(numbers: Collection[int]) -> str:
    """Ascending numbers with ranges: 1-2, 4."""
    text: list[list[int]] = []
    for number in sorted(numbers):
        if text and number == text[-1][-1] + 1:
            text[-1].append(number)
        else:
            text.append([number])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in text)

"""Which runs belong together: for every subject a nonlinear run, and beside it a linear one."""

from dataclasses import dataclass, field

import numpy as np

from jne.errors import InputError
from jne.results import Results

# What may differ between runs of one encoder: two such runs differ in the seed alone.
_BOOKKEEPING = ("name", "seed", "output", "tracking", "checkpoint")


@dataclass(frozen=True)
class Subject:
    name: str
    nonlinear: Results
    linear: Results | None = None
    seeds: list[Results] = field(default_factory=list)
    """The nonlinear run's like with other seeds."""

    @property
    def runs(self) -> list[Results]:
        return [self.nonlinear, *([self.linear] if self.linear else []), *self.seeds]


def is_linear(run: Results) -> bool:
    """True where no Jacobian moves at all, which the engine gives as exactly 0."""
    deviation = run.voxels["mean_deviation"].dropna()
    return len(deviation) > 0 and not deviation.any()


def by_subject(runs: list[Results]) -> list[Subject]:
    """Runs sorted into subjects, in the order in which their subjects come first.

    Raises InputError where a subject has no nonlinear run, several that differ in more than the
    seed, or runs of other voxels or test stimuli.
    """
    grouped: dict[str, list[Results]] = {}
    for run in runs:
        grouped.setdefault(run.config["subject"], []).append(run)
    return [_subject(name, group) for name, group in grouped.items()]


def _subject(name: str, runs: list[Results]) -> Subject:
    for run in runs[1:]:
        _check_same_test(runs[0], run)
    linear = [run for run in runs if is_linear(run)]
    nonlinear = [run for run in runs if not is_linear(run)]
    if not nonlinear:
        raise InputError(
            f"runs: no nonlinear run of {name} among those named; JNE is 0 in a linear one "
            f"({linear[0].path})"
        )
    for other in nonlinear[1:]:
        differs = _difference(nonlinear[0], other)
        if differs:
            raise InputError(
                f"runs: two nonlinear runs of {name} differ in {differs}, so neither is a repeat "
                f"of the other; name one of {nonlinear[0].path} and {other.path}"
            )
    if len(linear) > 1:
        raise InputError(
            f"runs: {len(linear)} linear runs of {name}; name one of "
            f"{' and '.join(str(run.path) for run in linear)}"
        )
    return Subject(name, nonlinear[0], linear[0] if linear else None, nonlinear[1:])


def _check_same_test(first: Results, other: Results) -> None:
    subject = first.config["subject"]
    if not _equal(first.stimuli["stimulus"], other.stimuli["stimulus"]):
        what = "test stimuli"
    elif not _equal(first.voxels["voxel"], other.voxels["voxel"]):
        what = "voxels"
    elif first.config["shuffle"] != other.config["shuffle"]:
        what = "pairings of stimuli and responses (shuffle)"
    else:
        return
    raise InputError(
        f"runs: the runs of {subject} in {first.path} and {other.path} have different {what}; "
        f"evaluate them apart"
    )


def _equal(first, other) -> bool:
    return len(first) == len(other) and bool(np.all(first.to_numpy() == other.to_numpy()))


def _difference(first: Results, other: Results) -> str:
    """The config keys, without the bookkeeping, in which two runs differ."""
    keys = sorted((first.config.keys() | other.config.keys()).difference(_BOOKKEEPING))
    found = []
    for key in keys:
        a, b = first.config.get(key), other.config.get(key)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            names = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
            found += [f"{key}.{name}" for name in names]
        else:
            found.append(key)
    # jacobian and stats say what is measured and how it is tested, not what was learned
    return ", ".join(key for key in found if not key.startswith(("jacobian.", "stats.")))

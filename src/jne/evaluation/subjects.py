"""Which runs belong together: per subject a nonlinear run; beside it a linear one, and others."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jne.errors import InputError
from jne.evaluation.same_data import differing_keys, is_of_features, other_data, unlike
from jne.results import Results
from jne.results.contents import is_linear

ALL_SUBJECTS = "all"
"""In the column `subject` of tables, for rows over all subjects."""


@dataclass(frozen=True)
class Subject:
    """A subject and its runs, all on the same data; of a sweep over features, but for these."""

    name: str
    nonlinear: Results
    linear: Results | None = None
    seeds: list[Results] = field(default_factory=list)
    """Repeats of the nonlinear run with other seeds."""
    by: str = ""
    """The config key in which `variations` differ; empty where there are none."""
    variations: dict[str, Results] = field(default_factory=dict)
    """One run per value of the key `by`, in order, `nonlinear` among them."""
    left_out: list[str] = field(default_factory=list)
    """Which runs were not read, and why: a sentence each."""

    @property
    def data_set(self) -> str:
        """The name of the data."""
        return self.nonlinear.config["data"]["name"]

    @property
    def runs(self) -> list[Results]:
        named = [self.nonlinear, self.linear, *self.seeds, *self.variations.values()]
        return list({run.path: run for run in named if run is not None}.values())


def by_subject(runs: list[Results], by: str | None = None) -> list[Subject]:
    """The runs grouped by subject, in the order in which the subjects first occur.

    Subjects of several data sets are different people, whatever they are called: their names begin
    with that of the data.

    by: a config key, such as activation, in which the runs of a subject may differ. Its subject's
    runs are those with the value of the run with the lowest validation loss; of every value, one
    run is among `variations`.

    Raises InputError where a subject has no nonlinear run, nonlinear runs that differ in more than
    the seed and `by`, several linear runs, or runs on different data, and where one of
    several subjects is called `all`.
    """
    several = len({run.config["data"]["name"] for run in runs}) > 1
    grouped: dict[str, list[Results]] = {}
    for run in runs:
        name = run.config["subject"]
        name = f"{run.config['data']['name']} {name}" if several else name
        grouped.setdefault(name, []).append(run)
    if ALL_SUBJECTS in grouped and len(grouped) > 1:
        raise InputError(
            "runs",
            f"a subject is called {ALL_SUBJECTS!r}, which stands for all subjects in the "
            f"tables; evaluate it on its own",
        )
    if by is None:
        return [_subject(name, group) for name, group in grouped.items()]
    return [_varied(name, group, by) for name, group in grouped.items()]


def unlike_subjects(subjects: Sequence[Subject]) -> list[str]:
    """A sentence on each subject whose encoder or features are not those of the first."""
    first = subjects[0]
    differences = {
        subject.name: unlike(first.nonlinear, subject.nonlinear) for subject in subjects[1:]
    }
    return [
        f"The run of {name} is unlike that of {first.name}: {difference}."
        for name, difference in differences.items()
        if difference
    ]


def _varied(name: str, runs: list[Results], by: str) -> Subject:
    """The subject whose runs differ in the key `by`."""
    for run in runs[1:]:
        _check_same_data(runs[0], run, by)
    variations: dict[str, list[Results]] = {}
    for run in sorted(runs, key=lambda run: _position(_value(run, by))):
        variations.setdefault(str(_value(run, by)), []).append(run)
    plain = [run for run in runs if by == "encoder" or not is_linear(run.voxels)]
    nonlinear = [run for run in plain if not is_linear(run.voxels)]
    if len({str(_value(run, by)) for run in plain}) < 2 or not nonlinear:
        raise InputError(
            "by",
            f"the runs of {name} do not differ in it; name runs that do, such as those of a sweep",
            value=by,
        )
    best = min(nonlinear, key=lambda run: run.epochs["val/loss"].min())
    for run in nonlinear:
        other = [key for key in differing_keys(best, run) if not _is_part(key, by)]
        if other:
            raise InputError(
                "by",
                f"{best.path} and {run.path} also differ in {', '.join(other)}; name only "
                f"runs that differ in {by}",
                value=by,
            )
    same = variations[str(_value(best, by))]
    linear = [run for run in runs if is_linear(run.voxels)]
    if len(linear) == 1 and by in ("activation", "placement", "encoder"):
        same = [*(run for run in same if run is not linear[0]), *linear]
    subject = _subject(name, [best, *(run for run in same if run is not best)])
    compared = {
        value: next(run for run in group if run in plain)
        for value, group in variations.items()
        if any(run in plain for run in group)
    }
    return replace(subject, by=by, variations=compared)


def _value(run: Results, key: str) -> Any:
    """The value of a dotted config key. Raises InputError where a run's config has no such key."""
    if key == "encoder":
        return "linear" if is_linear(run.voxels) else "nonlinear"
    value: Any = run.config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError("by", f"the config of {run.path} has no such key", value=key)
        value = value[part]
    return value


def _position(value: Any) -> tuple[bool, float, str]:
    """Numbers in their order, then text."""
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))


def _is_part(key: str, by: str) -> bool:
    """Whether a differing key is `by`, holds it, or repeats it, as encoder.activation does."""
    same_name = key.split(".")[-1] == by.split(".")[-1]
    return by == key or by.startswith(f"{key}.") or same_name or key == "encoder.label"


def _subject(name: str, runs: list[Results]) -> Subject:
    for run in runs[1:]:
        _check_same_data(runs[0], run)
    linear = [run for run in runs if is_linear(run.voxels)]
    nonlinear = [run for run in runs if not is_linear(run.voxels)]
    if not nonlinear:
        raise InputError(
            "runs",
            f"no nonlinear run of {name} among those named; name one beside the linear run "
            f"{linear[0].path}, whose JNE is 0",
        )
    for other in nonlinear[1:]:
        differing = differing_keys(nonlinear[0], other)
        if differing:
            raise InputError(
                "runs",
                f"two nonlinear runs of {name} differ in {', '.join(differing)}, so they are "
                f"not repeats with another seed; name only one of "
                f"{nonlinear[0].path} and {other.path}, or compare them by a key: by=KEY",
            )
    if len(linear) > 1:
        raise InputError(
            "runs",
            f"{len(linear)} linear runs of {name}; name only one of "
            f"{', '.join(str(run.path) for run in linear)}",
        )
    return Subject(name, nonlinear[0], linear[0] if linear else None, nonlinear[1:])


def _check_same_data(first: Results, other: Results, by: str = "") -> None:
    """by: the key of a sweep; one over features has other features in every run."""
    different = other_data(first, other, ("features",) if is_of_features(by) else ())
    if different:
        raise InputError(
            "runs",
            f"the runs of {first.config['subject']} in {first.path} and {other.path} have "
            f"different {different}; evaluate them separately",
        )

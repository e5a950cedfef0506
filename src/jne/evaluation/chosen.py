"""The runs that a report reads: those that `runs` names, or the newest that belong together."""

from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from jne.errors import InputError
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.same_data import other_data, other_settings
from jne.evaluation.subjects import Subject, by_subject, unlike_subjects
from jne.results import Results
from jne.results.contents import is_linear
from jne.results.folder import finished_status
from jne.runs.choice import RUN_SEPARATOR
from jne.tracking import (
    PLAIN,
    RecordedRun,
    TrainingRuns,
    check_address,
    open_store,
    results_folder,
)
from jne.utils.progress import say
from jne.utils.reading import reading
from jne.utils.tables import read_table

_MAX_LEFT_OUT = 5  # sentences on runs that were left out


def chosen_subjects(config: EvaluateConfig) -> list[Subject]:
    """The subjects with their runs, after saying which were left out and how subjects differ.

    Raises InputError where a run that `runs` names cannot be read, where runs do not belong
    together, and where no run is left.
    """
    left_out: list[str] = []
    if isinstance(config.runs, str):
        check_address(config.tracking_uri, existing=True)
        place = f"the experiment {config.tracking.experiment} of {config.tracking_uri}"
        newest = Newest(TrainingRuns(*open_store(**config.store), config.filter), place)
        runs = newest.runs(config.runs == "newest_of_all_data")
        left_out = newest.left_out
    elif config.filter:
        raise InputError(
            "filter",
            "a filter selects among runs=newest; leave out filter or runs",
            value=config.filter,
        )
    else:
        folders = [folder for name in config.runs for folder in _named_folders(config, name)]
        runs = [Results(folder) for folder in folders]
    subjects = by_subject(runs, config.by)
    for line in (*(f"left out: {reason}" for reason in left_out), *unlike_subjects(subjects)):
        say(line, style="yellow", soft_wrap=True, highlight=False)
    return [replace(subjects[0], left_out=left_out), *subjects[1:]]


class Newest:
    """The newest nonlinear run of each subject, and the newest runs that belong beside it."""

    def __init__(self, recorded: TrainingRuns, place: str) -> None:
        """place: where they are recorded, in words."""
        self.recorded, self.place = recorded, place
        self._reasons: dict[str, None] = {}

    @property
    def left_out(self) -> list[str]:
        """Which runs were not read, and why: a sentence each."""
        lines = list(self._reasons)
        more = len(lines) - _MAX_LEFT_OUT
        return lines if more <= 0 else [*lines[:_MAX_LEFT_OUT], f"and {more} more"]

    def runs(self, of_all_data: bool) -> list[Results]:
        """The runs on the data of the newest run, or on any data, subject by subject.

        Raises InputError where no nonlinear run is left.
        """
        chosen: list[list[Results]] = []
        for newest in self.recorded.newest_of_each("data_set", PLAIN):
            data_set = newest.match.data_set
            for run in self.recorded.newest_of_each("subject", PLAIN, data_set=data_set):
                runs = self._of_subject(run)
                chosen += [runs] if runs else []
            if chosen and not of_all_data:
                break
        if not chosen:
            wanted = self.recorded.filter
            key, value = ("filter", wanted) if wanted else ("runs", "newest")
            message = f"no finished training run of a nonlinear encoder in {self.place}"
            raise InputError(key, "; left out: ".join([message, *self.left_out]), value)
        chosen.sort(key=lambda runs: (runs[0].config["data"]["name"], runs[0].config["subject"]))
        return [run for runs in chosen for run in runs]

    def _of_subject(self, newest: RecordedRun) -> list[Results]:
        """The newest nonlinear run; beside it its other seeds and the linear run."""
        subject = newest.match.subject
        for run in self.recorded.newest_first(role="nonlinear", subject=subject):
            nonlinear = self._read(run)
            if nonlinear is not None:
                break
        else:
            self._leave_out(f"{newest.folder}, beside which there is no nonlinear run")
            return []
        data = {"contents": run.match.contents}
        linear = self._beside(nonlinear, {"role": "linear", "subject": subject}, data)
        return [nonlinear, *self._seeds(nonlinear, run), *([linear] if linear else [])]

    def _seeds(self, nonlinear: Results, run: RecordedRun) -> list[Results]:
        """The newest run of each other seed. Only those on other data are worth a sentence."""
        repeat = {"role": "nonlinear", "subject": run.match.subject} | {
            "settings": run.match.settings
        }
        data = {"contents": run.match.contents}
        other = f"tags.match_seed != '{run.match.seed}'"
        seeds = [
            self._beside(nonlinear, repeat | {"seed": newest.match.seed}, data)
            for newest in self.recorded.newest_of_each("seed", other, **repeat, **data)
        ]
        if not any(seeds):
            newest = islice(self.recorded.newest_first(other, **repeat), 1)
            seeds += [self._read(run, nonlinear) for run in newest]
        return [seed for seed in seeds if seed is not None]

    def _beside(
        self, nonlinear: Results, wanted: dict[str, str], same: dict[str, str]
    ) -> Results | None:
        """The newest run of those wanted that has the same; if none has, say so of the newest."""
        matching = self.recorded.newest_first(**wanted, **same)
        newest = islice(self.recorded.newest_first(**wanted), 1)
        read = (self._read(run, nonlinear) for run in chain(matching, newest))
        return next(filter(None, read), None)

    def _read(self, run: RecordedRun, beside: Results | None = None) -> Results | None:
        """The run, if its folder is whole and it belongs beside the other; else say why not."""
        try:
            read = Results(run.folder)
        except InputError as error:
            self._leave_out(str(error))
            return None
        if beside is None:
            return read
        if different := other_data(beside, read):
            self._leave_out(f"{run.folder} is on other {different}")
            return None
        if run.match.role != "linear" and (different := other_settings(beside, read)):
            self._leave_out(f"{run.folder} has {different}")
            return None
        return read

    def _leave_out(self, reason: str) -> None:
        self._reasons[reason] = None  # a run may be come across twice


def _named_folders(config: EvaluateConfig, name: str) -> list[Path]:
    """A results folder, given by its path or by the MLflow id of its run; or those of a sweep."""
    path = Path(name)
    if path.suffix == ".csv":
        return _chosen_folders(path)
    if path.is_dir():
        finished = [folder for folder in sorted(path.iterdir()) if finished_status(folder)]
        return [path] if (path / "status.json").exists() or not finished else finished
    client, _ = open_store(**config.store)
    return [results_folder(client, name)]


def _chosen_folders(file: Path) -> list[Path]:
    """The runs that a sweep chose by their validation loss, from its best.csv.

    Of a linear encoder, only the first seed counts: a report has one such run per subject.
    """
    with reading(file, "runs"):
        table = read_table(file)
    if "runs" not in table:
        raise InputError("runs", f"{file} has no column 'runs'; name the best.csv of a sweep")
    named = [names for names in table["runs"].dropna().astype(str) if names]
    if not named:
        raise InputError("runs", f"{file} names no run")
    folders: list[Path] = []
    for names in named:
        of_setting = [file.parent / name for name in names.split(RUN_SEPARATOR)]
        first = Results(of_setting[0])
        folders += of_setting[:1] if is_linear(first.voxels) else of_setting
    return folders

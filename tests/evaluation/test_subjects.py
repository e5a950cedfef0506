"""Which runs belong together."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from finished_run import evaluate_config, write_run

from jne.errors import InputError
from jne.evaluation.chosen import chosen_subjects
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.results import Results


def test_runs_that_do_not_belong_together_are_refused(tmp_path):
    first = write_run(tmp_path / "nonlinear")
    linear = write_run(tmp_path / "linear", placement="none")
    with pytest.raises(InputError, match="no nonlinear run of subj01 among those named"):
        by_subject([linear])

    def altered(key, change):
        folder = tmp_path / key
        shutil.copytree(first.path, folder)
        change(folder)
        return Results(folder)

    def other_stimuli(folder):
        status = json.loads((folder / "status.json").read_text())
        status["contents"]["stimuli"] = "other"
        (folder / "status.json").write_text(json.dumps(status))

    def set_config(key, value):
        def change(folder):
            config = yaml.safe_load((folder / "config.yaml").read_text())
            (folder / "config.yaml").write_text(yaml.safe_dump(config | {key: value}))

        return change

    with pytest.raises(InputError, match=r"different stimuli or splits \(a file"):
        by_subject([first, altered("stimuli", other_stimuli)])
    with pytest.raises(InputError, match="differ in activation"):
        by_subject([first, altered("activation", set_config("activation", "gelu"))])
    shuffled = altered("shuffle", set_config("control", {"kind": "shuffle"}))
    with pytest.raises(InputError, match=r"\(control=shuffle\)"):
        by_subject([first, shuffled])
    unfinished = tmp_path / "unfinished"
    shutil.copytree(first.path, unfinished)
    status = json.loads((unfinished / "status.json").read_text())
    (unfinished / "status.json").write_text(json.dumps(status | {"status": "KILLED"}))
    with pytest.raises(InputError, match="is KILLED, not FINISHED"):
        Results(unfinished)


def test_what_was_to_be_done_about_leaks_tells_no_runs_apart(tmp_path):
    leaks = [{"leaks": "allow"}, {"leaks": "refuse"}, {"leaks": "warn"}]
    runs = [write_run(tmp_path / str(k), seed=k, data=data) for k, data in enumerate(leaks)]
    (subject,) = by_subject(runs)
    assert len(subject.seeds) == 2


def test_a_subject_called_all_is_evaluated_on_its_own(tmp_path):
    runs = [write_run(tmp_path / name, subject=name) for name in ("all", "other")]
    with pytest.raises(InputError, match=r"a subject is called 'all', .*; evaluate it on its own"):
        by_subject(runs)
    assert [subject.name for subject in by_subject(runs[:1])] == ["all"]


def test_an_roi_called_all_is_refused(tmp_path):
    run = write_run(tmp_path / "run")
    run.voxels = run.voxels.astype({"roi": str}).replace({"roi": {"V1": "all"}})
    with pytest.raises(InputError, match=r"^runs: .*run has an ROI called 'all'"):
        voxel_tables(by_subject([run]), evaluate_config(tmp_path, "variants=[l1]"))


# --- the runs that a sweep chose ---


def write_best(folder, *runs) -> str:
    """`runs=...` for a best.csv with a row per argument."""
    pd.DataFrame({"encoder": "x", "runs": runs}).to_csv(folder / "best.csv", index=False)
    return f"runs={folder / 'best.csv'}"


@pytest.mark.runs
def test_the_runs_of_best_csv(tmp_path):
    """All seeds of a nonlinear encoder, one of a linear one: a report has a single linear run."""
    for seed in (0, 1):
        write_run(tmp_path / f"relu {seed}", seed=seed)
        write_run(tmp_path / f"linear_{seed}", placement="none", seed=seed)
    chosen = write_best(tmp_path, "linear_0;linear_1", "relu 0;relu 1")
    (subject,) = chosen_subjects(evaluate_config(tmp_path, chosen))
    assert [run.path.name for run in subject.runs] == ["relu 0", "linear_0", "relu 1"]


def test_best_csv_moves_with_its_sweep(tmp_path):
    write_run(tmp_path / "sweep" / "relu")
    write_best(tmp_path / "sweep", "relu")
    (tmp_path / "sweep").rename(tmp_path / "moved")
    chosen = f"runs={tmp_path / 'moved' / 'best.csv'}"
    (subject,) = chosen_subjects(evaluate_config(tmp_path, chosen))
    assert subject.nonlinear.path == tmp_path / "moved" / "relu"


@pytest.mark.runs
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "runs: .*best.csv cannot be read"),
        ("", "runs: .*best.csv cannot be read"),
        ("encoder,lr\nx,1\n", "has no column 'runs'; name the best.csv of a sweep"),
        ("encoder,runs\nx,gone\n", "gone"),
        ("encoder,runs\n", "runs: .*best.csv names no run"),
        ("encoder,runs\nx,\n", "runs: .*best.csv names no run"),
    ],
)
def test_a_best_csv_that_cannot_be_read(tmp_path, content, match):
    if content is not None:
        (tmp_path / "best.csv").write_text(content)
    with pytest.raises(InputError, match=match):
        chosen_subjects(evaluate_config(tmp_path, f"runs={tmp_path / 'best.csv'}"))

"""Which runs belong together."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from finished_run import evaluate_config, write_run

from jne.errors import InputError
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
        stimuli = pd.read_csv(folder / "stimuli.csv")
        stimuli.assign(stimulus=stimuli["stimulus"] + "x").to_csv(folder / "stimuli.csv")

    def set_config(key, value):
        def change(folder):
            config = yaml.safe_load((folder / "config.yaml").read_text())
            (folder / "config.yaml").write_text(yaml.safe_dump(config | {key: value}))

        return change

    with pytest.raises(InputError, match="different test stimuli"):
        by_subject([first, altered("stimuli", other_stimuli)])
    with pytest.raises(InputError, match="differ in activation"):
        by_subject([first, altered("activation", set_config("activation", "gelu"))])
    with pytest.raises(InputError, match=r"\(shuffle\)"):
        by_subject([first, altered("shuffle", set_config("shuffle", True))])
    unfinished = tmp_path / "unfinished"
    shutil.copytree(first.path, unfinished)
    status = json.loads((unfinished / "status.json").read_text())
    (unfinished / "status.json").write_text(json.dumps(status | {"status": "KILLED"}))
    with pytest.raises(InputError, match="is KILLED, not FINISHED"):
        Results(unfinished)


def test_a_subject_called_all_is_evaluated_on_its_own(tmp_path):
    runs = [write_run(tmp_path / name, subject=name) for name in ("all", "other")]
    with pytest.raises(InputError, match=r"a subject is called 'all', .*; evaluate it on its own"):
        by_subject(runs)
    assert [subject.name for subject in by_subject(runs[:1])] == ["all"]


def test_runs_whose_voxel_tables_have_words_of_ours(tmp_path):
    """As version 0.1.0 wrote them: a column `tier` gives way, an ROI called `all` is refused."""
    config = evaluate_config(tmp_path, "variants=[l1]")
    run = write_run(tmp_path / "run")
    run.voxels = run.voxels.assign(tier="mine")
    (data,) = voxel_tables(by_subject([run]), config)
    assert list(data.voxels["tier"].unique()) == ["PVC", "IVC", "HVC"]
    run.voxels = run.voxels.replace({"roi": {"V1": "all"}})
    with pytest.raises(InputError, match=r"^runs: .*run has an ROI called 'all'"):
        voxel_tables(by_subject([run]), config)

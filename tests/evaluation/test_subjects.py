"""Which runs belong together."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from finished_run import write_run

from jne.errors import InputError
from jne.evaluation.subjects import by_subject
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

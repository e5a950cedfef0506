"""How many voxels have a penalty at an end of its grid: summary, MLflow, terminal."""

import numpy as np
import pandas as pd
import pytest
from helpers import status
from mlflow import MlflowClient

from jne import Results
from jne.training.run import say_penalty_ends

KINDS = ["ridge", "kernel", "readout"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([1] * 3 + [-1] * 2 + [0] * 35 + [np.nan] * 60, ["of 40 voxels, 3 have the largest penalty "
         "of the grid (hardly more than the mean is predicted)",
         " and 2 have the smallest penalty of the grid (nearly least squares)"]),
        ([1] * 6 + [0] * 94, ["of 100 voxels, 6 have the largest"]),
        ([-1] * 6 + [0] * 94, ["of 100 voxels, 6 have the smallest"]),
        ([1] * 3 + [-1] * 2 + [0] * 95, []),
    ],
)  # fmt: skip
def test_a_sentence_where_more_than_five_percent_are(ends, expected, capsys):
    say_penalty_ends(pd.DataFrame({"readout_penalty_end": ends}))
    (sentence,) = capsys.readouterr().out.split("\n")[:-1] or [""]
    assert sentence.startswith("readout penalty: ") == bool(expected)
    assert all(part in sentence for part in expected)
    assert sentence.count("have the") == sum(end in ends for end in (1, -1)) * bool(expected)


@pytest.mark.runs
def test_a_run_counts_its_voxels(run_train, store, capsys):
    """Responses that no longer belong to their stimuli have no signal: the largest penalty."""
    (folder,) = run_train("control=shuffle", "baseline=[ridge,kernel]")
    said = " ".join(capsys.readouterr().out.split())
    run = Results(folder)
    logged = MlflowClient(store).get_run(status(folder)["mlflow_run_id"]).data.metrics
    for kind in KINDS:
        penalty, ends = run.voxels[f"{kind}_penalty"], run.voxels[f"{kind}_penalty_end"]
        assert set(ends) <= {-1, 0, 1}
        share = (ends != 0).mean()
        assert run.summary["metrics"][f"{kind}_penalty_at_end"] == pytest.approx(share)
        assert logged[f"{kind}_penalty_at_end"] == pytest.approx(share, abs=1e-4)
        largest = penalty[ends == 1]
        assert (penalty[ends != 1] < penalty.max()).all()
        np.testing.assert_allclose(largest, penalty.max(), rtol=1e-5)
        if share > 0.05:
            n = (ends == 1).sum()
            assert f"{kind} penalty: of {len(ends)} voxels, {n} have the largest" in said
    assert (run.voxels["ridge_penalty_end"] == 1).mean() > 0.2

"""A results folder that was edited, cut or damaged gets one sentence that names the file."""

import shutil

import numpy as np
import pytest
from damage import damages
from finished_run import write_run
from region_evidence import region_evidence, with_evidence

from jne.errors import InputError
from jne.results import Results

DAMAGES = [  # a quarter of them now, of every file; the rest takes seconds more
    pytest.param(damage, file, id=what, marks=() if number % 4 == 0 else pytest.mark.slow)
    for number, (what, damage, file) in enumerate(damages())
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "run").path


@pytest.mark.runs
@pytest.mark.parametrize(("damage", "file"), DAMAGES)
def test_a_damaged_folder_is_one_sentence(run, tmp_path, damage, file):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    damage(folder)
    with pytest.raises(InputError) as refused:
        Results(folder)
    message = str(refused.value)
    assert "\n" not in message
    assert file in message
    assert str(folder) in message
    assert len(message) < 500


def test_evidence_is_read_as_it_was_written(tmp_path):
    """Of a region and of a union, by its voxels alone; None where a run has none."""
    run = write_run(tmp_path / "run")
    assert run.region_evidence is None
    run, arrays = with_evidence(run, {"V1": 0.0, "V2": 0.6, "EBA": 1.2})
    evidence = run.region_evidence
    assert evidence.rois == ["EBA", "V1", "V2", "all"]
    table = evidence.table({"V2": ["V2"], "both": ["V1", "EBA"], "all": ["all"]})
    roi = run.voxels.query("status == 'ok'")["roi"].to_numpy()
    for name, members in {"V2": ["V2"], "both": ["V1", "EBA"], "all": set(roi)}.items():
        chosen = np.isin(roi, list(members))
        alone = region_evidence(type(arrays)(*(x[:, chosen] for x in arrays)), roi[chosen])
        expected = alone.regions.table({"all": ["all"]}).loc["all"]
        exact = expected.drop(["validated_share_low", "validated_share_high"])
        np.testing.assert_allclose(table.loc[name, exact.index], exact, rtol=1e-4, atol=1e-9)
    assert list(evidence.table().index) == evidence.rois


def test_weights_that_do_not_fit_the_encoder(run, tmp_path):
    """Of another width: found when the encoder is asked for."""
    import torch

    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    saved = torch.load(folder / "encoder.pt", weights_only=True)
    saved["config"]["hidden_width"] = 9
    torch.save(saved, folder / "encoder.pt")
    with pytest.raises(InputError, match=r"encoder.pt holds weights that do not fit its config"):
        Results(folder).encoder()

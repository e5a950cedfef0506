"""A results folder that was edited, cut or damaged gets one sentence that names the file."""

import shutil

import pandas as pd
import pytest
import yaml
from damage import damages
from finished_run import write_run

from jne.errors import InputError
from jne.results import Results

DAMAGES = list(damages())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "run").path


@pytest.mark.parametrize(
    ("damage", "file"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES]
)
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


@pytest.mark.parametrize(("shuffle", "kind"), [(True, "shuffle"), (False, "none")])
def test_a_folder_of_an_earlier_version_has_the_key_shuffle(run, tmp_path, shuffle, kind):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["control"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"shuffle": shuffle}))
    found = Results(folder).config
    assert found["control"] == {"kind": kind}
    assert "shuffle" not in found


def test_a_folder_of_an_earlier_version_has_no_gain(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "gain.npy").unlink()
    table = pd.read_csv(folder / "voxels.csv")
    earlier = table.drop(columns=["gain_change", "shape_change"])
    earlier.to_csv(folder / "voxels.csv", index=False)
    assert list(Results(folder).voxels) == list(earlier)

"""Nothing that is read runs: a folder, a checkpoint or a journal that tries to leaves no trace."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from attacks import (
    Pickled,
    encoder_configs,
    lay_traps,
    pickles,
    read_all,
    write_config,
    write_encoder_config,
)
from finished_run import write_run
from helpers import TINY, TINY_COHORT, run_quietly

from jne.errors import InputError
from jne.results import Results
from jne.tracking import record
from jne.utils.arrays import read_array


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "run").path


@pytest.fixture
def scene(run, tmp_path, monkeypatch):
    """A copy of a run, traps on sys.path, and the folder that must not appear."""
    shutil.copytree(run, tmp_path / "run")
    traps, trace = tmp_path / "traps", tmp_path / "trace"
    traps.mkdir()
    lay_traps(traps, trace)
    monkeypatch.syspath_prepend(traps)
    yield tmp_path / "run", traps, trace
    assert not trace.exists()
    assert "evil" not in sys.modules


def test_an_encoder_file_names_no_code(scene):
    folder, traps, trace = scene
    tried = 0
    for what, settings in encoder_configs(traps, trace):
        write_encoder_config(folder, settings)
        with pytest.raises(InputError) as refused:
            Results(folder).encoder()
        assert "\n" not in str(refused.value), what
        assert not trace.exists(), what
        tried += 1
    assert tried > 40


def test_the_traps_work(scene):
    """A user's own config may name anything: there the very same settings do run."""
    from jne.encoders import build_encoder

    _, traps, trace = scene
    hub = {"_target_": "torch.hub.load", "repo_or_dir": str(traps), "model": "load"}
    with pytest.raises(InputError, match=r"must name an nn.Module"):  # after it has run
        build_encoder(hub | {"source": "local"}, 2, 2)
    assert trace.exists()
    trace.rmdir()


def test_trust_opens_a_package_and_no_other(scene, monkeypatch):
    folder, traps, _ = scene
    write_encoder_config(folder, {"_target_": "evil.Encoder"})
    for trust in (["evi"], ["vil."], ["evil.Encoder."], ["torch."]):
        with pytest.raises(InputError, match=r"names 'evil.Encoder'"):
            Results(folder).encoder(trust)
    (traps / "good.py").write_text(
        "import torch\nclass Encoder(torch.nn.Linear):\n"
        "    def __init__(self, n_features, n_voxels):\n"
        "        super().__init__(n_features, n_voxels)\n"
    )
    run = Results(folder)
    width = len(torch.load(folder / "encoder.pt", weights_only=True)["response_mean"])
    saved = torch.load(folder / "encoder.pt", weights_only=True)
    saved |= {
        "config": {"_target_": "good.Encoder"},
        "weights": torch.nn.Linear(6, width).state_dict(),
    }
    torch.save(saved, folder / "encoder.pt")
    for trust in (["good."], ["good"]):
        assert run.encoder(trust).weight.shape == (width, 6)


def test_a_torch_module_needs_no_trust(scene):
    folder = scene[0]
    saved = torch.load(folder / "encoder.pt", weights_only=True)
    width = len(saved["response_mean"])
    layer = {"_target_": "torch.nn.Linear", "in_features": 6, "out_features": width}
    write_encoder_config(folder, layer)
    with pytest.raises(InputError, match="n_features"):  # named, and made; it takes no n_features
        Results(folder).encoder()


def test_nothing_in_a_folder_is_unpickled(scene, run):
    folder, _, trace = scene
    for what, file, write in pickles(trace):
        content = (folder / file).read_bytes()
        write(folder / file)
        with pytest.raises(InputError) as refused:
            read_all(folder)
        assert file in str(refused.value), what
        assert not trace.exists(), what
        (folder / file).write_bytes(content)
    read_all(folder)


def test_evaluate_runs_nothing_of_the_config(scene, run_script, capsys):
    """The data section, which once was made again for the thumbnails, and the encoder's."""
    folder, traps, _ = scene
    hub = {"_target_": "torch.hub.load", "repo_or_dir": str(traps), "model": "load", "name": "x"}
    for section in ("data", "encoder", "features", "optimizer"):
        write_config(folder, section, hub | {"source": "local"})
    quick = ("voxels=all", "stats.n_bootstrap=20", "selectivity.n_permutations=99")
    run_script("evaluate.py", f"runs=[{folder}]", "variants=[l1]", *quick)


@pytest.mark.parametrize("kind", ["ckpt", "npy", "npz"])
def test_a_users_files_are_never_unpickled(scene, tmp_path, store, kind):
    _, _, trace = scene
    path = tmp_path / f"file.{kind}"
    if kind == "ckpt":
        torch.save({"state_dict": Pickled(trace)}, path)
        with pytest.raises(SystemExit, match="not a readable file of weights"):
            run_quietly(tmp_path, store, "train.py", *TINY_COHORT, *TINY, f"checkpoint={path}")
        return
    array = np.array([Pickled(trace)], dtype=object)
    (np.save if kind == "npy" else np.savez)(path, array, allow_pickle=True)
    with pytest.raises(InputError, match="never unpickled"):
        read_array(path, None, "data.features", "data.features_key")


def test_a_journal_sends_no_file_from_elsewhere(scene, tmp_path, store):
    """unrecorded.json names files of its folder; one outside would be copied to the store."""
    folder = scene[0]
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    journal = {
        "store": {"uri": store, "experiment": "jne", "artifacts": str(tmp_path / "artifacts")},
        "name": "x", "run_id": None, "tags": {}, "params": {}, "metrics": [], "status": "FINISHED",
    }  # fmt: skip
    for file in ("../secret.txt", str(secret), "figures/../../secret.txt"):
        text = json.dumps(journal | {"files": [[file, None]]})
        (folder / "unrecorded.json").write_text(text)
        with pytest.raises(InputError, match=r"unrecorded.json names .*secret.txt.*outside"):
            record(folder)

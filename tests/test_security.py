"""Nothing that is read runs: a folder, a checkpoint or a journal that tries to leaves no trace."""

import ast
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from attacks import (
    Pickled,
    encoder_configs,
    foreign_configs,
    journals,
    lay_traps,
    links,
    pickles,
    read_all,
    write_config,
    write_encoder_config,
)
from bombs import within
from finished_run import evaluate_config, write_run
from helpers import TINY, TINY_COHORT, run_quietly

import jne
from jne.errors import InputError
from jne.evaluation.external_test import external_test
from jne.results import Results
from jne.tracking import open_store, record
from jne.utils.arrays import read_array
from jne.utils.instantiate import instantiate


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


@pytest.mark.runs
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


@pytest.mark.runs
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
    (np.save if kind == "npy" else np.savez)(path, array)  # which pickle objects
    with pytest.raises(InputError, match="never unpickled"):
        read_array(path, None, "data.features", "data.features_key")


@pytest.mark.runs
def test_nothing_of_a_runs_config_is_made_for_a_external_test_set(scene, tmp_path, monkeypatch):
    """data.space, data.zscore and subject go into the source of the external test set."""
    folder, traps, trace = scene
    monkeypatch.setenv("JNE_TEST_SECRET", "secret of the machine")
    config = evaluate_config(tmp_path, "test=nsd_synthetic", f"test.root={tmp_path}")
    nsd = {"_target_": "jne.data.nsd.NSD", "name": "nsd", "space": "func1pt8mm", "zscore": "run"}
    tried = [(what, {"data": nsd | keys}) for what, keys in foreign_configs(traps)]
    tried += [(f"the subject {name!r}", {"subject": name, "data": nsd}) for name in NAMES]
    tried += [("features are a list", {"features": [1], "data": nsd})]
    for what, sections in tried:
        own = {"subject": "subj01", "features": dict(config.features)}
        for section, settings in (own | sections).items():
            write_config(folder, section, settings)
        with pytest.raises(InputError, match=r"config\.yaml must hold") as refused:
            external_test(Results(folder), config, lambda _: None)
        assert "secret of the machine" not in str(refused.value), what
        assert not trace.exists(), what


NAMES = ("../../elsewhere", "/etc", "a/b", "..", "${oc.env:JNE_TEST_SECRET}")


def test_a_config_of_the_user_is_made_and_what_is_read_is_an_argument(scene, monkeypatch):
    """The very same values: made where the user wrote them, text where they were read."""
    _, traps, trace = scene
    monkeypatch.setenv("JNE_TEST_SECRET", "secret of the machine")
    hub = {"_target_": "torch.hub.load", "repo_or_dir": str(traps), "model": "load"}
    nested, word = hub | {"source": "local", "trust_repo": True}, "${oc.env:JNE_TEST_SECRET}"
    settings = {"_target_": "builtins.dict"}
    made = instantiate(settings, "x", {"a": nested, "b": word})
    assert made == {"a": nested, "b": word}
    assert not trace.exists()
    assert instantiate(settings | {"b": word}, "x") == {"b": "secret of the machine"}
    instantiate(settings | {"a": nested}, "x")
    assert trace.exists()
    trace.rmdir()


@pytest.mark.runs
def test_a_trusted_package_leads_to_no_other(scene):
    """What it imported is not its own."""
    folder, traps, trace = scene
    (traps / "good.py").write_text("import os, torch\nfrom os import mkdir\n")
    nested = {"_target_": "good.mkdir", "_args_": [str(trace)]}
    for target in ("good.os.mkdir", "good.mkdir", "good.torch.hub.load", "good.os", "good.nothing"):
        write_encoder_config(folder, {"_target_": target, "_args_": [str(trace)]})
        with pytest.raises(InputError, match=rf"names '{target}'"):
            Results(folder).encoder(["good."])
    write_encoder_config(folder, {"_target_": "jne.encoders.ResidualEncoder", "activation": nested})
    with pytest.raises(InputError, match=r"names 'good.mkdir'"):
        Results(folder).encoder(["good."])


# --- files of the machine ------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "outside" / "secret.txt"
    path.parent.mkdir()
    path.write_text("subject,secret\n1,2\n")
    return path


@pytest.mark.runs
def test_no_file_of_a_folder_is_a_link_to_elsewhere(run, tmp_path, secret):
    folder = tmp_path / "run"
    changes = list(links(secret))
    for what, name, change in changes:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder)
        change(folder)
        with pytest.raises(InputError, match=rf"{name} is a link that leads out of") as refused:
            read_all(folder)
        assert "subject" not in str(refused.value), what
        assert "\n" not in str(refused.value), what
    assert len(changes) > 15


def test_a_journal_sends_regular_files_of_its_folder_alone(run, tmp_path, store, secret):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "inner").symlink_to(secret.parent)
    (folder / "link").symlink_to(secret)
    (folder / "figures").mkdir()
    (folder / "figures" / "inner").symlink_to(secret.parent)
    (folder / "figures" / "link").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    artifacts = tmp_path / "artifacts"
    journal = {
        "store": {"uri": store, "experiment": "journals", "artifacts": str(artifacts)},
        "name": "x", "run_id": None, "tags": {}, "params": {}, "inputs": [], "metrics": [],
        "files": [], "model": False, "status": "FINISHED",
    }  # fmt: skip
    for what, entries in journals(secret):
        (folder / "unrecorded.json").write_text(json.dumps(journal | entries))
        with within(60), pytest.raises(InputError, match=r"unrecorded\.json|/run") as refused:
            record(folder)
        assert "\n" not in str(refused.value), what
        assert not artifacts.exists(), what
    (folder / "encoder.pt").unlink()
    (folder / "encoder.pt").symlink_to(secret)
    (folder / "unrecorded.json").write_text(json.dumps(journal | {"model": True}))
    with pytest.raises(InputError, match="outside the folder"):
        record(folder)


def test_a_journal_does_not_change_another_run_of_the_store(run, tmp_path, store):
    """With --uri the store is the user's, the journal may be anybody's."""
    client, experiment_id = open_store(store, "journals", tmp_path / "artifacts")
    other = client.create_run(experiment_id, run_name="mine").info.run_id
    client.set_terminated(other, "FINISHED")
    shutil.copytree(run, tmp_path / "run")
    journal = {
        "store": {"uri": "http://127.0.0.1:9", "experiment": "journals", "artifacts": "x"},
        "name": "theirs", "run_id": other, "tags": {"mlflow.runName": "theirs"}, "params": {},
        "inputs": [], "metrics": [], "files": [], "model": False, "status": "FAILED",
    }  # fmt: skip
    (tmp_path / "run" / "unrecorded.json").write_text(json.dumps(journal))
    assert record(tmp_path / "run", store) != other
    assert client.get_run(other).info.run_name == "mine"
    assert client.get_run(other).info.status == "FINISHED"


# --- what could make or resolve a value ----------------------------------------------------------

CONFIG = "the config that Hydra composed from conf/ and the command line"
CALLS = {
    "__init__.py: __getattr__": "a name of this package",
    "simulation/__init__.py: __getattr__": "a name of this package",
    "cli.py: register_resolvers": "functions of this package",
    "config.py: validated": CONFIG,
    "data/source.py: source_class": "a module of jne.data alone; the class is not made",
    "encoders/__init__.py: build_encoder": "the section `encoder` of the config, and two sizes",
    "evaluation/external_test.py: _source": "the section `test` of the config; words of a run's "
    "own config are arguments, which are passed on as they are",
    "data/nifti.py: read_stored": "the name of a package, isal, where it is installed",
    "runs/feature_choices.py: __getitem__": "the names in the user's own choice of features; the "
    "config is composed, not resolved",
    "runs/help.py: keys_with_comments": "the user's own config, printed",
    "runs/experiment.py: write_experiment": "the overrides of a job of the user's sweep; the file "
    "is written, not resolved",
    "runs/experiment.py: _content": "the overrides of a job of the user's sweep, from its "
    "status.json; they are parsed, not resolved",
    "runs/overrides.py: grid": "the overrides of the command line",
    "runs/sweep.py: _start": CONFIG,
    "simulation/config.py: check_config": CONFIG,
    "simulation/measures.py: _usable": CONFIG,
    "training/config.py: check_config": CONFIG,
    "fitting/module.py: build_optimizer": CONFIG,
    "fitting/module.py: __init__": CONFIG,
    "utils/instantiate.py: instantiate": "what its callers in this table give it",
    "utils/trusted.py: _located": "the name of a class, checked before; of harmless packages and "
    "of those that the user trusts",
    "__main__.py: _run": "a script of this package",
}
"""Every function that makes, resolves or imports what a value names: where that value comes from.

Nothing that was read from a folder, a checkpoint or a store may come to one of them, but for
`jne.utils.trusted`. A new call needs a line here.
"""


@pytest.mark.runs
def test_nothing_that_is_read_comes_to_what_makes_objects():
    package = Path(jne.__file__).parent
    named = set()
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] in ("conf", "train.py", "evaluate.py", "simulate.py"):
            continue  # of a wheel: the scripts
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(map(_makes, ast.walk(function))):
                inner = [f for f in ast.walk(function) if isinstance(f, ast.FunctionDef)]
                if not any(any(map(_makes, ast.walk(f))) for f in inner[1:]):
                    named.add(f"{path.relative_to(package)}: {function.name}")
    assert named == set(CALLS)


_METHODS = {
    "instantiate", "build_encoder", "import_module", "resolve_name", "locate", "get_class",
    "get_object", "full_load", "unsafe_load",
}  # fmt: skip
_FUNCTIONS = {*_METHODS, "hydra_instantiate", "eval", "exec", "__import__"}


def _makes(node: ast.AST) -> bool:
    """Whether a node calls something that makes, resolves or imports what its argument names."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    if isinstance(called, ast.Name):
        return called.id in _FUNCTIONS
    if not isinstance(called, ast.Attribute):
        return False
    of_config = isinstance(called.value, ast.Name) and called.value.id in _CONFIG_CLASSES
    return called.attr in _METHODS or (of_config and called.attr != "is_interpolation")


_CONFIG_CLASSES = ("OmegaConf", "OverridesParser")

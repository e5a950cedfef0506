"""Which runs a report reads: runs on the same data, of thousands in the store."""

import json
import os
import re
import shutil
from dataclasses import asdict, replace
from html import escape
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from finished_run import evaluate_config, write_run
from helpers import compose_train, status

from jne.data import contents
from jne.data.prepared import load
from jne.errors import InputError
from jne.evaluation.chosen import chosen_subjects
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.report import build_page
from jne.evaluation.same_data import other_data
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.results import Results
from jne.tracking import Match, TrainingRuns, open_store
from jne.training.config import check_config
from jne.training.params import match_of

DATA = {"responses": "r", "features": "f", "stimuli": "s", "voxels": "v"}
_experiments = count()


class Recorded:
    """Results folders, recorded as finished training runs in an experiment of their own."""

    def __init__(self, path: Path, store: str) -> None:
        self.path, self.store = path, store
        self.experiment = f"chosen {next(_experiments)} {os.getpid()}"
        self.client, self.number = open_store(store, self.experiment, path / "artifacts")
        self._time = count(1)

    def add(self, name: str, role: str, *, settings="a", contents=DATA, **made) -> Path:
        """A run that is newer than all before it, of subject subj01 and seed 0 by default."""
        placement = "none" if role == "linear" else "both"
        run = write_run(self.path / name, placement=placement, contents=contents, **made)
        data_set = made.get("data", {}).get("name", "made")
        self.record(
            run.path,
            Match(
                role=role,
                data_set=data_set,
                subject=data_set + made.get("subject", "subj01"),
                settings=settings,
                seed=str(made.get("seed", 0)),
                contents="".join(contents.values()).replace(" ", ""),
            ).tags(),
        )
        return run.path

    def record(self, folder: Path, tags: dict[str, str]) -> None:
        tags = {"kind": "train", "results": str(folder)} | tags
        run = self.client.create_run(self.number, next(self._time), tags)
        self.client.set_terminated(run.info.run_id, end_time=1)

    def config(self, *overrides: str) -> EvaluateConfig:
        keys = (f"tracking.uri={self.store}", f"tracking.experiment='{self.experiment}'")
        return evaluate_config(self.path, *keys, "variants=[l1]", *overrides)

    def chosen(self, *overrides: str) -> tuple[set[str], list[str]]:
        """The names of the runs that a report reads, and the sentences on those left out."""
        subjects = chosen_subjects(self.config(*overrides))
        names = {run.path.name for subject in subjects for run in subject.runs}
        return names, [line for subject in subjects for line in subject.left_out]


@pytest.fixture
def recorded(tmp_path, store):
    return Recorded(tmp_path, store)


# --- beside the newest nonlinear run, only runs on its data ---


@pytest.mark.runs
@pytest.mark.parametrize(
    ("part", "layer", "reason"),
    [
        ("responses", 7, "other responses (a file has changed)"),
        ("features", 3, "other features (features.layer=3 instead of 7)"),
        ("stimuli", 7, "other stimuli or splits (a file has changed)"),
        ("voxels", 7, "other voxels (a file has changed)"),
    ],
)
def test_a_linear_run_on_other_data_is_left_out_and_named(recorded, part, layer, reason):
    other = DATA | {part: "other"}
    linear = recorded.add("l", "linear", contents=other, features_config={"layer": layer})
    recorded.add("n", "nonlinear", features_config={"layer": 7})
    assert recorded.chosen() == ({"n"}, [f"{linear} is on {reason}"])


@pytest.mark.runs
def test_an_older_linear_run_on_the_same_data_is_read(recorded):
    recorded.add("older", "linear")
    recorded.add("newer", "linear", contents=DATA | {"features": "of layer 3"})
    recorded.add("n", "nonlinear")
    assert recorded.chosen() == ({"older", "n"}, [])


@pytest.mark.runs
def test_repeats_have_equal_settings_and_the_same_data(recorded):
    recorded.add("old seed", "nonlinear", seed=1)
    recorded.add("seed", "nonlinear", seed=1)
    recorded.add("other settings", "nonlinear", seed=2, settings="b")
    changed = recorded.add("changed", "nonlinear", seed=3, contents=DATA | {"responses": "old"})
    recorded.add("n", "nonlinear")
    assert recorded.chosen() == ({"n", "seed"}, [])
    shutil.rmtree(recorded.path / "seed")
    shutil.rmtree(recorded.path / "old seed")
    names, left_out = recorded.chosen()
    assert names == {"n"}
    gone = [f"{recorded.path / name} is not a results folder" for name in ("seed", "old seed")]
    assert [line.split(":")[0] for line in left_out[:2]] == gone
    assert left_out[2:] == [f"{changed} is on other responses (a file has changed)"]


def test_the_digests_decide_what_is_the_same_data(tmp_path):
    """Ids are equal in all of these."""
    first = write_run(tmp_path / "first")
    assert other_data(first, write_run(tmp_path / "same", placement="none", seed=1)) == ""
    shifted = write_run(tmp_path / "shifted", shift=1e-3)
    assert other_data(first, shifted) == "responses (a file has changed)"
    with pytest.raises(InputError, match=r"have different responses \(a file has changed\);"):
        by_subject([first, shifted])
    del first.status["contents"]["voxels"]
    with pytest.raises(InputError, match=r"status.json must hold `contents`, a digest of each of"):
        other_data(first, shifted)


@pytest.mark.runs
def test_a_sweep_over_features_may_differ_in_features_alone(tmp_path):
    def run(layer, **made):
        contents = DATA | {"features": f"layer {layer}"} | made.pop("contents", {})
        return write_run(
            tmp_path / f"{layer}{len(made)}{contents['responses']}",
            features_config={"name": "clip", "layer": layer},
            contents=contents,
            **made,
        )

    (subject,) = by_subject([run(3), run(7), run(11)], "features.layer")
    assert list(subject.variations) == ["3", "7", "11"]
    with pytest.raises(InputError, match=r"different responses \(.*a file has changed\)"):
        by_subject([run(3), run(7, contents={"responses": "other"})], "features.layer")
    with pytest.raises(InputError, match=r"different features \(features.layer=7 instead of 3\)"):
        by_subject([run(3), run(7, activation="gelu")], "activation")
    with pytest.raises(InputError, match=r"different features \(features.layer=7 instead of 3\)"):
        by_subject([run(3), run(7)])


# --- folders that are gone, data sets ---


@pytest.mark.runs
def test_a_deleted_or_damaged_folder_is_left_out_and_the_next_newest_read(recorded):
    recorded.add("oldest", "nonlinear")
    damaged = recorded.add("damaged", "nonlinear")
    deleted = recorded.add("deleted", "nonlinear")
    shutil.rmtree(deleted)
    (damaged / "predictions.npy").write_bytes(b"")
    names, left_out = recorded.chosen()
    assert names == {"oldest"}
    assert f"{deleted} is not a results folder: it has no status.json" in left_out
    assert any(
        line.startswith(f"{damaged / 'predictions.npy'} cannot be read") for line in left_out
    )
    shutil.rmtree(recorded.path / "oldest")
    with pytest.raises(InputError, match=r"no finished .*; left out: .*deleted"):
        recorded.chosen()
    with pytest.raises(InputError, match=r"predictions.npy cannot be read"):  # named by the user
        recorded.chosen(f"runs=[{damaged}]")


@pytest.mark.runs
def test_of_many_left_out_five_are_named(recorded):
    recorded.add("n", "nonlinear")
    for k in range(8):
        shutil.rmtree(recorded.add(f"gone {k}", "nonlinear"))
    names, left_out = recorded.chosen()
    assert names == {"n"}
    assert len(left_out) == 6
    assert left_out[-1] == "and 3 more"


def test_a_subject_without_a_nonlinear_run_is_left_out(recorded):
    recorded.add("n", "nonlinear")
    linear = recorded.add("l", "linear", subject="subj02")
    assert recorded.chosen() == (
        {"n"}, [f"{linear}, beside which there is no nonlinear run"]
    )  # fmt: skip


@pytest.mark.runs
def test_the_newest_data_set_or_all_of_them(recorded):
    recorded.add("older", "nonlinear", data={"name": "first"})
    recorded.add("first", "nonlinear", data={"name": "first"})
    recorded.add("second", "nonlinear", data={"name": "second"})
    shutil.rmtree(recorded.add("third", "nonlinear", data={"name": "third"}))
    assert recorded.chosen()[0] == {"second"}
    assert recorded.chosen("runs=newest_of_all_data")[0] == {"first", "second"}


def test_the_newest_of_each_of_many_subjects(recorded, monkeypatch):
    """More than a query can exclude one by one."""
    monkeypatch.setattr("jne.tracking.queries._MAX_CONDITIONS", 2)
    match = {"role": "nonlinear", "data_set": "d", "settings": "a", "seed": "0", "contents": "c"}
    for _ in range(2):
        for subject in range(5):
            run = Match(subject=str(subject), **match)
            recorded.record(recorded.path / str(subject), run.tags())
    runs = TrainingRuns(recorded.client, recorded.number)
    newest = [run.match.subject for run in runs.newest_of_each("subject", data_set="d")]
    assert newest == [str(k) for k in reversed(range(5))]


# --- train.py and evaluate.py together ---


@pytest.fixture
def arrays(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((60, 2, 4)))
    np.save(tmp_path / "y.npy", rng.standard_normal((60, 5)))
    return ["data=arrays", f"data.root={tmp_path}", "data.features=x.npy", "data.responses=y.npy"]


@pytest.mark.slow
def test_what_train_py_recorded(run_train, tmp_path, store, arrays):
    def train(*settings):
        (folder,) = run_train("tracking.experiment=mixed", "data.layer=1", *arrays, *settings)
        return folder

    def chosen():
        keys = (f"tracking.uri={store}", "tracking.experiment=mixed")
        (subject,) = chosen_subjects(evaluate_config(tmp_path, *keys))
        return {run.path for run in subject.runs}, subject.left_out

    linear = train("encoder=linear")
    layer = train("encoder=linear", "data.layer=2")
    first = train()
    assert chosen() == ({first, linear}, [])
    assert other_data(*map(Results, (first, layer))) == "features (data.layer=2 instead of 1)"
    os.utime(tmp_path / "y.npy", ns=(1, 1))  # prepared again, with the same contents
    second = train("seed=1")
    assert status(second)["prepared"] != status(first)["prepared"]
    assert status(second)["contents"] == status(first)["contents"]
    assert chosen() == ({second, first, linear}, [])
    np.save(tmp_path / "y.npy", np.load(tmp_path / "y.npy") + np.eye(60, 5))
    third = train("seed=2")
    runs, left_out = chosen()
    assert runs == {third}
    assert left_out == [
        f"{layer} is on other responses and features (data.layer=2 instead of 1, a file has "
        f"changed)",
        f"{second} is on other responses (a file has changed)",
    ]


@pytest.mark.runs
@pytest.mark.parametrize(
    ("overrides", "linear", "role"),
    [
        ([], False, "nonlinear"),
        ([], True, "linear"),  # of an encoder of the user's own
        (["encoder=linear"], True, "linear"),
        (["control=shuffle"], False, "other"),
        (["encoder=ridge"], True, "other"),
    ],
)
def test_the_role_of_a_run(tmp_path, overrides, linear, role):
    assert match_with(tmp_path, *overrides, linear=linear).role == role


def match_with(output, *overrides, data=DATA, linear=False) -> Match:
    config, _ = check_config(compose_train(output, *overrides))
    return match_of(config, data, linear)


@pytest.mark.runs
def test_what_a_run_is_found_by(tmp_path):
    plain = match_with(tmp_path)
    assert all(value.isalnum() for value in plain.tags().values())
    for setting, changed in {
        "seed=1": {"seed"},
        "optimizer.lr=0.5": {"settings"},
        "subject=s2": {"subject", "settings"},
        "data.name=x": {"data_set", "subject", "settings"},
        "tracking.experiment=x": set(),
    }.items():
        other = asdict(match_with(tmp_path, setting))
        assert {name for name, value in asdict(plain).items() if other[name] != value} == changed
    other = match_with(tmp_path, data=DATA | {"voxels": "x"})
    assert other.contents != plain.contents
    assert replace(other, contents=plain.contents) == plain


@pytest.mark.runs
def test_digests_of_prepared_data_are_kept(run_train, tmp_path, arrays, monkeypatch):
    (folder,) = run_train("data.layer=1", *arrays)
    prepared = Path(status(folder)["prepared"])
    kept = json.loads((prepared / "checks.json").read_text())["contents"]
    with monkeypatch.context() as patch:
        patch.setattr(contents, "_of_array", lambda _: pytest.fail("read again"))
        assert contents.contents_of(load(prepared)) == kept
    (prepared / "checks.json").write_text("[")
    assert contents.contents_of(load(prepared)) == kept


# --- what the page says of the runs ---


@pytest.mark.runs
def test_the_page_shows_data_features_layer_control_and_what_was_left_out(recorded):
    other = DATA | {"features": "other"}
    linear = recorded.add("l", "linear", contents=other, features_config={"layer": 3})
    recorded.add("n", "nonlinear", features_config={"name": "clip", "layer": 7})
    summary = json.loads((recorded.path / "n" / "summary.json").read_text())
    leak = "3 images are in train and in test <b>."
    warned = json.dumps(summary | {"data_warnings": [leak]})
    (recorded.path / "n" / "summary.json").write_text(warned)
    config = recorded.config()
    subjects = voxel_tables(chosen_subjects(config), config)
    page = build_page(subjects, [], {}, {}, recorded.path)
    runs = page[page.index('id="runs"') : page.index('id="files"')]
    cells = re.findall(r"<td>([^<]*)</td>", runs)
    digest = contents.combined(DATA)[:8]
    assert cells[:9] == ["subj01", "nonlinear", "-", "relu", "both", "0", "made", digest, "clip"]
    assert cells[9] == "7"
    said = f"<b>Left out.</b> {linear} is on other features (features.layer=3 instead of 7, "
    assert said in runs
    shown = f"subj01: {escape(leak)}"
    first_screen = page[page.index("<header>") : page.index("</header>")]
    assert shown in first_screen
    assert shown in runs


@pytest.mark.runs
def test_subjects_with_other_features_or_encoders_are_named(recorded, capsys):
    first = {"name": "clip", "layer": 7, "path": "/a"}
    recorded.add("s2", "nonlinear", subject="subj02", features_config=first | {"layer": 3})
    recorded.add("s3", "nonlinear", subject="subj03", features_config=first | {"path": "/b"})
    recorded.add("s4", "nonlinear", subject="subj04", features_config=first, activation="gelu")
    recorded.add("s1", "nonlinear", features_config=first)
    assert recorded.chosen()[1] == []
    said = capsys.readouterr().out
    assert "The run of subj02 is unlike that of subj01: features.layer=3 instead of 7." in said
    assert "The run of subj04 is unlike that of subj01: activation=gelu instead of relu" in said
    assert "subj03" not in said

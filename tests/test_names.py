"""Names of the user's own: safe in file names, and shown as they are everywhere else."""

import io
import json
import re
from contextlib import redirect_stdout
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import TINY, run_quietly, status
from matplotlib import rc_context
from mlflow import MlflowClient

from jne.analysis.selectivity import Clusters
from jne.columns import is_reserved
from jne.data.prepared import prepare, write_prepared
from jne.data.source import Source
from jne.evaluation.sections import selectivity
from jne.plots.style import STYLE, save, short, subplots
from jne.results import Results
from jne.tracking import record
from jne.tracking.names import metric_name
from jne.utils.files import file_name
from jne.utils.tables import read_table

ODD = {
    "slash": "a/b",
    "parent": "../../up",
    "markup": "[/red]",
    "emoji": ":smile:",
    "html": "<script>alert(1)</script>",
    "mathtext": r"$\frac{$",
    "percent": "50%{x}",
    "comma": "V1, left (b)",
    "newline": "two\nlines",
    "long": "long" * 75,
    "unicode": "région-①",
    "dash": "-rf",
    "dot": ".hidden",
    "dots": "..",
}


UNSAFE = set("/\\<>:\"|?*$%&;`'#{}[]")


def is_safe(name: str) -> bool:
    """Whether a shell, another system and a web server take a file of this name."""
    return name.isprintable() and len(name.encode()) < 200 and not set(name) & UNSAFE


# --- one mechanism per place ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["subj01", "sub-01", "my run", "lr=0.1,seed=2", "région", "a.b_c"])
def test_harmless_names_are_file_names_as_they_are(name):
    assert file_name(name) == name


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_odd_names_become_safe_file_names(name, tmp_path):
    safe = file_name(name)
    assert is_safe(safe)
    assert safe[0] not in ".-"
    assert file_name(safe) == safe
    (tmp_path / safe).write_text("")
    assert [path.name for path in tmp_path.iterdir()] == [safe]


def test_two_names_never_become_one_file_name():
    names = ["a/b", "a_b", "a:b", "x" * 300, "x" * 301, ".x", "x", "-x", "..", "", "é" * 300]
    assert len({file_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_mlflow_accepts_metrics_of_any_name(name):
    from mlflow.utils.validation import _validate_metric_name

    for metric in (f"jne/{name}", name):
        accepted = metric_name(metric)
        _validate_metric_name(accepted)
        assert len(accepted) <= 250
    assert metric_name(f"jne/{name}").removeprefix("jne/") == metric_name(
        f"mean_deviation/{name}"
    ).removeprefix("mean_deviation/")


def test_metrics_that_mlflow_accepts_keep_their_names_and_others_stay_apart():
    for name in ("jne/V1", "train/loss", "jne/région", "r2/FFA-1", "r/0001", "jne/a/b", "time/x_s"):
        assert metric_name(name) == name
    names = ["jne/a,b", "jne/a;b", "jne/a_b", "jne/a(b", "jne/../x", "jne/x", "jne/", "jne/.", "."]
    assert len({metric_name(name) for name in names}) == len(names)


def test_figures_show_names_as_text_and_powers_of_ten_as_powers(tmp_path):
    with rc_context(STYLE):
        figure, (left, right) = subplots(1, 2)
        left.set_title(ODD["mathtext"])
        right.plot([1, 1000], [1, 1e6])
        right.set(xscale="log", yscale="log", xlim=(0.002, 0.009))
        save(figure, tmp_path / "x.png")
    assert not left.title.get_parse_math()
    powers = [label.get_text() for label in right.get_yticklabels()]
    assert {"10⁰", "10²", "10⁴", "10⁶"} <= set(powers)
    minor = [label.get_text() for label in right.get_xticklabels(minor=True)]
    assert {"3×10⁻³", "6×10⁻³"} <= set(minor)


def test_figures_shorten_long_names():
    assert short("V1") == "V1"
    assert short("two\nlines") == "two lines"
    assert len(short(ODD["long"])) == 30


def test_a_legend_names_every_cluster():
    names = ["_hidden", ODD["mathtext"], ODD["long"]]
    clusters = Clusters(names, np.arange(3), np.eye(3)[:, :2], {})
    with rc_context(STYLE):
        figure = selectivity._embedding(clusters)
    texts = figure.axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == [short(name) for name in names]


class Tiny(Source):
    """A source of seven stimuli and one voxel."""

    def write(self, folder: Path) -> None:
        split = np.repeat(["train", "val", "test"], [2, 2, 3])
        stimuli = pd.DataFrame({"stimulus": range(7), "split": split})
        voxels = pd.DataFrame({"voxel": [0], "roi": ["V1"]})
        features = np.arange(14).reshape(7, 2)
        write_prepared(self, folder, features, np.zeros((7, 1)), stimuli, voxels)


def test_prepared_folders_keep_the_names_by_which_they_are_found(tmp_path):
    for name, subject, expected in (
        ("my data", "sub-01", "my_data-sub_01-"),
        ("v4_201025", "monkey.PE", "v4_201025-monkey.PE-"),
    ):
        folder = prepare(Tiny(name=name, subject=subject), tmp_path).folder
        assert folder.name.startswith(expected)
        assert len(folder.name) == len(expected) + 12
    folder = prepare(Tiny(name="x" * 300, subject="."), tmp_path).folder
    assert is_safe(folder.name)


# --- a run and a report --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory, store) -> tuple[Path, Path, Path, str]:
    """A run whose names are all odd, and its report: its folders and what was printed."""
    home = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(0)
    rois = list(ODD.values())
    np.save(home / "x.npy", rng.standard_normal((80, 5)))
    np.save(home / "y.npy", rng.standard_normal((80, 4 * len(rois))))
    pd.DataFrame({"roi": np.repeat(rois, 4)}).to_csv(home / "v.csv", index=False)
    categories = [rois[i % len(rois)] for i in range(80)]
    pd.DataFrame({"stimulus": range(80), "category": categories}).to_csv(home / "s.csv")
    name = "/".join(rois)
    experiment = {"subject": f"../{name}", "name": f"{name}/[/]", "data": {"name": name}}
    (home / "conf" / "experiment").mkdir(parents=True)
    (home / "conf" / "experiment" / "odd.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump(experiment)
    )
    output = home / "deep" / "outputs"
    output.mkdir(parents=True)
    arrays = ("data=arrays", f"data.root={home}", "data.features=x.npy", "data.responses=y.npy",
              "data.voxels=v.csv", "data.stimuli=s.csv", "data.n_test=30")  # fmt: skip
    printed = io.StringIO()
    with redirect_stdout(printed):
        (folder,) = run_quietly(output, store, "train.py", *TINY, *arrays, "experiment=odd",
                                f"--config-dir={home / 'conf'}")  # fmt: skip
        (report,) = run_quietly(output, store, "evaluate.py", f"runs=['{folder}']",
                                "voxels=all", "variants=[l1]", "selectivity.n_permutations=99",
                                "stats.n_bootstrap=20")  # fmt: skip
    return home, folder, report, printed.getvalue()


@pytest.mark.runs
def test_nothing_is_written_elsewhere_and_all_files_have_safe_names(odd_run):
    home, folder, report, _ = odd_run
    assert {path.name for path in home.iterdir()} == {
        "x.npy", "y.npy", "v.csv", "s.csv", "conf", "deep"
    }  # fmt: skip
    assert folder.parent == home / "deep" / "outputs" / "runs"
    assert all(is_safe(path.name) for path in (home / "deep").rglob("*"))
    assert list(report.glob("moj_*.npy"))


@pytest.mark.runs
def test_tables_hold_the_names_as_they_are(odd_run):
    _, folder, report, _ = odd_run
    assert Results(folder).voxels["roi"].tolist() == list(np.repeat(list(ODD.values()), 4))
    for name in ("mom", "preferences"):
        table = read_table(report / "tables" / f"{name}.csv")
        assert set(table["roi"]) == {*ODD.values(), "all"}
        assert set(table["cluster"]) <= set(ODD.values())


@pytest.mark.runs
def test_every_column_of_ours_is_reserved(odd_run):
    """A column of the user's with one of these names is refused: see test_bad_input.py."""
    _, folder, report, _ = odd_run
    given = {"voxel", "roi"}
    added = set(Results(folder).voxels) - given
    reported = set(pd.read_csv(report / "tables" / "voxels.csv")) - given - {"subject"}
    assert {"jne", "status", "r2"} < added
    assert {"tier", "analysed", "r2_nonlinear"} < reported
    assert all(map(is_reserved, added | reported))


@pytest.mark.runs
def test_the_terminal_shows_the_names_as_they_are(odd_run):
    _, folder, _, printed = odd_run
    flat = printed.replace("\n", "").replace(" ", "").replace("│", "")
    for name in ("[/red]", ":smile:", "<script>", "50%{x}", "$\\frac{$", "V1,left(b)"):
        assert name in flat, name
    assert str(folder).replace(" ", "") in flat


@pytest.mark.runs
def test_the_page_shows_the_names_as_they_are(odd_run):
    *_, report, _ = odd_run
    page = (report / "report.html").read_text()
    assert ODD["html"] not in page  # neither in its text nor in what its scripts read
    assert escape(ODD["html"]) in page
    anchors = [piece.split('"')[0] for piece in page.split(' id="')[1:]]
    assert len(anchors) == len(set(anchors))
    assert all(re.fullmatch(r"[a-z0-9-]+", anchor) for anchor in anchors)
    links = re.findall(r'href="#([^"]*)"', page)
    assert len(links) > 5
    assert set(links) <= set(anchors)


@pytest.mark.runs
def test_mlflow_has_all_metrics_of_all_rois(odd_run, store):
    _, folder, report, _ = odd_run
    for path in (folder, report):
        run = MlflowClient(store).get_run(status(path)["mlflow_run_id"])
        metrics = json.loads((path / "summary.json").read_text())["metrics"]
        for name, value in metrics.items():
            assert run.data.metrics[metric_name(name)] == pytest.approx(value, rel=1e-3), name
        assert run.info.status == "FINISHED"


@pytest.mark.runs
def test_a_study_of_any_name(run_script, tmp_path, store, capsys):
    """A user's own, in a folder of theirs."""
    settings = {"_target_": "jne.simulation.SampleSize", "sizes": [2, 3], "n_points": 4,
                "n_features": 2, "seed": 0}  # fmt: skip
    (tmp_path / "conf" / "simulation").mkdir(parents=True)
    (tmp_path / "conf" / "simulation" / "odd.yaml").write_text(
        yaml.safe_dump({"../[/b]": settings})
    )
    (folder,) = run_script("simulate.py", f"--config-dir={tmp_path / 'conf'}", "simulation=odd")
    assert folder.parent.parent == tmp_path / "simulations"
    assert is_safe(folder.name)
    assert all(is_safe(path.name) for path in folder.rglob("*"))
    assert "../[/b]" in capsys.readouterr().out


# --- sweeps, and runs that MLflow did not get ----------------------------------------------------


@pytest.mark.runs
def test_a_sweep_of_odd_names_that_mlflow_never_got(run_train, tmp_path, store, capsys):
    """Its jobs stay in its folder, its table shows them, and each can be recorded later."""
    lost = ("tracking.uri=postgresql://nobody@nowhere/x", "tracking.on_unreachable=continue")
    folders = run_train("-m", "name='a/[/b]','../..'", *lost, "sweep=s", "trainer.max_epochs=1")
    assert len(folders) == 2
    assert {folder.parent for folder in folders} == {tmp_path / "sweeps" / "s"}
    printed = capsys.readouterr().out
    assert "'a/[/b]'" in printed
    assert "'../..'" in printed
    assert "continuing without MLflow" in printed
    assert "MLflow UI" not in printed
    assert "open  " not in printed
    assert "jne record" in printed
    run = MlflowClient(store).get_run(record(folders[0], store))
    assert run.info.run_name == "a/[/b]"


def test_a_journal_with_metrics_that_mlflow_refuses_can_be_recorded(tmp_path, store):
    """As somebody may have edited it."""
    journal = {
        "store": {"uri": store, "experiment": "jne", "artifacts": str(tmp_path / "artifacts")},
        "name": "old" * 100, "run_id": None, "tags": {}, "params": {}, "inputs": [], "files": [],
        "metrics": [["jne/V1, left", 0.5, 1000, 0], ["jne/V1; left", 0.25, 1000, 0]],
        "model": False, "status": "FINISHED",
    }  # fmt: skip
    (tmp_path / "unrecorded.json").write_text(json.dumps(journal))
    run = MlflowClient(store).get_run(record(tmp_path))
    assert run.data.metrics == {
        metric_name("jne/V1, left"): 0.5,
        metric_name("jne/V1; left"): 0.25,
    }
    assert run.info.run_name == ("old" * 100)[:250]
    assert not (tmp_path / "unrecorded.json").exists()

"""The command `jne`, as the shell calls it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

import jne
from jne import __main__ as command

COMMANDS = {"train", "evaluate", "simulate", "plan", "open", "stages", "ui", "record", "close"}


def jne_command(*arguments: str, folder: Path, **environment: str) -> str:
    """What `jne ARGUMENTS` prints in a folder outside the checkout."""
    search = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}/src", **environment}
    started = [sys.executable, "-m", "jne", *arguments]
    done = subprocess.run(
        started, cwd=folder, env=search, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_version_has_one_source(tmp_path):
    assert jne_command("--version", folder=tmp_path) == f"jne {jne.__version__}\n"
    project = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert yaml.safe_load(Path(ROOT, "CITATION.cff").read_text())["version"] == jne.__version__


def test_help_names_all_commands(tmp_path):
    assert jne_command("--help", folder=tmp_path) == jne_command(folder=tmp_path)
    shown = jne_command("--help", folder=tmp_path)
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown, re.MULTILINE), name


def test_open_finds_the_newest_report_or_the_one_named(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: not opened.append(address))
    monkeypatch.chdir(tmp_path)

    def opens(*arguments):
        monkeypatch.setattr("sys.argv", ["jne", "open", *arguments])
        command.main()
        path = Path(capsys.readouterr().out.strip())
        assert opened[-1] == path.absolute().as_uri()
        return path

    with pytest.raises(SystemExit, match="no report in outputs; jne evaluate makes one"):
        opens()
    for name in ("2026-01-02_a", "2026-01-03_b", "2026-01-01_c"):
        folder = tmp_path / "outputs" / "reports" / name
        folder.mkdir(parents=True)
        (folder / "report.html").touch()
    (tmp_path / "outputs" / "reports" / "2026-01-04_unfinished").mkdir()
    assert opens() == Path("outputs/reports/2026-01-03_b/report.html")
    assert opens("outputs/reports/2026-01-01_c").parent.name == "2026-01-01_c"
    run = tmp_path / "outputs" / "runs" / "r" / "figures"
    run.mkdir(parents=True)
    (run / "overview.png").touch()
    assert opens(str(run.parent)) == run / "overview.png"


@pytest.mark.runs
def test_a_script_runs_from_anywhere_with_configs_of_the_user(tmp_path):
    """By --config-dir and by Hydra's search path: a choice, and a whole config that starts from
    that of the program.
    """
    mine = tmp_path / "mine"
    (mine / "activation").mkdir(parents=True)
    (mine / "activation" / "softplus.yaml").write_text("# @package _global_\nactivation: softplus")
    (mine / "thesis.yaml").write_text("defaults: [train, _self_]\nseed: 7\n")
    shown = jne_command("train", f"--config-dir={mine}", "activation=softplus", "--cfg", "job",
                        folder=tmp_path)  # fmt: skip
    assert yaml.safe_load(shown)["activation"] == "softplus"
    search = f"hydra.searchpath=[file://{mine}]"
    assert jne_command("train", search, "activation=softplus", "--cfg", "job",
                       folder=tmp_path) == shown  # fmt: skip
    shown = jne_command("train", f"--config-dir={mine}", "--config-name=thesis", "--cfg", "job",
                        folder=tmp_path)  # fmt: skip
    assert yaml.safe_load(shown)["seed"] == 7
    assert yaml.safe_load(shown)["encoder"]["hidden_width"] == 256
    assert list(tmp_path.iterdir()) == [mine]  # no outputs, no logs


@pytest.mark.runs
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("jne ", COMMANDS),
        ("jne ev", COMMANDS),
        (
            "jne train encoder=",
            {"encoder=kernel", "encoder=linear", "encoder=nonlinear", "encoder=ridge"},
        ),
        ("jne simulate simulation=d", {"simulation=depth"}),
        ("jne ui sq", set()),
    ],
)
def test_the_shell_completes_commands_and_overrides(tmp_path, line, offered):
    """As Hydra's shell function asks, whatever follows `jne` on the line."""
    printed = jne_command("-sc", "query=bash", folder=tmp_path, COMP_LINE=line)
    assert set(printed.split()) == offered


def test_without_the_full_installation_a_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr("sys.argv", ["jne", "train"])
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "mlflow" else name)
    with pytest.raises(SystemExit, match=r'^error: jne train needs mlflow.*pip install "jne\[full'):
        command.main()


def test_an_unknown_command_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["jne", "trian"])
    with pytest.raises(SystemExit):
        command.main()
    assert "invalid choice: 'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["ui"], ["close"], ["evaluate"], ["simulate", "output=x/y"]])
def test_a_command_that_fails_at_once_makes_nothing(command, tmp_path):
    """And one that reads a store says which it looked at."""
    bad = ["simulation.placement_grid.n_draws=-1"] if command[0] == "simulate" else []
    with pytest.raises(subprocess.CalledProcessError) as failed:
        jne_command(*command, *bad, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    if not bad:
        assert f"no MLflow store at sqlite:///{tmp_path}/outputs/mlflow.db" in failed.value.stderr


def test_the_address_of_the_ui_has_the_port(tmp_path, monkeypatch, capsys):
    from jne.tracking import __main__ as store

    started = []
    monkeypatch.setattr("os.execv", lambda path, words: started.extend(words))
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "")
    (tmp_path / "mlflow.db").touch()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setattr("sys.argv", ["jne", "ui", uri, "--port", "5005"])
    store.main("jne")
    assert "http://127.0.0.1:5005" in capsys.readouterr().out
    assert started[-2:] == ["--port", "5005"]

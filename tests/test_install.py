"""The wheel in a fresh environment and a folder outside the checkout."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT, TINY, TINY_COHORT, only_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the files that git tracks or would track."""
    source = tmp_path_factory.mktemp("source")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.splitlines()):
        if (path := Path(ROOT, name)).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, source / name)
    built = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", built, source]
    subprocess.run(command, check=True)
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def jne(wheel, tmp_path_factory):
    """Runs the command of an environment that has the wheel, beside the packages of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    # What a .pth file adds is searched last, and .pth files there, as of an editable install, are
    # not read.
    site = next(home.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    def run(*arguments: str, folder: Path) -> str:
        environment = {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.home = home
    return run


def test_the_wheel_holds_the_whole_program(wheel):
    """All configs, the scripts, and every file of the package."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"jne/{path.relative_to(ROOT)}" for path in Path(ROOT, "conf").rglob("*.yaml")}
    package = {
        str(path.relative_to(Path(ROOT, "src")))
        for path in Path(ROOT, "src", "jne").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    scripts = {f"jne/{name}.py" for name in ("train", "evaluate", "simulate")}
    assert configs | package | scripts == {name for name in inside if name.startswith("jne/")}


def test_the_program_runs_where_only_the_wheel_is(jne, tmp_path):
    where = jne("python", "-c", "import jne; print(jne.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(jne.home)
    assert jne("jne", "--version", folder=tmp_path).startswith("jne ")
    shown = jne("jne", "train", *TINY_COHORT, *TINY, folder=tmp_path)
    assert "jne ui sqlite:///" in shown
    run = only_run(tmp_path / "outputs")
    assert pd.read_csv(run / "voxels.csv")["jne"].gt(0).all()
    jne("jne", "train", "encoder=linear", *TINY_COHORT, *TINY, folder=tmp_path)
    jne("jne", "evaluate", "voxels=all", "stats.n_bootstrap=20", "selectivity.n_permutations=99",
        folder=tmp_path)  # fmt: skip
    assert list(tmp_path.glob("outputs/reports/*/report.html"))
    jne("jne", "simulate", "simulation=activation_curves", folder=tmp_path)
    assert list(tmp_path.glob("outputs/simulations/*/*/summary.json"))
    assert "0 runs closed" in jne("jne", "close", folder=tmp_path)


def test_a_sweep_runs_on_several_cores_from_the_wheel(jne, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    jobs = ("-m", "hydra/launcher=cores", "seed=0,1")
    shown = jne("jne", "train", *jobs, *TINY_COHORT, *TINY, folder=tmp_path)
    assert len(list(tmp_path.glob("outputs/sweeps/*/*/voxels.csv"))) == 2, shown

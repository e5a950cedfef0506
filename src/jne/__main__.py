"""The command `jne`: the scripts, reports, and what can be done with an MLflow store."""

import argparse
import os
import re
import sys
import time
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from jne import __version__
from jne.addresses import documentation
from jne.utils.loading import say_loading
from jne.utils.machine import imports_without_gc
from jne.utils.store_parser import store_parser

_SCRIPTS = {
    "train": "train an encoder and measure its JNE: python train.py",
    "evaluate": "from finished runs to one report: python evaluate.py",
    "simulate": "simulations with known truth: python simulate.py",
}
_STORE = {
    "ui": "open the MLflow UI on a store",
    "record": "record runs that could not reach MLflow",
    "close": "close, as KILLED, runs whose process has died",
}
_OPEN = {"open": "open the newest report, or that of a folder: jne open [FOLDER]"}
_STAGES = {"stages": "what is kept for further runs, who uses it, and delete what no run uses"}
_PLAN = {"plan": "before there are data: what would be found, and would it repeat?"}
_COMMANDS = _SCRIPTS | _PLAN | _OPEN | _STAGES | _STORE
_PAGES = ("report.html", "figures/overview.png")  # of a report, of a training run


def main() -> None:
    if sys.argv[1:2] == ["-sc"]:  # the shell asks, by the function that Hydra gave it
        _complete()
        return
    commands = "\n".join(f"  {name:<10} {does}" for name, does in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="jne",
        usage="jne [-h] [--version] COMMAND ...",
        description="How nonlinear are encoding models of the brain?",
        epilog=f"commands:\n{commands}\n\n"
        f"jne COMMAND --help says what a command takes.\n{documentation()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jne {__version__}")
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    command = parser.parse_args(sys.argv[1:2] or ["--help"]).command
    if command == "open":
        _open(sys.argv[2:])
        return
    if command == "stages":
        _stages(sys.argv[2:])
        return
    if command == "plan":
        _plan(sys.argv[2:])
        return
    for package in ("hydra", "mlflow", "pytorch_lightning"):
        if find_spec(package) is None:
            sys.exit(f'error: jne {command} needs {package}, among others; pip install "jne[full]"')
    if command in _SCRIPTS:
        del sys.argv[1]
        _run(command)
    else:
        store_parser("jne").parse_args()  # --help and mistakes are answered before the imports
        say_loading()
        with imports_without_gc():
            from jne.tracking.__main__ import main as main_of_store  # MLflow and torch: seconds

        main_of_store(prog="jne")


def _run(command: str) -> None:
    """Run a root script as `python SCRIPT` does, except that sys.argv[0] stays `jne`.

    A wheel has the scripts and conf/ inside the package. In a checkout they are at its root.
    """
    package = Path(__file__).parent
    beside = package / f"{command}.py"
    script = beside if beside.exists() else package.parents[1] / beside.name
    module = ModuleType("__main__")
    module.__file__ = str(script)
    sys.modules["__main__"] = module  # Hydra and pickle look up the script's function here
    exec(compile(script.read_bytes(), script, "exec"), vars(module))


def _open(arguments: list[str]) -> None:
    """Open a page in the browser and print its path."""
    parser = argparse.ArgumentParser(prog="jne open", description=_OPEN["open"])
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("outputs"),
        help="of a report or a run, or the folder `output` with all reports (default: outputs)",
    )
    folder: Path = parser.parse_args(arguments).folder
    here = [folder / name for name in _PAGES if (folder / name).is_file()]
    # Reports are named by their time.
    pages = here or sorted(folder.glob("reports/*/report.html"), key=lambda path: path.parent.name)
    if not pages:
        sys.exit(f"error: no report in {folder}; jne evaluate makes one, of finished runs")
    page = pages[0] if here else pages[-1]
    print(page)
    if not webbrowser.open(page.absolute().as_uri()):
        print("no browser was found; open this file in one", file=sys.stderr)


def _stages(arguments: list[str]) -> None:
    """Print what is stored below a folder; with --prune, delete what no run uses."""
    parser = argparse.ArgumentParser(
        prog="jne stages",
        description="Trained encoders, baselines and prepared data that runs share: their "
        "size and age, and the runs that use them.",
    )
    parser.add_argument("output", nargs="?", type=Path, default=Path("outputs"))
    parser.add_argument("--prune", action="store_true", help="delete what no run uses")
    chosen = parser.parse_args(arguments)
    from jne.stages import prune, stored

    stages = stored(chosen.output)
    deleted = prune(stages) if chosen.prune else []
    for stage in deleted if chosen.prune else stages:
        name = f"{stage.path.parent.name}/{stage.path.name}"
        first, *more = sorted(folder.name for folder in stage.users) or ["no run"]
        users = f"{first} and {len(more)} more" if more else first
        state = "" if stage.is_whole else ", interrupted"
        days = (time.time() - stage.made) / 86400
        print(f"{_size(stage.n_bytes):>9}  {days:5.1f} days  {name}{state}: {users}")
    unused = [stage for stage in stages if not stage.users]
    if chosen.prune:
        print(f"{len(deleted)} deleted, {_size(sum(stage.n_bytes for stage in deleted))}")
    else:
        print(
            f"{len(stages)} stages, {_size(sum(stage.n_bytes for stage in stages))}; no run uses "
            f"{len(unused)}, {_size(sum(stage.n_bytes for stage in unused))}"
            + (", which --prune deletes" if unused else "")
        )


def _plan(arguments: list[str]) -> None:
    """Print what a data set of these sizes would show."""
    parser = argparse.ArgumentParser(
        prog="jne plan",
        description="From n stimuli to fit, test stimuli, and the noise ceiling of a trial: which "
        "share of nonlinear voxels an encoder would find, how exact the nonlinear share would be, "
        "and whether the map would repeat.",
        epilog="defaults: repeats=1 noise=shared (or independent) test=1000 voxels=100 (of a "
        "region). Example: jne plan n=9000 features=512 ceiling=.2 repeats=3",
    )
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE")
    words = parser.parse_args(arguments).settings
    from jne.errors import InputError
    from jne.plan import read_design, report

    try:
        print(report(read_design(words)))
    except InputError as error:
        sys.exit(f"error: {error}")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.2f} MB"


def _complete() -> None:
    """Print completions of the command line in COMP_LINE: commands, then what Hydra suggests.

    Hydra's shell function calls `jne -sc query=SHELL`, whatever follows `jne` on the line.
    """
    line = re.fullmatch(r"\s*(\S+)\s+(\S+)(\s.*)", os.environ["COMP_LINE"])
    if line is None:
        print("\n".join(_COMMANDS))
    elif line[2] in _SCRIPTS:
        os.environ["COMP_LINE"] = line[1] + line[3]
        _run(line[2])


if __name__ == "__main__":
    main()

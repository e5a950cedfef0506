"""The command `jne`: the scripts, and what can be done with an MLflow store, from any folder."""

import argparse
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from jne import __version__

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
_COMMANDS = _SCRIPTS | _STORE


def main() -> None:
    if sys.argv[1:2] == ["-sc"]:  # the shell asks, by the function that Hydra gave it
        _complete()
        return
    commands = "\n".join(f"  {name:<10} {does}" for name, does in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="jne",
        usage="jne [-h] [--version] COMMAND ...",
        description="How nonlinear are encoding models of the brain?",
        epilog=f"commands:\n{commands}\n\njne COMMAND --help says what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jne {__version__}")
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    command = parser.parse_args(sys.argv[1:2] or ["--help"]).command
    for package in ("hydra", "mlflow", "pytorch_lightning"):
        if find_spec(package) is None:
            sys.exit(f'error: jne {command} needs {package}, among others; pip install "jne[full]"')
    if command in _SCRIPTS:
        del sys.argv[1]
        _run(command)
    else:
        from jne.tracking.__main__ import main as main_of_store  # imports MLflow: seconds

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

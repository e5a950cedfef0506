"""The arguments of jne record|close|ui, which are read before MLflow is loaded."""

import argparse
from pathlib import Path

from jne.addresses import sqlite_address


def store_parser(prog: str) -> argparse.ArgumentParser:
    """The parser of `jne.tracking.__main__`. prog: the command, as its help names it."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="What can be done with an MLflow store between runs.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    default = sqlite_address(Path("outputs/mlflow.db"))
    store = "the address of a store (default: sqlite:///outputs/mlflow.db)"
    command = commands.add_parser("record", help="record runs that could not reach MLflow")
    command.add_argument("folders", nargs="+", type=Path, help="results folders")
    command.add_argument("--uri", help="a store other than the run's own")
    command = commands.add_parser("close", help="close, as KILLED, runs whose process has died")
    command.add_argument("uri", nargs="?", default=default, help=store)
    command.add_argument("--experiment", default="jne", help="default: jne")
    command = commands.add_parser("ui", help="the MLflow UI on a store, also on one that was moved")
    command.add_argument("uri", nargs="?", default=default, help=store)
    command.add_argument("--port", type=_port, default=5000, help="default: 5000")
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text} is no port; give a number from 1 to 65535")
    return int(text)

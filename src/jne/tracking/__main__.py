"""What can be done with an MLflow store between runs: jne record|close|ui.

Without the command `jne`: python -m jne.tracking record|close|ui.
"""

import argparse
import os
import sys
from pathlib import Path

from mlflow import MlflowClient

from jne.tracking.journal import record
from jne.tracking.store import (
    STORE_ERRORS,
    check_address,
    close_orphaned_runs,
    opening,
    relocate_store,
)


def main(prog: str = "python -m jne.tracking") -> None:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="What can be done with an MLflow store between runs.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    default = f"sqlite:///{Path('outputs/mlflow.db').absolute()}"
    command = commands.add_parser("record", help="record runs that could not reach MLflow")
    command.add_argument("folders", nargs="+", type=Path, help="results folders")
    command.add_argument("--uri", help="a store other than the run's own")
    command = commands.add_parser("close", help="close, as KILLED, runs whose process has died")
    command.add_argument("uri", nargs="?", default=default)
    command.add_argument("--experiment", default="jne")
    command = commands.add_parser("ui", help="the MLflow UI on a store, also on one that was moved")
    command.add_argument("uri", nargs="?", default=default)
    command.add_argument("--port", default="5000")
    arguments = parser.parse_args()
    try:
        if arguments.command == "record":
            for folder in arguments.folders:
                print(f"{folder}: recorded as {record(folder, arguments.uri)}")
        elif arguments.command == "close":
            _close(arguments.uri, arguments.experiment)
        else:
            _open_ui(arguments.uri, arguments.port)
    except STORE_ERRORS as error:
        sys.exit(f"error: {str(error).splitlines()[0]}")


def _close(uri: str, experiment: str) -> None:
    check_address(uri, existing=True)
    with opening(uri):
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
    closed = close_orphaned_runs(client, found.experiment_id) if found else []
    print(f"{len(closed)} runs closed{': ' if closed else ''}{', '.join(closed)}")


def _open_ui(uri: str, port: str) -> None:
    check_address(uri, existing=True)
    relocate_store(uri)
    # With one worker and no job runners it needs a fifth of the memory.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", port]
    os.execv(sys.executable, [*command, "--backend-store-uri", uri])


if __name__ == "__main__":
    main()

"""What can be done with an MLflow store between runs: jne record|close|ui.

Without the command `jne`: python -m jne.tracking record|close|ui.
"""

import os
import sys

from mlflow import MlflowClient

from jne.credentials import with_credentials, without_credentials
from jne.tracking.journal import record
from jne.tracking.store import (
    STORE_ERRORS,
    check_address,
    close_orphaned_runs,
    first_line,
    opening,
    relocate_store,
)
from jne.utils.store_parser import store_parser


def main(prog: str = "python -m jne.tracking") -> None:
    arguments = store_parser(prog).parse_args()
    try:
        if arguments.command == "record":
            uri = arguments.uri and without_credentials(arguments.uri)
            for folder in arguments.folders:
                print(f"{folder}: recorded as {record(folder, uri)}")
        elif arguments.command == "close":
            _close(without_credentials(arguments.uri), arguments.experiment)
        else:
            _open_ui(without_credentials(arguments.uri), arguments.port)
    except STORE_ERRORS as error:
        sys.exit(f"error: {first_line(error)}")


def _close(uri: str, experiment: str) -> None:
    check_address(uri, existing=True)
    with opening(uri):
        client = MlflowClient(with_credentials(uri))
        entry = client.get_experiment_by_name(experiment)
    closed = close_orphaned_runs(client, entry.experiment_id) if entry else []
    print(f"{len(closed)} runs closed{': ' if closed else ''}{', '.join(closed)}")


def _open_ui(uri: str, port: int) -> None:
    check_address(uri, existing=True)
    relocate_store(uri)
    # With one worker and no job runners it needs a fifth of the memory.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # Not an argument: everybody on the machine can see those of a process.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = with_credentials(uri)
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", str(port)]
    print(f"MLflow UI of {uri}: http://127.0.0.1:{port}", flush=True)
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()

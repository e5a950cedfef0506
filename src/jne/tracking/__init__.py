"""MLflow, which no other wing imports.

run       TrackedRun: one MLflow run, which keeps a journal of what MLflow could not be sent
journal   record: a run that could not reach MLflow is recorded from its journal
dataset   the data of a run as MLflow records them
model     the trained encoder as an MLflow model
store     where runs are kept: opened, made, relocated; runs whose process has died are closed
names     the names of metrics and parameters that MLflow accepts
queries   runs found in a store
views     what the MLflow UI shows: saved views, the top of a run's page
__main__  the command line: jne record|close|ui
"""

import logging
import os

# MLflow reads these once, when it is imported below.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# An unreachable server is noticed after a quarter of a minute; MLflow's defaults take four minutes.
# One that takes calls and never answers is noticed before the call (`jne.tracking.store`).
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from jne.tracking.dataset import dataset_of
from jne.tracking.journal import record
from jne.tracking.queries import (
    PLAIN,
    Match,
    RecordedRun,
    TrainingRuns,
    find_run,
    results_folder,
)
from jne.tracking.run import RUN_KEY, TrackedRun, track
from jne.tracking.store import (
    STORE_ERRORS,
    check_address,
    close_orphaned_runs,
    first_line,
    open_store,
    relocate_store,
)
from jne.tracking.views import save_views, ui_hint

# Users need not know that MLflow creates its tables. MLflow resets these levels when it is
# imported, so they are set afterwards.
# What a database refuses is an exception too; MLflow also prints it with its traceback.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # nor that it checks an example

__all__ = [
    "PLAIN",
    "RUN_KEY",
    "STORE_ERRORS",
    "Match",
    "RecordedRun",
    "TrackedRun",
    "TrainingRuns",
    "check_address",
    "close_orphaned_runs",
    "dataset_of",
    "find_run",
    "first_line",
    "open_store",
    "record",
    "relocate_store",
    "results_folder",
    "save_views",
    "track",
    "ui_hint",
]

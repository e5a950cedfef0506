"""What the MLflow UI shows: saved views of the runs table, the top of a run's page."""

import base64
import json
import re
import shlex
import zlib
from collections.abc import Sequence
from urllib.parse import urlencode

from mlflow import MlflowClient

_VIEW = "jne"  # the key of the view of all training runs; the other keys begin with it
_WORKFLOW = "machine_learning"  # without it the UI opens on the tools for language models
_DESCRIPTION = "mlflow.note.content"  # the tag that the UI shows at the top of a run's page
_MAX_PICTURES = 6  # more would make the page slow
_COLUMNS = [  # what is compared first: a narrow window shows no more
    *(f"metrics.`{name}`" for name in ("r2/mean", "jne/mean", "validated_share/all")),
    *(f"metrics.`{name}`" for name in ("nonlinear_share/all", "r2/above_ridge")),
    *(f"params.`{name}`" for name in ("data", "subject", "features", "layer", "encoder")),
    *(f"params.`{name}`" for name in ("activation", "placement", "control", "seed")),
    "attributes.`Duration`",
]


def save_views(client: MlflowClient, experiment_id: str, sweep: str = "") -> None:
    """Save views of the runs table: parameters, R2, shares and JNE, most nonlinear runs first.

    One view shows all training runs, and one groups them by sweep. With `sweep`, only a view of
    the runs of that sweep is saved. The format is the UI's own and undocumented; the UI ignores a
    view that it cannot read.

    Raises an error of STORE_ERRORS where the store cannot be reached.
    """
    plain = {
        "selectedColumns": _COLUMNS,
        "columnOrder": _COLUMNS,
        "orderByKey": "metrics.`jne/mean`",
        "orderByAsc": False,
        "runsHiddenMode": "FIRST_20_RUNS",
        "searchFilter": "tags.kind = 'train'",
    }
    grouped = plain | {
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": "sweep"}],
        }
    }
    views = {_VIEW: ("R² and JNE", plain), f"{_VIEW}-sweeps": ("R² and JNE by sweep", grouped)}
    if sweep:
        filtered = plain | {"searchFilter": f"tags.sweep = '{sweep}' and tags.kind = 'train'"}
        views = {f"{_VIEW}-{sweep}": (f"Sweep {sweep}", filtered)}
    for key, (name, state) in views.items():
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        view = {"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
        client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{key}", json.dumps(view))


def ui_hint(uri: str, experiment_id: str, sweep: str = "") -> tuple[str, str]:
    """The command that opens the MLflow UI on a store, and the address of the saved view in it.

    The command is empty for a server, which shows its UI itself.
    """
    key = f"{_VIEW}-{sweep}" if sweep else _VIEW
    page = f"/#/experiments/{experiment_id}/runs?viewStateShareKey={key}&workflowType={_WORKFLOW}"
    if uri.startswith("http"):
        return "", uri.rstrip("/") + page
    return f"jne ui {shlex.quote(uri)}", "http://127.0.0.1:5000" + page


def describe_by_pictures(client: MlflowClient, run_id: str, artifacts: Sequence[str]) -> None:
    """Show pictures in the description of a run; the UI shows the first 100 pixels, then a button.

    artifacts: the paths of the pictures among the run's artifacts. A description that holds
    anything else than such pictures is the user's, and stays.
    """
    pictures = _pictures(run_id, artifacts)
    current = client.get_run(run_id).data.tags.get(_DESCRIPTION, "")
    ours = re.fullmatch(rf"(!\[\]\(get-artifact\?[^()\s]*run_uuid={run_id}\) ?)*", current)
    if ours and current != pictures:
        client.set_tag(run_id, _DESCRIPTION, pictures)


def _pictures(run_id: str, artifacts: Sequence[str]) -> str:
    """Markdown for pictures, the first six.

    The addresses are relative to that of the UI, whose server hands out the artifacts.
    """
    return " ".join(
        f"![](get-artifact?{urlencode({'path': artifact, 'run_uuid': run_id})})"
        for artifact in artifacts[:_MAX_PICTURES]
    )

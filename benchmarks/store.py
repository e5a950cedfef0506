"""How long `python evaluate.py` takes to choose its runs in a store of thousands.

python benchmarks/store.py            # 5,000 finished runs in an sqlite store
python benchmarks/store.py runs=50000

Two subjects are trained in four ways each; the rows of these runs are copied in the store, as older
runs, every other one with other settings. The folder is deleted at the end.
"""

import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from hydra import compose, initialize_config_dir

from jne.cli import register_resolvers
from jne.evaluation.chosen import chosen_subjects
from jne.evaluation.config import check_config
from jne.tracking import open_store

ROOT = Path(__file__).parents[1]
TINY = ["data.n_features=64", "data.n_train=80", "data.n_val=20", "data.n_test=20",
        "data.voxels_per_roi=3", "encoder.hidden_width=32", "trainer.max_epochs=3"]  # fmt: skip
ONE_OF_EACH = (["seed=1"], ["encoder=linear"], ["control=shuffle"], [])
TABLES = ("params", "tags", "metrics", "latest_metrics", "inputs")


def train(output: Path) -> None:
    for subject in ("s1", "s2"):
        for settings in ONE_OF_EACH:
            command = [sys.executable, str(ROOT / "train.py"), f"output={output}", *TINY]
            command += [f"subject={subject}", *settings]
            subprocess.run(command, check=True, capture_output=True)


def copy_runs(database: Path, n: int) -> None:
    """Copy the rows of the runs until there are n, each copy a minute older than the one before."""
    with closing(sqlite3.connect(database)) as connection, connection:
        names = {
            table: [row[1] for row in connection.execute(f"pragma table_info({table})")]
            for table in ("runs", *TABLES)
        }
        runs = [run for (run,) in connection.execute("select run_uuid from runs")]
        for k in range(len(runs), n):
            original, copy = runs[k % len(runs)], f"{k:032x}"
            changes = {
                "run_uuid": repr(copy),
                "destination_id": repr(copy),
                "input_uuid": "hex(randomblob(16))",
                "start_time": f"start_time - {60_000 * k}",
            }
            for table, columns in names.items():
                values = ", ".join(changes.get(name, name) for name in columns)
                key = "destination_id" if table == "inputs" else "run_uuid"
                connection.execute(
                    f"insert into {table} select {values} from {table} where {key} = ?", (original,)
                )
            if k % 2:
                connection.execute(
                    "update tags set value = ? where run_uuid = ? and key = 'match_settings'",
                    (f"{k:016x}", copy),
                )


def main(n: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary)
        train(output)
        copy_runs(output / "mlflow.db", n)
        register_resolvers()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = check_config(compose("evaluate", [f"output={output}"]))
        start = time.perf_counter()
        open_store(**config.store)
        opened = time.perf_counter()
        subjects = chosen_subjects(config)
        seconds = time.perf_counter() - opened
        chosen = ", ".join(f"{subject.name}: {len(subject.runs)} runs" for subject in subjects)
        size = (output / "mlflow.db").stat().st_size / 1e6
        print(
            f"{n} finished runs, {size:.0f} MB: store opened in {opened - start:.1f} s, "
            f"runs chosen and read in {seconds:.1f} s ({chosen})"
        )


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main(int(given.get("runs", 5000)))

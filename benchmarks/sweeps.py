"""How reliable sweeps and restarts are, and what they cost, measured with real processes.

python benchmarks/sweeps.py kill      # kill -9 at 20 random moments of a run; each is resumed
python benchmarks/sweeps.py parallel  # 12 processes at once on a new store, 5 times; set
                                        MLFLOW_TRACKING_URI for a server or PostgreSQL
python benchmarks/sweeps.py cost      # the fixed cost of a job: before its first and after its
                                        last step
python benchmarks/sweeps.py sweep     # 48 jobs, two at a time: failures, memory, time;
                                        `sweep small`: a smaller subject, jobs of a few seconds
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow import MlflowClient

ROOT = Path(__file__).parents[1]
SMALL = ["data.n_features=256", "data.n_train=2000", "data.n_val=300", "data.n_test=300",
         "data.voxels_per_roi=20", "encoder.hidden_width=512"]  # fmt: skip
TINY = ["data.n_features=64", "data.n_train=80", "data.n_val=20", "data.n_test=20",
        "data.voxels_per_roi=3", "encoder.hidden_width=32", "trainer.max_epochs=3"]  # fmt: skip


def command(output: Path, *settings: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *settings, f"output={output}"]


def run(output: Path, *settings: str) -> None:
    done = subprocess.run(command(output, *settings), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])


def results(folder: Path) -> dict[str, bytes]:
    """The content of each file that must be the same after a kill and a restart."""
    varying = ("status.json", "train.log", "last.ckpt", "config.yaml")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in varying and path.name[0] != "."
        and ".partial" not in path.name
    }  # fmt: skip


def stage(folder: Path) -> str:
    """What the run in a folder is doing, by the files that it has written."""
    status = json.loads((folder / "status.json").read_text())
    if status["status"] == "FINISHED":
        return "exit"
    for name, file in (("recording", "encoder.pt"), ("writing", "voxels.csv"),
                       ("writing", "jne_ss.npy"), ("Jacobian", "deviation.npy.partial"),
                       ("training", "last.ckpt")):  # fmt: skip
        if (folder / file).exists():
            return name
    return "training" if "prepared" in status else "preparing"


def kill(folder: Path) -> None:
    # Slow enough for every stage to be hit: 30 epochs, with as many checkpoints as are allowed.
    settings = [*SMALL, "trainer.max_epochs=30", "trainer.patience=30",
                "trainer.checkpoint_seconds=0", "jacobian.max_memory_gb=0.05"]  # fmt: skip
    run(folder / "whole", *settings)
    (reference,) = (folder / "whole" / "runs").iterdir()
    expected = results(reference)
    status = json.loads((reference / "status.json").read_text())
    # Each stage is killed equally often, however short it is.
    aims = [("training", "fit_test"), ("Jacobian", "jacobian"), ("writing", "record"),
            ("recording", "record")]  # fmt: skip
    draw, same, hit = random.Random(0), 0, []
    for k in range(20):
        output = folder / f"kill{k}"
        shutil.copytree(folder / "whole" / "prepared", output / "prepared")
        process = subprocess.Popen(command(output, *settings), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        while process.poll() is None and not list(output.glob("runs/*/status.json")):
            time.sleep(0.01)
        (killed,) = (output / "runs").iterdir()
        aim, part = aims[k % len(aims)]
        while process.poll() is None and stage(killed) != aim:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, status[f"time/{part}_s"]))
        process.kill()
        process.wait()
        hit.append(stage(killed))
        for name, content in results(killed).items():  # a file with its final name is complete
            assert name.endswith("error.txt") or content == expected[name], name
        run(output, *settings, "resume=true")
        found = results(killed)
        runs = MlflowClient(f"sqlite:///{output / 'mlflow.db'}").search_runs(["1"])
        same += found == expected and {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
        shutil.rmtree(output)
    stages = ", ".join(f"{hit.count(name)} in {name}" for name in dict.fromkeys(hit))
    print(f"killed at 20 random moments ({stages}): {same} of 20 end with identical files and a "
          f"FINISHED MLflow run")  # fmt: skip


def parallel(folder: Path) -> None:
    recorded = 0
    for repeat in range(5):
        output = folder / f"store{repeat}"
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{output / 'mlflow.db'}")
        experiment = f"parallel-{time.time_ns()}"
        output.mkdir()
        logs = [output / f"{seed}.txt" for seed in range(12)]
        started = [
            subprocess.Popen(
                command(output, *TINY, f"seed={seed}", f"tracking.experiment={experiment}"),
                stdout=path.open("w"),
                stderr=subprocess.STDOUT,
            )
            for seed, path in enumerate(logs)
        ]
        codes = [process.wait() for process in started]
        client = MlflowClient(uri)
        made = client.get_experiment_by_name(experiment)
        runs = client.search_runs([made.experiment_id]) if made else []
        finished = [run for run in runs if run.info.status == "FINISHED"]
        recorded += len(finished) if not any(codes) else 0
        print(f"store {repeat}: {len(finished)} of 12 recorded, {sum(map(bool, codes))} failed",
              flush=True)  # fmt: skip
        if len(finished) < 12:
            print(*(run.info.status for run in runs if run not in finished),
                  *(line for path in logs for line in path.read_text().splitlines()
                    if "rror" in line or "MLflow:" in line), sep="\n", flush=True)  # fmt: skip
    print(f"12 processes at once, 5 times: {recorded} of 60")


def cost(folder: Path) -> None:
    run(folder, *TINY)  # it makes the store and prepares the data
    rows = []
    for seed in range(1, 4):
        start = time.time()
        run(folder, *TINY, f"seed={seed}")
        wall = time.time() - start
        (path,) = folder.glob(f"runs/*_s{seed}/status.json")
        status = json.loads(path.read_text())
        work = status["time/fit_test_s"] + status["time/jacobian_s"]
        rows.append((wall - work, status["time/record_s"], status["seconds"], wall))
    fixed, record, inside, wall = np.mean(rows, axis=0)
    print(f"a job's fixed cost: {fixed:.1f} s: {wall - inside:.1f} s before and after the run "
          f"(imports, Hydra, exit), {record:.1f} s tables, figures and MLflow")  # fmt: skip


def sweep(folder: Path) -> None:
    jobs = [
        "seed=0,1",
        "subject=s1,s2",
        "encoder=linear,nonlinear",
        "activation=relu,gelu",
        "placement=loc1,loc2,both",
    ]  # the second half repeats the first with another seed
    size = SMALL if "small" in sys.argv else []
    start = time.time()
    run(folder, "-m", "hydra/launcher=cores", "hydra.launcher.n_jobs=2", *size, *jobs)
    wall = time.time() - start
    (made,) = (folder / "sweeps").iterdir()
    statuses = [json.loads(path.read_text()) for path in made.glob("*/status.json")]
    work = sum(status["seconds"] for status in statuses)
    starts = [datetime.fromisoformat(status["started"]).timestamp() for status in statuses]
    ends = [datetime.fromisoformat(status["ended"]).timestamp() for status in statuses]
    before, after = min(starts) - start, start + wall - max(ends)
    memory = pd.Series({s["started"]: s["peak_memory_gb"] for s in statuses}).sort_index()
    half, whole = memory.iloc[:24].max(), memory.max()
    finished = sum(status["status"] == "FINISHED" for status in statuses)
    print(
        f"{len(statuses)} jobs of {work / len(statuses):.1f} s, {finished} finished: {wall:.0f} s, "
        f"{wall / (work / 2):.2f} times the sum of the work over two cores; {before:.0f} s before "
        f"the first job began, {after:.0f} s after the last ended; peak memory of a process "
        f"{half:.2f} GB after half of the jobs, {whole:.2f} GB at the end"
    )


if __name__ == "__main__":
    parts = {"kill": kill, "parallel": parallel, "cost": cost, "sweep": sweep}
    for name in [name for name in sys.argv[1:] if name in parts] or parts:
        with tempfile.TemporaryDirectory() as temporary:
            parts[name](Path(temporary))

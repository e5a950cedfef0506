"""How reliable sweeps and restarts are, and what they cost, measured with real processes.

python benchmarks/sweeps.py kill      # kill -9 and Ctrl-C at 60 random moments of train, evaluate
                                        and simulate.py, and what a second start makes of each;
                                        `kill report simulation`: without those of train.py;
                                        `kill train folds`: of a run in folds
python benchmarks/sweeps.py parallel  # 12 processes at once on a new store, 5 times; set
                                        MLFLOW_TRACKING_URI for a server or PostgreSQL
python benchmarks/sweeps.py cost      # the fixed cost of a job: before its first and after its
                                        last step
python benchmarks/sweeps.py sweep     # 48 jobs, two at a time: failures, memory, time;
                                        `sweep small`: a smaller subject, jobs of a few seconds
python benchmarks/sweeps.py marginal  # what one more small job costs: sweeps of 10 and of 30 by
                                        hydra/launcher=cores, the slope of their CPU time
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run

ROOT = Path(__file__).parents[1]
SMALL = ["data.n_features=256", "data.n_train=2000", "data.n_val=300", "data.n_test=300",
         "data.voxels_per_roi=20", "encoder.hidden_width=512"]  # fmt: skip
TINY = ["data.n_features=64", "data.n_train=80", "data.n_val=20", "data.n_test=20",
        "data.voxels_per_roi=3", "encoder.hidden_width=32", "trainer.max_epochs=3"]  # fmt: skip


def command(output: Path, *settings: str, script: str = "train.py") -> list[str]:
    return [sys.executable, str(ROOT / script), *settings, f"output={output}"]


def run(output: Path, *settings: str, script: str = "train.py") -> None:
    words = command(output, *settings, script=script)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])


def results(folder: Path) -> dict[str, bytes]:
    """The content of each file that must be the same after a kill and a restart.

    A report's page and its config name the folders of the runs that it reads.
    """
    varying = (
        "status.json",
        "train.log",
        "evaluate.log",
        "config.yaml",
        "report.html",
        "error.txt",
    )
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in varying and path.name[0] != "."
        and ".partial" not in path.name
        and path.name[:5] != "fold_"  # of each fold, before they are put together
    }  # fmt: skip


def stage(folder: Path) -> str:
    """What the run in a folder is doing, by the files that it has written."""
    status = json.loads((folder / "status.json").read_text())
    if status["status"] != "RUNNING":
        return "exit"
    if "mlflow_run_id" not in status:
        return "opening"
    for name, file in (("recording", "encoder.pt"), ("recording", "encoder_fold_1.pt"),
                       ("writing", "voxels.csv"),
                       ("writing", "jne_ss.npy"), ("Jacobian", "deviation.npy.partial"),
                       ("writing", "tables"), ("writing", "table.csv")):  # fmt: skip
        if (folder / file).exists():
            return name
    if any(folder.parents[1].glob("stages/fit/.*.partial/last.ckpt")):
        return "training"
    return "preparing" if status["kind"] == "train" and "prepared" not in status else "computing"


class Killed:
    """A script that was ended at a random moment after it had reached a stage."""

    def __init__(self, words: list[str], runs: Path, aim: str, delay: float, number: int) -> None:
        """runs: the folder below which the script makes its own. number: of the signal."""
        before = set(runs.glob("**/status.json"))
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True)  # fmt: skip
        while process.poll() is None and not (made := set(runs.glob("**/status.json")) - before):
            time.sleep(0.005)
        self.folder = made.pop().parent
        while process.poll() is None and stage(self.folder) not in (aim, "exit"):
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(number)
        self.printed = process.communicate()[0]
        self.code, self.stage = process.returncode, stage(self.folder)
        # On its way out, Python itself is ended by Ctrl-C; a shell gives that the code 130 too.
        codes = (0, -number, *([130] if number == signal.SIGINT else []))
        self.as_it_should = self.code in codes and "Traceback" not in self.printed


def of_experiment(output: Path, kind: str) -> list[Run]:
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    runs = client.search_runs(["1"], f"tags.kind = '{kind}'")
    return sorted(runs, key=lambda found: found.info.start_time)


def points_once(output: Path, runs: list[Run]) -> bool:
    """Whether each metric of each run has one value per step."""
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    for found in runs:
        for name in found.data.metrics:
            steps = [point.step for point in client.get_metric_history(found.info.run_id, name)]
            if len(steps) != len(set(steps)):
                return False
    return True


def kill(folder: Path) -> None:
    # Slow enough for every stage to be hit: 30 epochs, with as many checkpoints as are allowed.
    settings = [*SMALL, "data.n_train=300", "data.n_test=100", "data.voxels_per_roi=10",
                "encoder.hidden_width=128", "trainer.max_epochs=30", "trainer.patience=30",
                "trainer.checkpoint_seconds=0", "jacobian.max_memory_gb=0.05"]  # fmt: skip
    if "folds" in sys.argv:
        settings += ["data.folds=3", "optimizer.weight_decay=0"]
    whole = folder / "whole"
    run(whole, *settings)
    run(whole, *settings, "encoder=linear")
    quick = ["voxels=all", "stats.n_bootstrap=50", "selectivity.n_permutations=99",
             "selectivity.clusters=tsne", "selectivity.max_clusters=5"]  # fmt: skip
    study = ["simulation=depth", "simulation.depth.n_draws=2", "simulation.depth.width=128",
             "simulation.depth.n_stimuli=300"]  # fmt: skip
    run(whole, *quick, script="evaluate.py")
    run(whole, *study, script="simulate.py")
    kinds = {
        # kind: script, its settings, its folder, the number of kills, the stages aimed at
        "train": ("train.py", settings, "runs", 30,
                  ["opening", "training", "Jacobian", "writing", "recording"]),
        "report": ("evaluate.py", quick, "reports", 15, ["opening", "computing", "writing"]),
        "simulation": ("simulate.py", study, "simulations", 15,
                       ["opening", "computing", "writing"]),
    }  # fmt: skip
    draw, counts, hit = random.Random(0), Counter[str](), Counter[str]()
    kinds = {kind: kinds[kind] for kind in kinds if kind in sys.argv} or kinds
    for kind, (script, chosen, place, n_kills, aims) in kinds.items():
        (reference, *_) = (
            path.parent
            for path in sorted((whole / place).glob("**/status.json"))
            if "linear" not in path.parent.name or "nonlinear" in path.parent.name
        )
        expected = results(reference)
        status = json.loads((reference / "status.json").read_text())
        for k in range(n_kills):
            output = folder / f"{kind}{k}"
            fresh = {"report": (), "train": (place, "stages")}.get(kind, (place,))
            keep = shutil.ignore_patterns(*fresh)
            shutil.copytree(whole, output, ignore=keep)
            if kind == "train":  # a store of its own: the run must not be found in it
                for path in (output / "mlflow.db", output / "mlartifacts"):
                    path.unlink() if path.is_file() else shutil.rmtree(path)
            aim, number = aims[k % len(aims)], (signal.SIGINT if k % 3 == 2 else signal.SIGKILL)
            part = {"training": "fit_test", "Jacobian": "jacobian"}.get(aim, "record")
            longest = status.get(f"time/{part}_s", status["seconds"] / 2)
            delay = draw.uniform(0, 0.2 if aim == "opening" else longest)
            earlier = 0 if kind == "train" else len(of_experiment(output, kind))
            words = command(output, *chosen, script=script)
            killed = Killed(words, output / place, aim, delay, number)
            hit[f"{kind}: {killed.stage}"] += 1
            if kind == "train":
                for name, content in results(killed.folder).items():
                    assert content == expected[name], name  # with its final name it is complete
                run(output, *chosen, "resume=true")
                runs, again = of_experiment(output, kind), killed.folder
                whole_record = [found.info.status for found in runs] == ["FINISHED"]
            else:
                before = set((output / place).glob("**/status.json"))
                run(output, *chosen, script=script)
                (made,) = set((output / place).glob("**/status.json")) - before
                runs, again = of_experiment(output, kind)[earlier:], made.parent
                *first, last = [found.info.status for found in runs]
                # The signal may come when the run is over, and the process is not.
                over = json.loads((killed.folder / "status.json").read_text())["status"]
                ended = "KILLED" if over == "RUNNING" else over
                # Before MLflow's run was created, there was none to be killed.
                whole_record = last == "FINISHED" and (
                    first == [ended] or (first == [] and killed.stage == "opening")
                )
            checks = {
                "identical files": results(again) == expected,
                "MLflow right": whole_record,
                "points once": points_once(output, runs),
                "ended in order": killed.as_it_should,
            }
            counts.update(name for name, holds in checks.items() if holds)
            if not all(checks.values()):
                statuses = [found.info.status for found in runs]
                print(kind, k, aim, killed.stage, number, checks, statuses, killed.printed[-3000:],
                      flush=True)  # fmt: skip
            print(f"{kind} {k}: {killed.stage}", file=sys.stderr, flush=True)
            shutil.rmtree(output)
    stages = ", ".join(f"{n} in {name}" for name, n in sorted(hit.items()))
    passed = ", ".join(f"{name} {counts[name]}" for name in checks)
    print(f"{hit.total()} random moments ({stages}): of {hit.total()}, {passed}")


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


def marginal(folder: Path) -> None:
    """Seconds of the CPU, user and system, of all processes of each sweep, on one core a job."""
    os.environ["OMP_NUM_THREADS"] = "1"
    seconds = {}
    for n in (10, 30):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.time()
        run(folder / str(n), "-m", "hydra/launcher=cores", *TINY, f"seed=range({n})")
        used, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.time() - start
        seconds[n] = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        print(f"{n} jobs: {seconds[n]:.0f} s of CPU, {wall:.0f} s", flush=True)
    print(f"one more job: {(seconds[30] - seconds[10]) / 20:.2f} s of a core")


if __name__ == "__main__":
    parts = {"marginal": marginal, "kill": kill, "parallel": parallel, "cost": cost, "sweep": sweep}
    for name in [name for name in sys.argv[1:] if name in parts] or parts:
        with tempfile.TemporaryDirectory() as temporary:
            parts[name](Path(temporary))

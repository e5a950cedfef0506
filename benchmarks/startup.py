"""What a job costs however small it is: imports, Hydra, MLflow, figures, the end of the process.

    python benchmarks/startup.py [REPEATS]     # default 5
    python benchmarks/startup.py imports       # what each script spends most of its imports on

The smallest job of each root script, and each --help, in processes of their own, from their start
to their end. The first run of a command compiles bytecode and makes the MLflow store; it is shown
apart from the best of the repeats. Seconds of the CPU count user and system time, also of children.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY = ["data.n_features=64", "data.n_train=80", "data.n_val=20", "data.n_test=20",
        "data.voxels_per_roi=3", "encoder.hidden_width=8", "trainer.max_epochs=1"]  # fmt: skip
DEPTH = ["simulation=depth", "simulation.depth.n_draws=1", "simulation.depth.activations=[relu]",
         "simulation.depth.depths=[1]", "simulation.depth.n_stimuli=10"]  # fmt: skip
# Bytecode is written, as it is for a user, whatever this process was told.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def jobs(output: Path) -> dict[str, list[str]]:
    """The arguments of Python, by the name of the job; evaluate.py needs those of train.py."""
    train, evaluate, simulate = (
        str(ROOT / f"{name}.py") for name in ("train", "evaluate", "simulate")
    )
    out = f"output={output}"
    return {
        "train.py": [train, *TINY, out],
        "train.py encoder=linear": [train, *TINY, "encoder=linear", out],
        "evaluate.py": [evaluate, "voxels=all", "selectivity.n_permutations=99", out],
        "simulate.py simulation=depth": [simulate, *DEPTH, out],
        "train.py --help": [train, "--help"],
        "evaluate.py --help": [evaluate, "--help"],
        "simulate.py --help": [simulate, "--help"],
        "jne --help": ["-m", "jne", "--help"],
        "jne train --help": ["-m", "jne", "train", "--help"],
        "jne ui --help": ["-m", "jne", "ui", "--help"],
    }


def seconds(arguments: list[str]) -> tuple[float, float]:
    """CPU and clock seconds of a process of Python."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=said, stderr=subprocess.STDOUT, env=ENVIRONMENT
        )
        _, status, usage = os.wait4(process.pid, 0)
        clock = time.perf_counter() - start
        if status:
            said.seek(0)
            raise SystemExit(said.read().decode()[-2000:])
    return usage.ru_utime + usage.ru_stime, clock


def measure(repeats: int) -> None:
    print(f"{'':30} {'first CPU':>9} {'clock':>6} {'best CPU':>9} {'clock':>6}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in jobs(Path(folder)).items():
            (cpu, clock), *later = (seconds(arguments) for _ in range(repeats + 1))
            best = (min(column) for column in zip(*later, strict=True))
            row = f"{name:30} {cpu:9.2f} {clock:6.2f} " + "{:9.2f} {:6.2f}".format(*best)
            print(row, flush=True)


def imports() -> None:
    """Print the packages that each job spends most on, each without the packages it imports."""
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in jobs(Path(folder)).items():
            seconds(arguments)  # bytecode, and the disk's cache
            done = subprocess.run(
                [sys.executable, "-X", "importtime", *arguments],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
            )  # fmt: skip
            packages: Counter[str] = Counter()
            found = re.findall(r"^import time: +(\d+) \|.*\| +(\w+)", done.stderr, re.MULTILINE)
            for own, package in found:
                packages[package] += int(own)
            print(f"{name}: {len(found)} modules, {packages.total() / 1e6:.2f} s", flush=True)
            for package, microseconds in packages.most_common(10):
                print(f"    {package:24} {microseconds / 1e6:.2f}")


if __name__ == "__main__":
    if sys.argv[1:] == ["imports"]:
        imports()
    else:
        measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

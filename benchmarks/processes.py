"""The kinds of `fuzz.py` that are about a process: command lines, signals, full disks, stores."""

import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cases import ROOT, Case, Refused, train
from helpers import TINY, TINY_COHORT

LINES = (
    ("train.py", "seed=0 -m trainer.patience=0"),
    ("train.py", "-m seed=0,1 trainer.patience=0"),
    ("train.py", "seed=0 --multirun optimizer.lr=fast"),
    ("train.py", "optimizer.lr=fast"),
    ("train.py", "optimizer.weight_decay=[1]"),
    ("train.py", "name='a b,c"),
    ("train.py", "name=it's"),
    ("train.py", "name=a:b:c,"),
    ("train.py", "--config-dir=/no/such/folder seed=0"),
    ("train.py", "--config-dir /no/such/folder -m seed=0"),
    ("train.py", "--confg job"),
    ("train.py", "seed"),
    ("train.py", "output=/proc/x"),
    ("train.py", "output=/dev/null/x"),
    ("train.py", "encoder=transformer"),
    ("train.py", "+encoder.depth=3"),
    ("train.py", "~encoder"),
    ("train.py", "data=nsd"),
    ("train.py", "features=clip_vit_b32"),
    ("train.py", "features=timm data=synthetic"),
    ("train.py", "hydra.run.dir=."),
    ("train.py", "hydra.run.dir=/proc"),
    ("train.py", "-m hydra/launcher=slrum seed=0"),
    ("evaluate.py", "runs=[/no/such/folder]"),
    ("evaluate.py", "runs=newest"),
    ("evaluate.py", "output=/proc/x"),
    ("simulate.py", "simulation=nothing"),
    ("simulate.py", "output=/proc/x"),
)


def lines(home: Path, rng: random.Random) -> Iterator[Case]:
    def line(name: str, words: str) -> None:
        own = [] if "output=" in words else [f"output={home / 'lines'}"]
        command = [sys.executable, name, *words.split(" "), *own]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        _said(done.returncode, done.stdout + done.stderr)

    for name, words in LINES:
        yield f"{name} {words}", lambda n=name, w=words: line(n, w), False


def _said(code: int, printed: str) -> None:
    """Raise Refused with the last line of a process that ended with it."""
    if "Traceback" in printed or "usage:" in printed:
        raise RuntimeError(printed[-1000:])
    if code:
        raise Refused(printed.splitlines()[-1])


def signals(home: Path, rng: random.Random) -> Iterator[Case]:
    run = train(home, "trainer.max_epochs=1")
    settings = {
        "train.py": [*TINY_COHORT, *TINY, "trainer.max_epochs=20000", "trainer.patience=20000"],
        "evaluate.py": [f"runs=[{run}]", "voxels=all", "stats.n_bootstrap=100000"],
        "simulate.py": ["simulation=depth"],
    }

    def interrupted(name: str, number: int, after: float) -> None:
        command = [sys.executable, name, f"output={home / 'signals'}", *settings[name]]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        time.sleep(after)
        process.send_signal(number)
        printed = process.communicate(timeout=120)[0].decode()
        if process.returncode not in (0, 128 + number):
            raise RuntimeError(printed[-1000:])
        _said(process.returncode, printed)

    for k in range(30):
        number, name = (signal.SIGTERM, signal.SIGINT)[k % 2], list(settings)[k % 3]
        after = rng.uniform(1.5, 9)
        yield (
            f"{name} {number.name} after {after:.1f} s",
            lambda s=name, n=number, a=after: interrupted(s, n, a),
            True,
        )


def disks(home: Path, rng: random.Random) -> Iterator[Case]:
    def limited(kilobytes: int) -> None:
        folder = Path(tempfile.mkdtemp(dir=home))
        command = [sys.executable, "train.py", f"output={folder}", *TINY_COHORT, *TINY,
                   "data.n_features=1500"]  # fmt: skip
        limit = (kilobytes * 1000,) * 2
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        )  # fmt: skip
        assert not list(folder.rglob("*.tmp")), "a file is half written"
        for status in folder.glob("runs/*/status.json"):
            assert "RUNNING" not in status.read_text(), "the run is RUNNING for ever"
        _said(done.returncode, done.stdout + done.stderr)

    for _ in range(13):
        kilobytes = round(10 ** rng.uniform(0.5, 3.2))
        yield f"files of at most {kilobytes} kB", lambda k=kilobytes: limited(k), True


def stores(home: Path, rng: random.Random) -> Iterator[Case]:
    (home / "file").write_text("in the way")
    (home / "text.db").write_text("hello, not a database" * 100)
    (home / "empty.db").write_text("")
    places = (
        "mlruns", "./mlruns", "file:./mlruns", "ftp://host", "sqlite:///", "http://[",
        f"sqlite:///{home}/file/mlflow.db", f"sqlite:///{home}/text.db", "sqlite:/x.db",
        f"sqlite:///{home}", "postgresql://x@127.0.0.1:1/x", "mysql://x@127.0.0.1:1/x",
        "http://127.0.0.1:9", "databricks", "s3://bucket/x",
    )  # fmt: skip
    for uri in places:
        yield (
            f"tracking.uri={uri.replace(str(home), '...')}",
            lambda u=uri: train(home, f"tracking.uri='{u}'"),
            False,
        )


KINDS = (lines, signals, disks, stores)

"""A whole-brain NSD subject from its files to the report: each stage beside its limit.

python benchmarks/whole_brain.py FOLDER [VOXELS [SESSIONS [OVERRIDE ...]]]

Writes a synthetic subject into FOLDER/nsd in NSD's own layout, unless one is there: 226,000 voxels
and 40 sessions of 750 trials if nothing else is said, 42 GB of betas. Then runs train.py and
evaluate.py on it. The subject stays; the outputs, 13 GB at that size, are deleted. The features are
768 random numbers per image, the encoder has the paper's width, 1,024. Voxels respond to 64 of the
features, half linearly, half rectified, with noise ceilings from 0 to .7.

Per stage: seconds, seconds of the CPU (of all threads), peak memory without the page cache, GB read
from and written to the disk, and the limit: the larger of its matrix products at the measured rate
and its bytes at the measured bandwidth of the disk. Products are compared with the seconds of the
CPU, which do not count what else the machine does; bytes with the seconds on the clock.
"""

import functools
import json
import os
import resource
import runpy
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from prepare_nsd import BETAS, N_TRIALS, SUBJECT, write_trials

ROOT = Path(__file__).parents[1]
GRID, N_BRAIN = np.array((81, 104, 83)), 226_000
D, H, N_DRIVING = 768, 1024, 64
ROI_SETS = {"prf-visualrois": 7, "floc-faces": 5, "floc-places": 3, "floc-bodies": 4}


# The subject


def write_subject(root: Path, n_voxels: int, n_sessions: int) -> None:
    rng = np.random.default_rng(0)
    ppdata = root / "nsddata" / "ppdata" / SUBJECT
    betas = root / "nsddata_betas" / "ppdata" / SUBJECT / "func1pt8mm" / BETAS
    for folder in (ppdata / "behav", ppdata / "func1pt8mm" / "roi", betas):
        folder.mkdir(parents=True)
    grid = np.maximum(np.round(GRID * (n_voxels / N_BRAIN) ** (1 / 3)).astype(int), 4)
    distance = np.square((np.indices(grid).T - grid / 2) / grid).T.sum(axis=0)
    brain = np.zeros(grid, dtype=np.int16)
    brain.flat[np.argsort(distance, axis=None)[:n_voxels]] = 1
    ceiling = 0.7 * rng.random(grid).astype(np.float32) * brain
    ncsnr = np.sqrt(ceiling / (1 - ceiling) / 3)
    affine = np.diag([1.8, 1.8, 1.8, 1.0])
    nib.save(nib.Nifti1Image(brain, affine), ppdata / "func1pt8mm" / "brainmask.nii.gz")
    nib.save(nib.Nifti1Image(ncsnr, affine), betas / "ncsnr.nii.gz")
    for number, (name, n_labels) in enumerate(ROI_SETS.items()):
        labels = np.where(rng.random(grid) < 0.02, rng.integers(1, n_labels + 1, grid), 0)
        labels[np.indices(grid)[0] % len(ROI_SETS) != number] = 0
        image = nib.Nifti1Image(labels.astype(np.int16), affine)
        nib.save(image, ppdata / "func1pt8mm" / "roi" / f"{name}.nii.gz")

    shown = write_trials(ppdata, n_sessions, rng)
    n_images = shown.max() + 1
    features = rng.standard_normal((n_images, D), dtype=np.float32)
    np.save(root / "features.npy", features)
    driving = features[:, :N_DRIVING].copy()
    rectified = np.maximum(driving[:, N_DRIVING // 2 :], 0)
    driving[:, N_DRIVING // 2 :] = (rectified - rectified.mean(axis=0)) / rectified.std(axis=0)
    driving /= np.sqrt(N_DRIVING)
    weights = rng.standard_normal((N_DRIVING, *grid), dtype=np.float32)
    for session in range(n_sessions):
        images = shown[session * N_TRIALS : (session + 1) * N_TRIALS]
        with h5py.File(betas / f"betas_session{session + 1:02d}.hdf5", "w") as file:
            data = file.create_dataset(
                "betas", (N_TRIALS, *grid[::-1]), "i2", chunks=(N_TRIALS, 1, 1, 1)
            )
            for k in range(grid[2]):
                signal = driving[images] @ weights[:, :, :, k].reshape(N_DRIVING, -1)
                slab = rng.standard_normal(signal.shape, dtype=np.float32)
                slab += ncsnr[:, :, k].reshape(-1) * signal
                slab = (slab * 600 * brain[:, :, k].reshape(-1)).reshape(-1, *grid[:2])
                data[:, k] = slab.astype(np.int16).transpose(0, 2, 1)


# The rates of this machine


def measured_rates(folder: Path) -> dict[str, float]:
    """Operations per second of the CPU of a float32 product; bytes per second of the rest."""
    a = torch.randn(4096, 4096)
    a @ a
    product = max(2 * 4096**3 / _seconds(lambda: a @ a, time.process_time) for _ in range(5))
    x, y = torch.ones(2**27), torch.empty(2**27)
    memory = max(2 * x.nbytes / _seconds(lambda: y.copy_(x)) for _ in range(5))
    path, block = folder / "rate", np.random.default_rng(0).bytes(2**28)

    def write() -> None:
        with open(path, "wb", buffering=0) as file:
            for _ in range(4):
                file.write(block)
            os.fsync(file.fileno())

    def read() -> None:
        with open(path, "rb", buffering=0) as file:
            while file.read(2**26):
                pass

    written = 2**30 / _seconds(write)
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    read_rate = 2**30 / _seconds(read)
    path.unlink()
    return {"product": product, "memory": memory, "write": written, "read": read_rate}


def _seconds(function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    function()
    return clock() - start


# The stages, timed inside the scripts


class Stages:
    """What each stage takes; of a stage within another one, the outer one is not charged."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self._open: list[str] = []
        self._last = self._now()
        self._peak = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self._peak = max(self._peak, int(line.split()[1]) * 1024 / 1e9)
            time.sleep(0.02)

    def _now(self) -> dict[str, float]:
        io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "seconds": time.perf_counter(),
            "cpu": usage.ru_utime + usage.ru_stime,
            "read": float(io["read_bytes"]) / 1e9,
            "written": float(io["write_bytes"]) / 1e9,
        }

    def _charge(self) -> None:
        now, name = self._now(), self._open[-1] if self._open else "start-up and the rest"
        row = self.found.setdefault(name, dict.fromkeys([*now, "peak"], 0.0))
        for key, value in now.items():
            row[key] += value - self._last[key]
        row["peak"] = max(row["peak"], self._peak)
        self._last, self._peak = now, 0.0

    def time(self, module: Any, function: str, name: str) -> None:
        original = getattr(module, function)

        @functools.wraps(original)
        def timed(*arguments: Any, **settings: Any) -> Any:
            self._charge()
            self._open.append(name)
            try:
                return original(*arguments, **settings)
            finally:
                self._charge()
                self._open.pop()

        setattr(module, function, timed)

    def save(self, path: Path) -> None:
        self._charge()
        path.write_text(json.dumps(self.found))


def child(script: str, out: str, arguments: list[str]) -> None:
    """Run a root script in this process, with its stages timed."""
    stages = Stages()
    if script == "train.py":
        from jne.data import datamodule
        from jne.fitting import baseline, fit, module
        from jne.measuring import nonlinearity
        from jne.training import run, steps

        for where, function, name in (
            (steps, "prepare", "prepare"),
            (datamodule.EncodingData, "__init__", "voxel statistics"),
            (baseline, "baseline_columns", "ridge baseline"),
            (module.EncodingModule, "__init__", "initial weights"),
            (fit, "response_components", "components"),
            (fit, "_train", "training"),
            (fit, "stack_readout", "stacked readout"),
            (steps, "fit_and_test", "test predictions"),
            (steps, "score_test", "R2 and p"),
            (nonlinearity, "_arrays", "Jacobians"),
            (steps, "measure_nonlinearity", "JNE and JNE-SS"),
            (run.TrainingRun, "save", "results"),
        ):
            stages.time(where, function, name)
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    finally:
        stages.save(Path(out))


# Limits


def limits(n: dict[str, int], v: int, n_epochs: int, betas: float) -> dict[str, tuple[float, ...]]:
    """Operations, bytes read and bytes written of each stage. n: stimuli of each split."""
    train, val, test = n["train"], n["val"], n["test"]
    both, everyone, k = train + val, sum(n.values()), min(train - 1, v)
    y, out = 4.0 * v, 4.0 * test * v

    def ridge(rows: int, d: int, folds: int, validated: int) -> float:
        """Per fold, projection of the other rows and 14 penalties; the weights."""
        per_fold = 2 * d * (rows - validated + 14 * min(validated, d))
        return v * (folds * per_fold + 2 * d * rows + 2 * d * d)

    def stacked() -> float:
        """Twice the validation stimuli from those that train, then the weights of both."""
        r = min(train, H + D)
        held_out = 2 * train * (r + D) + 2 * val * (2 * r + D)
        r = min(both, H + D)
        of_both = 2 * both * (r + D) + 2 * r * (H + D) + 2 * D * D
        return v * (2 * held_out + of_both + 2 * 2 * D * H)  # which float64 doubles

    weights = D * H + 2 * H * H + H * k
    hidden = 1.2e9 * test  # once, half of the rows left out
    return {
        "prepare": (0, betas, everyone * y),
        "voxel statistics": (0, everyone * y, 0),
        "ridge baseline": (ridge(both, D, 5, both // 5) + 2 * test * D * v, everyone * y, 0),
        "components": (2 * v * (train * train / 2 + val * train), both * y, 4.0 * both * k),
        "training": (n_epochs * (6 * train + 2 * val) * weights, 0, 0),
        "stacked readout": (stacked(), 3 * both * y, 0),
        "test predictions": (2 * test * (H + D) * v, 0, 0),
        "R2 and p": (0, test * y, 0),
        "Jacobians": (2 * test * v * H * D + hidden, 0, 3 * out),
        "JNE and JNE-SS": (0, 3 * out, out),
        "results": (0, 2 * out, 2 * out + 4.0 * v * (H + D)),
    }


def show(
    stages: dict[str, dict[str, float]], limit: dict[str, tuple[float, ...]], rate: dict[str, float]
) -> None:
    rows = []
    for name, row in stages.items():
        line: dict[str, object] = {"stage": name} | {k: round(x, 1) for k, x in row.items()}
        if name in limit:
            operations, read, written = limit[name]
            products = operations / rate["product"]
            disk = read / rate["read"] + written / rate["write"]
            taken = row["cpu"] if products > disk else row["seconds"]
            bound = max(products, disk)
            line["limit"] = (
                f"{bound:.1f} s: {operations / 1e12:.2f} TFLOP"
                if products > disk
                else f"{bound:.1f} s: {read / 1e9:.2f} GB read, {written / 1e9:.2f} GB written"
            )
            line["ratio"] = round(taken / bound, 2) if bound > 0.05 else ""
        rows.append(line)
    with pd.option_context("display.width", 250, "display.max_colwidth", 90):
        print(pd.DataFrame(rows).astype(object).fillna("").to_string(index=False))


def _stages(script: str, folder: Path, arguments: list[str]) -> dict[str, dict[str, float]]:
    out = folder / "stages.json"
    command = [sys.executable, __file__, "child", script, out, *arguments]
    seconds = _seconds(lambda: subprocess.run(command, check=True))
    print(f"{script}: {seconds:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    found = json.loads(out.read_text())
    out.unlink()
    return found


def main(folder: Path, n_voxels: int, n_sessions: int, overrides: list[str]) -> None:
    root, out = folder / "nsd", folder / "outputs"
    folder.mkdir(parents=True, exist_ok=True)
    if not root.exists():
        seconds = _seconds(lambda: write_subject(root, n_voxels, n_sessions))
        print(f"{n_sessions} sessions of {n_voxels} voxels written in {seconds:.0f} s", flush=True)
    files = sorted(root.rglob("*.hdf5"))
    betas = sum(path.stat().st_size for path in files)
    for path in files:  # read from the disk, not from what the system still holds of them
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        rate = measured_rates(folder)
        print(
            f"{len(files)} sessions, {betas / 1e9:.1f} GB; float32 product "
            f"{rate['product'] / 1e9:.0f} GFLOP per second of the CPU, memory "
            f"{rate['memory'] / 1e9:.1f} GB/s, disk {rate['write'] / 1e9:.2f} GB/s written, "
            f"{rate['read'] / 1e9:.2f} GB/s read; load {os.getloadavg()[0]:.1f}"
        )
        settings = [
            "data=nsd",
            f"data.root={root}",
            "data.voxels=brainmask",
            "data.n_val=0.11",
            "features=precomputed",
            f"features.path={root / 'features.npy'}",
            "features.ids=sorted",
            f"encoder.hidden_width={H}",
            f"output={out}",
            *overrides,
        ]
        trained = _stages("train.py", folder, settings)
        (finished,) = (out / "runs").iterdir()
        (prepared,) = (path for path in (out / "prepared").iterdir() if path.is_dir())
        split = pd.read_csv(prepared / "stimuli.csv")["split"].value_counts()
        sizes = {name: int(n) for name, n in split.items()}
        n_voxels = len(pd.read_csv(prepared / "voxels.csv"))
        epochs = len(pd.read_csv(finished / "epochs.csv"))
        metrics = json.loads((finished / "summary.json").read_text())["metrics"]
        means = {k: round(metrics[k], 4) for k in ("r2/mean", "jne/mean") if k in metrics}
        print(sizes, epochs, "epochs", means)  # no JNE with jacobian.voxels=none
        show(trained, limits(sizes, n_voxels, epochs, betas), rate)
        if "jne/mean" not in means:  # what a report is about
            return
        report = ["variants=[l1]", f"runs=[{finished}]", f"output={out}"]
        show(_stages("evaluate.py", folder, report), {}, rate)
    finally:
        shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        sizes = [int(word) for word in sys.argv[2:4]]
        n_voxels, n_sessions = (*sizes, *(N_BRAIN, 40)[len(sizes) :])
        main(Path(sys.argv[1]), n_voxels, n_sessions, sys.argv[4:])

"""Training on a whole brain, compared with its bare matrix products: time per epoch and memory.

python benchmarks/train_whole_brain.py FOLDER [VOXELS [BATCH ...]]

8,000 training, 1,000 validation and 1,000 test stimuli and 226,000 voxels: 9 GB of synthetic
responses are written into FOLDER and deleted at the end. BATCH: stimuli in a batch, `full`, or
`components`, which are batches of 256 with trainer.response_space=components.
"""

import gc
import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch

from jne.data.datamodule import EncodingData
from jne.data.prepared import Prepared
from jne.fitting.callbacks import BestWeights, EpochCurves
from jne.fitting.components import ComponentModule, component_data, response_components
from jne.fitting.module import EncodingModule
from jne.utils.files import atomic_array
from jne.utils.machine import keep_freed_memory, peak_memory_gb

N = {"train": 8000, "val": 1000, "test": 1000}
D, H, N_HIDDEN, N_EPOCHS = 768, 1024, 3, 3
ENCODER = {
    "_target_": "jne.encoders.ResidualEncoder",
    "hidden_width": H,
    "n_hidden": N_HIDDEN,
    "bias": True,
    "activation": "relu",
    "placement": "both",
}
OPTIMIZER = {"_target_": "torch.optim.Adam", "lr": 1e-3, "fused": True}


def write_subject(folder: Path, n_voxels: int) -> None:
    rng = np.random.default_rng(0)
    n = sum(N.values())
    features = rng.standard_normal((n, D), dtype=np.float32)
    weights = rng.standard_normal((64, n_voxels), dtype=np.float32) / 8
    with atomic_array(folder / "responses.npy", (n, n_voxels), np.float32) as responses:
        for start in range(0, n, 500):
            rows = slice(start, start + 500)
            responses[rows] = np.maximum(features[rows, :64], 0) @ weights
            responses[rows] += rng.standard_normal((500, n_voxels), dtype=np.float32)
    np.save(folder / "features.npy", features)


def subject(folder: Path) -> Prepared:
    features = np.load(folder / "features.npy")
    values = np.load(folder / "responses.npy", mmap_mode="r")
    n, n_voxels = values.shape
    split = np.repeat(list(N), list(N.values()))
    stimuli = pd.DataFrame({"stimulus": np.arange(n), "split": split})
    voxels = pd.DataFrame({"voxel": np.arange(n_voxels), "roi": ""})
    return Prepared(folder, features, values, stimuli, voxels, {})


def products(rows: int, n_parts: int, n_voxels: int) -> float:
    """Seconds for only the matrix products of an epoch, with the same shapes and parts."""
    x, h = torch.randn(rows, D), torch.randn(rows, H)
    first, hidden, last = torch.randn(H, D), torch.randn(H, H), torch.randn(n_voxels, H)
    y = torch.empty(rows, n_voxels)
    gradient = torch.empty_like(last)

    def forward() -> None:
        x @ first.T
        for _ in range(N_HIDDEN - 1):
            h @ hidden.T
        torch.mm(h, last.T, out=y)

    def backward() -> None:
        torch.mm(y.T, h, out=gradient)
        y @ last
        for _ in range(N_HIDDEN - 1):
            h.T @ h
            h @ hidden
        h.T @ x

    forward()
    backward()
    start = time.perf_counter()
    for _ in range(n_parts):
        forward()
        backward()
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    forward()
    return seconds + (time.perf_counter() - start) * N["val"] / rows


def epochs(prepared: Prepared, batch: str) -> None:
    start = time.perf_counter()
    batch_size = {"full": None, "components": 256}[batch] if batch.isalpha() else int(batch)
    data = EncodingData(prepared, batch_size=batch_size, seed=0)
    opened = time.perf_counter() - start
    pl.seed_everything(0, verbose=False)
    if batch == "components":
        start = time.perf_counter()
        found = response_components(data, None)
        print(f"components: {time.perf_counter() - start:.0f} s, once", flush=True)
        data = component_data(data, found)
        module = ComponentModule(data.n_features, data.n_outputs, ENCODER, OPTIMIZER)
        module.components, module.outputs = found, ["readout"]
    else:
        module = EncodingModule(data.n_features, data.n_outputs, ENCODER, OPTIMIZER)
    ends: list[float] = []
    cpu: list[float] = []
    held: list[float] = []

    def note(_: dict) -> None:
        ends.append(time.perf_counter())
        cpu.append(time.process_time())
        status = Path("/proc/self/status").read_text()
        held.append(int(status.split("RssAnon:")[1].split()[0]) * 1024 / 1e9)

    trainer = pl.Trainer(
        max_epochs=N_EPOCHS,
        accelerator="cpu",
        accumulate_grad_batches=data.n_parts,
        callbacks=[EpochCurves(note), BestWeights()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data)
    epoch, busy = min(np.diff(ends)), min(np.diff(cpu))
    peak = peak_memory_gb()
    del trainer, module
    gc.collect()
    size = data.batch_size
    rows = -(-size // data.n_parts)
    bare = products(rows, -(-N["train"] // size) * data.n_parts, data.n_outputs)
    print(
        f"batch of {size} in {data.n_parts} parts, {data.n_outputs} outputs: {epoch:.1f} s per "
        f"epoch, {busy:.1f} s of the CPU; bare products {bare:.1f} s, ratio {epoch / bare:.2f}; "
        f"opened in {opened:.0f} s; peak {peak:.1f} GB, {max(held):.1f} GB beyond the file's page "
        f"cache",
        flush=True,
    )


def main(folder: Path, n_voxels: int, batches: list[str]) -> None:
    folder.mkdir(parents=True)
    try:
        start = time.perf_counter()
        write_subject(folder, n_voxels)
        os.sync()  # otherwise the disk is still being written to during training
        print(f"written in {time.perf_counter() - start:.0f} s", flush=True)
        for batch in batches:  # separate processes: memory must not add up
            subprocess.run([sys.executable, __file__, "child", folder, batch], check=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if sys.argv[1] == "child":
        keep_freed_memory()
        epochs(subject(Path(sys.argv[2])), sys.argv[3])
    else:
        n_voxels = int(sys.argv[2]) if sys.argv[2:] else 226_000
        batches = sys.argv[3:] or ["full", "1000", "256", "components"]
        main(Path(sys.argv[1], "whole_brain"), n_voxels, batches)

"""What Lightning and our callbacks cost over a bare PyTorch loop of the same steps.

    python benchmarks/training_overhead.py

Both train the default encoder on the default synthetic subject for the same number of epochs:
the same batches, optimiser steps, validation passes and copies of the best weights. The fit
includes the record of every epoch in an MLflow store. Pairs are run in turn; the ratio quoted is
the median over pairs.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch.nn.functional import mse_loss

from jne.cli import register_resolvers
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.fitting.fit import train_module
from jne.fitting.module import EncodingModule
from jne.tracking import track
from jne.training.config import TrainConfig, check_config

EPOCHS, PAIRS = 20, 5
CONF = Path(__file__).parents[1] / "conf"


def bare_loop(data: EncodingData, module: EncodingModule) -> float:
    encoder, optimizer = module.encoder, module.configure_optimizers()
    features, responses = data.split("train")
    val_features, val_responses = data.split("val")
    best = float("inf")
    start = time.perf_counter()
    for epoch in range(EPOCHS):
        order = np.random.default_rng([data.seed, epoch]).permutation(len(features))
        for rows in torch.from_numpy(order).split(data.batch_size):
            optimizer.zero_grad()
            mse_loss(encoder(features[rows]), responses[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = mse_loss(encoder(val_features), val_responses).item()
        if loss < best:
            best = loss
            _weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    return time.perf_counter() - start


def lightning(
    data: EncodingData, module: EncodingModule, config: TrainConfig, folder: Path
) -> float:
    store = {"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "overhead"}
    store["artifacts"] = str(folder / "artifacts")
    with track(store, "fail", "fit", {}, folder) as tracked:
        start = time.perf_counter()
        save_to = folder / "last.ckpt"
        train_module(module, data, config, save_to=save_to, on_epoch=tracked.log_epoch)
        seconds = time.perf_counter() - start
    (folder / "last.ckpt").unlink()
    return seconds


def main() -> None:
    register_resolvers()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("train", overrides=[f"output={folder}", "tracking.uri=unused://"])
        config, source = check_config(composed)
        data = EncodingData(
            prepare(source, folder / "prepared"), batch_size=config.trainer.batch_size, seed=0
        )

        sizes = data.features.shape[1], len(data.kept)
        trainer = config.trainer.model_copy(update={"max_epochs": EPOCHS, "patience": EPOCHS})
        settings = config.model_copy(update={"trainer": trainer, "readout": "trained"})

        def module() -> EncodingModule:
            torch.manual_seed(0)
            return EncodingModule(*sizes, config.encoder, config.optimizer)

        pairs = [
            (bare_loop(data, module()), lightning(data, module(), settings, folder))
            for _ in range(PAIRS + 1)
        ]
    pairs = pairs[1:]  # the first warms up
    bare, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    overhead = statistics.median(ours / bare for bare, ours in pairs) - 1
    print(f"{EPOCHS} epochs of {len(data.rows['train'])} stimuli, median of {PAIRS} pairs")
    print(f"bare loop {bare:.2f} s   trainer.fit {ours:.2f} s   overhead {100 * overhead:.1f} %")


if __name__ == "__main__":
    main()

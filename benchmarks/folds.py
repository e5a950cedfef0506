"""What data.folds=5 costs beside a single run: CPU seconds of the fits, with one thread.

python benchmarks/folds.py [VOXELS_PER_CELL]    # 12 cells; by default 420, 5,040 voxels

A cohort of data=cells with shared noise, 2,250 stimuli, 384 features, default settings; ridge
regression beside every fold, as in a run. A single run trains on the stimuli of one fold and more:
a tenth of all stimuli validates, none is tested.
"""

import sys
import time
from collections.abc import Callable

import decay
import numpy as np
import share
import torch

from jne.data.datamodule import StandardisedData
from jne.data.folds import Belonging
from jne.fitting.baseline import linear_predictions
from jne.fitting.fit import fit
from jne.fitting.folds import fit_folds
from jne.utils.progress import without_progress


def main(per_cell: int) -> None:
    torch.set_num_threads(1)
    share.PER_CELL = per_cell
    data = decay.cohort("cells", "shared", 5000)
    settings, every = decay.settings("auto", 256), np.arange(decay.N_TRAIN + decay.N_VAL)
    features, responses = data.features.numpy()[every], data.responses[every].numpy()
    parts = []
    for rest, test in Belonging().folds(every, 5, 0):
        train, val = Belonging().folds(rest, 10, 0)[0]
        rows = {"train": rest[train], "val": rest[val], "test": test}
        parts.append(StandardisedData(features, responses, rows, batch_size=256, seed=0))

    def single() -> int:
        fitted = fit(data, settings)
        linear_predictions(data)
        return len(fitted.history.epochs)

    def folds() -> int:
        fits = fit_folds(parts, settings)
        for part in parts:
            linear_predictions(part)
        return sum(len(fitted.history.epochs) for fitted in fits)

    one, epochs = cpu_seconds(single)
    five, of_folds = cpu_seconds(folds)
    print(f"{data.n_outputs} voxels: single {one:.0f} s ({epochs} epochs), five folds {five:.0f} s "
          f"({of_folds} epochs), ratio {five / one:.2f}")  # fmt: skip


def cpu_seconds(work: Callable[[], int]) -> tuple[float, int]:
    start = time.process_time()
    with without_progress():
        result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 420)

"""One run computed by several jobs: each the Jacobians of a share of the voxels (`jacobian.shard`).

The jobs, shards 1/K to K/K, may run at once or one after the other, on any machines that share the
folder in which they meet. It is beside the runs, and deleted when the run is recorded:

    shards/DIGEST/            of all that the run and its blocks of voxels depend on
        2of4/                 a shard: lock, status and log as in the folder of a run; the
                              deviations of its share, (N, v) each

The encoder is a stage: one shard trains it, the others wait. The shard that completes the set
records the run, by the steps of train.py, with the deviations of all: the files have the bytes of a
run in one job.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import nn

from jne.data.datamodule import EncodingData
from jne.data.prepared import Source, prepared_folder
from jne.errors import InputError
from jne.fitting.history import History
from jne.jacobian import variant_file
from jne.measuring.config import JacobianConfig
from jne.measuring.nonlinearity import MEASURED, array_names, chosen_outputs, deviations
from jne.measuring.scores import Scores
from jne.results.folder import RunFolder, finished_status, move_log, open_run, status_of
from jne.runs.folders import discard_if_empty
from jne.runs.session import (
    hydra_folder,
    preempted_by_slurm,
    sweep_name,
    task_overrides,
)
from jne.runs.sweep import write_job_pointer
from jne.stages import Stages, digest_of
from jne.tracking import open_store
from jne.training.config import TrainConfig
from jne.training.run import TrainingRun, check_rois, finished_loss, folder_of
from jne.training.steps import fit_and_test, load_data
from jne.utils.files import atomic_array, make_folder, temporary_name
from jne.utils.locks import locked_file
from jne.utils.progress import say


def compute_shard(config: TrainConfig, source: Source) -> "Shards":
    """Compute the share of `jacobian.shard`, unless it is there already, and see who is missing.

    `loss` is None if this job must record the run.
    """
    if config.tracking.on_unreachable != "continue":
        open_store(**config.store)  # a wrong address is refused before hours of work
    shards = Shards(config, source)
    folder = make_folder(shards.this_shard)
    if sweep_name():
        write_job_pointer(folder)
    done = finished_status(folder)
    if done is None or done["prepared"] != prepared_folder(source, config.prepared).name:
        settings, identity = config.model_dump(mode="json"), config.identity()
        with preempted_by_slurm(), open_run(folder, settings, identity, "shard") as part:
            move_log(folder)
            discard_if_empty(hydra_folder())
            part.note(shard=shards.name, overrides=task_overrides())
            _compute(shards, source, part)
    shards.elect_recorder()
    return shards


def _compute(shards: "Shards", source: Source, part: RunFolder) -> None:
    """The steps of train.py up to the Jacobians, and of these a share."""
    config = shards.config
    stages = Stages(config.stages, lambda used: part.note(stages=used))
    data = load_data(source, config)
    check_rois(config, data)
    measure = partial(_measure_share, config=config, folder=part.path)
    fits, _, _ = fit_and_test(data, config, stages, measure, checkpoint=config.checkpoint)
    history = History.of_folds([fitted.history for fitted in fits])
    part.note(prepared=data.prepared.folder.name, best_loss=history.best_loss)


def _measure_share(
    encoders: Sequence[nn.Module],
    data: EncodingData,
    scores: Scores,
    config: TrainConfig,
    folder: Path,
) -> None:
    """Of what `measure_nonlinearity` computes, the deviations of one share, in `folder`."""
    settings = config.jacobian
    chosen = chosen_outputs(data, scores, settings, config.stats.alpha)
    if len(chosen):
        path = folder / MEASURED
        deviations(encoders, data, chosen, settings, path, shard=settings.share)


class Shards:
    """All shards of one run, seen from one of them. A context manager around the recording."""

    def __init__(self, config: TrainConfig, source: Source) -> None:
        assert config.jacobian.share is not None
        self.config, self.source = config, source
        self.k, self.n_shards = config.jacobian.share
        self._all = range(1, self.n_shards + 1)
        self.name = f"shard {self.k}/{self.n_shards}"
        digest = digest_of([config.identity(), config.jacobian.max_memory_gb])
        self.path = hydra_folder().parent / "shards" / digest
        self.folder = Path()
        """Of the run, for the shard that records it."""
        self.loss: float | None = None
        """The best validation loss, for a shard that does not."""
        self._recording = FileLock(self.path / ".record.lock")

    @property
    def this_shard(self) -> Path:
        return self._folder(self.k)

    def _folder(self, k: int) -> Path:
        return self.path / f"{k}of{self.n_shards}"

    def describe(self, run: TrainingRun) -> None:
        """Note in the run that is recorded where its shares were computed, and how long it took."""
        shares = [status_of(self._folder(k)) for k in self._all]
        facts = [{key: share[key] for key in ("shard", "host", "seconds")} for share in shares]
        run.folder.note(shards=facts)
        run.tracked.log_metrics({"time/shards_s": sum(share["seconds"] for share in facts)})

    def merge(
        self,
        encoders: Sequence[nn.Module],
        data: EncodingData,
        outputs: NDArray[np.int64],
        settings: JacobianConfig,
        path: Path,
    ) -> None:
        """In place of `deviations`: write what the shards computed of these outputs."""
        for name in array_names(data, settings):
            files = [variant_file(self._folder(k) / path.name, name) for k in self._all]
            shares = [np.load(file, mmap_mode="r") for file in files if file.exists()]
            if sum(share.shape[1] for share in shares) != len(outputs):
                raise InputError(
                    "jacobian.shard",
                    f"the shards in {self.path} are not of the same voxels; delete "
                    f"it, and compute all of them on machines of one kind",
                )
            shape = (len(shares[0]), len(outputs))
            with atomic_array(variant_file(path, name), shape, shares[0].dtype) as whole:
                np.concatenate(shares, axis=1, out=whole)

    def elect_recorder(self) -> None:
        """Find out, and say, whether this shard is the one that records the run."""
        with locked_file(self.path / ".check.lock"):
            missing = [k for k in self._all if not self._is_done(k)]
            is_recorder = not missing and self._try_to_record()
        if is_recorder or self.k in missing:  # missing itself: recorded since, and deleted
            self.folder = folder_of(self.config, self.source)
            self.loss = finished_loss(self.folder)
            if not is_recorder and self.loss is None:
                raise InputError("jacobian.shard", f"{self.path} was deleted; run all shards again")
            if is_recorder and self.loss is not None:
                self._discard()
            move_log(self.folder)
            return
        discard_if_empty(hydra_folder())
        self.loss = status_of(self.this_shard)["best_loss"]
        if missing:
            others = ", ".join(map(str, missing))
            rest = f"not yet: {others} of {self.n_shards}. The last to finish records the run"
        else:
            rest = "another shard is recording the run"
        say(f"{self.name} is done; {rest}", soft_wrap=True)

    def _is_done(self, k: int) -> bool:
        """Whether a shard has computed its share, of the data that this one has."""
        status = finished_status(self._folder(k))
        prepared = status_of(self.this_shard).get("prepared")
        return status is not None and status["prepared"] == prepared

    def _try_to_record(self) -> bool:
        try:
            self._recording.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def __enter__(self) -> "Shards":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Once the run is recorded, point the jobs of all shards to it and delete the folder."""
        if kind is None:
            for folder in map(self._folder, self._all):
                if sweep_name():
                    write_job_pointer(self.folder, status_of(folder)["overrides"])
                for log in folder.glob("*.log"):
                    with open(self.folder / log.name, "a") as of_run:
                        of_run.write(log.read_text())
            self._discard()
        self._recording.release()

    def _discard(self) -> None:
        with suppress(FileNotFoundError):
            aside = self.path.rename(temporary_name(self.path))
            shutil.rmtree(aside, ignore_errors=True)
        discard_if_empty(self.path.parent)
        self._recording.release()

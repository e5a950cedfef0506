"""One run computed by several jobs: each the Jacobians of a share of the voxels (`jacobian.shard`).

The jobs, shards 1/K to K/K, may run at once or one after the other, on any machines that share the
folder in which they meet. It is beside the runs, and deleted when the run is recorded:

    shards/DIGEST/            of all that the run and its blocks of voxels depend on
        DATA.pt               the trained encoder, by the shard that came first
        DATA.ckpt, DATA.npz   while it is trained
        2of4/                 a shard: lock, status and log as in the folder of a run; the
                              deviations of its share, (N, v) each

All shards have the weights of one training. The shard that completes the set records the run, by
the steps of train.py, with the deviations of all: the files have the bytes of a run in one job.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import pytorch_lightning as pl
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import nn

from jne.data.datamodule import EncodingData
from jne.data.prepared import Source, prepare
from jne.errors import InputError
from jne.jacobian import GAIN_SHAPE, variant_file
from jne.jacobian.variants import DEFAULT
from jne.results.folder import RunFolder, finished_status, move_log, open_run, status_of
from jne.runs.session import (
    discard_if_empty,
    hydra_folder,
    preempted_by_slurm,
    sweep_name,
    task_overrides,
)
from jne.runs.sweep import write_job_pointer
from jne.tracking import open_store
from jne.training.config import JacobianConfig, TrainConfig
from jne.training.fit import History, fit, test
from jne.training.measure import (
    MADE_UP,
    MEASURED,
    Scores,
    check_measurable,
    chosen_outputs,
    deviations,
    score_test,
    twins_of,
)
from jne.training.module import EncodingModule
from jne.training.run import TrainingRun, check_rois, finished_loss, folder_of
from jne.training.trained import curves, read_trained, write_trained
from jne.training.trajectory import trajectory_of
from jne.training.twins import make_twins
from jne.utils.files import atomic_array, make_folder, temporary_name
from jne.utils.locks import locked_file
from jne.utils.progress import say


def compute_shard(config: TrainConfig, source: Source) -> "Shards":
    """Compute the share of `jacobian.shard`, unless it is there already, and see who is missing.

    Of what it returns, `loss` is None for the shard that is to record the run.
    """
    if config.tracking.on_unreachable != "continue":
        open_store(**config.store)  # a wrong address is refused before hours of work
    shards = Shards(config, source)
    own = make_folder(shards.own)
    if sweep_name():
        write_job_pointer(own)
    done = finished_status(own)
    if done is None or done["prepared"] != prepare(source, config.prepared).folder.name:
        settings, identity = config.model_dump(mode="json"), config.identity()
        with preempted_by_slurm(), open_run(own, settings, identity, "shard") as part:
            move_log(own)
            discard_if_empty(hydra_folder())
            part.note(shard=shards.name, overrides=task_overrides())
            _compute(shards, source, part)
    shards.settle()
    return shards


def _compute(shards: "Shards", source: Source, part: RunFolder) -> None:
    """The steps of train.py up to the Jacobians."""
    config = shards.config
    prepared = prepare(source, config.prepared)
    data = EncodingData(
        prepared,
        batch_size=config.trainer.batch_size,
        seed=config.seed,
        shuffle=config.control.kind == "shuffle",
    )
    check_rois(config, data)
    if config.control.kind == "twins":
        data.add_twins(make_twins(data, config.control, config.seed, part.path / "twins.npy"))
    pl.seed_everything(config.seed, verbose=False)
    module = EncodingModule(data.n_features, data.n_outputs, config.encoder, config.optimizer)
    check_measurable(module.encoder, data, config.jacobian)
    shards.train(module, data)
    history = shards.trained(module, data)

    def measure(predictions: NDArray[np.float32]) -> None:
        scores = score_test(data, predictions, config.stats, config.seed)
        _measure_share(module.encoder, data, scores, config, part.path)

    test(module, data, config.trainer, measure)
    part.note(prepared=prepared.folder.name, best_loss=history.best_loss)


def _measure_share(
    encoder: nn.Module, data: EncodingData, scores: Scores, config: TrainConfig, folder: Path
) -> None:
    """Of what `measure_nonlinearity` computes, the deviations of one share, in `folder`."""
    settings = config.jacobian
    chosen = chosen_outputs(data, scores, settings, config.stats.alpha)
    if len(chosen):
        path = folder / MEASURED
        deviations(encoder, data, chosen, settings, path, shard=settings.share)
    twins = twins_of(chosen, data) if data.twins is not None else chosen[:0]
    if len(twins):
        title, path = "Jacobians of twins", folder / MADE_UP
        deviations(encoder, data, twins, settings, path, title, True, settings.share)


class Shards:
    """All shards of one run, seen from one of them. A context manager around the recording."""

    def __init__(self, config: TrainConfig, source: Source) -> None:
        assert config.jacobian.share is not None
        self.config, self.source = config, source
        self.k, self.n_shards = config.jacobian.share
        self._all = range(1, self.n_shards + 1)
        self.name = f"shard {self.k}/{self.n_shards}"
        about = f"{config.identity()} {config.jacobian.max_memory_gb}"
        digest = hashlib.sha256(about.encode()).hexdigest()[:16]
        self.path = hydra_folder().parent / "shards" / digest
        self.folder = Path()
        """Of the run, for the shard that records it."""
        self.loss: float | None = None
        """The best validation loss, for a shard that does not."""
        self._recording = FileLock(self.path / ".record.lock")

    @property
    def own(self) -> Path:
        return self._folder(self.k)

    def _folder(self, k: int) -> Path:
        return self.path / f"{k}of{self.n_shards}"

    # --- one training for all ---

    def _weights(self, data: EncodingData) -> Path:
        return self.path / f"{data.prepared.folder.name}.pt"

    def train(self, module: EncodingModule, data: EncodingData) -> None:
        """Train, unless another shard has; if one is about to, wait for it."""
        config, path = self.config, self._weights(data)
        with _training(self.path / ".train.lock", self.name):
            if path.name in {file.name for file in self.path.iterdir()}:
                return
            history = fit(
                module,
                data,
                config.trainer,
                readout=config.readout,
                save_to=path.with_suffix(".ckpt"),
                checkpoint=config.checkpoint,
                trajectory=trajectory_of(data, config.jacobian, config.seed),
            )
            write_trained(path, module.encoder, history)

    def trained(
        self, module: EncodingModule, data: EncodingData, run: TrainingRun | None = None
    ) -> History:
        """Give the module the weights of the training; its history, also to the `run` in MLflow."""
        history = read_trained(self._weights(data), module.encoder)
        if run is not None:
            for row in curves(history):
                run.tracked.log_epoch(row)
            shares = [status_of(self._folder(k)) for k in self._all]
            facts = [{key: of[key] for key in ("shard", "host", "seconds")} for of in shares]
            run.folder.note(shards=facts)
            run.tracked.log_metrics({"time/shards_s": sum(of["seconds"] for of in facts)})
        return history

    # --- the shares, together ---

    def merge(
        self,
        encoder: nn.Module,
        data: EncodingData,
        outputs: NDArray[np.int64],
        settings: JacobianConfig,
        path: Path,
        title: str = "",
        only_jne: bool = False,
    ) -> None:
        """In place of `deviations`: write what the shards computed of these outputs."""
        for name in [DEFAULT] if only_jne else [*settings.variants, *GAIN_SHAPE]:
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

    def settle(self) -> None:
        """Find out, and say, whether this shard is the one that records the run."""
        with locked_file(self.path / ".check.lock"):
            missing = [k for k in self._all if not self._is_done(k)]
            claimed = not missing and self._claim()
        if claimed or self.k in missing:  # missing itself: recorded since, and deleted
            self.folder = folder_of(self.config, self.source)
            self.loss = finished_loss(self.folder)
            if not claimed and self.loss is None:
                raise InputError("jacobian.shard", f"{self.path} was deleted; run all shards again")
            if claimed and self.loss is not None:
                self._discard()
            move_log(self.folder)
            return
        discard_if_empty(hydra_folder())
        self.loss = status_of(self.own)["best_loss"]
        if missing:
            others = ", ".join(map(str, missing))
            rest = f"not yet: {others} of {self.n_shards}. The last to finish records the run"
        else:
            rest = "another shard is recording the run"
        say(f"{self.name} is done; {rest}", soft_wrap=True)

    def _is_done(self, k: int) -> bool:
        """Whether a shard has computed its share, of the data that this one has."""
        status = finished_status(self._folder(k))
        return status is not None and status["prepared"] == status_of(self.own).get("prepared")

    def _claim(self) -> bool:
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


@contextmanager
def _training(lock: Path, shard: str) -> Iterator[None]:
    """Hold the lock; if another shard has it, say so at once: it trains, which takes long."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_file(lock, wait=0.0))
        except TimeoutError:
            say(f"{shard} waits for the shard that trains the encoder")
            stack.enter_context(locked_file(lock))
        yield

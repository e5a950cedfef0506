"""What happens around training: its record, the best weights, the test scores, and JNE."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Checkpoint

from jne import nonlinearity, scoring
from jne.config import JacobianConfig, StatsConfig
from jne.errors import InputError
from jne.files import whole_array, whole_file
from jne.jacobian import jacobian_deviation, variant_file
from jne.progress import stage_progress, training_progress


class EpochRecord(pl.Callback):
    """One row an epoch (epoch, train/loss, val/loss, val/r2), kept, shown and sent on.

    send: called after each epoch with the row.
    """

    CURVES = ("train/loss", "val/loss", "val/r2")

    def __init__(self, send: Callable[[dict[str, float]], None] | None = None) -> None:
        self.rows: list[dict[str, float]] = []
        self.send = send  # not `log`: Lightning puts its own there

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._progress = training_progress()
        self._task = self._progress.add_task(
            "", total=trainer.max_epochs, unit="epochs", note="", completed=len(self.rows)
        )
        self._progress.start()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        row = {"epoch": trainer.current_epoch}
        row |= {name: float(trainer.callback_metrics[name]) for name in self.CURVES}
        self.rows.append(row)
        self._progress.update(
            self._task,
            advance=1,
            note=f"loss {row['train/loss']:.3f} val {row['val/loss']:.3f} R² {row['val/r2']:.3f}",
        )
        if self.send is not None:
            self.send(row)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._progress.update(self._task, total=len(self.rows))
        self._progress.stop()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception) -> None:
        if hasattr(self, "_progress"):
            self._progress.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]


class BestWeights(pl.Callback):
    """Keeps the weights of the epoch with the lowest validation loss, and ends training on them.

    They are kept in memory, which costs a copy an epoch where a file would cost a write; the
    callback's state goes into checkpoints, so a resumed run still has them.
    """

    def __init__(self) -> None:
        self.epoch, self.loss = -1, float("inf")
        self.weights: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        loss = float(trainer.callback_metrics["val/loss"])
        if loss < self.loss:
            self.epoch, self.loss = trainer.current_epoch, loss
            self.weights = {
                name: value.detach().cpu().clone()
                for name, value in module.encoder.state_dict().items()
            }

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self.weights:
            raise InputError("optimizer: the validation loss was never finite; lower optimizer.lr")
        module.encoder.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "loss": self.loss, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.loss, self.weights = state["epoch"], state["loss"], state["weights"]


class LastCheckpoint(Checkpoint):
    """Writes `path` at the end of an epoch, at most once in `seconds`, and never for more than a
    twentieth of the time; and once more when training is over.

    A full checkpoint costs four times the weights; short epochs cannot afford one each.

    before: called before each write, to send on the epochs that are in the checkpoint: a run that
    goes on from it sends only those that come after.
    """

    def __init__(self, path: Path, seconds: float, before: Callable[[], None]) -> None:
        self.path, self.seconds, self.before, self.over = path, seconds, before, False

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._next = time.monotonic() + self.seconds

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Early stopping has had its say: Lightning calls checkpoints last. That max_epochs is
        # reached is no part of it: a checkpoint may be gone on from with more.
        self.over = trainer.should_stop
        last = self.over or trainer.current_epoch + 1 == trainer.max_epochs
        start = time.monotonic()
        if start >= self._next or last:
            self.before()
            with whole_file(self.path) as temporary:
                trainer.save_checkpoint(temporary)
            end = time.monotonic()
            self._next = end + max(self.seconds, 19 * (end - start))

    def state_dict(self) -> dict[str, Any]:
        return {"over": self.over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.over = state["over"]


class TestScores(pl.Callback):
    """Predictions (N, V'), R2, bootstrap p and FDR-adjusted p (V',) of the test stimuli."""

    __test__ = False  # not a test case, whatever pytest thinks of its name

    def __init__(self, settings: StatsConfig, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._batches: list[torch.Tensor] = []

    def on_test_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        self._batches.append(outputs.float().cpu())

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.predictions = torch.cat(self._batches).numpy()
        responses = trainer.datamodule.split("test")[1].numpy()
        self.r2 = scoring.r2_score(responses, self.predictions)
        resampled = scoring.bootstrap_r2(
            responses, self.predictions, self.settings.n_bootstrap, self.seed
        )
        self.p = scoring.bootstrap_p(resampled, self.settings.p_form)
        self.p_fdr = scoring.fdr(self.p)


class JacobianNonlinearity(pl.Callback):
    """After the test: the deviations of the Jacobians over the test stimuli.

    Writes deviation.npy and jne_ss.npy, (n_test, n_voxels) float32, into `folder`, NaN for voxels
    not asked for or not trained, and for every other variant deviation_VARIANT.npy. Keeps the
    columns that they add to the voxel table, (n_voxels,) each.
    """

    def __init__(self, settings: JacobianConfig, scores: TestScores, alpha: float, folder: Path):
        self.settings, self.scores, self.alpha, self.folder = settings, scores, alpha, folder
        self.seconds = 0.0

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        start = time.monotonic()
        data = trainer.datamodule
        outputs = self._outputs(data)
        every_voxel = len(outputs) == len(data.voxel_status)
        path = self.folder / "deviation.npy"
        # Of some voxels only: measured.npy first, then scattered into a table of all voxels.
        target = path if every_voxel else path.with_name("measured.npy")
        if len(outputs):
            self._measure(module, data, outputs, target)
        for variant in self.settings.variants:
            final, measured = variant_file(path, variant), variant_file(target, variant)
            if not every_voxel:
                shape = (len(data.rows["test"]), len(data.voxel_status))
                with whole_array(final, shape, np.float32) as deviation:
                    deviation[:] = np.nan
                    if len(outputs):
                        deviation[:, data.kept[outputs]] = np.load(measured, mmap_mode="r")
                measured.unlink(missing_ok=True)
        self.columns = {}
        for variant in self.settings.variants:
            deviation = np.load(variant_file(path, variant), mmap_mode="r")
            suffix = "" if variant == "l1" else f"_{variant}"
            self.columns[f"jne{suffix}"] = nonlinearity.jne(deviation)
            self.columns[f"mean_deviation{suffix}"] = nonlinearity.mean_deviation(deviation)
        deviation = np.load(path, mmap_mode="r")
        with whole_array(self.folder / "jne_ss.npy", deviation.shape, np.float32) as jne_ss:
            nonlinearity.jne_ss(deviation, out=jne_ss)
            self.columns["jne_ss_p95"] = np.percentile(jne_ss, 95, axis=0)
        self.seconds = time.monotonic() - start

    def _measure(self, module, data, outputs: NDArray[np.int64], path: Path) -> None:
        features = data.split("test")[0]
        with stage_progress() as progress:
            task = progress.add_task("Jacobians", total=len(features), unit="stimuli")
            try:
                jacobian_deviation(
                    module.encoder.to("cpu").eval(),
                    features,
                    variant=self.settings.variants,
                    voxels=None if len(outputs) == len(data.kept) else outputs,
                    precision=self.settings.precision,
                    device=self.settings.device,
                    max_memory_gb=self.settings.max_memory_gb,
                    path=path,
                    progress=lambda done: progress.update(task, completed=done * len(features)),
                )
            except ValueError as error:
                raise InputError(f"jacobian.{error}") from error

    def _outputs(self, data) -> NDArray[np.int64]:
        """Which of the encoder's outputs `jacobian.voxels` asks for."""
        chosen = self.settings.voxels
        if chosen == "all":
            return np.arange(len(data.kept))
        if chosen == "significant":
            return np.flatnonzero(self.scores.p_fdr < self.alpha)
        rois = data.prepared.voxels["roi"]
        return np.flatnonzero(rois.iloc[data.kept].isin(chosen))

"""Trajectories: test R2 and JNE of some voxels by epoch (`jacobian.trajectory`).

Gao et al. 2025 measure JNE once, after training. How much of it training time makes is open. The
test stimuli are looked at, and choose nothing: neither the epoch whose weights are kept nor
anything else depends on this callback. V' trained voxels, v of them followed.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.analysis.nonlinearity import jne
from jne.analysis.prediction import r2_score
from jne.data.datamodule import EncodingData
from jne.errors import InputError, keys_below
from jne.jacobian import SETTINGS, jacobian_deviation
from jne.measuring.config import JacobianConfig
from jne.roi import ordered
from jne.utils.progress import quiet


class Trajectory(pl.Callback):
    """Keeps the test R2 and the JNE of some voxels after every epoch.

    They are part of checkpoints: a resumed run has those of the epochs before.
    """

    state_key = "Trajectory"

    def __init__(
        self,
        data: EncodingData,
        settings: JacobianConfig,
        seed: int,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        """settings: with `trajectory`, which says whose; device, precision and memory as for JNE.

        on_epoch: called after each epoch with the means over the voxels, as that of `EpochCurves`.
        """
        assert settings.trajectory is not None
        self.settings, self.on_epoch = settings, on_epoch
        self.identity = {
            "voxels": settings.trajectory,
            "seed": seed,
            "precision": settings.precision,
            "device": settings.device,
        }
        self.voxels = followed_voxels(data, settings.trajectory, seed)
        self._n_outputs = data.n_outputs
        of_followed = data.kept[self.voxels]
        self._about = data.prepared.voxels[["voxel", "roi"]].iloc[of_followed]
        self._features, responses = [], []
        for batch in data.test_dataloader():  # of many voxels, a few stimuli at a time
            self._features.append(batch.features)
            responses.append(batch.responses[:, self.voxels])
        self._responses = torch.cat(responses).numpy()
        self.epochs: list[int] = []
        self.values: list[Tensor] = []
        """Per epoch, R2 and JNE, (2, v) float64."""

    def measure(self, encoder: nn.Module) -> Tensor:
        """R2 and JNE of the encoder as it is now, (2, v) float64.

        Raises InputError, naming the key, where the Jacobians cannot be computed.
        """
        training, place = encoder.training, next(encoder.parameters()).device
        encoder.eval()
        predictions = []
        with torch.no_grad():
            for features in self._features:
                output = encoder(features.to(place))
                assert output.shape[1] == self._n_outputs
                predictions.append(output[:, self.voxels].cpu())
        with quiet("jne.jacobian"):  # it says the same at every epoch
            with keys_below("jacobian", SETTINGS):
                deviation = jacobian_deviation(
                    encoder,
                    torch.cat(self._features),
                    voxels=self.voxels,
                    precision=self.settings.precision,
                    device=self.settings.device,
                    max_memory_gb=self.settings.max_memory_gb,
                )
        encoder.train(training)
        r2 = r2_score(self._responses, torch.cat(predictions).float().numpy())
        return torch.from_numpy(np.stack([r2, jne(deviation)]))

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        values = self.measure(cast(nn.Module, module.encoder))
        self.epochs.append(trainer.current_epoch + 1)  # from 1, as in all tables
        self.values.append(values)
        self._pass_on(self.epochs[-1], values)

    def _pass_on(self, epoch: int, values: Tensor) -> None:
        if self.on_epoch is not None:
            r2, mean_jne = values.nanmean(dim=1).tolist()
            self.on_epoch({"epoch": epoch, "trajectory/r2": r2, "trajectory/jne": mean_jne})

    def table(self, encoder: nn.Module, best_epoch: int) -> pd.DataFrame:
        """One row per epoch and voxel: epoch, stage, voxel, roi, r2, jne.

        `stage` is `training`; and, in the last v rows, `final`: the encoder as given here, which
        has the weights of `best_epoch` and, with a ridge readout, a last layer solved for since.
        """
        parts = [
            self._about.assign(epoch=epoch, stage=stage, r2=values[0], jne=values[1])
            for epoch, stage, values in (
                *(
                    (e, "training", v.numpy())
                    for e, v in zip(self.epochs, self.values, strict=True)
                ),
                (best_epoch, "final", self.measure(encoder).numpy()),
            )
        ]
        columns = ["epoch", "stage", "voxel", "roi", "r2", "jne"]
        return pd.concat(parts, ignore_index=True)[columns]

    def state_dict(self) -> dict[str, Any]:
        values = torch.stack(self.values) if self.values else torch.empty(0)
        return {"voxels": torch.from_numpy(self.voxels), "epochs": self.epochs, "values": values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # A checkpoint of another run may have other voxels: these are then followed from here on.
        if np.array_equal(state["voxels"].numpy(), self.voxels):
            epochs, values = state["epochs"], state["values"]
            shape = (len(epochs), 2, len(self.voxels)) if epochs else (0,)
            if tuple(values.shape) != shape or any(type(epoch) is not int for epoch in epochs):
                raise ValueError("its trajectory is damaged")
            self.epochs, self.values = list(epochs), list(values)
            for epoch, at_epoch in zip(self.epochs, self.values, strict=True):
                self._pass_on(epoch, at_epoch)


def trajectory_of(
    data: EncodingData,
    settings: JacobianConfig,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Trajectory | None:
    """The trajectory that `jacobian.trajectory` asks for; None where it asks for none."""
    if settings.trajectory is None:
        return None
    return Trajectory(data, settings, seed, on_epoch)


def followed_voxels(data: EncodingData, choice: int | list[str], seed: int) -> NDArray[np.int64]:
    """Indices into the V' trained voxels, ascending, (v,).

    choice: ROIs, for all their voxels; or a number of voxels, drawn by the seed: as many from each
        ROI as from any other while it has more, from all voxels where the data has no ROIs.
    Raises InputError where this leaves no voxel.
    """
    rois = data.prepared.voxels["roi"].iloc[data.kept].to_numpy(dtype=str)
    if isinstance(choice, list):
        chosen = np.flatnonzero(np.isin(rois, choice))
    else:
        rng = np.random.default_rng(seed)
        groups = [rng.permutation(np.flatnonzero(rois == roi)) for roi in ordered(rois) or [""]]
        turns = range(max(map(len, groups)))
        in_turns = [group[turn] for turn in turns for group in groups if turn < len(group)]
        chosen = np.sort(in_turns[:choice])
    if not len(chosen):
        raise InputError(
            "jacobian.trajectory", "none of these voxels could be trained on", value=choice
        )
    return chosen

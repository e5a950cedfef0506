"""What predicts all voxels: an encoder, or ridge regression, and the constants of the others."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from jne.analysis.prediction import r2_score
from jne.data.folds import N_FOLDS, Belonging
from jne.encoders import RawEncoder
from jne.encoders.ridge import RidgeCV
from jne.errors import InputError


class Predictor:
    """From features (n, D) to responses (n, V), both in the units of the data.

    model: of the voxels that were trained. constants: of the others, in order; NaN for a voxel
    whose responses were missing. one_voxel: whether responses are without the axis V.
    """

    def __init__(self, model: RawEncoder, constants: NDArray, one_voxel: bool) -> None:
        self.model, self._constants, self._one_voxel = model, constants, one_voxel

    def predict(self, X: ArrayLike) -> NDArray[np.floating]:
        """Responses to features X (n, D): (n, V), or (n,)."""
        predicted = self.model.predict(X)
        predicted[:, ~self.model.trained.numpy()] = self._constants
        return self.like_y(predicted)

    def score_voxels(self, X: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """R2 of each voxel (V,), or a number; NaN where y is constant or NaN, or was in `fit`."""
        predicted, responses = self.predict(X), np.asarray(y, dtype=np.float64)
        if responses.shape != predicted.shape:
            raise InputError("y", f"must be {predicted.shape}, found {responses.shape}")
        columns = (len(responses), -1)
        with np.errstate(invalid="ignore"):
            return self.like_y(r2_score(responses.reshape(columns), predicted.reshape(columns)))

    def ridge(self, features: Tensor, responses: Tensor, belonging: Belonging) -> "Predictor":
        """Ridge regression in place of the encoder: that of train.py, a penalty per voxel.

        features: (N, D) and responses (N, V'), standardised as for the encoder.
        """
        mean, offset = features.mean(dim=0), responses.mean(dim=0)
        splits = belonging.folds(np.arange(len(features)), N_FOLDS)
        weights = RidgeCV(features - mean, splits).fit(responses - offset).weights
        linear = nn.Linear(*weights.shape)
        with torch.no_grad():
            linear.weight.copy_(weights.T)
            linear.bias.copy_(offset - mean @ weights)
        names = ("feature_mean", "feature_scale", "response_mean", "response_scale")
        scaling = {name: getattr(self.model, name) for name in names}
        model = RawEncoder(linear, scaling, self.model.trained.numpy())
        return Predictor(model, self._constants, self._one_voxel)

    def like_y(self, values: NDArray) -> Any:
        """Values (..., V) without the last axis if y had none."""
        return values[..., 0] if self._one_voxel else values

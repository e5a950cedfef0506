"""An encoder between the standardisation of its data and its inverse.

N stimuli, D features, V voxels, V' of them trained on.
"""

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from jne.errors import InputError

_ROWS_AT_ONCE = 2**11


class RawEncoder(nn.Module):
    """Features as they are in the data to responses in the units of the data, NaN if not trained.

    encoder: standardised features (N, D) to (N, V'). scaling: feature_mean, feature_scale (D,) and
    response_mean, response_scale (V',), the means in float64 where float32 cannot hold the data.
    trained: (V,), whether a voxel has an encoder.
    """

    def __init__(
        self, encoder: nn.Module, scaling: Mapping[str, Tensor], trained: NDArray[np.bool_]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        self.response_mean: Tensor
        self.response_scale: Tensor
        self.trained: Tensor
        for name in ("feature_mean", "feature_scale", "response_mean", "response_scale"):
            self.register_buffer(name, scaling[name])
        self.register_buffer("trained", torch.from_numpy(np.array(trained)))

    def standardised(self, features: Tensor) -> Tensor:
        """Features (N, D) as the encoder takes them, of its dtype."""
        features = features.to(self.feature_mean.dtype)
        return ((features - self.feature_mean) / self.feature_scale).to(self.feature_scale.dtype)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) to (N, V), of the encoder's dtype, or of that of the means."""
        predicted = self.encoder(self.standardised(features))
        predicted = predicted * self.response_scale + self.response_mean
        responses = predicted.new_full((len(features), len(self.trained)), torch.nan)
        responses[:, self.trained] = predicted
        return responses

    def predict(self, features: ArrayLike) -> NDArray[np.floating]:
        """Responses (N, V) to features (N, D).

        The weights are float32. Features in float64 are computed with in float64, all others in
        float32, and the responses are of that dtype. Where float32 cannot hold the data, because
        they vary little around a large mean, all is float64. Raises InputError for features that
        are not finite numbers (N, D).
        """
        x = np.array(features)  # a copy, which torch may have: others may not be writable
        d = len(self.feature_mean)
        if x.ndim != 2 or x.shape[1] != d or x.dtype.kind not in "fiu":
            raise InputError(
                "features", f"must be numbers of shape (n_stimuli, {d}), found {x.shape} {x.dtype}"
            )
        if not np.isfinite(x).all():
            raise InputError("features", "NaN or infinite values")
        model, dtype = self, torch.float32
        precise = torch.float64 in (self.feature_mean.dtype, self.response_mean.dtype)
        if precise or x.dtype == np.float64:
            model, dtype = deepcopy(self).double(), torch.float64
        rows = torch.from_numpy(x).to(dtype)
        with torch.inference_mode():
            return torch.cat([model(block) for block in rows.split(_ROWS_AT_ONCE)]).numpy()

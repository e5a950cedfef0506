"""What features are divided by once they are centred, and a word where that whitens them."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jne.data.responses import float32, spread

Scaling = Literal["each", "global", "none"]

_FALL = 10.0  # of standard deviations, from the largest column to the smallest
_UNCORRELATED = 3.0  # times the root mean square correlation of independent columns


def feature_scale(features: NDArray[np.float32], scaling: Scaling) -> NDArray[np.float32]:
    """(D,), of features (n, D) to train on.

    each: the standard deviation of a column; global: the root mean square of those of all; none: 1.
    """
    scale = spread(features)
    if scaling == "none":
        scale = np.ones_like(scale)
    elif scaling == "global":
        varies = np.ptp(features, axis=0) > 0
        scale = np.full_like(scale, np.sqrt(np.square(scale[varies]).mean()))
    return float32(scale).numpy()


def whitening(features: NDArray[np.float32]) -> str:
    """A sentence where z-scoring would whiten features (n, D) to train on; else nothing.

    Columns that are uncorrelated and of very different size are principal components. Divided by
    their standard deviations, the last of them, mostly noise, count as much as the first.
    """
    x = features.astype(np.float64)
    size = x.std(axis=0)
    x, size = x[:, size > 0], size[size > 0]
    n, d = x.shape
    if d < 2 or size.max() < _FALL * size.min():
        return ""
    x = (x - x.mean(axis=0)) / (size * np.sqrt(n))
    squares = np.square(x.T @ x).sum() - d
    if np.sqrt(max(squares, 0) / (d * (d - 1))) > _UNCORRELATED / np.sqrt(n):
        return ""
    return (
        f"the features are uncorrelated, and the standard deviation of the largest is "
        f"{size.max() / size.min():.0f} times that of the smallest: like principal components, "
        f"which z-scoring makes equally important; data.scale_features=global keeps their sizes"
    )

"""What features are divided by once they are centred, and a word where that whitens them."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jne.data.responses import float32, spread
from jne.errors import InputError

Scaling = Literal["each", "global", "none"]

_FALL = 10.0  # of standard deviations, from the largest column to the smallest
_UNCORRELATED = 3.0  # times the root mean square correlation of independent columns


def feature_scale(
    features: NDArray[np.float32],
    scaling: Scaling,
    spaces: Mapping[str, slice] | None = None,
    key: str = "features",
) -> NDArray[np.float32]:
    """(D,), of features (n, D) to train on.

    each: the standard deviation of a column; global: the root mean square of those of all; none: 1.

    spaces: the columns of each of K feature spaces. They are scaled one by one, and then, unless by
    none, to the same total variance: of the D columns that vary, those of a space with d of them
    are divided by sqrt(K d / D), so that all have a variance of D, as without spaces. Else a wide
    space would outweigh a narrow one in an encoder and in its penalties.

    Raises InputError, naming `key`, where a space does not vary.
    """
    scale, varies = spread(features), np.ptp(features, axis=0) > 0
    if scaling == "none":
        return np.ones(len(scale), dtype=np.float32)
    for name, columns in (spaces or {"": slice(None)}).items():
        n_varying = varies[columns].sum()
        if not n_varying:
            raise InputError(key, f"all features of the space {name} are constant; leave it out")
        if scaling == "global":
            scale[columns] = np.sqrt(np.square(scale[columns][varies[columns]]).mean())
        if spaces is not None:
            scale[columns] *= np.sqrt(len(spaces) * n_varying / varies.sum())
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

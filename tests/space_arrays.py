"""Users' arrays in two feature spaces of very different width and size."""

from pathlib import Path
from typing import Any

import numpy as np

from jne.data.arrays import Arrays
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare

WIDTHS = {"narrow": 5, "wide": 20}
N, V = 150, 6


def write_arrays(folder: Path, widths: dict[str, int] = WIDTHS, n: int = N) -> dict[str, str]:
    """Files of features by the names of their spaces, and y.npy, responses (n, V).

    The first voxels are of the first space alone, the last of both.
    """
    rng = np.random.default_rng(0)
    spaces = {name: rng.standard_normal((n, d)) for name, d in widths.items()}
    parts = [x @ rng.standard_normal((x.shape[1], V)) / len(x.T) ** 0.5 for x in spaces.values()]
    for part in parts[1:]:
        part[:, : V // 2] = 0
    signal = sum(parts)
    np.save(folder / "y.npy", (signal + 0.5 * rng.standard_normal((n, V))).astype(np.float32))
    for k, (name, x) in enumerate(spaces.items()):
        np.save(folder / f"{name}.npy", (x * 10**k + k).astype(np.float32))
    return {name: f"{name}.npy" for name in spaces}


def arrays_source(folder: Path, **settings: Any) -> Arrays:
    given = {"name": "two", "subject": "s", "root": folder, "responses": "y.npy", "n_test": 0.2}
    return Arrays(**given | settings)


def spaces_data(folder: Path, source: Arrays) -> EncodingData:
    prepared = prepare(source, folder / "prepared")
    return EncodingData.cut(
        prepared, source.cutting, batch_size=None, seed=0, scale_features=source.scale_features
    )

"""Sources for tests: a small synthetic cohort, and the trees of nsd_tree as train.py reads them."""

from pathlib import Path

import pytest
from helpers import compose_train

from jne.data.prepared import Prepared, prepare
from jne.data.source import Source
from jne.data.synthetic import Synthetic
from jne.errors import InputError
from jne.training.config import check_config

SMALL = {
    "name": "synthetic",
    "seed": 0,
    "n_features": 80,
    "n_train": 1500,
    "n_val": 20,
    "n_test": 40,
    "voxels_per_roi": 4,
    "n_repeats": 3,
    "noise_ceiling": 0.7,
}


def synthetic(root: Path, subject: str = "subj01", **changes) -> Prepared:
    return prepare(Synthetic(subject=subject, **(SMALL | changes)), root)


def overrides(root: Path, features: Path, *more: str, data: str = "nsd") -> list[str]:
    chosen = [f"data={data}", f"data.root={root}", "features=precomputed"]
    sizes = ["data.n_val=0.25" if data == "nsd" else "data.n_val=0.2"]
    ids = features.with_name("ids.npy")
    if ids.exists():
        chosen.append(f"features.ids={ids}")
    return [*chosen, f"features.path={features}", *sizes, *more]


def source(output: Path, root: Path, features: Path, *more: str, data: str = "nsd") -> Source:
    composed = compose_train(output, *overrides(root, features, *more, data=data))
    return check_config(composed)[1]


def refused(output: Path, root: Path, features: Path, *more: str, data: str = "nsd") -> str:
    """The message with which a source is refused, after checking that it left nothing behind."""
    with pytest.raises(InputError) as error:
        prepare(source(output, root, features, *more, data=data), output / "prepared")
    left = [path.name for path in (output / "prepared").glob("*") if path.name[0] != "."]
    assert not left
    return str(error.value)

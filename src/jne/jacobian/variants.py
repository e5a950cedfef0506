"""The variants of JNE: how Jacobians are transformed, and which norm their deviations have.

Gao et al. 2025, A.9.2. A new variant is one row of VARIANTS, which the config, the computation, the
results and the report read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jne.errors import InputError
from jne.utils.files import file_name


def _l1(values: Tensor, consume: bool) -> Tensor:
    # In place and then a plain sum: four times as fast as vector_norm(ord=1).
    return (values.abs_() if consume else values.abs()).sum(dim=-1)


def _l2(values: Tensor, consume: bool) -> Tensor:
    return torch.linalg.vector_norm(values, ord=2, dim=-1)


@dataclass(frozen=True)
class Variant:
    label: str
    """What figures and tables call it."""
    norm: Callable[[Tensor, bool], Tensor]
    """Over d, the last axis of (..., D). With True as second argument it may overwrite them."""
    zscored: bool = False
    """Whether each J_i[v, :] is z-scored over d first, which takes the response gain out."""


DEFAULT = "l1"
VARIANTS: Mapping[str, Variant] = {
    DEFAULT: Variant("JNE", _l1),  # eq. 4: JNE is defined by it
    "l2": Variant("JNE-L2", _l2),
    "zscore_l1": Variant("JNE-zscore-L1", _l1, zscored=True),
    "zscore_l2": Variant("JNE-zscore-L2", _l2, zscored=True),
}


def check_variant(name: str) -> str:
    """Return `name` if it is a variant. Raises ValueError, with the names of all, if it is not."""
    if name not in VARIANTS:
        raise InputError("variant", f"choose from {', '.join(VARIANTS)}", value=name)
    return name


def in_space(name: str, space: str) -> str:
    """What an array is called of which only the columns of a feature space count: `l1_words`."""
    return f"{name}_{space}"


def variant_file(path: Path, name: str) -> Path:
    """`path` for the default variant; for another array, `path` with its name added."""
    return path if name == DEFAULT else path.with_stem(f"{path.stem}_{file_name(name)}")


def variant_column(metric: str, variant: str) -> str:
    """The column of the voxel table: `jne` for the default variant, `jne_l2` for another."""
    return metric if variant == DEFAULT else f"{metric}_{variant}"

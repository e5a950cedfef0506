"""Files of weights: encoder.pt of a results folder, and checkpoints. Nothing in them is run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jne.encoders import build_encoder
from jne.errors import InputError
from jne.utils.instantiate import check_trusted


def build_saved(saved: Mapping[str, Any], source: Path, trust: Sequence[str]) -> nn.Module:
    """The encoder that an encoder.pt holds. See `Results.encoder`.

    saved: what `load_weights` read from the file `source`.
    """
    check_trusted(saved["config"], source, trust)
    n_features, n_voxels = len(saved["feature_mean"]), len(saved["response_mean"])
    encoder = build_encoder(saved["config"], n_features, n_voxels)
    try:
        encoder.load_state_dict(saved["weights"])
    except RuntimeError as error:
        raise InputError(
            "",
            f"{source} holds weights that do not fit its config: "
            f"{' '.join(str(error).split())[:200]}",
        ) from error
    return encoder.eval()


def load_weights(path: Path) -> dict[str, Any]:
    """Read a file of weights, memory-mapped. Only tensors and plain values are read.

    Raises InputError where the file is missing, damaged, or holds anything else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise InputError("", f"no such file: {path}") from error
    except Exception as error:  # torch raises a dozen kinds for a damaged or foreign file
        raise InputError("", f"{path} is not a readable file of weights") from error
    if not isinstance(content, dict):
        raise InputError("", f"{path} is not a readable file of weights")
    return content

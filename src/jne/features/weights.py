"""The weights of models: local files, and what is said where there are none."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jne.errors import InputError
from jne.utils.plain import regular_file
from jne.utils.tensors import check_archive


def load_weights(module: nn.Module, path: Path, prefix: str, model: str) -> None:
    """Load weights into `module` from a .safetensors file or a torch file of tensors.

    Nothing else is unpickled. prefix: what the names of the module's weights begin with in a file
    that holds more than this module. model: its name, for error messages. Raises InputError where
    the file is missing or unreadable, or holds the weights of another architecture.
    """
    state = _read_state(path)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if prefix and any(name.startswith(prefix) for name in state):
        state = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
    if expected != shapes:
        names = sorted(expected | shapes)
        first = next(name for name in names if expected.get(name) != shapes.get(name))
        raise InputError(
            "features.checkpoint",
            f"{path} holds another architecture than {model}: {first} is "
            f"{shapes.get(first, 'absent')}, expected {expected.get(first, 'nothing')}",
        )
    module.load_state_dict(state)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(regular_file(path))
        else:
            check_archive(regular_file(path))
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError("features.checkpoint", f"no such file: {path}") from error
    except InputError as error:
        raise error.at("features.checkpoint") from error
    except OSError as error:
        reason = error.strerror or error
        raise InputError("features.checkpoint", f"{path} cannot be read ({reason})") from error
    except Exception as error:  # torch and safetensors raise a dozen kinds
        raise InputError(
            "features.checkpoint",
            f"{path} is not a readable file of weights (safetensors, or "
            f"tensors saved by torch; a TorchScript archive is not read)",
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return state if isinstance(state, dict) else {}


def unknown_model(model: str, models: Iterable[str]) -> InputError:
    """The error for a model that its library does not know, with names that are close to it."""
    close = get_close_matches(model, models, n=3, cutoff=0.4)
    hint = f"; close to it: {', '.join(close)}" if close else ""
    return InputError("features.model", f"there is no such model{hint}", value=model)


def no_weights(model: str, error: Exception) -> InputError:
    """The error for weights that cannot be downloaded."""
    reason = " ".join(str(error).split())[:160]
    return InputError(
        "features",
        f"the weights of {model} cannot be downloaded ({type(error).__name__}: "
        f"{reason}); give a local file by features.checkpoint",
    )

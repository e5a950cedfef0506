"""The encoder in an encoder.pt, which may be anybody's: nothing in it is run (docs/security.md)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from jne.errors import InputError
from jne.utils.trusted import build_trusted, check_trusted, names_package


def build_saved(saved: Mapping[str, Any], source: Path, trust: Sequence[str]) -> nn.Module:
    """The encoder that an encoder.pt holds. See `Results.encoder`.

    saved: what `load_tensors` read from the file `source`: config, weights and scaling.
    """
    config = {key: value for key, value in saved["config"].items() if key != "label"}
    weights: dict[str, Tensor] = saved["weights"]
    if not all(isinstance(n, str) and isinstance(w, Tensor) for n, w in weights.items()):
        raise InputError("", f"{source} must hold tensors by their names as weights")
    sizes = {"n_features": len(saved["feature_mean"]), "n_voxels": len(saved["response_mean"])}
    check_trusted(config, source, trust)
    with _no_more_parameters(len(weights), source):
        if not names_package(config, trust):  # whose classes may need more than shapes
            _check_size(config, weights, source, sizes)
        encoder = build_trusted(config, source, trust, **sizes)
    if not isinstance(encoder, nn.Module):
        raise InputError("", f"{source} must name an nn.Module, found {config['_target_']}")
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise _do_not_fit(source, error) from error
    encoder.eval()
    if _is_own(config):
        _check_responses(encoder, source, sizes)
    return encoder


def _check_size(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], source: Path, sizes: dict[str, int]
) -> None:
    """Raise InputError where the config describes another encoder than the weights are of.

    Before it is made: a number in the config could ask for more memory than there is. On torch's
    device `meta`, tensors have no values. There, responses load torch's compiler, for a second, so
    an encoder of this package makes its own later.
    """
    n_values = sum(map(Tensor.numel, weights.values()))
    if any(number > n_values for number in _numbers(config)):
        raise _do_not_fit(source, "one of its numbers is larger than that of all weights")
    with torch.device("meta"), torch.no_grad():
        encoder = build_trusted(config, source, (), **sizes)
        shapes = {name: value.shape for name, value in encoder.state_dict().items()}
        for name in sorted({*shapes, *weights}):
            if name not in weights or shapes.get(name) != weights[name].shape:
                raise _do_not_fit(source, f"{name} has another shape")
        if not _is_own(config):
            _check_responses(encoder, source, sizes)


def _is_own(config: Mapping[str, Any]) -> bool:
    return str(config.get("_target_")).startswith("jne.")


@torch.no_grad()
def _check_responses(encoder: nn.Module, source: Path, sizes: dict[str, int]) -> None:
    if encoder(torch.zeros(1, sizes["n_features"])).shape != (1, sizes["n_voxels"]):
        raise _do_not_fit(source, "it makes no responses of voxels")


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, dict | list | tuple):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _numbers(below)
    elif isinstance(value, int | float):
        yield value


@contextmanager
def _no_more_parameters(n_weights: int, source: Path) -> Iterator[None]:
    """Raise InputError in this block once there are more parameters than weights could fill."""
    remaining = 2 * n_weights  # an encoder is made twice, or replaces some of them

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal remaining
        remaining -= parameter is not None
        if remaining < 0:
            raise _do_not_fit(source, "it has fewer")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _do_not_fit(source: Path, reason: object) -> InputError:
    text = " ".join(str(reason).split())[:200]
    return InputError("", f"{source} holds weights that do not fit its config ({text})")

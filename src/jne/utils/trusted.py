"""Objects that a file from anybody names by `_target_`: of harmless classes, and without Hydra.

The values in such a file are arguments as they stand: nothing is interpolated (docs/security.md).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from jne.errors import InputError

_HARMLESS = ("jne.encoders.", "torch.nn.", "torch.optim.")
_HYDRA = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")  # no arguments


def check_trusted(settings: Mapping[str, Any], source: Path, trust: Sequence[str]) -> None:
    """Check that settings read from the file `source` name nothing but what may be made.

    That is a module or an optimiser that jne.encoders, torch.nn or torch.optim define; or what is
    defined in one of the packages `trust`, with a dot at the end or without, and, as an argument of
    that, both. Nothing is imported but these packages.

    Raises InputError, naming the file and what it names, for anything else.
    """
    outermost, *inner = _targets(settings) or [None]
    for target in (outermost, *inner):
        _located(target, source, trust)
    if inner and not names_package(settings, trust):
        raise InputError("", f"{source} names {inner[0]!r} as an argument of {outermost!r}")


def names_package(settings: Mapping[str, Any], trust: Sequence[str]) -> bool:
    """Whether the settings name something of one of the packages `trust`, at the top."""
    return _package(settings.get("_target_"), trust) is not None


def build_trusted(
    settings: Mapping[str, Any], source: Path, trust: Sequence[str], **arguments: Any
) -> Any:
    """The object that checked settings name, made with their other keys and `arguments`.

    Raises InputError, naming the file, where it cannot be made.
    """

    def made(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [made(item) for item in value]
        if not isinstance(value, dict):
            return value
        return call(value, {}) if "_target_" in value else {k: made(v) for k, v in value.items()}

    def call(named: Mapping[str, Any], more: Mapping[str, Any]) -> Any:
        inner = made if named.get("_recursive_", True) else lambda value: value
        keywords = {key: inner(value) for key, value in named.items() if key not in _HYDRA}
        make = _located(named["_target_"], source, trust)
        make = partial(make, *inner(named.get("_args_", [])), **keywords, **more)
        return make if named.get("_partial_") else make()

    try:
        return call(settings, arguments)
    except Exception as error:  # whatever a class raises at values that it was not written for
        if isinstance(error, InputError) and not error.key:  # it names the file already
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError("", f"{source} describes what cannot be made ({reason})") from error


def _targets(settings: Any) -> list[Any]:
    """What is named by `_target_` at any depth, the outermost first."""
    own, below = [], []
    if isinstance(settings, Mapping):
        own = [settings["_target_"]] if "_target_" in settings else []
        below = list(settings.values())
    elif isinstance(settings, list | tuple):
        below = list(settings)
    return own + [target for value in below for target in _targets(value)]


def _package(target: Any, trust: Sequence[str]) -> str | None:
    """The package of `trust` that a name is in, with a dot at the end."""
    packages = (f"{package.removesuffix('.')}." for package in trust)
    return next((p for p in packages if isinstance(target, str) and target.startswith(p)), None)


def _located(target: Any, source: Path, trust: Sequence[str]) -> Any:
    """What a name stands for. Raises InputError where it may not be made."""
    from torch import nn, optim

    package = _package(target, trust)
    if isinstance(target, str) and (package or target.startswith(_HARMLESS)):
        # The thing itself, in the module that has it: a longer path could lead out of the package
        # again (torch.nn.modules.module.torch.hub.load), and so could a name that it imported.
        module, _, name = target.rpartition(".")
        try:
            named = getattr(import_module(module), name, None)
        except ImportError:
            named = None
        home = f"{getattr(named, '__module__', None)}."
        if package and callable(named) and home.startswith(package):
            return named
        is_harmless = isinstance(named, type) and issubclass(named, nn.Module | optim.Optimizer)
        if is_harmless and home.startswith(_HARMLESS):
            return named
    raise InputError(
        "",
        f"{source} names {target!r}, which is none of the classes that a file may name; if you "
        f"trust its author, add trust=[{str(target).partition('.')[0]}.]",
    )

"""Objects that a config section names by `_target_`, made with the section's other keys.

What a user types or writes in a config of theirs may name anything. What was read from a folder, a
checkpoint or a store may name only what `check_trusted` lets pass (docs/security.md).
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from jne.errors import InputError


def instantiate(settings: Mapping[str, Any], section: str, **arguments: Any) -> Any:
    """The object of class `settings["_target_"]`, made with the other keys and `arguments`.

    section: what the config calls this section, for error messages. Raises InputError naming the
    section, or the key in it, where the class does not exist or refuses its arguments.
    """
    # Loaded on first use: encoders can be measured where only torch is installed.
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate
    from pydantic import ValidationError

    from jne.config import complaint

    try:
        return hydra_instantiate(settings, **arguments)
    except InputError:
        raise
    except (InstantiationException, ValidationError, ValueError, TypeError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, ValidationError):
            raise complaint(cause, section) from error
        if isinstance(cause, InputError):
            raise cause.at(f"{section}.{cause.key}") from error
        message = " ".join(str(cause or error).split())  # Hydra's have several lines
        raise InputError(section, f"{message}") from error


_TRUSTED = ("jne.encoders.", "torch.nn.", "torch.optim.")


def check_trusted(settings: Any, source: Path, trust: Sequence[str]) -> None:
    """Check that settings read from the file `source` name nothing but harmless classes.

    Harmless are the modules and optimisers that jne.encoders, torch.nn and torch.optim define, and
    all that is in the packages `trust`, with a dot at the end or without.

    Raises InputError, naming the file and what it names, where `_target_` anywhere in the settings
    is something else, or a value is an interpolation, which could read the environment.
    """
    for target in _targets(settings, source):
        if not _is_trusted(target, trust):
            package = str(target).partition(".")[0]
            raise InputError(
                "",
                f"{source} names {target!r}, which is none of the classes that a file may name; if "
                f"you trust its author, add trust=[{package}.]",
            )


def _targets(settings: Any, source: Path) -> Iterator[Any]:
    if isinstance(settings, Mapping):
        if "_target_" in settings:
            yield settings["_target_"]
        for value in settings.values():
            yield from _targets(value, source)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _targets(value, source)
    elif isinstance(settings, str) and "${" in settings:
        raise InputError(
            "", f"{source} holds the interpolation {settings!r}, which is not resolved"
        )


def _is_trusted(target: Any, trust: Sequence[str]) -> bool:
    from torch import nn, optim

    if not isinstance(target, str):
        return False
    if any(target.startswith(package.removesuffix(".") + ".") for package in trust):
        return True
    if not target.startswith(_TRUSTED):
        return False
    # The class itself, in the module that has it: a longer path could lead out of the package again
    # (torch.nn.modules.module.torch.hub.load).
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return (
        isinstance(found, type)
        and issubclass(found, nn.Module | optim.Optimizer)
        and f"{found.__module__}.".startswith(_TRUSTED)
    )

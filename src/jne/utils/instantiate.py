"""Objects that a section of the user's config names by `_target_`, made with its other keys.

A config is a program: it may name anything. What was read from a folder, a checkpoint or a store
never comes here, or as an argument alone (docs/security.md): see `jne.utils.trusted`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jne.errors import InputError
from jne.utils.trusted import build_trusted


def instantiate(
    settings: Mapping[str, Any],
    section: str,
    arguments: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """The object of class `settings["_target_"]`, made with the other keys and `arguments`.

    section: what the config calls this section, for error messages. arguments: are passed on as
    they are, without Hydra, which would resolve and make what is in them. options: Hydra's own.
    Raises InputError naming the section, or the key in it, where the class does not exist or
    refuses its arguments.
    """
    # Loaded on first use: encoders can be measured where only torch is installed.
    try:
        from hydra.errors import InstantiationException
        from hydra.utils import instantiate as hydra_instantiate
    except ModuleNotFoundError:  # JNERegressor does without: its settings are plain values
        return build_trusted({**settings, **options}, Path(section), (), **(arguments or {}))
    from pydantic import ValidationError

    from jne.config import complaint

    try:
        if arguments is None:
            return hydra_instantiate(settings, **options)
        return hydra_instantiate(settings, _partial_=True, **options)(**arguments)
    except Exception as error:  # Hydra's, or whatever a class of the user's raises
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, ValidationError):
            raise complaint(cause, section, settings) from error
        if isinstance(cause, InputError):
            raise cause.at(f"{section}.{cause.key}") from error
        message = " ".join(str(cause or error).split())  # Hydra's have several lines
        raise InputError(section, f"{message}") from error

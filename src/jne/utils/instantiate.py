"""Objects that a config section names by `_target_`, made with the section's other keys."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from jne.config import complaint
from jne.errors import InputError


def instantiate(settings: Mapping[str, Any], section: str, **arguments: Any) -> Any:
    """The object of class `settings["_target_"]`, made with the other keys and `arguments`.

    section: what the config calls this section, for error messages. Raises InputError naming the
    section, or the key in it, where the class does not exist or refuses its arguments.
    """
    # Loaded on first use: results can be read and measured without Hydra.
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate

    try:
        return hydra_instantiate(settings, **arguments)
    except InputError:
        raise
    except (InstantiationException, ValidationError, ValueError, TypeError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, ValidationError):
            raise InputError(complaint(cause, section)) from error
        message = " ".join(str(cause or error).split())  # Hydra's have several lines
        raise InputError(f"{section}: {message}") from error

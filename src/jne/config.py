"""What the configs of all scripts share. Each script's own config is in its wing.

Hydra composes a config from conf/. The models here and in the wings say which keys there are and
which values they take, so that an unknown key or an impossible value is refused before any data is
opened. Nothing here imports torch: a sweep reads its config without it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from jne.addresses import sqlite_address, sqlite_file
from jne.credentials import without_credentials
from jne.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig


def _usable_device(name: str) -> str:
    if name.startswith(("cuda", "gpu")):
        import torch  # takes seconds to import

        if not torch.cuda.is_available():
            raise ValueError("this machine has no usable GPU")
    return name


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$"), AfterValidator(_usable_device)]
Accelerator = Annotated[Literal["cpu", "gpu", "auto"], AfterValidator(_usable_device)]


class Section(BaseModel):
    """A section of the config: immutable, and without keys that it does not declare."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrackingConfig(Section):
    """conf/tracking: the MLflow store."""

    uri: Annotated[str, AfterValidator(without_credentials)] | None
    experiment: str = Field(min_length=1)
    on_unreachable: Literal["fail_at_start", "fail", "continue"]
    nested: bool
    log_model: bool = False  # optional, for config files from before there was this key


class StatsConfig(Section):
    """conf/stats: significance and bootstrap."""

    n_bootstrap: int = Field(ge=1)
    p_value: Literal["t_test", "plus_one", "raw"]
    alpha: float = Field(gt=0, lt=1)


class ScriptConfig(Section):
    """The keys that every script has."""

    tracking: TrackingConfig
    output: Annotated[Path, AfterValidator(Path.absolute)]

    @property
    def stages(self) -> Path:
        """The folder of the store of stages."""
        return self.output / "stages"

    @property
    def tracking_uri(self) -> str:
        """The MLflow store: the one named by `tracking.uri`, else an sqlite file below `output`."""
        uri = self.tracking.uri
        file = self.output / "mlflow.db" if uri is None else sqlite_file(uri)
        return str(uri) if file is None else sqlite_address(file)

    @property
    def store(self) -> dict[str, str]:
        """The store's `uri`, its `experiment`, and the folder in which that keeps `artifacts`."""
        return {
            "uri": self.tracking_uri,
            "experiment": self.tracking.experiment,
            "artifacts": str(self.output / "mlartifacts"),
        }


Config = TypeVar("Config", bound=ScriptConfig)


def validated(model: type[Config], composed: "DictConfig") -> Config:
    """The composed config as a `model`. Raises InputError naming the first key at fault."""
    from omegaconf import OmegaConf  # which the estimator does without

    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise InputError(missing[0], f"this key needs a value; write {missing[0]}=...")
    plain = OmegaConf.to_container(composed, resolve=True)
    _check_finite(plain, "")
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        raise complaint(error, given=plain) from error


def _check_finite(value: Any, key: str) -> None:
    """Raise InputError for an infinite number or NaN: no key has a use for one.

    The sections that name a class (`optimizer`, `encoder`, ...) have no model that would say so.
    """
    if isinstance(value, Mapping):
        for name, below in value.items():
            _check_finite(below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for below in value:
            _check_finite(below, key)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(key, "input should be a finite number", value=value)


def complaint(error: ValidationError, section: str = "", given: Any = None) -> InputError:
    """The first complaint of a failed validation of a config section, or of the whole config.

    given: what was validated, whose other keys are those that an unknown one may have meant.
    """
    first = error.errors()[0]
    # Locations inside a union carry pydantic's own words after the key; keys alone are ours.
    path = [str(part) for part in first["loc"] if str(part).isidentifier()]
    key = ".".join(filter(None, [section, *path]))
    if first["type"] == "extra_forbidden":
        for part in path[:-1]:
            given = given.get(part) if isinstance(given, Mapping) else None
        beside = [name for name in map(str, given or ()) if name != path[-1]]
        return unknown_key(key, beside)
    if first["type"] == "missing":
        return InputError(key, "this key is missing")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):  # of a function of ours; of a whole section, it has the key
        return cause.at(key if path else ".".join(filter(None, [section, cause.key])))
    message = first["msg"].removeprefix("Value error, ")
    # What a whole section gets wrong is in the message; its keys and values are not repeated.
    value = ... if isinstance(first["input"], Mapping) else first["input"]
    return InputError(key, message[0].lower() + message[1:], value)


def unknown_key(key: str, names: Iterable[str] = ()) -> InputError:
    """The complaint about a key that does not exist. names: of the keys beside it."""
    return InputError(key, f"there is no such key{did_you_mean(key.split('.')[-1], names)}")


def subject_choice(name: str) -> str:
    """A subject as the group `subject` has it: s1 for s1, subj01, sub-01 and 1; others as named."""
    return re.sub(r"^(?:s|subj|sub-)?0*([1-9]\d*)$", r"s\1", name)

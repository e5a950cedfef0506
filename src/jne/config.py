"""The config, checked before any data is opened: unknown keys and impossible values fail here.

Hydra composes it from conf/; these models say which keys there are and which values they take.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
)
from torch import nn

from jne.data.prepared import Source
from jne.errors import InputError
from jne.jacobian import VARIANTS
from jne.product import PRECISIONS
from jne.script_config import ScriptConfig, Section


def _device(name: str) -> str:
    if name.startswith(("cuda", "gpu")) and not torch.cuda.is_available():
        raise ValueError("this machine has no usable GPU")
    return name


class TrainerConfig(Section):
    """conf/trainer"""

    max_epochs: int = Field(ge=1)
    patience: int = Field(ge=1)
    batch_size: int | None = Field(ge=1)
    precision: Literal["32-true", "bf16-mixed"]
    accelerator: Annotated[Literal["cpu", "gpu", "auto"], AfterValidator(_device)]
    checkpoint_seconds: float = Field(ge=0)


_VOXELS = ("all", "significant")


class JacobianConfig(Section):
    """conf/jacobian"""

    voxels: Annotated[
        Literal["all", "significant"] | list[str],
        # A single ROI may be written without brackets: jacobian.voxels=V1
        BeforeValidator(lambda v: [v] if isinstance(v, str) and v not in _VOXELS else v),
    ]
    variants: list[Literal[VARIANTS]]
    precision: Literal[PRECISIONS]
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$"), AfterValidator(_device)]
    max_memory_gb: float = Field(gt=0)

    @field_validator("variants")
    @classmethod
    def _has_l1(cls, variants: list[str]) -> list[str]:
        if "l1" not in variants:
            raise ValueError("l1 must be among them: it is the one that JNE is defined by")
        return variants


class StatsConfig(Section):
    """conf/stats"""

    n_bootstrap: int = Field(ge=1)
    p_form: Literal["sound", "paper"]
    alpha: float = Field(gt=0, lt=1)


class SimulateConfig(ScriptConfig):
    """conf/simulate.yaml: studies by name, each of a class named by `_target_`."""

    simulation: dict[str, dict[str, Any]] = Field(min_length=1)


class SelectivityConfig(Section):
    """conf/evaluate.yaml: selectivity"""

    clusters: Literal["auto", "categories", "tsne"]
    max_clusters: int = Field(ge=2)
    n_permutations: int = Field(ge=99)


class EvaluateConfig(ScriptConfig):
    """conf/evaluate.yaml"""

    runs: Annotated[
        Literal["newest"] | list[str],
        # A single run may be written without brackets: runs=outputs/runs/...
        BeforeValidator(lambda v: [v] if isinstance(v, str) and v != "newest" else v),
        Field(min_length=1),
    ]
    filter: str
    voxels: Literal["significant", "all"]
    rois: Annotated[list[str] | None, BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]
    variants: list[Literal[VARIANTS]]
    selectivity: SelectivityConfig
    stats: StatsConfig
    seed: int = Field(ge=0, lt=2**32)


class TrainConfig(ScriptConfig):
    """conf/train.yaml; `data`, `encoder` and `optimizer` name a class by `_target_`."""

    name: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    activation: str
    placement: str
    data: dict[str, Any]
    features: dict[str, Any]
    encoder: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: TrainerConfig
    jacobian: JacobianConfig
    stats: StatsConfig
    seed: int = Field(ge=0, lt=2**32)
    shuffle: bool
    checkpoint: Path | None
    sweep: str = Field(pattern=r"^[\w.-]+$")
    resume: bool

    def identity(self) -> str:
        """A digest of all that a run's results depend on; what another attempt has in common."""
        settings = self.model_dump(
            mode="json",
            exclude={
                **dict.fromkeys(("tracking", "output", "sweep", "resume"), True),
                "features": {"cache"},
                "trainer": {"checkpoint_seconds"},
                "jacobian": {"max_memory_gb"},
            },
        )
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def check_train(config: DictConfig) -> tuple[TrainConfig, Source]:
    """The checked config and its data source.

    Every class named by a `_target_` is made once, so that a wrong key or value of its own is
    found here too. Raises InputError naming the key.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    checked = _named("", lambda: TrainConfig.model_validate(plain))
    source = _named("data", lambda: instantiate(checked.data))
    if not isinstance(source, Source):
        raise InputError(f"data._target_ must name a data source, found {checked.data['_target_']}")
    encoder = _named("encoder", lambda: build_encoder(checked.encoder, 1, 1))
    _named("optimizer", lambda: build_optimizer(checked.optimizer, encoder))
    return checked, source


def check_simulate(config: DictConfig) -> tuple[SimulateConfig, dict[str, Any]]:
    """The checked config and its studies, made. Raises InputError naming the key."""
    plain = OmegaConf.to_container(config, resolve=True)
    checked = _named("", lambda: SimulateConfig.model_validate(plain))
    return checked, {
        name: _named(f"simulation.{name}", lambda study=study: instantiate(study))
        for name, study in checked.simulation.items()
    }


def check_evaluate(config: DictConfig) -> EvaluateConfig:
    """The checked config. Raises InputError naming the key."""
    plain = OmegaConf.to_container(config, resolve=True)
    return _named("", lambda: EvaluateConfig.model_validate(plain))


def build_encoder(config: dict[str, Any], n_features: int, n_voxels: int) -> nn.Module:
    """The encoder that conf/encoder describes, for D features and V voxels."""
    keys = {key: value for key, value in config.items() if key != "label"}
    return instantiate(keys, n_features=n_features, n_voxels=n_voxels)


def build_optimizer(config: dict[str, Any], encoder: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that conf/optimizer describes, on the encoder's weights."""
    make: partial = instantiate(config, _partial_=True)
    return make(encoder.parameters())


def _named(section: str, build: Callable[[], Any]) -> Any:
    """`build()`, its complaints turned into one sentence that names the config key."""
    prefix = f"{section}." if section else ""
    try:
        return build()
    except InputError:
        raise
    except (InstantiationException, ValidationError, ValueError, TypeError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, ValidationError):
            raise InputError(_first_complaint(prefix, cause)) from error
        raise InputError(f"{section or 'config'}: {cause or error}".split("\n")[0]) from error


def _first_complaint(prefix: str, error: ValidationError) -> str:
    first = error.errors()[0]
    # Locations inside a union carry pydantic's own words after the key; keys alone are ours.
    path = [str(part) for part in first["loc"] if str(part).isidentifier()]
    key = prefix + ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{key}: there is no such key"
    if first["type"] == "missing":
        return f"{key}: this key is missing"
    complaint = first["msg"].removeprefix("Value error, ")
    return f"{key}={first['input']}: {complaint[0].lower()}{complaint[1:]}"

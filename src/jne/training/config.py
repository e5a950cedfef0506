"""The config of train.py, checked before any data is opened."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from jne.config import Accelerator, Device, ScriptConfig, Section, Seed, StatsConfig, validated
from jne.data.prepared import Source
from jne.encoders import build_encoder
from jne.errors import InputError
from jne.features import OwnFeatures
from jne.jacobian import Precision
from jne.jacobian.variants import DEFAULT, check_variant
from jne.training.module import build_optimizer
from jne.utils.instantiate import instantiate


class TrainerConfig(Section):
    """conf/trainer"""

    max_epochs: int = Field(ge=1)
    patience: int = Field(ge=1)
    batch_size: int | None = Field(ge=1)
    precision: Literal["32-true", "bf16-mixed"]
    accelerator: Accelerator
    checkpoint_seconds: float = Field(ge=0)
    # Optional, for config files from before there was this key
    response_space: Literal["auto", "voxels", "components"] = "auto"


_VOXELS = ("all", "significant")


def _number_or_rois(value: object) -> object:
    if isinstance(value, str):  # a single ROI, written without brackets
        return [value]
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    names = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    if value is None or number or names:
        return value
    raise ValueError("input should be a number of voxels from 1 up, names of ROIs, or null")


def _shard(value: object) -> object:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value) if isinstance(value, str) else None
    if found and 1 <= int(found[1]) <= int(found[2]):
        return f"{int(found[1])}/{int(found[2])}"
    raise ValueError("input should be null or k/K, such as 2/4 for the second of four shards")


class JacobianConfig(Section):
    """conf/jacobian"""

    voxels: Annotated[
        Literal["all", "significant"] | list[str],
        # A single ROI may be written without brackets: jacobian.voxels=V1
        BeforeValidator(lambda v: [v] if isinstance(v, str) and v not in _VOXELS else v),
    ]
    variants: list[Annotated[str, AfterValidator(check_variant)]]
    precision: Precision
    device: Device
    max_memory_gb: float = Field(gt=0)
    # Optional, for config files from before there were these keys
    trajectory: Annotated[int | list[str] | None, BeforeValidator(_number_or_rois)] = None
    shard: Annotated[str | None, BeforeValidator(_shard)] = None

    @property
    def share(self) -> tuple[int, int] | None:
        """(k, K) of `shard`."""
        if self.shard is None:
            return None
        k, n_shards = self.shard.split("/")
        return int(k), int(n_shards)

    @field_validator("variants")
    @classmethod
    def _has_default(cls, variants: list[str]) -> list[str]:
        if DEFAULT not in variants:
            raise ValueError(f"{DEFAULT} must be among them: JNE is defined by it")
        return variants


class ControlConfig(Section):
    """conf/control: what stands against the run, so that its numbers have a null."""

    kind: Literal["none", "shuffle", "twins"]
    draws: int = Field(1, ge=1, le=1000)
    share: float = Field(1.0, gt=0, le=1)
    planted: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=list)

    @field_validator("planted")
    @classmethod
    def _ascending(cls, planted: list[float]) -> list[float]:
        if sorted(set(planted)) != planted:
            raise ValueError("must be in ascending order, each share once")
        return planted


class FitConfig(Section):
    """The keys that say how an encoder is trained and measured, whatever the data."""

    encoder: dict[str, Any]
    optimizer: dict[str, Any]
    readout: Literal["ridge", "trained"]
    trainer: TrainerConfig
    jacobian: JacobianConfig
    stats: StatsConfig
    seed: Seed
    control: ControlConfig


class TrainConfig(ScriptConfig, FitConfig):
    """conf/train.yaml; `data`, `encoder` and `optimizer` name a class by `_target_`."""

    name: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    activation: str
    placement: str
    data: dict[str, Any]
    features: dict[str, Any]
    baseline: list[Literal["ridge", "kernel"]]
    checkpoint: Path | None
    sweep: str = Field(pattern=r"^[\w.-]+$")
    resume: bool

    @property
    def prepared(self) -> Path:
        """The folder that holds prepared data."""
        return self.output / "prepared"

    def determinants(self) -> dict[str, Any]:
        """All settings that the results depend on, as plain values."""
        return self.model_dump(
            mode="json",
            exclude={
                **dict.fromkeys(("tracking", "output", "sweep", "resume"), True),
                "data": {"leaks"},
                "features": {"cache"},
                "trainer": {"checkpoint_seconds"},
                "jacobian": {"max_memory_gb", "shard"},
            },
        )

    def identity(self) -> str:
        """A digest of all settings that the results depend on: attempts at one run share it."""
        settings = json.dumps(self.determinants(), sort_keys=True)
        return hashlib.sha256(settings.encode()).hexdigest()[:16]

    @property
    def layer(self) -> int | None:
        """The layer of the features: chosen in the data, else in the features; None by default."""
        layer = self.data.get("layer")
        return self.features.get("layer") if layer is None else layer


def check_config(composed: DictConfig) -> tuple[TrainConfig, Source]:
    """The checked config and its data source.

    Every object that a `_target_` names is made once, so that its own wrong keys and values are
    found here too. Raises InputError naming the key.
    """
    config = validated(TrainConfig, composed)
    # Before the data, which have a copy of this section
    features = instantiate(config.features, "features")
    source = instantiate(config.data, "data")
    if not isinstance(source, Source):
        raise InputError(
            "data._target_", f"must name a data source, found {config.data['_target_']}"
        )
    used = source.takes_features and "${features" in OmegaConf.to_yaml(composed.data)
    _check_effect(features, used, config.data["name"])
    build_optimizer(config.optimizer, build_encoder(config.encoder, 1, 1))
    return config, source


def _check_effect(features: Any, used: bool, data: str) -> None:
    """Raise InputError where the features that were chosen are not those that are trained on.

    The record of the run would name them. used: whether these data take them.
    """
    if isinstance(features, OwnFeatures) and features.layer is not None:
        raise InputError(
            "features.layer",
            f"has no effect: the data {data} bring their own features, of which a key of the data, "
            f"such as data.layer, chooses a layer; leave it out",
            value=features.layer,
        )
    if not isinstance(features, OwnFeatures) and not used:
        raise InputError(
            "features",
            f"has no effect: the data {data} bring their own features; leave it out, or choose "
            f"data with images (data=arrays takes data.images in place of data.features)",
            value=getattr(features, "name", features),
        )

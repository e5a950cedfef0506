"""The config of train.py, checked before any data is opened."""

from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import BeforeValidator, Field

from jne.config import ScriptConfig, Section, StatsConfig, validated
from jne.data.prepared import Source
from jne.encoders import build_encoder
from jne.errors import InputError
from jne.features import OwnFeatures
from jne.fitting.banded import check_banded
from jne.fitting.config import FitConfig
from jne.fitting.module import build_optimizer
from jne.measuring.config import JacobianConfig
from jne.measuring.evidence import EvidenceConfig
from jne.measuring.share import ShareConfig
from jne.stages import digest_of
from jne.utils.instantiate import instantiate


def _evidence(value: object) -> object:
    """`evidence=true` and `evidence=false` are short for its section, and for none."""
    return {True: {"keep": False}, False: None}[value] if isinstance(value, bool) else value


class ControlConfig(Section):
    """conf/control: the null model of the run."""

    kind: Literal["none", "shuffle"]


class MethodConfig(FitConfig):
    """The keys that say how an encoder is trained and measured, whatever the data."""

    jacobian: JacobianConfig
    stats: StatsConfig


class TrainConfig(ScriptConfig, MethodConfig):
    """conf/train.yaml; `data`, `encoder` and `optimizer` name a class by `_target_`."""

    name: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    activation: str
    placement: str
    data: dict[str, Any]
    features: dict[str, Any]
    control: ControlConfig
    baseline: list[Literal["ridge", "kernel", "banded", "partition"]]
    share: ShareConfig
    evidence: Annotated[EvidenceConfig | None, BeforeValidator(_evidence)]
    halves: bool = False  # optional, for config files from before there was this key
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
                "features": {"cache": True, "spaces": {"__all__": {"cache"}}},
                "trainer": {"checkpoint_seconds"},
                "jacobian": {"max_memory_gb", "shard"},
            },
        )

    def identity(self) -> str:
        """A digest of all settings that the results depend on: attempts at one run share it."""
        return digest_of(self.determinants())

    @property
    def layer(self) -> int | str | None:
        """The layer of the features: chosen in the data, else in the features; None by default.

        Of several, their numbers: 3-6-12.
        """
        layer = self.data.get("layer")
        layer = self.features.get("layer") if layer is None else layer
        return "-".join(map(str, layer)) if isinstance(layer, list) else layer


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
    check_banded(config.baseline)
    if source.folds != 1:
        _check_folds(config)
    if source.groups is not None and config.control.kind != "none":
        raise InputError(
            "control.kind",
            "permutes stimuli, which data.groups holds together; leave it out",
            config.control.kind,
        )
    return config, source


def _check_folds(config: TrainConfig) -> None:
    """Raise InputError for what is of one encoder alone."""
    of_one = {
        "jacobian.trajectory": config.jacobian.trajectory,
        "checkpoint": config.checkpoint,
        "tracking.log_model": config.tracking.log_model or None,
    }
    for key, value in of_one.items():
        if value is not None:
            raise InputError(
                key, "is of one encoder, and data.folds trains several; set data.folds=1", value
            )


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

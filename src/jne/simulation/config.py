"""The config of simulate.py, checked before anything is computed."""

from typing import Any

from omegaconf import DictConfig
from pydantic import Field

from jne.config import ScriptConfig, validated
from jne.errors import InputError
from jne.simulation.base import Study
from jne.utils.instantiate import instantiate


class SimulateConfig(ScriptConfig):
    """conf/simulate.yaml: studies by name, each an instance of the class that `_target_` names."""

    simulation: dict[str, dict[str, Any]] = Field(min_length=1)


def check_config(composed: DictConfig) -> tuple[SimulateConfig, dict[str, Study]]:
    """The checked config and its studies by name. Raises InputError naming the key at fault."""
    config = validated(SimulateConfig, composed)
    studies = {}
    for name, settings in config.simulation.items():
        # Not recursive: what a study makes of an encoder or an optimizer is its own affair
        study = instantiate(settings, f"simulation.{name}", _convert_="all", _recursive_=False)
        if not isinstance(study, Study):
            target = settings.get("_target_", "no such key")
            raise InputError(
                f"simulation.{name}._target_",
                f"must name a subclass of jne.simulation.Study, found {target}",
            )
        studies[name] = study
    return config, studies

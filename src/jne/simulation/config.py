"""The config of simulate.py, checked before anything is computed."""

from typing import Any

from omegaconf import DictConfig
from pydantic import Field

from jne.config import ScriptConfig, validated
from jne.errors import InputError
from jne.simulation.base import Study
from jne.utils.instantiate import instantiate


class SimulateConfig(ScriptConfig):
    """conf/simulate.yaml: studies by name, each of a class named by `_target_`."""

    simulation: dict[str, dict[str, Any]] = Field(min_length=1)


def check_config(composed: DictConfig) -> tuple[SimulateConfig, dict[str, Study]]:
    """The checked config and its studies by name. Raises InputError naming the key."""
    config = validated(SimulateConfig, composed)
    studies = {}
    for name, settings in config.simulation.items():
        studies[name] = instantiate(settings, f"simulation.{name}")
        if not isinstance(studies[name], Study):
            raise InputError(
                f"simulation.{name}._target_ must name a study, found {settings['_target_']}"
            )
    return config, studies

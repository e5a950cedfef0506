"""The overrides of a job: KEY=VALUE, as on the command line."""

from collections.abc import Iterable

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

_BOOKKEEPING = ("resume", "sweep", "output", "tracking.", "hydra")


def is_bookkeeping(override: str) -> bool:
    """Whether an override has no influence on what a job computes."""
    return override.lstrip("+~").startswith(_BOOKKEEPING)


def values_by_key(overrides: Iterable[str]) -> dict[str, str]:
    """The value that overrides give to each key, without the `+` of a new key."""
    pairs = (override.split("=", 1) for override in overrides if "=" in override)
    return {key.lstrip("+~"): value for key, value in pairs}


def jobs_of(config: DictConfig) -> list[list[str]]:
    """The overrides of each job of a sweep, as Hydra's own sweeper makes them.

    config: Hydra's config of the sweep, before its first job.
    """
    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides([*swept, *config.hydra.overrides.task])
    return BasicSweeper.split_arguments(parsed, None)[0]

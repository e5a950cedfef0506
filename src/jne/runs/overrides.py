"""The overrides of a job: KEY=VALUE, as on the command line."""

from collections.abc import Iterable

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from jne.errors import InputError

_BOOKKEEPING = ("resume", "sweep", "output", "tracking.", "hydra")


def is_bookkeeping(override: str) -> bool:
    """Whether an override has no influence on what a job computes."""
    return override.lstrip("+~").startswith(_BOOKKEEPING)


def is_shard(override: str) -> bool:
    """Whether an override says which share of a run a job computes."""
    return override.lstrip("+~").partition("=")[0] == "jacobian.shard"


def values_by_key(overrides: Iterable[str]) -> dict[str, str]:
    """The value that overrides give to each key, without the `+` of a new key."""
    pairs = (override.split("=", 1) for override in overrides if "=" in override)
    return {key.lstrip("+~"): value for key, value in pairs}


def is_grid(config: DictConfig) -> bool:
    """Whether Hydra's own sweeper runs the sweep, so that its jobs are known before the first."""
    return config.hydra.sweeper._target_.rpartition(".")[2] == BasicSweeper.__name__


def jobs_of(config: DictConfig) -> list[list[str]]:
    """The overrides of each job of a grid, as Hydra's own sweeper makes them.

    config: Hydra's config of the sweep, before its first job. Raises InputError for a key that has
    an interval in place of values.
    """
    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    return grid([*swept, *config.hydra.overrides.task])


def grid(overrides: list[str]) -> list[list[str]]:
    """Every combination of the values that `choice`, `range`, `glob` and commas give.

    Raises InputError for a key that has an interval in place of values.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides(overrides)
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            key = override.get_key_element()
            value = str(override.input_line).partition("=")[2]
            raise InputError(
                key,
                f"a grid needs single values; write {key}=A,B,C, choice(...) or range(...)",
                value,
            )
    return BasicSweeper.split_arguments(parsed, None)[0]

"""Several feature spaces as one choice of Hydra's: `features=[clip_vit_b32,timm]`.

A group takes the name of one config. That of several is theirs with a plus, `clip_vit_b32+timm`: no
file has it, it is made where Hydra looks it up, in its store. So it can be swept over, chosen in a
config file and overridden (`features.spaces.timm.model=...`) as any other.
"""

import re
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from jne.errors import InputError

_GROUP = "features"


class _Combinations(dict[str, ConfigNode]):
    """The group `features` of Hydra's store: every name with a plus is in it."""

    def __contains__(self, file: object) -> bool:
        return "+" in str(file)

    def __getitem__(self, file: str) -> ConfigNode:
        spaces: dict[str, str] = {}
        for choice in file.removesuffix(".yaml").split("+"):
            number = sum(other == choice for other in spaces.values()) + 1
            spaces[choice if number == 1 else f"{choice}_{number}"] = choice
        config: dict[str, Any] = {
            "defaults": [{f"/{_GROUP}@spaces.{name}": choice} for name, choice in spaces.items()],
            "_target_": "jne.features.FeatureSpaces",
            "name": "+".join(f"${{.spaces.{name}.name}}" for name in spaces),
            "layer": None,
        }
        return ConfigNode(file, OmegaConf.create(config), _GROUP, None, __name__)


def register_combinations() -> None:
    """Let Hydra find `a+b` in the group `features`."""
    ConfigStore.instance().repo.setdefault(_GROUP, _Combinations())


def check_one_choice(config: Any) -> None:
    """Raise InputError where a config file chooses a list, of which Hydra would mix the keys."""
    if _GROUP in config and _GROUP not in HydraConfig.get().runtime.choices:
        raise InputError(
            _GROUP, "in the defaults of a config file, name several spaces as clip_vit_b32+timm"
        )


def with_combinations(override: str) -> str:
    """features=a+b for features=[a,b], wherever it stands among the choices of a sweep."""
    key, equals, value = override.partition("=")
    if key.lstrip("+") != _GROUP:
        return override
    joined = re.sub(r"\[([^]]*)\]", lambda names: re.sub(r"\s*,\s*", "+", names[1].strip()), value)
    return f"{key}{equals}{joined}"

"""Whether two runs are on the same data: else no number of one says anything beside the other's.

The contents decide, not names: ids of stimuli and voxels are row numbers where the user gave none.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from jne.data.contents import PARTS
from jne.errors import InputError
from jne.plots.style import short
from jne.results import Results

_WORDS = {"stimuli": "stimuli or splits"}
_PAIRINGS = "pairings of stimuli and responses (control=shuffle)"
# Keys in which repeats of a run may differ
_BOOKKEEPING = ("name", "seed", "output", "tracking", "checkpoint", "control")
# Sections that say what is measured and how it is tested, keys that no result depends on, and one
# that repeats `features`
_NOT_LEARNED = (
    *("jacobian.", "stats."),
    *("features.cache", "trainer.checkpoint_seconds", "data.image_features", "data.leaks"),
)
# Of features: where they are and how they are computed, not what they are
_WHERE_FEATURES_ARE = ("path", "ids", "batch_size", "device", "cache")


def other_data(first: Results, other: Results, may_differ: Iterable[str] = ()) -> str:
    """What differs in the data of the other run, and by which settings; empty for the same data.

    may_differ: of PARTS, those that do not count.
    """
    parts = [part for part in _differing_parts(first, other) if part not in may_differ]
    if not parts:
        shuffled = [run.config["control"]["kind"] == "shuffle" for run in (first, other)]
        return "" if len({*shuffled}) == 1 else _PAIRINGS
    keys = [key for key in differing_keys(first, other) if key.startswith(("data.", "features."))]
    reasons = [_change(first, other, key) for key in keys]
    if all(map(is_of_features, keys)) and (not keys or parts != ["features"]):
        reasons.append("a file has changed")
    return f"{' and '.join(_WORDS.get(part, part) for part in parts)} ({', '.join(reasons)})"


def is_of_features(key: str) -> bool:
    """Whether a config key says which features: features.layer, data.features, data.layer."""
    return "feature" in key or key.endswith("layer")


def other_settings(first: Results, other: Results) -> str:
    """The settings by which the other run is no repeat of the first; empty where it is one."""
    return ", ".join(_change(first, other, key) for key in differing_keys(first, other))


def unlike(first: Results, other: Results) -> str:
    """The settings in which runs of two subjects differ though their data may; empty for none."""
    keys = [
        key
        for key in differing_keys(first, other)
        if key not in ("subject", "data") and key.split(".")[-1] not in _WHERE_FEATURES_ARE
    ]
    keys = [key for key in keys if key == "data.layer" or not key.startswith("data.")]
    return ", ".join(_change(first, other, key) for key in keys)


def contents(run: Results) -> dict[str, str]:
    """The digests of the run's data. Raises InputError where status.json does not have them."""
    recorded = run.status.get("contents")
    if not isinstance(recorded, dict) or not set(PARTS) <= set(recorded):
        path = run.path / "status.json"
        raise InputError("", f"{path} must hold `contents`, a digest of each of {', '.join(PARTS)}")
    return {part: str(recorded[part]) for part in PARTS}


def _differing_parts(first: Results, other: Results) -> list[str]:
    a, b = contents(first), contents(other)
    return [part for part in PARTS if a[part] != b[part]]


def differing_keys(first: Results, other: Results) -> list[str]:
    """The config keys in which two runs learned differently."""
    differing = differing_in(first.config, other.config)
    return [key for key in differing if _is_learned(key)]


def differing_in(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys, after `prefix`, in which two configs or sections differ."""
    keys: list[str] = []
    for name in sorted(a.keys() | b.keys()):
        first, other = a.get(name), b.get(name)
        if isinstance(first, Mapping) and isinstance(other, Mapping):
            keys += differing_in(first, other, f"{prefix}{name}.")
        elif first != other:
            keys.append(f"{prefix}{name}")
    return keys


def _is_learned(key: str) -> bool:
    of_space = key.startswith("features.spaces.") and key.endswith(".cache")
    not_learned = key.split(".")[0] in _BOOKKEEPING or key.startswith(_NOT_LEARNED)
    return not (of_space or not_learned)


def _change(first: Results, other: Results, key: str) -> str:
    """KEY=VALUE instead of VALUE."""
    values = [short(str(value_of(run, key)), 60) for run in (other, first)]
    return f"{key}={values[0]} instead of {values[1]}"


def value_of(run: Results, key: str) -> Any:
    """The value of a dotted config key; None where the config has no such key."""
    return value_in(run.config, key)


def value_in(config: Mapping[str, Any], key: str) -> Any:
    """The same of a config or a section."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value

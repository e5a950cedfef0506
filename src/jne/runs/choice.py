"""Which training settings have the lowest validation loss, for each subject and encoder.

A run belongs to a group (subject, data, features, encoder), and within it to a setting (optimizer,
trainer, size of the encoder). Runs of one setting that differ only in the seed are replicates. Only
the validation loss decides; test scores are never read here.

A sweeper imports this module before the first job, so it imports nothing that takes long.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from jne.utils.plain import read_yaml

_TUNED = ("encoder.", "optimizer.", "trainer.")  # sections of the config that are chosen among
_ENCODER = ("encoder._target_", "encoder.label", "encoder.activation", "encoder.placement")
"""What says which encoder it is. It is compared, not chosen."""
_NO_INFLUENCE = ("name", "output", "tracking.", "jacobian.", "stats.", "features.cache", "sweep",
                 "resume", "hydra.", "trainer.checkpoint_seconds")  # fmt: skip
"""Keys that the validation loss does not depend on."""

RUN_SEPARATOR = ";"
"""Between the folders of a choice in best.csv; no folder of a run has it in its name."""

Items = frozenset[tuple[str, str]]
"""Config keys with their values as JSON."""


@dataclass(frozen=True)
class Settings:
    """What a config says of a run."""

    group: Items
    setting: Items
    seed: int


@dataclass(frozen=True)
class Candidate:
    """A finished run that can be chosen."""

    path: Path
    settings: Settings
    loss: float
    label: str
    """Subject and encoder, for people."""
    overrides: tuple[str, ...]
    """Those of its job."""


@dataclass(frozen=True)
class Choice:
    """The setting of a group with the lowest validation loss."""

    label: str
    setting: dict[str, Any]
    """Its values of the keys that differ among the settings of the group."""
    loss: float
    """The validation loss, averaged over the replicates."""
    runs: list[Candidate]
    """One per seed."""
    n_settings: int
    """How many settings it was chosen from."""


def settings_of(config: Mapping[str, Any]) -> Settings:
    """The group, the setting and the seed of a run, from its resolved config."""
    items = {key: value for key, value in _flat(config, "") if not key.startswith(_NO_INFLUENCE)}
    seed = items.pop("seed", 0)
    # The encoder's own keys count: a linear encoder ignores the activation and placement of others.
    for key in ("activation", "placement"):
        if f"encoder.{key}" in items:
            items.pop(key, None)
    if items.get("encoder.placement") == "none":
        items.pop("encoder.activation", None)
    tuned = {key for key in items if key.startswith(_TUNED) and key not in _ENCODER}
    encoded = {key: json.dumps(value, default=str) for key, value in items.items()}
    return Settings(
        frozenset((key, text) for key, text in encoded.items() if key not in tuned),
        frozenset((key, text) for key, text in encoded.items() if key in tuned),
        seed,
    )


def _flat(value: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for name, below in value.items():
        if isinstance(below, Mapping):
            yield from _flat(below, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", below


def candidates(folders: Iterable[Path]) -> list[Candidate]:
    """The runs among these folders that are finished and have a validation loss."""
    from jne.results.folder import finished_status

    finished = []
    for folder in folders:
        status = finished_status(folder)
        if status is None or not isinstance(status.get("val_loss"), float):
            continue
        config = read_yaml(folder / "config.yaml")
        label = config["encoder"].get("label", config["encoder"]["_target_"].rpartition(".")[2])
        label = f"{config['subject']} {label}"
        loss, overrides = status["val_loss"], tuple(status["overrides"])
        finished.append(Candidate(folder, settings_of(config), loss, label, overrides))
    return finished


def ranked(runs: Iterable[Candidate]) -> dict[Items, list[list[Candidate]]]:
    """The settings of each group, the lowest validation loss first; each as its runs, by seed.

    The losses of a setting are averaged over its seeds. A setting with fewer seeds than another is
    left out: a mean over fewer replicates is no fair comparison.
    """
    groups: dict[Items, dict[Items, dict[int, Candidate]]] = {}
    for run in runs:
        settings = groups.setdefault(run.settings.group, {})
        # A run that another one repeats (a linear encoder with two activations) counts once.
        settings.setdefault(run.settings.setting, {}).setdefault(run.settings.seed, run)
    complete = {}
    for group, settings in groups.items():
        n_seeds = max(map(len, settings.values()))
        runs_by_seed = [
            [by_seed[seed] for seed in sorted(by_seed)]
            for by_seed in settings.values()
            if len(by_seed) == n_seeds
        ]
        complete[group] = sorted(runs_by_seed, key=mean_loss)
    return complete


def mean_loss(runs: Iterable[Candidate]) -> float:
    """The validation loss of a setting, averaged over its runs."""
    return fmean(run.loss for run in runs)


def choose(runs: Iterable[Candidate]) -> list[Choice]:
    """The setting with the lowest validation loss of each group; [] if no group has two."""
    groups = ranked(runs)
    if all(len(settings) < 2 for settings in groups.values()):
        return []
    labels = _labels({group: settings[0][0].label for group, settings in groups.items()})
    choices = []
    for group, settings in groups.items():
        varied = _differing(replicates[0].settings.setting for replicates in settings)
        best = settings[0]
        values = dict(best[0].settings.setting)
        choices.append(
            Choice(
                labels[group],
                {key: json.loads(values[key]) for key in varied if key in values},
                mean_loss(best),
                best,
                len(settings),
            )
        )
    return sorted(choices, key=lambda choice: choice.label)


def _differing(items: Iterable[Items]) -> list[str]:
    """The keys whose values are not the same everywhere."""
    several = list(items)
    return sorted({key for key, _ in frozenset.union(*several) - frozenset.intersection(*several)})


def _labels(names: Mapping[Items, str]) -> dict[Items, str]:
    """A label per group: its name and, where several have the same name, what tells them apart."""
    labels = {}
    for group, name in names.items():
        same = [other for other in names if names[other] == name]
        values = dict(group)
        words = [f"{key}={json.loads(values[key])}" for key in _differing(same) if key in values]
        labels[group] = " ".join([name, *words])
    return labels

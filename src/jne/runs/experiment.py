"""The chosen runs of a sweep as experiment files, and the commands that take them."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from jne.runs.choice import Choice
from jne.runs.overrides import is_bookkeeping
from jne.utils.files import atomic_file, make_folder


@dataclass(frozen=True)
class Command:
    """What an experiment file must know of the command that started the sweep."""

    groups: tuple[str, ...] = ()
    """The config groups: the choice of one goes into the defaults list."""
    config_dirs: tuple[str, ...] = ()
    """What --config-dir named."""

    @classmethod
    def from_config(cls, config: DictConfig) -> "Command":
        """The command of a sweep; config: Hydra's config of it."""
        runtime = config.hydra.runtime
        sources = [source for source in runtime.config_sources if source.provider == "command-line"]
        return cls(tuple(runtime.choices), tuple(source.path for source in sources))


def experiment_names(choices: Sequence[Choice]) -> list[str]:
    """A name per choice, without characters that would have to be quoted on a command line."""
    names: list[str] = []
    for choice in choices:
        name = re.sub(r"\W+", "_", f"best_{choice.label}", flags=re.ASCII)[:120]
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def write_experiment(sweep: Path, name: str, choice: Choice, command: Command) -> Path:
    """Write SWEEP/experiment/NAME.yaml, with which train.py repeats the chosen run.

    It holds the overrides of its job, but for the seed and where its results go.
    """
    overrides = choice.runs[0].overrides
    head = (
        f"# @package _global_\n"
        f"# {choice.label}: the lowest validation loss of {choice.n_settings} settings, "
        f"{choice.loss:.6g}\n"
        f"#   {train_command(sweep, name, choice, command)}\n"
    )
    path = make_folder(sweep / "experiment") / f"{name}.yaml"
    with atomic_file(path) as temporary:
        temporary.write_text(
            head + OmegaConf.to_yaml(OmegaConf.create(_content(overrides, command)))
        )
    return path


def _content(overrides: Sequence[str], command: Command) -> dict[str, Any]:
    """Overrides as the content of a config file with its defaults list."""
    first: list[Any] = []
    groups: dict[str, Any] = {}
    values = OmegaConf.create()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.key_or_group, override.value()
        if key == "seed" or is_bookkeeping(key) or override.is_delete():
            continue
        if key not in command.groups:
            OmegaConf.update(values, key, value, force_add=True)
        elif key == "experiment":
            first += value if isinstance(value, list) else [value] if value else []
        else:
            groups[f"override /{key}"] = value
    # What the command line sets has precedence over an experiment that it names.
    defaults = [*first, "_self_", *({key: value} for key, value in groups.items())]
    content = OmegaConf.to_container(values)
    assert isinstance(content, dict)
    return {"defaults": defaults, **{str(key): value for key, value in content.items()}}


def train_command(sweep: Path, name: str, choice: Choice, command: Command) -> str:
    """The command that trains with a chosen setting."""
    words = ["python", "train.py", "--config-dir", shown_path(sweep), f"experiment={name}"]
    if command.config_dirs:  # Hydra takes only one --config-dir
        words[2:4] = [
            "--config-dir",
            command.config_dirs[0],
            f"hydra.searchpath=[{shown_path(sweep)}]",
        ]
    overrides = choice.runs[0].overrides
    return shlex.join([*words, *(word for word in overrides if word.startswith("~"))])


def shown_path(path: Path) -> str:
    """The path as short as it can be typed here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative

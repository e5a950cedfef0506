"""The keys of a script for --help, each with the comment in the file that it comes from."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from jne.addresses import documentation

_WIDTH = 80
_KEY = re.compile(r"( *)([\w-]+):(?: |$)")
# A value in quotes, or in brackets, may hold a #.
_COMMENT = re.compile(r"""(?:"[^"]*"|'[^']*'|[^"'#]|(?<! )#)*?(?: # ?|^ *# ?)(.*)$""")


def keys_with_comments(config: DictConfig) -> str:
    """The composed config as YAML, each key with its comment, and where the documentation is.

    config: with Hydra's own part, which says from which files it was composed.
    """
    comments = _comments(config)
    own = {key: config._get_node(key) for key in config if key != "hydra"}
    lines = []
    for line, path in _with_paths(OmegaConf.to_yaml(OmegaConf.create(own)).splitlines()):
        comment = comments.pop(path, "") if path else ""
        if len(line) + len(comment) + 4 <= _WIDTH:
            lines.append(f"{line}  # {comment}" if comment else line)
        else:  # above
            head = " " * (len(line) - len(line.lstrip())) + "# "
            lines += textwrap.wrap(
                comment, _WIDTH, initial_indent=head, subsequent_indent=head, break_on_hyphens=False
            )
            lines.append(line)
    return "\n".join([*lines, "", documentation()])


def _with_paths(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each line of a YAML file with the path of the key that it has, optimizer.lr, or ""."""
    above: list[tuple[int, str]] = []
    for line in lines:
        key = _KEY.match(line)
        if key is None:
            yield line, ""
            continue
        indent = len(key[1])
        above = [*(part for part in above if part[0] < indent), (indent, key[2])]
        yield line, ".".join(name for _, name in above)


def _comments(config: DictConfig) -> dict[str, str]:
    """The comments of all keys, by their path in the config."""
    runtime, job = config.hydra.runtime, config.hydra.job
    files = {"": f"{job.config_name or job.name}.yaml"}
    files |= {group: f"{group}/{choice}.yaml" for group, choice in runtime.choices.items()}
    comments: dict[str, str] = {}
    for group, name in files.items():
        if group.startswith("hydra/"):
            continue
        for source in runtime.config_sources:
            path = Path(source.path, name)
            if source.provider in ("main", "command-line") and path.is_file():
                text = path.read_text(encoding="utf-8")
                package = "" if "@package _global_" in text else group.replace("/", ".")
                comments |= _comments_in(text, package)
    return comments


def _comments_in(text: str, package: str) -> dict[str, str]:
    """A key's comment is that on its line, after what stands in lines of its own before it."""
    comments: dict[str, str] = {}
    before: list[str] = []
    for line, path in _with_paths(text.splitlines()):
        match = _COMMENT.match(line)
        comment = match[1].strip() if match and not match[1].startswith("@package") else ""
        if path:
            full = f"{package}.{path}" if package else path
            comments[full] = " ".join([*before, comment]).strip()
            before = []
        elif line.lstrip().startswith("#"):
            before += [comment] if comment else []
        else:
            before = []
    return {path: comment for path, comment in comments.items() if comment}

"""How the root scripts start and how they fail: bad input gets one sentence."""

import argparse
import atexit
import logging
import os
import re
import secrets
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from jne.config import subject_choice, unknown_key
from jne.credentials import hide_credentials, without_credentials
from jne.errors import InputError, did_you_mean
from jne.runs import sweep
from jne.runs.feature_choices import register_combinations, with_combinations
from jne.utils.files import file_name, not_written
from jne.utils.signals import Stopped, in_one_line, stopped_by_signals

_PACKAGE = str(Path(__file__).parent)


def register_resolvers() -> None:
    """Make known to Hydra what conf/ uses, `${unique:}`, `${file_name:NAME}` ..., and `a+b`."""
    register_combinations()
    # Part of a run folder's name: runs started in the same second must not share a folder. Cached:
    # it is the same wherever one config uses it. Hydra passes the cache on to the jobs of a sweep
    # on any machine, so that all of them get the same sweep name.
    OmegaConf.register_new_resolver(
        "unique", lambda: secrets.token_hex(3), use_cache=True, replace=True
    )
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, use_cache=True, replace=True)
    # The name of a run becomes part of its folder's: `a/../../b` must not lead elsewhere.
    OmegaConf.register_new_resolver("file_name", lambda name: file_name(str(name)), replace=True)
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("keys_with_comments", _keys_with_comments, replace=True)


def _keys_with_comments(*, _root_: DictConfig) -> str:
    """For --help, in the template of which a `$` is two."""
    from jne.runs.help import keys_with_comments

    return keys_with_comments(_root_).replace("$", "$$")


def _run_name(data: str, subject: str, features: str, *rest: object) -> str:
    """The name of a run: what runs mostly differ in, without what this one does not have.

    rest: the layer that a key of the data chooses and that of the features, the encoder, the
    control and the seed.
    """
    of_data, of_features, encoder, control, seed = rest
    layer = of_features if of_data is None else of_data
    if isinstance(layer, Sequence):
        layer = "-".join(map(str, layer))
    parts = (
        *(data, subject, "" if features == "own" else features),
        *("" if layer is None else f"layer{layer}", encoder),
        *("" if control == "none" else control, f"s{seed}"),
    )
    return "_".join(str(part) for part in parts if part != "")


def _sweep_name(output: str, resume: bool) -> str:
    """A new name; to resume, the name of the newest sweep below `output` if there is one."""
    if resume:
        earlier = Path(output, "sweeps").glob("*/multirun.yaml")
        newest = max(earlier, key=lambda path: path.stat().st_mtime, default=None)
        if newest is not None:
            return newest.parent.name
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}"


def run_script(main: Callable[[], None]) -> None:
    """Run a `hydra.main` function; exit with code 1 and one sentence where the input is at fault.

    Ctrl-C and SIGTERM end it with a line and the codes 130 and 143. Any other exception keeps its
    traceback: it is a bug, and the traceback is what to report.
    """
    # Hydra would print a shortened traceback for everything and hide the cause.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # For --help, Hydra copies the store of its own configs a hundred times, half a second in all.
    # It only reads them, and copies what it reads.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    # Twenty lines, of which none says more than the sentence after them.
    argparse.ArgumentParser.print_usage = lambda *_: None  # type: ignore[method-assign]
    # One that says what the command line was, before the sentence or the traceback.
    JobReturn.return_value = JobReturn.return_value.getter(_result)  # type: ignore[attr-defined, method-assign]
    register_resolvers()
    if "MLFLOW_TRACKING_URI" in os.environ:
        os.environ["MLFLOW_TRACKING_URI"] = without_credentials(os.environ["MLFLOW_TRACKING_URI"])
    words = [_without_credentials(_with_home(word)) for word in sys.argv[1:]]
    sys.argv[1:] = _options_first([with_combinations(_with_subject(word, words)) for word in words])
    sys.excepthook = _print_exception
    logging.raiseExceptions = False  # what a full disk keeps out of a log is no traceback
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)  # Python's own prints one
    with stopped_by_signals():
        try:
            _run(main)
        except Stopped as stopped:
            print(f"ended by {stopped}", file=sys.stderr)
            raise


def _result(job: JobReturn) -> Any:
    """What a job returned. Raises what it raised, without Hydra's line before it."""
    if job.status != JobStatus.COMPLETED:
        raise job._return_value
    return job._return_value


def _run(main: Callable[[], None]) -> None:
    failure: Exception | None = None
    try:
        main()
    except Exception as error:
        failure = error
    try:
        all_finished = sweep.finish()
    except Exception as error:  # a full disk, at the sweep's table
        sys.exit(f"error: {hide_credentials(user_message(error))}")
    # What ended a job of a sweep is in its log and in the sweep's table.
    if failure is not None and all_finished is None:
        sys.exit(f"error: {hide_credentials(user_message(failure))}")
    if failure is not None or all_finished is False:
        sys.exit(1)


def never_exits(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """A script's function that fails where code of the user's, such as a data source, exits.

    An exit would end all jobs of a sweep, and with code 0 as if all were well.
    """

    @wraps(task)
    def run(config: DictConfig) -> Any:
        try:
            return task(config)
        except Stopped:
            raise
        except SystemExit as end:
            raise InputError("", in_one_line(end)) from end

    return run


def _options_first(words: list[str]) -> list[str]:
    """Hydra's options before the overrides, wherever they stand: argparse takes those in one piece.

    An option and its value, as in `--config-dir FOLDER`, stay together.
    """
    return sorted(words, key=_is_override)


def _is_override(word: str) -> bool:
    return not word.startswith("-") and ("=" in word or word.startswith(("~", "+")))


def _with_home(override: str) -> str:
    """KEY=~/PATH with the home folder: the shell leaves it, and Hydra's grammar has no ~."""
    key, equals, value = override.partition("=")
    return f"{key}{equals}{os.path.expanduser(value)}"


def _with_subject(override: str, words: list[str]) -> str:
    """subject=s1 for subject=subj01 and subject=1, as it may also be called.

    A file of that name which a user has in --config-dir is meant where there is one.
    """
    key, equals, value = override.partition("=")
    if key.lstrip("+") != "subject":
        return override
    places = [Path(part.partition("=")[2] or part, "subject") for part in words]
    names = value.split(",")
    mine = [name for name in names if any((place / f"{name}.yaml").exists() for place in places)]
    return f"{key}{equals}{','.join(x if x in mine else subject_choice(x) for x in names)}"


def _without_credentials(override: str) -> str:
    """tracking.uri without a password, which Hydra would print and write."""
    key, equals, value = override.partition("=")
    if key.lstrip("+") == "tracking.uri":
        addresses = [value.strip("'\"")]
    else:  # in a whole section, tracking={uri: ...}
        is_section = key.lstrip("+") == "tracking"
        addresses = re.findall(r"[a-z][\w+.-]*://[^\s'\",}]+", value) if is_section else []
    for address in addresses:
        value = value.replace(address, without_credentials(address))
    return f"{key}{equals}{value}"


def _print_exception(*error: Any) -> None:
    sys.stderr.write(hide_credentials("".join(traceback.format_exception(*error))))


def user_message(error: Exception) -> str:
    """The sentence for bad input. Raises `error` where the input is not at fault."""
    if isinstance(error, InputError):
        return str(error)
    if re.search(r"hydra/launcher/(joblib|submitit)|hydra_plugins", str(error)):
        return 'hydra/launcher: this launcher is not installed; pip install "jne[launchers]"'
    if type(error).__name__ == "FailedJobError":  # submitit's, which may not be installed
        return f"hydra/launcher: SLURM took no job ({str(error).strip().splitlines()[-1]})"
    if isinstance(error, OverrideParseException):
        return _unreadable_override(error.override)
    if isinstance(error, ValueError) and "Config group override must be" in str(error):
        return _not_a_choice(error)
    if isinstance(error, MissingConfigException) and error.options:
        return _unknown_choice(str(error.missing_cfg_file), list(error.options))
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _one_sentence(error)
    told = not_written(error, "this folder")
    if told is not None:
        return str(told)
    if isinstance(error, OSError) and error.filename is not None:
        if not _raised_in_package(error):  # Hydra itself opens nothing but the run's own folder.
            return f"output: cannot write to {error.filename} ({error.strerror})"
        if isinstance(error, PermissionError | FileExistsError | NotADirectoryError):
            return f"cannot open {error.filename} ({error.strerror})"
    raise error


def _unreadable_override(override: str) -> str:
    """What to quote in an override that Hydra cannot read."""
    key, equals, value = override.partition("=")
    if not (key and equals):
        return f"{override}: write KEY=VALUE"
    quoted = [f"{key}={QuotedString(value, quote).with_quotes()}" for quote in Quote]
    for_shell = min((_for_shell(text) for text in quoted), key=len)
    return f"{key}: Hydra cannot read the value {value}; quote it, in the shell as {for_shell}"


def _for_shell(word: str) -> str:
    """A word in double quotes, as people write it; where that is not safe, as shlex has it."""
    escaped = re.sub(r'(["\\])', r"\\\1", word)
    return shlex.quote(word) if re.search("[!$`]", word) else f'"{escaped}"'


def _not_a_choice(error: ValueError) -> str:
    """The sentence for `subject=7` or `encoder=null`; Hydra's own does not say which key."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    override = frame.f_locals["override"]
    group = override.key_or_group
    if not group:
        return _unreadable_override(override.input_line)
    return (
        f"{override.input_line}: {group} takes the name of a file in conf/{group}; quote one that "
        f"is a number"
    )


def _raised_in_package(error: BaseException) -> bool:
    """Whether the package's own code, this module aside, was running when it was raised."""
    files = (frame.filename for frame in traceback.extract_tb(error.__traceback__))
    return any(file.startswith(_PACKAGE) and file != __file__ for file in files)


def _unknown_choice(file: str, options: list[str]) -> str:
    """The sentence for a choice that a group does not have. file: GROUP/CHOICE."""
    group, _, choice = file.rpartition("/")
    listed = ", ".join(sorted(options, key=lambda name: (len(name), name)))
    return f"{group}={choice}: there is no such choice{did_you_mean(choice, options)} ({listed})"


def _one_sentence(error: Exception) -> str:
    """Hydra's message without its layout; for an unknown key, its name and what is like it."""
    message = str(error).partition("Config search path")[0]
    missing = re.search(r"Missing mandatory value: (\S+)", message)
    if missing:
        return str(InputError(missing[1], f"this key needs a value; write {missing[1]}=..."))
    several = re.search(r"Ambiguous value for argument '([^=]+)=(.*?)'", message)
    if several:
        remedy = f"-m makes a run of each; {several[1]}=[{several[2]}] is a list"
        return str(InputError(several[1], f"there are several values; {remedy}", several[2]))
    unknown = re.match(r"Could not override '([^']+)'", message)
    if unknown:
        cause = error.__cause__
        names: list[str] = []
        if isinstance(cause, ConfigAttributeError | ConfigKeyError):
            names = [str(name) for name in cause.parent_node or ()]
            return str(unknown_key(cause.full_key or unknown[1], names))
        return str(unknown_key(unknown[1]))
    return " ".join(line.strip() for line in message.splitlines() if line.strip())

"""How the scripts fail: one sentence that blames the right key."""

import errno
from pathlib import Path

import pytest
from omegaconf.errors import ConfigAttributeError

from jne.cli import user_message
from jne.config import StatsConfig, complaint
from jne.errors import InputError
from jne.utils import files


def raised_by(function, *arguments) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*arguments)
    return caught.value


def test_an_unreadable_input_is_not_blamed_on_the_output(monkeypatch, tmp_path):
    """The package's own code reads a file: the sentence names the file and no key."""

    def denied(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    path = tmp_path / "status.json"
    monkeypatch.setattr(Path, "write_text", denied)
    error = raised_by(files.write_json, path, {})
    assert user_message(error).startswith(f"cannot open {tmp_path}")


def test_a_folder_that_hydra_cannot_make_is_the_output(tmp_path):
    (tmp_path / "file").write_text("in the way")
    error = raised_by((tmp_path / "file" / "below").mkdir)
    assert user_message(error) == (
        f"output: cannot write to {tmp_path / 'file' / 'below'} (Not a directory)"
    )


def test_a_folder_that_cannot_be_written_is_blamed_on_its_key(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^features.cache: cannot write to .* \(File exists\)"):
        files.make_folder(tmp_path / "file", "features.cache")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match=r"^features.cache: cannot write to .*permission denied"):
        files.make_folder(tmp_path, "features.cache")
    with pytest.raises(InputError, match=r"^output: cannot write to .*permission denied"):
        files.write_json(tmp_path / "x.json", 1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data=nsd", "features=clip_vit_b32"), r"data.root: this key needs a value; write data.r"),
        (("data=algonauts", "features=clip_vit_b32"), r"data.root: this key needs a value"),
        (("data=nsd", "data.root=x", "features=precomputed"), r"features.path: this key needs"),
    ],
)
def test_a_key_without_a_value_is_named(run_script, overrides, message):
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        run_script("train.py", *overrides)


def test_a_home_folder_may_be_written_short(run_script, tmp_path, monkeypatch):
    """Unquoted too, which the shell leaves as it is and Hydra cannot read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in ("~/nsd", "'~/nsd'"):
        with pytest.raises(SystemExit, match=f"data.root={tmp_path}/nsd: not an NSD tree"):
            run_script("train.py", "data=nsd", f"data.root={root}", "features=clip_vit_b32")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        user_message(ZeroDivisionError())


def test_renamed_keys_name_their_new_name():
    values = {"n_bootstrap": 1, "p_value": "raw", "alpha": 0.05, "p_form": "paper"}
    error = raised_by(StatsConfig.model_validate, values)
    new_name = "stats.p_value (t_test, plus_one or raw)"
    assert str(complaint(error, "stats")) == f"stats.p_form: this key is now {new_name}"
    by_hydra = ConfigAttributeError("Could not override 'tracking.required'.\nKey 'required' ...")
    assert user_message(by_hydra).startswith(
        "tracking.required: this key is now tracking.on_unreachable (fail_at_start"
    )

"""InputError: the key and the message stay apart, on every way that an error takes."""

import ast
import pickle
import re
from pathlib import Path

import pytest
from helpers import ROOT
from pydantic import ValidationError

from jne.config import complaint
from jne.encoders import build_encoder
from jne.errors import InputError, keys_below
from jne.estimator.parameters import Parameters

CASES = (
    (InputError("data.n_val", "too large", 3), "data.n_val=3: too large"),
    (InputError("seed", "input should be a number", None), "seed=None: input should be a number"),
    (InputError("data", "no voxel is left"), "data: no voxel is left"),
    (InputError("", "x.csv cannot be read"), "x.csv cannot be read"),
)


@pytest.mark.parametrize(("error", "text"), CASES)
def test_an_error_as_text_and_from_another_process(error, text):
    assert str(error) == text
    again = pickle.loads(pickle.dumps(error))  # as joblib brings it from a job of a sweep
    assert (again.key, again.message, again.value) == (error.key, error.message, error.value)
    assert str(again) == text


def test_an_argument_becomes_the_key_of_its_section():
    with pytest.raises(InputError, match=r"^jacobian\.device=x: no such device$") as raised:
        with keys_below("jacobian", ("device",)):
            raise InputError("device", "no such device", "x")
    assert raised.value.key == "jacobian.device"
    with pytest.raises(InputError, match=r"^encoder: must end$"), keys_below("jacobian", "device"):
        raise InputError("encoder", "must end")


def test_what_a_class_refuses_has_its_key():
    config = {"_target_": "jne.encoders.ResidualEncoder", "n_hidden": 0}
    with pytest.raises(InputError) as refused:
        build_encoder(config, 2, 2)
    assert (refused.value.key, refused.value.value) == ("encoder.n_hidden", 0)


def test_what_pydantic_passes_on_has_its_key():
    from jne import JNERegressor

    values = JNERegressor(placement=[5]).get_params()
    with pytest.raises(ValidationError) as wrong:
        Parameters(**values)
    assert complaint(wrong.value).key == "placement"


def test_no_message_begins_with_a_key():
    """`InputError("", "data.x: ...")` would hide the key again."""
    glued = []
    for path in (Path(ROOT) / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "InputError":
                continue
            assert len(node.args) >= 2 or any(isinstance(a, ast.Starred) for a in node.args), path
            message = node.args[1]
            parts = message.values if isinstance(message, ast.JoinedStr) else [message]
            first = parts[0]
            if isinstance(first, ast.Constant) and re.match(r"[a-z_]+\.[\w.]+[:=]", first.value):
                glued.append(f"{path.name}:{node.lineno} {first.value}")
    assert not glued

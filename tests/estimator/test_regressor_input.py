"""What JNERegressor says to bad input."""

import numpy as np
import pandas as pd
import pytest

from jne import JNERegressor
from jne.errors import InputError

SMALL = {"hidden_width": 16, "n_hidden": 2, "max_epochs": 3, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "sine"}, "activation=sine: input should be 'relu', "),
        ({"activation": None}, "activation=None: input should be 'relu', "),
        ({"placement": "loc3"}, "placement=loc3: choose one of"),
        ({"placement": "loc2", "n_hidden": 1}, "placement=loc2: needs n_hidden of at least 2"),
        ({"placement": [1, 5]}, "placement: names layer 5, but n_hidden is 3"),
        (
            {"placement": None},
            "placement=None: input should be both, loc1, loc2, none, or a list",
        ),
        ({"hidden_width": 0}, "hidden_width=0: input should be greater than or equal to 1"),
        ({"hidden_width": 2.5}, "hidden_width=2.5: input should be a valid integer"),
        ({"n_hidden": -1}, "n_hidden=-1: input should be greater"),
        ({"bias": "perhaps"}, "bias=perhaps: input should be a valid boolean"),
        ({"readout": "lasso"}, "readout=lasso: input should be 'ridge', 'stacked' or 'trained'"),
        ({"optimizer": "sgd"}, "optimizer=sgd: input should be 'adam' or 'adamw'"),
        ({"lr": 0}, "lr=0: input should be greater than 0"),
        ({"lr": float("nan")}, "lr=nan: input should be"),
        ({"lr": "fast"}, "lr=fast: input should be a valid number"),
        ({"lr": np.inf}, "lr=inf: input should be"),
        ({"weight_decay": -1}, "weight_decay=-1: input should be greater"),
        ({"batch_size": 0}, "batch_size=0: input should be greater"),
        ({"max_epochs": 0}, "max_epochs=0: input should be greater"),
        ({"patience": 0}, "patience=0: input should be greater"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: input should be less than 1"),
        ({"validation_fraction": 0.99}, "validation_fraction=0.99: leaves 1 of 90 stimuli"),
        ({"precision": "64"}, "precision=64: input should be '32-true' or 'bf16-mixed'"),
        ({"device": "gpu"}, "device=gpu: string should match pattern"),
        ({"max_memory_gb": 0}, "max_memory_gb=0: input should be greater than 0"),
        ({"random_state": -1}, "random_state=-1: input should be greater than or equal to 0"),
        ({"random_state": "seed"}, "'seed' cannot be used to seed"),
        (
            {"lr": 1e30, "readout": "trained"},
            "lr: the validation loss was never finite; lower it",
        ),
    ],
)
def test_bad_parameters_are_refused_in_a_sentence(arrays, settings, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        JNERegressor(**{"max_epochs": 2, **settings}).fit(*arrays)
    assert str(refused.value).startswith(message) or message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ([0.5, 1, 2], r"must be a mask .*, \(90,\) bool, or row numbers, found \(3,\) float64"),
        ([0, 1, 90], "validation: row numbers must be from 0 to 89"),
        ([0, 1, -1], "validation: row numbers must be from 0 to 89"),
        ([0, 1], "validation: marks 2 of 90 stimuli"),
        (np.ones(90, dtype=int), "validation: names a row twice; a mask must be of dtype bool"),
        (np.ones(90, dtype=bool), "validation: marks 90 of 90 stimuli"),
        (np.arange(90) == 4, "validation: marks 1 of 90 stimuli"),
        ("val", r"found \(\) <U3"),
    ],
)
def test_bad_validation_stimuli_are_refused(arrays, validation, message):
    with pytest.raises(InputError, match=message):
        JNERegressor(**SMALL).fit(*arrays, validation=validation)


def test_bad_responses_are_refused(arrays):
    x, y = arrays
    with pytest.raises(InputError, match="y: constant over the 81 training stimuli"):
        JNERegressor(**SMALL).fit(x, np.ones(90))
    with pytest.raises(InputError, match="y: holds values that are too large for float32"):
        JNERegressor(**SMALL).fit(x, np.linspace(0, 1e300, 90))
    with pytest.raises(InputError, match="X: holds values that are too large for float32"):
        JNERegressor(**SMALL).fit(x.astype(np.float64) * 1e300, y)
    model = JNERegressor(**SMALL).fit(x, y)
    with pytest.raises(ValueError, match="X has 5 features, but JNERegressor is expecting 6"):
        model.jne(x[:, :5])
    for method in (model.jne, model.jne_ss):
        with pytest.raises(InputError, match="X: 2 stimuli, but JNE needs at least 3"):
            method(x[:2])
    assert model.deviation(x[:2]).shape == (2, 3)
    with pytest.raises(ValueError, match=r"max_memory_gb=0\.001: too small"):
        model.set_params(max_memory_gb=0.001).deviation(x)


ANYTHING = (
    *(None, True, "", "relu", "no", -1, 0, 2, 0.5, 1e308, float("nan"), float("inf"), 1j, b"relu"),
    *([], [1], {}, {"a": 1}, object(), np.array([1, 2]), np.float64(0.5), np.int64(2), lambda: 1),
)


@pytest.mark.runs
@pytest.mark.parametrize("name", JNERegressor().get_params())
def test_any_value_of_a_parameter_works_or_is_refused_in_a_sentence(arrays, name):
    x, y = arrays
    for value in ANYTHING:
        model = JNERegressor(**{"hidden_width": 4, "max_epochs": 1, "n_hidden": 2, name: value})
        try:
            model.fit(x[:20], y[:20])
        except ValueError as error:
            said = str(error)
            assert "\n" not in said, value
            assert name in said or name == "random_state", (value, said)
        else:
            assert np.isfinite(model.jne_[:2]).all(), value


@pytest.mark.parametrize("argument", ["X", "y", "validation"])
def test_any_data_works_or_is_refused_with_a_value_error(arrays, argument):
    x, y = arrays
    good = {"X": x[:20], "y": y[:20], "validation": np.arange(20) % 3 == 0}
    model = JNERegressor(hidden_width=4, max_epochs=1)
    shapes = [np.ones(shape) for shape in ((), (20,), (1, 2), (20, 0), (0, 3), (20, 2, 2), (19, 3))]
    for value in (*ANYTHING, *shapes, x[:20] * np.nan, x[:20].astype(str), pd.DataFrame(x[:20])):
        try:
            model.fit(**(good | {argument: value}))
        except ValueError:
            continue
        except TypeError:  # scikit-learn's own, for what is no array at all
            if argument == "validation":
                raise


def test_responses_that_are_all_nan_or_infinite_are_refused(arrays):
    x, y = arrays
    with pytest.raises(ValueError, match="Input y contains NaN"):
        JNERegressor(**SMALL).fit(x, y * np.nan)
    with pytest.raises(ValueError, match="Input y contains infinity"):
        JNERegressor(**SMALL).fit(x, np.where(np.arange(3) == 1, np.inf, y))

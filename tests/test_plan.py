"""`jne plan` against its own table's settings, closed forms, and simulated shares."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

from jne import nonlinear_share
from jne.errors import InputError
from jne.plan import (
    ALPHA,
    MAPS,
    NOISE_CORRELATION,
    Design,
    Table,
    forecast,
    interpolate,
    read_design,
    read_table,
    report,
    share_sd,
)

ROWS = list(csv.DictReader(Path(ROOT, "src/jne/plan.csv").read_text().splitlines()[1:]))
DESIGN = Design(n=1500, features=256, ceiling=0.3, repeats=3)


@pytest.fixture
def plane():
    """A table that is linear in log n, log test and log ceiling: interpolation is exact."""
    axes = {"n": np.array([500.0, 1000, 8000]), "test": np.array([100.0, 3000]),
            "ceiling": np.array([0.1, 0.4, 0.9])}  # fmt: skip
    n, test, ceiling = np.meshgrid(*axes.values(), indexing="ij")
    values = _on_plane(n, test, ceiling)[..., None, None]
    return Table(axes, ("one",), values, values)


def _on_plane(n, test, ceiling):
    return 0.3 + 0.05 * np.log(n) + 0.02 * np.log(test) + 0.4 * np.log(ceiling)


def test_a_table_that_is_linear_is_interpolated_exactly(plane):
    rng = np.random.default_rng(0)
    for _ in range(50):
        at = {key: rng.uniform(axis[0], axis[-1]) for key, axis in plane.axes.items()}
        np.testing.assert_allclose(interpolate(plane, plane.rates, at), _on_plane(**at))


def test_a_rising_table_gives_a_rising_answer(plane):
    rng = np.random.default_rng(1)
    steps = rng.random(plane.rates.shape)
    rising = steps.cumsum(axis=0).cumsum(axis=1).cumsum(axis=2)
    middle = {"n": 1700.0, "test": 700.0, "ceiling": 0.5}
    for key, axis in plane.axes.items():
        answers = [
            interpolate(plane, rising, middle | {key: x}).item()
            for x in np.linspace(axis[0], 1.2 * axis[-1], 60)
        ]
        assert (np.diff(answers) >= -1e-12).all()


def test_at_the_settings_of_the_table_the_answer_is_the_table():
    for row in ROWS:
        n, test, ceiling = int(row["n"]), int(row["test"]), float(row["ceiling"])
        result = forecast(Design(n, 256, ceiling, noise=row["noise"], test=test))
        world = result.worlds.index(row["world"])
        rates = [float(row[f"found_{alpha:g}"]) for alpha in ALPHA]
        np.testing.assert_allclose(result.rates[world], rates, atol=1e-12)
        repeats = [float(row[name]) for name in MAPS]
        np.testing.assert_allclose(result.repeats[world], repeats, atol=1e-12)


@pytest.mark.parametrize("noise", NOISE_CORRELATION)
def test_the_table_is_whole_and_more_data_find_more(noise):
    table = read_table(noise)
    assert np.isfinite(table.rates).all()
    assert np.isfinite(table.repeats).all()
    assert (table.rates >= 0).all()
    assert (table.rates <= 1).all()
    assert (abs(table.repeats) <= 1).all()
    nonlinear = table.rates[..., 1:].mean(axis=(-1, -2))
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        assert (np.diff(nonlinear.mean(axis=others)) > 0).all()


def test_repeats_enter_by_the_ceiling_of_their_mean():
    once = DESIGN._replace(ceiling=3 * 0.3 / (1 + 2 * 0.3), repeats=1)
    np.testing.assert_allclose(forecast(DESIGN).rates, forecast(once).rates)
    assert forecast(DESIGN).share_sd is not None
    assert forecast(once).share_sd is None


def test_above_the_table_the_largest_is_taken_and_the_report_says_so():
    table = read_table("shared")
    largest = {key: axis[-1] for key, axis in table.axes.items()}
    design = Design(10**6, 2000, 0.99, test=10**6)
    result = forecast(design)
    np.testing.assert_allclose(result.rates, interpolate(table, table.rates, largest))
    assert [s.partition("=")[0] for s in result.beyond] == ["n", "test", "ceiling", "features"]
    text = " ".join(report(design).split())
    assert all(sentence in text for sentence in result.beyond)


@pytest.mark.parametrize(("n", "features", "ceiling", "repeats"),
                         [(1000, 20, 0.3, 3), (700, 150, 0.6, 2)])  # fmt: skip
def test_the_spread_of_shares_is_that_of_simulated_voxels(n, features, ceiling, repeats):
    """Voxels of normal signal and noise, of which the nonlinear part is unrelated to x."""
    rng, per_alpha = np.random.default_rng(0), 1000
    alpha = np.repeat(ALPHA, per_alpha)
    x = rng.standard_normal((n, features))
    weights = rng.standard_normal((features, len(alpha)))
    linear = x @ (weights / np.linalg.norm(weights, axis=0))
    signal = np.sqrt(1 - alpha) * linear
    signal += np.sqrt(alpha) * rng.standard_normal(signal.shape)
    noise = rng.standard_normal((*signal.shape, repeats))
    share = nonlinear_share(x, signal[..., None] + np.sqrt(1 / ceiling - 1) * noise).share
    measured = np.std(share.reshape(len(ALPHA), per_alpha), axis=1)
    planned = share_sd(Design(n - 100, features, ceiling, repeats, test=100))
    np.testing.assert_allclose(planned, measured, rtol=0.1)


def test_a_region_of_one_voxel_is_a_voxel_and_more_voxels_are_more_exact():
    voxel, region = forecast(DESIGN._replace(voxels=1)), forecast(DESIGN._replace(voxels=300))
    np.testing.assert_allclose(voxel.region_sd, voxel.share_sd)
    floor = math.sqrt(NOISE_CORRELATION["shared"])
    assert (region.region_sd < 0.2 * region.share_sd).all()
    assert (region.region_sd > floor * region.share_sd).all()


def test_where_the_signal_drowns_a_voxel_has_no_share_but_a_region_has():
    weak = forecast(Design(900, 64, 0.03, repeats=2, test=100))
    assert np.isnan(weak.share_sd).all()
    assert np.isfinite(weak.region_sd).all()
    assert "two stimuli per feature; take 800 principal" in report(
        Design(1000, 900, 0.3, repeats=2, test=600)
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("features=64 ceiling=.4", "n: is needed, as in jne plan n=9000"),
        ("n=9000 ceiling=.4", "features: is needed"),
        ("n=many features=64 ceiling=.4", "n=many: must be a whole number, such as 1000"),
        ("n=9000 features=64 ceiling=high", "ceiling=high: must be a number, such as .4"),
        ("n=9000 features=64 ceiling=nan", "ceiling=nan: must be above 0 and at most 1"),
        ("n=9000 features=64 ceiling=40", "ceiling=40.0: must be above 0 and at most 1"),
        ("n=9000 features=0 ceiling=.4", "features=0: must be 1 or more"),
        ("n=9000 features=64 ceiling=.4 repeats=0", "repeats=0: must be 1 or more"),
        ("n=9000 features=64 ceiling=.4 noise=pink", "noise=pink: must be shared or independent"),
        ("n=300 features=64 ceiling=.4", "n=300: stimuli to fit below 500 are not in the table"),
        ("n=9000 features=64 ceiling=.4 test=20", "test=20: test stimuli below 100"),
        ("n=9000 features=64 ceiling=.01 repeats=3", r"ceiling=0.01: noise ceiling \(0.029 of"),
        ("n=9000 features=64 ceiling=.4 subject=s1", "subject=s1: write KEY=VALUE; the keys are n"),
        ("9000", "9000: write KEY=VALUE"),
    ],
)
def test_bad_input_gets_a_sentence_that_names_the_key(words, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        read_design(words.split())


def test_the_command_prints_the_forecast(tmp_path):
    words = "n=1500 features=256 ceiling=.3 repeats=3".split()
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}/src"}
    command = [sys.executable, "-m", "jne", "plan"]

    def run(*words):
        return subprocess.run([*command, *words], cwd=tmp_path, env=environment, text=True,
                              capture_output=True, check=False)  # fmt: skip

    assert read_design(words) == DESIGN
    assert run(*words).stdout == report(DESIGN) + "\n"
    refused = run("n=20", *words[1:])
    assert refused.returncode == 1
    assert refused.stderr == "error: n=20: stimuli to fit below 500 are not in the table\n"
    assert not list(tmp_path.iterdir())

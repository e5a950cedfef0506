"""Simulations with known truth, and how they are run and recorded (Gao et al. 2025, A.5 to A.7).

base               what a study is: its config keys, its table, its scalars, its figure
activation_curves  JNE of one activation follows its second derivative
placement_grid     JNE of untrained networks, by activation and where it acts
sample_size        how many stimuli JNE needs
input_scale        other distributions and scales of the inputs
calibration        the test by unseen responses on cohorts of known nonlinearity
measures           measures of nonlinearity on the same cohorts of known truth
candidates         the measures, as functions of a fitted cohort
scores             how good a measure is
worlds             cohorts of six worlds and five structures of noise
depth              depth and the number of activated layers
networks           untrained networks and random inputs, for several studies
labels             names and colours, for the figures of several studies
config             the config of simulate.py
run                runs a study; writes its folder and its MLflow run

A new study is one file here, or in a folder of the user's, and its yaml (docs/simulations.md).
"""

from importlib import import_module
from typing import Any

# Loaded on first use: a study of the user's own may not need torch.
_PUBLIC = {
    "ActivationCurves": "jne.simulation.activation_curves",
    "Calibration": "jne.simulation.calibration",
    "Depth": "jne.simulation.depth",
    "InputScale": "jne.simulation.input_scale",
    "Measures": "jne.simulation.measures",
    "PlacementGrid": "jne.simulation.placement_grid",
    "SampleSize": "jne.simulation.sample_size",
    "Study": "jne.simulation.base",
}
__all__ = [
    "ActivationCurves",
    "Calibration",
    "Depth",
    "InputScale",
    "Measures",
    "PlacementGrid",
    "SampleSize",
    "Study",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jne.simulation' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)

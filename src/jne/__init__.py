"""jne: encoding models of the brain, and how nonlinear the mapping is that they learned.

The measurement works on its own in a notebook, without a config:

>>> import jne
>>> deviation = jne.jacobian_deviation(encoder, test_features)   # (n_stimuli, n_voxels)
>>> jne.jne(deviation)                                           # (n_voxels,)

The wings, from the bottom up; a wing imports those below it and none beside it:

utils, config, errors            files, tables, progress, the machine; the shared config
analysis, encoders, roi          the mathematics of the metrics and tests; the encoders; ROI names
jacobian, features               Jacobians and their deviations; features of images
plots                            figures and brain maps; `plotting`, for notebooks
data, results                    data sources, results folders
tracking                         MLflow
runs                             a run's folder and MLflow run as one; sweeps
training, evaluation, simulation what train.py, evaluate.py and simulate.py do
estimator                        JNERegressor, training for scikit-learn
cli, __main__                    how the scripts start and fail; the command `jne`
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Loaded on first use: `import jne` alone must not cost the seconds that torch takes.
_PUBLIC = {
    "Evidence": "jne.analysis.evidence",
    "JNERegressor": "jne.estimator",
    "MeasureJNE": "jne.measuring.callback",
    "Measurement": "jne.jacobian.measurement",
    "ResidualEncoder": "jne.encoders",
    "Results": "jne.results",
    "Share": "jne.analysis.share_sums",
    "SpaceEvidence": "jne.analysis.evidence_spaces",
    "Switching": "jne.jacobian.switching",
    "compare": "jne.evaluation.pair",
    "evidence": "jne.analysis.model_evidence",
    "jacobian_deviation": "jne.jacobian",
    "jne": "jne.analysis.nonlinearity",
    "jne_ss": "jne.analysis.nonlinearity",
    "list_runs": "jne.results.listing",
    "mean_deviation": "jne.analysis.nonlinearity",
    "measure": "jne.jacobian.measurement",
    "nonlinear_share": "jne.analysis.nonlinear_share",
    "plotting": "jne.plotting",
    "rms_deviation": "jne.jacobian",
    "rms_sketch": "jne.jacobian",
    "space_evidence": "jne.analysis.model_evidence",
    "switching": "jne.jacobian.switching",
}
# What the extra [estimator] is enough for
_ESTIMATOR = {"Evidence", "JNERegressor", "MeasureJNE", "Share", "evidence", "nonlinear_share"}
# Without the function `jne`, which `from jne import *` would put in the place of the package
__all__ = [
    "Evidence",
    "JNERegressor",
    "MeasureJNE",
    "Measurement",
    "ResidualEncoder",
    "Results",
    "Share",
    "SpaceEvidence",
    "Switching",
    "compare",
    "evidence",
    "jacobian_deviation",
    "jne_ss",
    "list_runs",
    "mean_deviation",
    "measure",
    "nonlinear_share",
    "plotting",
    "rms_deviation",
    "rms_sketch",
    "space_evidence",
    "switching",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jne' has no attribute {name!r}")
    try:
        module = import_module(_PUBLIC[name])
    except ModuleNotFoundError as error:
        extra = "estimator" if name in _ESTIMATOR else "full"
        error.add_note(f'jne.{name} needs more packages: pip install "jne[{extra}]"')
        raise
    return module if module.__name__ == f"jne.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(_PUBLIC)

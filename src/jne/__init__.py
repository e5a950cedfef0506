"""jne: encoding models of the brain, and how nonlinear the mapping they learned is.

The measurement works on its own, without a config, in a notebook:

>>> from jne import jacobian_deviation, jne, jne_ss
>>> deviation = jacobian_deviation(encoder, test_features)   # (n_stimuli, n_voxels)
>>> jne(deviation)                                           # (n_voxels,)
"""

from importlib import import_module

__version__ = "0.1.0"

# Loaded on first use: `import jne` alone must not cost the seconds that torch takes.
_PUBLIC = {
    "ResidualEncoder": "encoders",
    "jacobian_deviation": "jacobian",
    "jne": "nonlinearity",
    "jne_ss": "nonlinearity",
    "mean_deviation": "nonlinearity",
}
__all__ = ["ResidualEncoder", "jacobian_deviation", "jne", "jne_ss", "mean_deviation"]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jne' has no attribute {name!r}")
    return getattr(import_module(f"jne.{_PUBLIC[name]}"), name)

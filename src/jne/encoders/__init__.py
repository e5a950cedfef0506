"""Encoders: from features (N, D) to the responses of voxels (N, V).

An encoder is any `nn.Module` that maps rows to rows. One with a method `residual_chain` gets the
fast Jacobians of `jne.jacobian.chain`; all others are differentiated automatically.

residual  ResidualEncoder, the paper's encoder
kernel    KernelRegression, kernel ridge regression
ridge     ridge regression: as an encoder, and as the readout of others
chain     HasResidualChain, the protocol of the fast Jacobians
raw       RawEncoder, from features to responses in the units of the data
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from jne.encoders.chain import HasResidualChain, ResidualLayer, is_linear, is_linear_layer
from jne.encoders.kernel import KernelRegression
from jne.encoders.raw import RawEncoder
from jne.encoders.residual import ACTIVATIONS, PLACEMENTS, ResidualEncoder, activated_layers
from jne.encoders.ridge import RidgeRegression
from jne.errors import InputError
from jne.utils.instantiate import instantiate

__all__ = [
    "ACTIVATIONS",
    "PLACEMENTS",
    "HasResidualChain",
    "KernelRegression",
    "RawEncoder",
    "ResidualEncoder",
    "ResidualLayer",
    "RidgeRegression",
    "activated_layers",
    "build_encoder",
    "is_linear",
    "is_linear_layer",
]


def build_encoder(config: Mapping[str, Any], n_features: int, n_voxels: int) -> nn.Module:
    """The encoder that the config section `encoder` describes.

    Parameters
    ----------
    config : mapping
        `_target_` names the class; all other keys but `label` are its arguments.
    n_features, n_voxels : int
        D and V.

    Returns
    -------
    nn.Module

    Raises
    ------
    InputError
        If it cannot be made; the message names the section.
    """
    settings = {key: value for key, value in config.items() if key != "label"}
    sizes = {"n_features": n_features, "n_voxels": n_voxels}
    encoder = instantiate(settings, "encoder", sizes) if "_target_" in settings else None
    if not isinstance(encoder, nn.Module):
        raise InputError(
            "encoder._target_",
            f"must name an nn.Module, found {config.get('_target_', 'nothing')}",
        )
    return encoder

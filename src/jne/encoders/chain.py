"""What an encoder must provide for its Jacobians to be computed by the chain rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True)
class ResidualLayer:
    """h_k = activation(linear(h_{k-1})), plus h_{k-1} where there is a skip connection.

    Layers may differ in width, except across a skip connection.
    """

    linear: nn.Linear
    activation: nn.Module
    """Acts on each element separately; `nn.Identity` where there is none."""
    skip: bool
    falloff: Tensor | None = None
    """Of a first layer of radial units, (H,): c_k in activation(linear(x) - c ||x||² / 2)."""


def is_linear_layer(module: nn.Module) -> bool:
    """Whether a module is a linear layer and nothing else."""
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


def is_linear(encoder: nn.Module) -> bool:
    """Whether an encoder is known to be linear: a linear layer, or a chain without activations.

    Parameters
    ----------
    encoder : nn.Module

    Returns
    -------
    bool
    """
    if not isinstance(encoder, HasResidualChain):
        return is_linear_layer(encoder)
    hidden, _ = encoder.residual_chain()
    return all(isinstance(layer.activation, nn.Identity) for layer in hidden)


@runtime_checkable
class HasResidualChain(Protocol):
    """An encoder that is a chain of residual layers followed by a linear readout.

    If it has an attribute `linear_path`, an nn.Linear from the features to the voxels and not None,
    the output of that is added.
    """

    def residual_chain(self) -> tuple[Sequence[ResidualLayer], nn.Linear]:
        """The hidden layers, first to last, and the readout from the last of them to the voxels."""
        ...

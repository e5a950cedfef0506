"""A fully connected residual network from features to voxels (Gao et al. 2025, 2.2 and A.4).

    h_1 = phi_1(W_1 x + b_1)                   (+ x, if skip_first)
    h_k = phi_k(W_k h_{k-1} + b_k) + h_{k-1}   k = 2 .. n_hidden
    y   = W_out h_n + b_out                    (+ W_path x, with a linear path)

The linear path is ours. What is linear in a voxel need not pass through the hidden layers, and its
Jacobian is the same at all stimuli.

Letters: N stimuli, D features, H hidden width, V voxels.
"""

from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from jne.encoders.chain import ResidualLayer
from jne.errors import InputError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
PLACEMENTS = ("none", "loc1", "loc2", "both")


def activated_layers(placement: str | Sequence[int], n_hidden: int) -> list[bool]:
    """Which hidden layers have an activation, first to last.

    Parameters
    ----------
    placement : {"none", "loc1", "loc2", "both"} or sequence of int
        `loc1` activates the first hidden layer (shallow), `loc2` the layers after it (deep),
        `both` all of them (the paper's nonlinear encoder) and `none` none, which makes the encoder
        linear. A list of numbers names the layers themselves, counted from 1.
    n_hidden : int
        Number of hidden layers.

    Returns
    -------
    list of bool

    Raises
    ------
    ValueError
        For an unknown placement or a layer that does not exist.
    """
    if n_hidden < 1:
        raise InputError("n_hidden", "must be at least 1", value=n_hidden)
    if not isinstance(placement, str):
        outside = [layer for layer in placement if not 1 <= layer <= n_hidden]
        if outside:
            raise InputError("placement", f"names layer {outside[0]}, but n_hidden is {n_hidden}")
        return [layer in placement for layer in range(1, n_hidden + 1)]
    if placement not in PLACEMENTS:
        raise InputError("placement", f"choose one of {', '.join(PLACEMENTS)}", value=placement)
    if placement == "loc2" and n_hidden < 2:
        raise InputError(
            "placement", "needs n_hidden of at least 2: it acts after layer 1", value=placement
        )
    first, rest = placement in ("loc1", "both"), placement in ("loc2", "both")
    return [first] + [rest] * (n_hidden - 1)


def _activations(activation: str, placement: str | Sequence[int], n_hidden: int) -> nn.ModuleList:
    if activation not in ACTIVATIONS:
        raise InputError("activation", f"choose one of {', '.join(ACTIVATIONS)}", value=activation)
    return nn.ModuleList(
        ACTIVATIONS[activation]() if active else nn.Identity()
        for active in activated_layers(placement, n_hidden)
    )


class ResidualEncoder(nn.Module):
    """Features (N, D) to voxel responses (N, V) through residual layers (A.4).

    The paper's encoder is `n_hidden=3, hidden_width=1024, bias=False`, with `placement="both"`
    (nonlinear) or `"none"` (linear). Weights are initialised by PyTorch's default for `nn.Linear`.

    Parameters
    ----------
    n_features, n_voxels : int
        D and V.
    hidden_width : int
        H, the width of each hidden layer.
    n_hidden : int
        Number of hidden layers.
    activation : {"relu", "leaky_relu", "gelu", "swish", "tanh"}
        The nonlinearity of the hidden layers that have one.
    placement : str or sequence of int
        Which hidden layers have one, see `activated_layers`.
    bias : bool
        Whether layers and readout have a bias.
    skip_first : bool
        Whether the features are added to the first hidden layer; H must then be D.
    linear_path : bool
        Whether a linear map of the features is added to the responses.

    Raises
    ------
    ValueError
        For an unknown activation or placement, sizes below 1, and wrong types.
    """

    def __init__(
        self,
        n_features: int,
        n_voxels: int,
        *,
        hidden_width: int = 1024,
        n_hidden: int = 3,
        activation: str = "relu",
        placement: str | Sequence[int] = "both",
        bias: bool = True,
        skip_first: bool = False,
        linear_path: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (
            ("bias", bias),
            ("skip_first", skip_first),
            ("linear_path", linear_path),
        ):
            if not isinstance(value, bool):
                raise InputError(name, "must be true or false", value=value)
        for name, size in (("hidden_width", hidden_width), ("n_hidden", n_hidden)):
            if not isinstance(size, int) or isinstance(size, bool):
                raise InputError(name, "must be a whole number", value=size)
        for name, size in (
            ("n_features", n_features),
            ("n_voxels", n_voxels),
            ("hidden_width", hidden_width),
        ):
            if size < 1:
                raise InputError(name, "must be at least 1", value=size)
        if skip_first and hidden_width != n_features:
            raise InputError(
                "hidden_width",
                f"skip_first adds the features to the first hidden layer, so this must equal the "
                f"number of features ({n_features})",
                value=hidden_width,
            )
        widths = [n_features] + [hidden_width] * n_hidden
        self.hidden = nn.ModuleList(
            nn.Linear(fan_in, fan_out, bias=bias) for fan_in, fan_out in pairwise(widths)
        )
        self.activations = _activations(activation, placement, n_hidden)
        self.skips = [skip_first] + [True] * (n_hidden - 1)
        self.readout = nn.Linear(hidden_width, n_voxels, bias=bias)
        self.linear_path = nn.Linear(n_features, n_voxels, bias=False) if linear_path else None

    def with_activation(self, activation: str, placement: str | Sequence[int]) -> "ResidualEncoder":
        """An encoder that shares these weights but has other activations.

        Parameters
        ----------
        activation, placement
            As of the class.

        Returns
        -------
        ResidualEncoder
        """
        other = copy(self)
        other._modules = dict(self._modules)  # shares the weights, but not the activations
        other.activations = _activations(activation, placement, len(self.hidden))
        return other

    def residual_chain(self) -> tuple[list[ResidualLayer], nn.Linear]:
        """The hidden layers and the readout, for the Jacobians (`jne.jacobian.chain`)."""
        layers = [
            ResidualLayer(cast(nn.Linear, linear), activation, skip)
            for linear, activation, skip in zip(
                self.hidden, self.activations, self.skips, strict=True
            )
        ]
        return layers, self.readout

    def forward(self, features: Tensor) -> Tensor:
        """Responses to features.

        Parameters
        ----------
        features : (N, D) tensor

        Returns
        -------
        (N, V) tensor
        """
        h = features
        for linear, activation, skip in zip(self.hidden, self.activations, self.skips, strict=True):
            step = activation(linear(h))
            h = step + h if skip else step
        responses = self.readout(h)
        return responses if self.linear_path is None else responses + self.linear_path(features)

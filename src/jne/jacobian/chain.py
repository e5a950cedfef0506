"""Jacobians of residual layers by the chain rule (Gao et al. 2025, A.4 eq. 8).

N stimuli, D features, H hidden width, v voxels of a block. The layers may differ in width.

    G_i = (S_n + D_n W_n) ... (S_2 + D_2 W_2) (S_1 + D_1 W_1i)    (H, D)

D_k holds the slopes of layer k's activation at stimulus i on its diagonal (the identity where it
has none). S_k is the identity where layer k has a skip connection, else zero. W_1i is W_1, or
W_1 - c x_i' where the units of the first layer are radial, with falloff c (H,).
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jne.encoders import ResidualLayer
from jne.errors import InputError

_SPARSE = 0.75  # below this share of nonzero slopes, leaving the other rows out pays

Memo = dict[tuple[str, ...], Tensor]
"""Arguments (N, H) of the activations of the hidden layers, by the activations before them."""


@dataclass(frozen=True)
class _Layer:
    weight: Tensor
    """(H, H); of the first layer, (H, D)."""
    slope: Tensor | None
    """The derivative of the activation at every stimulus, (N, H); None without an activation."""
    skip: bool
    falloff: Tensor | None
    """As of ResidualLayer."""


class Chain:
    """The residual layers of an encoder at N stimuli, ready for either direction.

    hidden: as of `HasResidualChain`. x: (N, D). memo: a dict in which chains of the same weights,
    skip connections and stimuli, but other activations, share their forward passes.

    Raises ValueError for no layers, a skip connection between layers of unequal width, or features
    of another number than D.
    """

    def __init__(
        self,
        hidden: Sequence[ResidualLayer],
        x: Tensor,
        memo: Memo | None = None,
    ) -> None:
        _check_layers(hidden)
        n_features = hidden[0].linear.in_features
        if x.shape[1] != n_features:
            raise InputError(
                "features",
                f"must be (n_stimuli, {n_features}) for this encoder, found {tuple(x.shape)}",
            )
        memo = {} if memo is None else memo
        self._x = x
        self.n = len(x)
        self.n_kept = 0
        """Of how many stimuli G_i is kept, once computed, for the next pass over the stimuli."""
        self._kept: dict[int, Tensor] = {}
        self.layers: list[_Layer] = []
        self.parameters: list[Tensor] = []
        """All tensors that G_i depends on, except the stimuli."""
        self.width = max(layer.linear.out_features for layer in hidden)
        self.largest = max(layer.linear.weight.numel() for layer in hidden)
        """Values of the largest weight matrix."""
        active = [not isinstance(layer.activation, nn.Identity) for layer in hidden]
        h = x
        path: tuple[str, ...] = ()  # the activations so far, on which a layer's values depend
        for k, layer in enumerate(hidden):
            linear, slope = layer.linear, None
            weight = linear.weight.detach().to(x.device)
            bias = None if linear.bias is None else linear.bias.detach().to(x.device)
            falloff = None if layer.falloff is None else layer.falloff.detach().to(x.device)
            if any(active[k:]):  # after the last activation the values are not needed
                if path not in memo:
                    memo[path] = nn.functional.linear(h, weight, bias)
                    if falloff is not None:
                        memo[path] -= torch.outer(h.square().sum(dim=1) / 2, falloff)
                step = memo[path]
                path += (repr(layer.activation),)
                if active[k]:
                    # A copy: the user's own module stays on its device.
                    step, slope = _value_and_slope(deepcopy(layer.activation).to(x.device), step)
                if any(active[k + 1 :]):
                    h = step + h if layer.skip else step
            self.parameters += [t for t in (weight, bias, falloff) if t is not None]
            self.parameters += layer.activation.state_dict().values()
            self.layers.append(_Layer(weight, slope, layer.skip, falloff))

    @property
    def linear(self) -> bool:
        """Whether no layer has an activation, so that all stimuli have one Jacobian."""
        return all(layer.slope is None for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of the slopes, and of the arrays that were needed to make them."""
        sizes = [layer.slope.nbytes for layer in self.layers if layer.slope is not None]
        return sum(sizes) + 3 * max(sizes, default=0)

    def forward_operations(self, n_features: int) -> float:
        """Operations of `hidden_jacobian` for one stimulus, on average."""
        total, inner = 0.0, 1.0
        for k, layer in enumerate(self.layers):
            share = 1.0 if layer.slope is None else _computed_share(layer.slope)
            if k:
                total += 2 * layer.weight.numel() * n_features * share * inner
            inner = 1.0 if layer.skip else share
        return total

    def reverse_operations(self) -> float:
        """Operations of `reverse` for one stimulus and voxel, on average."""
        shares = (1 if x.slope is None else _computed_share(x.slope) for x in self.layers)
        return sum(
            2 * layer.weight.numel() * share
            for layer, share in zip(self.layers, shares, strict=True)
        )

    def reverse_is_less(self, n_voxels: int) -> bool:
        """Whether J_i of so many voxels takes fewer operations by `reverse` than G_i alone."""
        n_features = self._x.shape[1]
        return n_voxels * self.reverse_operations() < self.forward_operations(n_features)

    def hidden_jacobian(self, i: int) -> Tensor:
        """G_i (H, D) of stimulus i, not to be written to; those of the first `n_kept` are kept."""
        if i >= self.n_kept:
            return self._hidden_jacobian(i)
        if i not in self._kept:
            self._kept[i] = self._hidden_jacobian(i)
        return self._kept[i]

    def _hidden_jacobian(self, i: int) -> Tensor:
        """Rows whose slope is exactly zero (half of them, for ReLU) are left out of products."""
        first, *later = self.layers
        slope, rows = _slope_and_rows(first, i)
        g = first.weight.clone()
        if first.falloff is not None:
            g.addr_(first.falloff, self._x[i], alpha=-1)
        if slope is not None:
            g *= slope[:, None]
        if first.skip:
            g.diagonal().add_(1)
            rows = None
        for layer in later:
            slope, active = _slope_and_rows(layer, i)
            weight = layer.weight if active is None else layer.weight[active]
            step = weight @ g if rows is None else weight[:, rows] @ g[rows]
            if slope is not None:
                step *= (slope if active is None else slope[active])[:, None]
            if not layer.skip:
                g = step.new_zeros(len(layer.weight), step.shape[1])
            g = g.add_(step) if active is None else g.index_add_(0, active, step)
            rows = None if layer.skip else active
        return g

    def mean_hidden_jacobian(self) -> Tensor:
        """Gbar (H, D): G_0 plus the mean difference from it, so exact where all G_i are equal."""
        first = self.hidden_jacobian(0)
        shift, difference = torch.zeros_like(first), torch.empty_like(first)
        for i in range(1, self.n):
            shift += torch.sub(self.hidden_jacobian(i), first, out=difference)
        return first.add(shift, alpha=1 / self.n)

    def reverse(self, weights: Tensor) -> Callable[[int], Tensor]:
        """A function of stimulus i: J_i, (v, D), from the readout's rows `weights` (v, H).

        Its transpose is computed: rows are left out faster than columns.
        """
        readout = weights.T.contiguous()

        def jacobian(i: int) -> Tensor:
            g = readout
            for layer in reversed(self.layers):
                slope, rows = _slope_and_rows(layer, i)
                weight, falloff, inside = layer.weight, layer.falloff, g
                if rows is not None:
                    weight, inside = weight[rows], g[rows]
                    falloff = None if falloff is None else falloff[rows]
                if slope is not None:
                    inside = inside * (slope if rows is None else slope[rows])[:, None]
                step = weight.T @ inside
                if falloff is not None:
                    step.addr_(self._x[i], falloff @ inside, alpha=-1)
                g = step.add_(g) if layer.skip else step
            return g.T

        return jacobian


def _slope_and_rows(layer: _Layer, i: int) -> tuple[Tensor | None, Tensor | None]:
    """The slopes at stimulus i; and the rows with nonzero slope, if leaving the others out pays."""
    if layer.slope is None:
        return None, None
    slope = layer.slope[i]
    few = torch.count_nonzero(slope) < _SPARSE * len(slope)
    return slope, slope.nonzero().squeeze(1) if few else None


def _check_layers(hidden: Sequence[ResidualLayer]) -> None:
    if not hidden:
        raise InputError("encoder", "its residual_chain must return at least one hidden layer")
    if any(layer.falloff is not None for layer in hidden[1:]):
        raise InputError("encoder", "only the first layer of its residual_chain can be radial")
    for k, layer in enumerate(hidden, start=1):
        fan_in, fan_out = layer.linear.in_features, layer.linear.out_features
        if layer.skip and fan_in != fan_out:
            raise InputError(
                "encoder",
                f"hidden layer {k} of its residual_chain has a skip connection, so its width "
                f"({fan_out}) must equal the number of its inputs ({fan_in})",
            )


def _value_and_slope(activation: nn.Module, argument: Tensor) -> tuple[Tensor, Tensor]:
    """phi and phi' at an argument (N, H), each (N, H)."""
    with torch.enable_grad():
        argument = argument.detach().requires_grad_()
        value = activation(argument.clone())  # a copy, as activations may work in place
        # Elementwise, so the gradient of the sum is each element's own derivative
        slope = torch.autograd.grad(value.sum(), argument)[0]
    return value.detach(), slope


def _computed_share(slope: Tensor) -> float:
    """The share of rows that `hidden_jacobian` computes, on average over stimuli."""
    share = float(torch.count_nonzero(slope)) / slope.numel()
    return share if share < _SPARSE else 1.0

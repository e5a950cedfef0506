"""Jacobians of residual layers by the chain rule (Gao et al. 2025, A.4 eq. 8), and of any module.

N stimuli, D features, H hidden width, v voxels of a block.

    G_i = (S_n + D_n W_n) ... (S_2 + D_2 W_2) (S_1 + D_1 W_1)     (H, D)

D_k holds the slopes of layer k's activation at stimulus i on its diagonal (the identity where it
has none). S_k is the identity where layer k has a skip connection, else zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jne.encoders import ResidualLayer

_SPARSE = 0.75  # below this share of nonzero slopes, leaving the other rows out pays


@dataclass(frozen=True)
class _Layer:
    weight: Tensor
    """(H, H), the first (H, D)."""
    slope: Tensor | None
    """The derivative of the activation at every stimulus, (N, H); None without an activation."""
    skip: bool


class Chain:
    """The residual layers of an encoder at N stimuli, ready for either direction.

    hidden: as of `HasResidualChain`. x: (N, D). memo: a dict in which chains of the same weights
    and stimuli, but other activations, share their forward passes.
    """

    def __init__(
        self,
        hidden: Sequence[ResidualLayer],
        x: Tensor,
        memo: dict[tuple[str, ...], Tensor] | None = None,
    ) -> None:
        n_features = hidden[0].linear.in_features
        if x.shape[1] != n_features:
            raise ValueError(
                f"features must be (n_stimuli, {n_features}) for this encoder, "
                f"found {tuple(x.shape)}"
            )
        memo = {} if memo is None else memo
        self.n = len(x)
        self.layers: list[_Layer] = []
        self.parameters: list[Tensor] = []
        active = [not isinstance(layer.activation, nn.Identity) for layer in hidden]
        h = x
        path: tuple[str, ...] = ()  # the activations so far, on which a layer's values depend
        for k, layer in enumerate(hidden):
            parameters = [p.detach().to(x.device) for p in layer.linear.parameters()]
            slope = None
            if any(active[k:]):  # after the last activation the values are not needed
                if path not in memo:
                    memo[path] = nn.functional.linear(h, *parameters)
                step = memo[path]
                path += (repr(layer.activation),)
                if active[k]:
                    step, slope = _value_and_slope(layer.activation, step)
                if any(active[k + 1 :]):
                    h = step + h if layer.skip else step
            self.parameters += parameters
            self.layers.append(_Layer(parameters[0], slope, layer.skip))

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
            share = 1.0 if layer.slope is None else _worked_share(layer.slope)
            if k:
                total += 2 * layer.weight.numel() * n_features * share * inner
            inner = 1.0 if layer.skip else share * (inner if k else 1.0)
        return total

    def reverse_operations(self) -> float:
        """Operations of `reverse` for one stimulus and voxel."""
        return sum(2 * layer.weight.numel() for layer in self.layers)

    def hidden_jacobian(self, i: int) -> Tensor:
        """G_i (H, D) of stimulus i, a new array.

        Rows whose slope is exactly zero (half of them, for ReLU) are left out of the products.
        """
        first, *later = self.layers
        slope, rows = _slope_and_rows(first, i)
        g = first.weight.clone() if slope is None else first.weight * slope[:, None]
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
        """Gbar (H, D): G_0 plus the mean difference from it, which is exact where all are equal."""
        first = self.hidden_jacobian(0)
        shift = torch.zeros_like(first)
        for i in range(1, self.n):
            shift += self.hidden_jacobian(i).sub_(first)
        return first.add_(shift, alpha=1 / self.n)

    def reverse(self, weights: Tensor) -> Tensor:
        """J_i of every stimulus, (N, v, D), from the readout's rows `weights` (v, H)."""
        g = weights[None]  # one for all stimuli, until the first slope
        for layer in reversed(self.layers):
            step = (g if layer.slope is None else g * layer.slope[:, None, :]) @ layer.weight
            g = g + step if layer.skip else step
        return g if len(g) == self.n else g.repeat(self.n, 1, 1)


def _slope_and_rows(layer: _Layer, i: int) -> tuple[Tensor | None, Tensor | None]:
    """The slopes at stimulus i, and the rows with a nonzero one if leaving the others out pays."""
    if layer.slope is None:
        return None, None
    slope = layer.slope[i]
    few = torch.count_nonzero(slope) < _SPARSE * len(slope)
    return slope, slope.nonzero().squeeze(1) if few else None


def _value_and_slope(activation: nn.Module, argument: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        argument = argument.detach().requires_grad_()
        value = activation(argument)
        # Elementwise, so the gradient of the sum is each element's own derivative
        slope = torch.autograd.grad(value.sum(), argument)[0]
    return value.detach(), slope


def _worked_share(slope: Tensor) -> float:
    share = float(torch.count_nonzero(slope)) / slope.numel()
    return share if share < _SPARSE else 1.0


def functional_jacobian(module: nn.Module, x: Tensor, outputs: Tensor) -> Tensor:
    """J (v, D) of any module at one stimulus x (D,), for the outputs with these indices (v,).

    Forward mode, one pass per feature, where there are more outputs than features; else reverse
    mode, one pass per output.
    """

    def row(features: Tensor) -> Tensor:
        return module(features[None])[0, outputs]

    differentiate = torch.func.jacfwd if len(outputs) > len(x) else torch.func.jacrev
    return differentiate(row)(x).detach()

"""Kernel ridge regression as an encoder: a linear map, and a bump of the features per stimulus.

    y = W_path x + W_out h + b,   h_k = exp(-c |x - x_k|^2 / 2)

The x_k are the stimuli that it is fitted to. The bumps are units of a first layer whose Jacobian
the chain rule knows (`ResidualLayer.falloff`): c x_k'x - c |x_k|^2 / 2 - c |x|^2 / 2 is what they
are the exponential of.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jne.encoders.chain import ResidualLayer
from jne.errors import InputError


class KernelRegression(nn.Module):
    """`encoder=kernel`. It is not trained, but solved for (`jne.fitting.kernel`).

    Parameters
    ----------
    n_features, n_voxels : int
        D and V.
    widths : sequence of float
        Of the bumps, the best of which is taken: 1 / c in units of half the mean squared distance
        between two stimuli.
    n_centres : int
        Number of x_k; training makes it that of the stimuli (`resize`).

    Raises
    ------
    ValueError
        For widths that are not numbers above 0.
    """

    def __init__(
        self,
        n_features: int,
        n_voxels: int,
        *,
        widths: Sequence[float] = (0.5, 1.0, 2.0),
        n_centres: int = 1,
    ) -> None:
        super().__init__()
        self.widths = tuple(widths) if isinstance(widths, Sequence) else ()
        if not self.widths or not all(isinstance(w, int | float) and w > 0 for w in self.widths):
            raise InputError("widths", "must be a list of numbers above 0", value=widths)
        self.linear_path = nn.Linear(n_features, n_voxels, bias=False)
        self.activation = _Exponential()
        self.falloff: Tensor
        self.resize(n_centres)

    def resize(self, n_centres: int) -> None:
        """Make it one of so many centres."""
        n_voxels, n_features = self.linear_path.weight.shape
        self.hidden = nn.Linear(n_features, n_centres)
        self.readout = nn.Linear(n_centres, n_voxels)
        self.register_buffer("falloff", torch.ones(n_centres))
        self.n_centres = n_centres

    @torch.no_grad()
    def place(self, centres: Tensor, falloff: float) -> None:
        """Put the bumps at the x_k (n_centres, D). falloff: c."""
        self.falloff.fill_(falloff)
        self.hidden.weight.copy_(falloff * centres)
        self.hidden.bias.copy_(-falloff / 2 * centres.square().sum(dim=1))

    @property
    def arguments_of_data(self) -> dict[str, int]:
        """Arguments of the class that depend on what it was fitted to."""
        return {"n_centres": self.n_centres}

    def residual_chain(self) -> tuple[list[ResidualLayer], nn.Linear]:
        """One layer of radial units, and the readout, for the Jacobians (`jne.jacobian.chain`)."""
        return [ResidualLayer(self.hidden, self.activation, False, self.falloff)], self.readout

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, D) to responses (N, V)."""
        fall = torch.outer(features.square().sum(dim=1) / 2, self.falloff)
        return self.readout(self.activation(self.hidden(features) - fall)) + self.linear_path(
            features
        )


class _Exponential(nn.Module):
    def forward(self, argument: Tensor) -> Tensor:
        return argument.exp()

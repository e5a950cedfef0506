"""`measure`: the nonlinearity of any torch module from features to responses.

N stimuli, V responses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.analysis import nonlinearity
from jne.encoders import HasResidualChain, is_linear_layer
from jne.errors import InputError
from jne.jacobian.autograd import device_of, differentiable, dtype_of, foreign
from jne.jacobian.deviation import jacobian_deviation
from jne.utils.bars import progress_bar
from jne.utils.notebook import summary_html, summary_text

FEWEST_STIMULI = 3  # of two, both are equally far from their mean, and JNE is 0


@dataclass(frozen=True)
class Measurement:
    """How nonlinear a module is. A response is a voxel, a vertex or a neuron.

    Units are those of the module: a Jacobian is in units of the response per unit of a feature.
    Numbers of several encoders can be compared where features and responses are standardised.
    """

    deviation: NDArray[np.floating]
    """(N, V), how far each stimulus's Jacobian is from their mean."""

    @cached_property
    def jne(self) -> NDArray[np.float64]:
        """(V,)"""
        return nonlinearity.jne(self.deviation)

    @cached_property
    def mean_deviation(self) -> NDArray[np.float64]:
        """(V,)"""
        return nonlinearity.mean_deviation(self.deviation)

    @cached_property
    def jne_ss(self) -> NDArray[np.floating]:
        """(N, V)"""
        return nonlinearity.jne_ss(self.deviation)

    def __repr__(self) -> str:
        return summary_text(self._title, {"JNE": self.jne})

    def _repr_html_(self) -> str:
        return summary_html(self._title, {"JNE": self.jne, "mean deviation": self.mean_deviation})

    @property
    def _title(self) -> str:
        return "Measurement: {} stimuli, {} voxels".format(*self.deviation.shape)


def measure(
    module: nn.Module,
    features: Tensor | NDArray,
    *,
    voxels: NDArray | None = None,
    device: str | None = None,
    max_memory_gb: float = 1.0,
    progress: Callable[[float], None] | None = None,
    verbose: int = 1,
) -> Measurement:
    """The deviations of a module's Jacobians over stimuli, and from them JNE, JNE-SS and the rest.

    More responses than features make it use forward mode, a pass per feature and stimulus; fewer
    make it use reverse mode, a pass per response for many stimuli at once.

    Parameters
    ----------
    module : nn.Module
        Any module from features (n, ...) to responses (n, ...), each stimulus by itself. It is
        computed in evaluation mode and left as it was. One with a `residual_chain` is many times
        faster (`jne.encoders`).
    features : (N, ...) tensor or array
        As the module takes them: vectors (N, D), tokens, maps, images. N at least 3. Cast to the
        dtype of the module's weights. JNE sums over all features of a stimulus.
    voxels : array of int, optional
        Which of the responses; by default all V.
    device : str, optional
        Where to compute; by default where the module is.
    max_memory_gb : float
        Bound on the working memory, beside the module, the features and the result.
    progress : callable, optional
        Called with the share done, from 0 to 1, in place of a progress bar.
    verbose : int
        0 for no progress bar; a terminal shows one, and a notebook with ipywidgets.

    Returns
    -------
    Measurement

    Raises
    ------
    ValueError
        Where module and features do not fit each other, features are not finite, the response to a
        stimulus depends on others, or torch cannot differentiate the module.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            "module",
            f"must be a torch.nn.Module, found {_kind(module)}; put what it does into the "
            f"forward of one",
        )
    x = _checked(features, dtype_of(module))
    where = device_of(module) or torch.device("cpu") if device is None else _device(device)
    encoder = module
    try:
        if x.ndim > 2 or not (isinstance(module, HasResidualChain) or is_linear_layer(module)):
            encoder = _Flat(module, tuple(x.shape[1:]))
            _try(encoder, x)
        with progress_bar("Jacobians", verbose if progress is None else 0) as bar:
            deviation = jacobian_deviation(
                encoder,
                x.flatten(start_dim=1),
                voxels=voxels,
                device=str(where),
                max_memory_gb=max_memory_gb,
                progress=progress or bar,
            )
    except InputError as error:
        raise error.at("module" if error.key == "encoder" else error.key) from error
    return Measurement(deviation)


class _Flat(nn.Module):
    """A module with one axis of features and one of responses."""

    def __init__(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        """shape: that of the features of a stimulus."""
        super().__init__()
        self.module, self.shape = module, shape

    def forward(self, x: Tensor) -> Tensor:
        """(n, D) to (n, V)."""
        responses = self.module(x.reshape(len(x), *self.shape))
        if not isinstance(responses, Tensor):
            raise InputError(
                "module",
                f"must return a tensor of responses, found {_kind(responses)}; put it into "
                f"a module that takes them out",
            )
        if responses.ndim < 1 or len(responses) != len(x):
            raise InputError(
                "module",
                f"must return responses (n, ...) to the features of n stimuli, found shape "
                f"{tuple(responses.shape)} for n = {len(x)}",
            )
        return responses.reshape(len(x), -1)


def _checked(features: Tensor | NDArray, dtype: torch.dtype) -> Tensor:
    if not isinstance(features, Tensor):
        try:
            array = np.asarray(features)
        except ValueError as error:
            raise InputError("features", "its rows are not of one length") from error
        if array.dtype.kind not in "fiu":
            raise InputError(
                "features", f"must be an array of real numbers, found {_kind(features)}"
            )
        features = torch.from_numpy(np.array(array))
    if features.is_complex():
        raise InputError("features", "must be real numbers, found complex ones")
    if features.ndim < 2 or 0 in features.shape[1:]:
        raise InputError(
            "features", f"must be (n_stimuli, ...), found shape {tuple(features.shape)}"
        )
    if len(features) < FEWEST_STIMULI:
        raise InputError(
            "features", f"{len(features)} stimuli, but JNE needs at least {FEWEST_STIMULI}"
        )
    return features.detach().to(dtype)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError("device", "write cpu, cuda or cuda:1", value=name) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device", "this machine has no usable GPU", value=name)
    return device


def _try(encoder: nn.Module, x: Tensor) -> None:
    """Raise InputError where the module cannot be applied to the features at all."""
    first = x[:1].flatten(start_dim=1).to(device_of(encoder) or "cpu")
    with foreign(f"applied to features of shape {tuple(x[:1].shape)}"):
        with differentiable(encoder) as module:
            module(first.clone())


def _kind(value: object) -> str:
    return type(value).__name__

"""Jacobians of any module that maps rows to rows, by automatic differentiation.

N stimuli, D features, V outputs of the module, v of a block. Forward mode takes a pass per feature
and stimulus, and gives all outputs; reverse mode a pass per output, for many stimuli at once.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from jne.errors import InputError

_COPIES = 3  # of what a pass keeps for its derivative: itself, a gradient, a temporary array


class ModuleJacobians:
    """A module at N stimuli x (N, D), which gives each of them V responses.

    It gets copies of x, since it may work in place. Raises InputError where the module does not
    map (n, D) to (n, V), where the response to a stimulus depends on those beside it, where torch
    cannot differentiate it, and for whatever it raises itself.
    """

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        self.module, self.x = module, x
        self.n_outputs = self._check()
        self._pass_bytes = _COPIES * self._kept_bytes()
        self._at_once = len(x)

    def limit_memory(self, n_bytes: float) -> float:
        """Take at most so many bytes per pass, but at least one stimulus or feature at a time.

        Returns how many bytes a pass takes.
        """
        largest = max(self.x.shape)
        self._at_once = max(1, min(int(n_bytes / self._pass_bytes), largest))
        return self._at_once * self._pass_bytes

    def at_stimulus(self, i: int, outputs: Tensor) -> Tensor:
        """J_i (v, D), for the outputs with these indices (v,)."""
        d = self.x.shape[1]
        if len(outputs) <= d or not self.forward_mode:
            return self.at_stimuli(slice(i, i + 1), outputs)[0]
        jacobian = self.x.new_empty(len(outputs), d)
        for start in range(0, d, self._at_once):
            stop = min(start + self._at_once, d)
            directions = self.x.new_zeros(stop - start, d)
            directions[torch.arange(stop - start), torch.arange(start, stop)] = 1
            with foreign("differentiated"):
                jacobian[:, start:stop] = self._along(self.x[i], directions, outputs).T
        return jacobian

    def at_stimuli(self, stimuli: slice, outputs: Tensor) -> Tensor:
        """J_i of all these stimuli, (n, v, D)."""
        x = self.x[stimuli]
        jacobians = x.new_empty(len(x), len(outputs), x.shape[1])
        for start in range(0, len(x), self._at_once):
            rows = slice(start, start + self._at_once)
            block = x[rows].clone().requires_grad_()
            with torch.enable_grad(), foreign("differentiated"):
                # A row's responses depend on that row alone, so that the gradient of their sum over
                # rows holds the gradient of each.
                total = self.module(block.clone())[:, outputs].sum(dim=0)
                for k in range(len(outputs)):
                    (jacobians[rows, k],) = torch.autograd.grad(total[k], block, retain_graph=True)
        return jacobians

    def along(self, direction: Tensor) -> Iterator[Tensor]:
        """J_i times a direction (D,), (n, V) of some stimuli after the other, in forward mode."""
        for x in self.x.split(self._at_once):
            with foreign("differentiated"):
                tangents = direction.expand_as(x).clone()
                yield torch.func.jvp(lambda rows: self.module(rows.clone()), (x,), (tangents,))[1]

    def _along(self, x: Tensor, directions: Tensor, outputs: Tensor | slice) -> Tensor:
        """J times each of the directions (k, D), at one stimulus x (D,): (k, v)."""

        def row(features: Tensor) -> Tensor:
            return self.module(features[None].clone())[0, outputs]

        def along(direction: Tensor) -> Tensor:
            return torch.func.jvp(row, (x,), (direction,))[1]

        return torch.func.vmap(along)(directions).detach()

    def _check(self) -> int:
        """The number of outputs V."""
        first, second = self.x[:1], self.x[-1:]
        alone = self._responses(first)
        if alone.ndim != 2 or len(alone) != 1 or not alone.is_floating_point():
            raise InputError(
                "encoder", f"must map (1, n_features) to (1, V), found {tuple(alone.shape)}"
            )
        alone = torch.cat([alone, self._responses(second)])
        together = self._responses(torch.cat([first, second]))
        if together.shape != alone.shape or _differ(together, alone):
            raise InputError(
                "encoder",
                "must give a stimulus the same responses whatever stimuli are beside "
                "it, and this one does not",
            )
        x = first.clone().requires_grad_()
        with torch.enable_grad():
            response = self._responses(x).sum()
        gradient = None
        if response.requires_grad:
            with foreign("differentiated"):
                (gradient,) = torch.autograd.grad(response, x, allow_unused=True)
        if gradient is None:
            raise InputError(
                "encoder",
                "its responses cannot be differentiated by the features: it leaves torch "
                "(detach, numpy) on the way",
            )
        return alone.shape[1]

    def _responses(self, x: Tensor) -> Tensor:
        with foreign("applied to the features"):
            return self.module(x.clone())

    @cached_property
    def forward_mode(self) -> bool:
        """Whether forward mode, which torch lacks for some operations, works for this module.

        And whether it agrees with reverse mode, both at the first stimulus.
        """
        generator = torch.Generator().manual_seed(0)
        x = self.x[0]
        directions = torch.randn(2, len(x), generator=generator).to(x)
        weights = torch.randn(self.n_outputs, generator=generator).to(x)
        try:
            forward = self._along(x, directions, slice(None)) @ weights
        except (NotImplementedError, RuntimeError):  # torch raises either, by operation
            return False
        block = x[None].clone().requires_grad_()
        with torch.enable_grad():
            response = self._responses(block)[0] @ weights
        reverse = directions @ torch.autograd.grad(response, block)[0][0]
        return not _differ(forward, reverse)

    def _kept_bytes(self) -> int:
        """Bytes of what one stimulus's pass keeps for its derivative, and of its responses."""
        own = [*self.module.parameters(), *self.module.buffers()]
        seen = {tensor.untyped_storage().data_ptr() for tensor in own}
        total = self.n_outputs * self.x.element_size()

        def keep(tensor: Tensor) -> Tensor:
            nonlocal total
            place = tensor.untyped_storage().data_ptr()
            if place not in seen:
                seen.add(place)
                total += tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor), torch.enable_grad():
            kept = self._responses(self.x[:1].clone().requires_grad_())
        del kept
        return total


def _differ(actual: Tensor, expected: Tensor) -> bool:
    """Whether values differ by more than rounding; those that are not finite are not compared."""
    finite = expected[expected.isfinite()]
    scale = finite.abs().max() if len(finite) else 0.0
    return bool(((actual - expected).abs() > 1e-3 * scale).any())


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Raise InputError where the block, in which a user's module cannot be `what`, fails."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever a foreign module raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError("encoder", f"cannot be {what}: {reason}") from error


@contextmanager
def differentiable(module: nn.Module) -> Iterator[nn.Module]:
    """In this block the module is in evaluation mode, and all that it does has a derivative.

    Its weights need none. Attention is computed by plain products, which have a forward mode.
    Yields the module, or a copy where its weights were made in inference mode and have none.
    """
    # Lightning tests in inference mode, in which no derivative can be taken.
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # Of torch itself, when it first takes a derivative in forward mode
        warnings.filterwarnings("ignore", ".*torch.jit.script", FutureWarning)
        if any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers())):
            module = deepcopy(module)
        with _evaluated(module):
            yield module


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    frozen = [parameter for parameter in module.parameters() if parameter.requires_grad]
    fast = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        torch.backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for parameter in frozen:
            parameter.requires_grad_(True)
        for part, training in modes.items():
            part.training = training


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype of the module's weights; float32 where it has none."""
    own: Callable[[], Iterator[Tensor]]
    for own in (module.parameters, module.buffers):
        for tensor in own():
            if tensor.is_floating_point():
                return tensor.dtype
    return torch.float32


def device_of(module: nn.Module) -> torch.device | None:
    """The device of the module's weights; None where it has none."""
    own: Callable[[], Iterator[Tensor]]
    for own in (module.parameters, module.buffers):
        for tensor in own():
            return tensor.device
    return None

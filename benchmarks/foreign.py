"""The kinds of `fuzz.py` that measure modules: foreign encoders, and numbers against autograd."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from cases import Case, Refused
from torch import nn

from jne import ResidualEncoder, jacobian_deviation, measure


class _Calls(nn.Module):
    """A module that does what it is given."""

    def __init__(self, function: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.function, self.layer = function, nn.Linear(5, 3).double()

    def forward(self, x: torch.Tensor) -> object:
        return self.function(self, x)


def modules(home: Path, rng: random.Random) -> Iterator[Case]:
    """Foreign encoders; what is accepted must have the JNE of a plain one."""
    from torch.utils.checkpoint import checkpoint

    x = torch.randn(7, 5, dtype=torch.double)

    def compare(module: nn.Module, plain: nn.Module, mode: Callable[[], object]) -> None:
        before = x.clone()
        with mode():
            found = measure(module, x).deviation
        assert torch.equal(x, before), "the features were changed"
        np.testing.assert_allclose(found, measure(plain, x).deviation, rtol=1e-9, atol=1e-12)
        raise Refused("as a plain one")

    modes = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}
    tanh = _Calls(lambda m, x: torch.tanh(m.layer(x)))
    for what, function, plain in (
        ("in place", lambda m, x: torch.tanh(m.layer(x.mul_(2))),
         lambda m, x: torch.tanh(m.layer(2 * x))),
        ("relu_", lambda m, x: m.layer(x.relu_()), lambda m, x: m.layer(x.relu())),
        ("checkpointed", lambda m, x: checkpoint(lambda r: torch.tanh(m.layer(r)), x,
                                                 use_reentrant=False), tanh.function),
        ("a view", lambda m, x: torch.tanh(m.layer(x.view(-1, 5)))[:, None],
         lambda m, x: torch.tanh(m.layer(x))),
        ("clamped in place", lambda m, x: m.layer(x.clamp_(-1, 1) ** 2),
         lambda m, x: m.layer(x.clamp(-1, 1) ** 2)),
    ):  # fmt: skip
        for name, mode in modes.items():
            module, other = _Calls(function), _Calls(plain)
            other.load_state_dict(module.state_dict())
            yield (
                f"{what}, {name}",
                (lambda m=module, o=other, w=mode: compare(m, o, w)),
                False,
            )

    def fails(error: BaseException) -> Callable[[nn.Module, torch.Tensor], object]:
        def function(module: nn.Module, x: torch.Tensor) -> object:
            raise error

        return function

    for what, function in {
        "reentrant": lambda m, x: checkpoint(m.layer, x, use_reentrant=True),
        "detached": lambda m, x: m.layer(x).detach(), "a step": lambda m, x: (x > 0).double(),
        "a tuple": lambda m, x: (x, x), "None": lambda m, x: None, "text": lambda m, x: "x",
        "one number": lambda m, x: x.sum(), "a row less": lambda m, x: x[:-1],
        "complex": lambda m, x: x + 0j, "NumPy": lambda m, x: torch.tensor(x.numpy()),
        "batch statistics": lambda m, x: x - x.mean(dim=0), "item": lambda m, x: x * x.sum().item(),
        "another shape": lambda m, x: x @ torch.zeros(4, 2).double(),
        "float32 weights": lambda m, x: nn.Linear(5, 3)(x),
        "KeyError": fails(KeyError("gone")), "RuntimeError": fails(RuntimeError("a\nb\nc")),
        "StopIteration": fails(StopIteration()), "MemoryError": fails(MemoryError()),
        "OSError": fails(OSError("no file")), "recursion": lambda m, x: m(x),
        "integers": lambda m, x: x.long(), "sparse": lambda m, x: m.layer(x).to_sparse(),
        "assertion": fails(AssertionError("no")), "warning": fails(UserWarning("no")),
    }.items():  # fmt: skip
        yield what, lambda f=function: measure(_Calls(f), x), False
    for what, features in {
        "text": "x", "text values": np.array([["a"]]), "complex": np.ones((7, 5), complex),
        "a vector": np.ones(7), "no features": np.ones((7, 0)), "two stimuli": np.ones((2, 5)),
        "NaN": np.full((7, 5), np.nan), "None": None, "ragged": [[1, 2], [3]],
        "infinity": np.full((7, 5), np.inf), "other widths": np.ones((7, 4)),
    }.items():  # fmt: skip
        yield f"features: {what}", lambda f=features: measure(tanh, f), False
    for settings in (
        {"device": "gpu"}, {"device": "cuda:99"}, {"voxels": [0, 3]}, {"voxels": [-4]},
        {"voxels": []}, {"max_memory_gb": 0}, {"max_memory_gb": -1},
    ):  # fmt: skip
        yield f"{settings}", lambda s=settings: measure(tanh, x, **s), False


def numerics(home: Path, rng: random.Random) -> Iterator[Case]:
    """Wrong numbers count as silent."""

    def compare(module: nn.Module, n: int, d: int, variant: str) -> None:
        module = module.double().eval()
        x = torch.randn(n, d, dtype=torch.double)
        found = jacobian_deviation(module, x, variant=variant)
        one = torch.autograd.functional.jacobian
        jacobians = torch.stack([one(lambda r: module(r[None])[0], row) for row in x])
        if variant.startswith("zscore"):
            jacobians = jacobians - jacobians.mean(dim=2, keepdim=True)
            spread = jacobians.std(dim=2, keepdim=True, unbiased=False)
            jacobians = jacobians / torch.where(spread > 0, spread, 1)
        centred = jacobians - jacobians.mean(dim=0)
        order = 2 if variant.endswith("l2") else 1
        expected = torch.linalg.vector_norm(centred, ord=order, dim=2)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
        raise Refused("as autograd")

    class Attention(nn.Module):
        def __init__(self, d: int, v: int) -> None:
            super().__init__()
            self.inner, self.out = (
                nn.MultiheadAttention(4, 2, batch_first=True),
                nn.Linear(4 * d, v),
            )
            self.up = nn.Linear(1, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.up(x[:, :, None])
            return self.out(self.inner(tokens, tokens, tokens, need_weights=False)[0].flatten(1))

    def foreign(kind: str, d: int, v: int) -> nn.Module:
        return {
            "dropout": nn.Sequential(nn.Linear(d, 7), nn.Dropout(), nn.Tanh(), nn.Linear(7, v)),
            "layer norm": nn.Sequential(nn.LayerNorm(d), nn.Linear(d, v)),
            "batch norm": nn.Sequential(nn.Linear(d, 7), nn.BatchNorm1d(7), nn.Linear(7, v)),
            "in place": nn.Sequential(nn.Linear(d, 7), nn.ReLU(inplace=True), nn.Linear(7, v)),
            "attention": Attention(d, v),
            "softmax": nn.Sequential(nn.Linear(d, v), nn.Softmax(dim=1)),
        }[kind]  # fmt: skip

    variants = ("l1", "l2", "zscore_l1", "zscore_l2")
    for k in range(60):
        n, d, v, h = (rng.randint(2, 9) for _ in range(4))
        settings = {"n_hidden": rng.randint(1, 5), "bias": rng.random() < 0.5}
        settings["activation"] = rng.choice(("relu", "leaky_relu", "gelu", "swish", "tanh"))
        settings["placement"] = rng.choice(("loc1", "both", "none"))
        settings["skip_first"] = rng.random() < 0.3
        width = d if settings["skip_first"] else h
        encoder = ResidualEncoder(d, v, hidden_width=width, **settings)
        variant = rng.choice(variants)
        yield (
            f"residual {k}: {settings} {variant}",
            (lambda e=encoder, n=n, d=d, w=variant: compare(e, n, d, w)),
            False,
        )
    for kind in ("dropout", "layer norm", "batch norm", "in place", "attention", "softmax"):
        for variant in variants:
            n, d, v = rng.randint(2, 6), rng.randint(2, 6), rng.randint(1, 6)
            module = foreign(kind, d, v)
            yield (
                f"{kind} {variant}",
                (lambda m=module, n=n, d=d, w=variant: compare(m, n, d, w)),
                False,
            )


KINDS = (modules, numerics)

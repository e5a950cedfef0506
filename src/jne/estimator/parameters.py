"""The parameters of `JNERegressor`, checked, and what they are in the config of train.py."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, ValidationError, model_validator
from sklearn.utils import check_random_state

from jne.config import Device, Section, Seed, complaint
from jne.encoders import activated_layers
from jne.fitting.config import FitConfig, Readout, TrainerConfig

_OPTIMIZERS = {"adam": "torch.optim.Adam", "adamw": "torch.optim.AdamW"}


def _without_number(device: str) -> str:
    if ":" in device:
        raise ValueError("training takes the first GPU; write cuda, and set CUDA_VISIBLE_DEVICES")
    return device


def _placement(value: Any) -> str | list[int]:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(layer, int) for layer in value):
        return value
    raise ValueError("input should be both, loc1, loc2, none, or a list of layers from 1")


class Parameters(Section):
    """The parameters of a JNERegressor; random_state is a seed."""

    encoder: Literal["nonlinear", "kernel"]
    activation: Literal["relu", "leaky_relu", "gelu", "swish", "tanh"]
    placement: Annotated[Any, AfterValidator(_placement)]
    hidden_width: int = Field(ge=1)
    n_hidden: int = Field(ge=1)
    bias: bool
    linear_path: bool
    readout: Readout
    optimizer: Literal["adam", "adamw"]
    lr: float = Field(gt=0)
    weight_decay: Annotated[float, Field(ge=0)] | Literal["auto"]
    batch_size: Annotated[int, Field(ge=1)] | None
    max_epochs: int = Field(ge=1)
    patience: int = Field(ge=1)
    validation_fraction: float = Field(gt=0, lt=1)
    precision: Literal["32-true", "bf16-mixed"]
    device: Annotated[Device, AfterValidator(_without_number)]
    max_memory_gb: float = Field(gt=0)
    random_state: Seed
    verbose: int = Field(ge=0)

    @model_validator(mode="after")
    def _check_placement(self) -> "Parameters":
        activated_layers(self.placement, self.n_hidden)
        return self

    def config(self) -> FitConfig:
        """The same in the config of train.py."""
        encoder = {"hidden_width", "n_hidden", "bias", "linear_path", "activation", "placement"}
        optimizer, trainer = {"lr", "weight_decay"}, {"max_epochs", "patience", "batch_size"}
        residual = {
            "_target_": "jne.encoders.ResidualEncoder",
            **self.model_dump(include=encoder),
        }
        kernel = {"_target_": "jne.encoders.KernelRegression"}
        return FitConfig(
            encoder=kernel if self.encoder == "kernel" else residual,
            optimizer={
                "_target_": _OPTIMIZERS[self.optimizer],
                **self.model_dump(include=optimizer),
                "fused": True,
            },
            readout=self.readout,
            trainer=TrainerConfig(
                **self.model_dump(include=trainer | {"precision"}),
                accelerator="cpu" if self.device == "cpu" else "gpu",
                checkpoint_seconds=0,
            ),
            seed=self.random_state,
        )


def checked(values: Mapping[str, Any]) -> Parameters:
    """The parameters with these values.

    random_state may also be None or a RandomState, from which a seed is drawn. Raises InputError
    naming the parameter at fault.
    """
    plain = {name: _plain(value) for name, value in values.items()}
    if not isinstance(plain["random_state"], int):
        plain["random_state"] = int(check_random_state(plain["random_state"]).randint(2**31))
    try:
        return Parameters(**plain)
    except ValidationError as error:
        raise complaint(error) from error


def _plain(value: Any) -> Any:
    """A number of NumPy's, as a grid search may give it, as one of Python's."""
    return value.item() if isinstance(value, np.generic) else value

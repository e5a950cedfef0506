"""The keys that say how an encoder is trained."""

from typing import Any, Literal

from pydantic import Field

from jne.config import Accelerator, Section, Seed

Readout = Literal["ridge", "stacked", "trained"]


class TrainerConfig(Section):
    """conf/trainer"""

    max_epochs: int = Field(ge=1)
    patience: int = Field(ge=1)
    batch_size: int | None = Field(ge=1)
    precision: Literal["32-true", "bf16-mixed"]
    accelerator: Accelerator
    checkpoint_seconds: float = Field(ge=0)
    # Optional, for config files from before there was this key
    response_space: Literal["auto", "voxels", "components"] = "auto"


class FitConfig(Section):
    """All that a trained encoder depends on beside the data."""

    encoder: dict[str, Any]
    optimizer: dict[str, Any]
    readout: Readout
    trainer: TrainerConfig
    seed: Seed

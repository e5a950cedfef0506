"""The keys that say how an encoder is measured."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from jne.config import Device, Section
from jne.jacobian import Precision
from jne.jacobian.variants import DEFAULT, check_variant

_VOXELS = ("all", "significant", "none")


def _number_or_rois(value: object) -> object:
    if isinstance(value, str):  # a single ROI, written without brackets
        return [value]
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    names = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    if value is None or number or names:
        return value
    raise ValueError("input should be a number of voxels from 1 up, names of ROIs, or null")


def _shard(value: object) -> object:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value) if isinstance(value, str) else None
    if match and 1 <= int(match[1]) <= int(match[2]):
        return f"{int(match[1])}/{int(match[2])}"
    raise ValueError("input should be null or k/K, such as 2/4 for the second of four shards")


class JacobianConfig(Section):
    """conf/jacobian"""

    voxels: Annotated[
        Literal["all", "significant", "none"] | list[str],
        # A single ROI may be written without brackets: jacobian.voxels=V1
        BeforeValidator(lambda v: [v] if isinstance(v, str) and v not in _VOXELS else v),
    ]
    variants: list[Annotated[str, AfterValidator(check_variant)]]
    precision: Precision
    device: Device
    max_memory_gb: float = Field(gt=0)
    # Optional, for config files from before there were these keys
    trajectory: Annotated[int | list[str] | None, BeforeValidator(_number_or_rois)] = None
    shard: Annotated[str | None, BeforeValidator(_shard)] = None

    @model_validator(mode="after")
    def _shards_have_voxels(self) -> Self:
        if self.voxels == "none" and self.shard is not None:
            raise ValueError(
                "shard has no voxels to share with jacobian.voxels=none; set it to null"
            )
        return self

    @property
    def share(self) -> tuple[int, int] | None:
        """(k, K) of `shard`."""
        if self.shard is None:
            return None
        k, n_shards = self.shard.split("/")
        return int(k), int(n_shards)

    @field_validator("variants")
    @classmethod
    def _has_default(cls, variants: list[str]) -> list[str]:
        if DEFAULT not in variants:
            raise ValueError(f"{DEFAULT} must be among them: JNE is defined by it")
        return variants

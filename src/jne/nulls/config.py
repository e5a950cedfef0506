"""The keys of the null model of a run."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from jne.config import Section


class ControlConfig(Section):
    """conf/control: the null model of the run."""

    kind: Literal["none", "shuffle", "twins"]
    draws: int = Field(1, ge=1, le=1000)
    share: float = Field(1.0, gt=0, le=1)
    planted: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=list)

    @field_validator("planted")
    @classmethod
    def _ascending(cls, planted: list[float]) -> list[float]:
        if sorted(set(planted)) != planted:
            raise ValueError("must be in ascending order, each share once")
        return planted

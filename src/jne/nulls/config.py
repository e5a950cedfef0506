"""The keys of the null model of a run."""

from typing import Literal

from pydantic import Field

from jne.config import Section


class ControlConfig(Section):
    """conf/control: the null model of the run."""

    kind: Literal["none", "shuffle", "twins"]
    draws: int = Field(1, ge=1, le=1000)
    share: float = Field(1.0, gt=0, le=1)

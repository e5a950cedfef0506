"""The part of the config that every script has, and that a sweep reads before its jobs."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrackingConfig(Section):
    """conf/tracking"""

    uri: str | None
    experiment: str = Field(min_length=1)
    required: Literal["always", "start", "never"]
    nested: bool


class ScriptConfig(Section):
    """What every script takes."""

    tracking: TrackingConfig
    output: Annotated[Path, AfterValidator(Path.absolute)]

    @property
    def tracking_uri(self) -> str:
        """Of the MLflow store: the one named, else an sqlite file under `output`."""
        return self.tracking.uri or f"sqlite:///{self.output / 'mlflow.db'}"

    @property
    def store(self) -> dict[str, str]:
        """The store, its experiment, and where that keeps artifacts."""
        artifacts = str(self.output / "mlartifacts")
        experiment = self.tracking.experiment
        return {"uri": self.tracking_uri, "experiment": experiment, "artifacts": artifacts}

"""What a simulation is."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import pandas as pd
from pydantic import BaseModel, ConfigDict

Progress = Callable[[float], None]


class Study(BaseModel, ABC):
    """One simulation. Its fields are the keys of its file in conf/simulation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def run(self, progress: Progress) -> pd.DataFrame:
        """The table of the study; `progress` is called with the share done."""

    @abstractmethod
    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """The scalars of a table, by their names in MLflow."""


def means(table: pd.DataFrame) -> pd.DataFrame | None:
    """Mean JNE of each cell over the draws of the weights, with its standard error.

    None for a study that draws no weights.
    """
    if "draw" not in table:
        return None
    cell = [name for name in table if name not in ("draw", "jne", "mean_deviation")]
    draws = table.groupby(cell, sort=False)["jne"]
    return pd.DataFrame(
        {"mean": draws.mean(), "standard_error": draws.sem(), "n_draws": draws.count()}
    ).reset_index()

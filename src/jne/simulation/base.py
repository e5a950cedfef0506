"""What a study is."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from jne.config import Section

Progress = Callable[[float], None]


class Study(Section, ABC):
    """A simulation. Its fields are the keys of its yaml file, checked before anything runs."""

    @abstractmethod
    def run(self, progress: Progress) -> pd.DataFrame:
        """The study's table.

        A table with the columns `draw` (of the weights) and `jne` has one row per draw and cell.
        All other columns except `mean_deviation` say which cell.

        Parameters
        ----------
        progress : callable
            To be called with the share done, from 0 to 1.

        Returns
        -------
        DataFrame
        """

    @abstractmethod
    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """The finite scalars that answer the study's question.

        Parameters
        ----------
        table : DataFrame
            As `run` returned it.

        Returns
        -------
        dict of str to float
            By their names in MLflow.
        """

    def overview(self, table: pd.DataFrame) -> pd.DataFrame | None:
        """A small table to print and to write as overview.csv, in place of printed scalars.

        Parameters
        ----------
        table : DataFrame
            As `run` returned it.

        Returns
        -------
        DataFrame or None
            Its index names the rows.
        """
        return None

    @property
    def stages_used(self) -> list[str]:
        """As of `jne.stages.Stages`, of a study that keeps what it computes."""
        return []

    def figure(self, table: pd.DataFrame) -> Figure | None:
        """A figure of the table, drawn and saved in the style of `jne.plots`.

        Parameters
        ----------
        table : DataFrame
            As `run` returned it.

        Returns
        -------
        Figure or None
        """
        return None


def means(table: pd.DataFrame) -> pd.DataFrame | None:
    """Mean JNE of each cell over the draws of the weights, with its standard error.

    Returns one row per cell: the columns that name it, mean, standard_error, n_draws. None for a
    study that draws no weights or has a single cell.
    """
    cell = [name for name in table if name not in ("draw", "jne", "mean_deviation")]
    if not cell or not {"draw", "jne"} <= set(table):
        return None
    draws = table.groupby(cell, sort=False)["jne"]
    return pd.DataFrame(
        {"mean": draws.mean(), "standard_error": draws.sem(), "n_draws": draws.count()}
    ).reset_index()

"""How many stimuli JNE needs to follow a known nonlinearity (Gao et al. 2025, A.7.1)."""

from typing import Annotated

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from pydantic import Field

from jne.analysis.nonlinearity import jne
from jne.plots.style import subplots
from jne.simulation.base import Progress, Study
from jne.simulation.labels import COLOURS
from jne.simulation.networks import derived_seed


class SampleSize(Study):
    """JNE of random Jacobians times |sin t|, at each number of stimuli, along t."""

    sizes: list[Annotated[int, Field(ge=2)]] = Field(min_length=1)
    n_points: int = Field(ge=3)
    n_features: int = Field(ge=1)
    seed: int = Field(ge=0)

    def run(self, progress: Progress) -> pd.DataFrame:
        generator = torch.Generator().manual_seed(derived_seed(self.seed))
        points = np.linspace(0, 2 * np.pi, self.n_points)
        done, total = 0, sum(self.sizes) * self.n_points
        tables = []
        for n in self.sizes:
            curve = np.empty(self.n_points)
            for k, t in enumerate(points):
                jacobians = torch.randn(n, self.n_features, generator=generator) * abs(np.sin(t))
                deviation = (jacobians - jacobians.mean(dim=0)).abs().sum(dim=1)
                curve[k] = jne(deviation[:, None].numpy())[0]
                done += n
                progress(done / total)
            tables.append(pd.DataFrame({"n_stimuli": n, "t": points, "jne": curve}))
        return pd.concat(tables, ignore_index=True)

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """Pearson's r of JNE with |sin t| by the number of stimuli."""
        return {f"r/{n:04d}": r for n, r in _correlations(table).items()}

    def figure(self, table: pd.DataFrame) -> Figure:
        """JNE along t at the smallest, middle and largest number of stimuli; r at all of them."""
        figure, (left, right) = subplots(
            1, 2, figsize=(6.8, 2.6), width_ratios=(3, 2), layout="constrained"
        )
        r = _correlations(table)
        sizes = list(r)
        for colour, n in zip(COLOURS, (sizes[0], sizes[len(sizes) // 2], sizes[-1]), strict=False):
            curve = table[table["n_stimuli"] == n]
            left.plot(curve["t"], curve["jne"], color=colour, lw=0.8, label=f"N = {n}")
        left.set(xlabel="t", ylabel="JNE", title="JNE of random Jacobians times |sin t|")
        left.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, -0.22))
        right.semilogx(sizes, list(r.values()), "o-", color=COLOURS[0], ms=4)
        right.axhline(0.99, color="#999999", lw=0.8, ls="--")
        text = {"xytext": (0, 2), "textcoords": "offset points", "fontsize": 7}
        right.annotate("0.99", (sizes[0], 0.99), **text)
        right.set(xlabel="samples N", ylabel="Pearson r with |sin t|", title="How many are enough")
        return figure


def _correlations(table: pd.DataFrame) -> dict[int, float]:
    """Pearson's r of JNE with |sin t| by the number of stimuli, smallest first."""
    correlations = {}
    for n in sorted(table["n_stimuli"].unique()):
        curve = table[table["n_stimuli"] == n]
        correlations[int(n)] = float(np.corrcoef(curve["jne"], np.abs(np.sin(curve["t"])))[0, 1])
    return correlations

"""How well each encoder predicts the test responses, and how much of them is explainable."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jne.analysis.selectivity import WHOLE_BRAIN
from jne.evaluation.sections.base import Section, Tables, by_region
from jne.evaluation.voxels import SubjectData
from jne.plots.panels import limits_of, points
from jne.plots.style import subplots


class Performance(Section):
    title = "Prediction"
    docs = "metrics.md"
    headline = True
    captions: Mapping[str, str] = {
        "r2_ceiling": "R² against the noise ceiling of R², one point (or bin) per voxel. Solid "
        "line: all of the explainable variance; dashed line: 80 % of it.",
    }
    headings: Mapping[str, str] = {
        "n_without_p": "without p",
        "r2_mean": "R² mean",
        "r2_median": "R² median",
        "r2_max": "R² max",
        "r_mean": "r mean",
        "noise_ceiling_mean": "noise ceiling",
        "r2_normalised_median": "R² / ceiling, median",
    }

    def tables(self, data: SubjectData) -> Tables:
        rows = [
            _row(region, encoder, chosen)
            for encoder in (*data.encoders, *data.baselines)
            for region, chosen in by_region(data.voxels, data.rois)
        ]
        return {"performance": pd.DataFrame(rows)}

    def text(self, data: SubjectData, tables: Tables) -> str:
        return (
            "Scores of the predictions of the test stimuli, over all voxels of a region. The "
            "voxels analysed are those that enter the tests of JNE. Ridge regression, with a "
            "penalty per voxel, is the baseline of every run."
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        ceiling = data.voxels.get("noise_ceiling")
        return {} if ceiling is None or not ceiling.any() else {"r2_ceiling": _r2_ceiling(data)}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        table = tables["performance"]
        whole = _whole_brain(tables).iloc[0]
        means = table[table["roi"] == WHOLE_BRAIN].set_index("encoder")["r2_mean"]
        ridge = f", {means['ridge']:.3f} (ridge regression)" if "ridge" in means else ""
        ceiling = (
            f", of at most {whole.noise_ceiling_mean:.3f} (noise ceiling)"
            if np.isfinite(whole.noise_ceiling_mean)
            else ""
        )
        return [
            f"mean test R² {whole.r2_mean:.3f} (nonlinear encoder){ridge}{ceiling}; "
            f"{int(whole.n_analysed)} of {int(whole.n_voxels)} voxels analysed."
        ]

    def findings_across(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        table = tables["performance"]
        whole = table[table["roi"] == WHOLE_BRAIN].groupby("encoder", sort=False)["r2_mean"]
        parts = [
            f"{mean:.3f} ({name}, SD over subjects {spread:.3f})"
            for name, mean, spread in zip(
                whole.mean().index, whole.mean(), whole.std(), strict=True
            )
        ]
        return [f"All subjects: mean test R² {', '.join(parts)}."]

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        lines = [
            f"{row['subject']}: {row['n_without_p']} of {row['n_voxels']} voxels have no p because "
            f"responses are missing or constant; they do not count as tests in the FDR correction."
            for row in _whole_brain(tables).to_dict("records")
            if row["n_without_p"]
        ]
        if any("noise_ceiling" not in data.voxels for data in subjects):
            lines.append("These data have no noise ceiling, so only the raw R² is shown.")
        return lines


def _row(region: str, encoder: str, voxels: pd.DataFrame) -> dict[str, object]:
    r2 = voxels[f"r2_{encoder}"]
    none = pd.Series(np.nan, index=voxels.index)  # a baseline has an R2 alone
    return {
        "encoder": encoder,
        "roi": region,
        "n_voxels": len(voxels),
        "n_without_p": int(voxels.get(f"p_{encoder}", r2).isna().sum()),
        "n_analysed": int(voxels["analysed"].sum()),
        "r2_mean": r2.mean(),
        "r2_median": r2.median(),
        "r2_max": r2.max(),
        "r_mean": voxels.get(f"r_{encoder}", none).mean(),
        "noise_ceiling_mean": voxels.get("noise_ceiling", pd.Series()).mean(),
        "r2_normalised_median": voxels[f"r2_normalised_{encoder}"].median(),
    }


def _whole_brain(tables: Tables) -> pd.DataFrame:
    table = tables["performance"]
    return table[(table["roi"] == WHOLE_BRAIN) & (table["encoder"] == "nonlinear")]


def _r2_ceiling(data: SubjectData) -> Figure:
    voxels, encoders = data.voxels, data.encoders
    figure, axes = subplots(
        1,
        len(encoders),
        figsize=(2.9 * len(encoders) + 0.3, 2.9),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    limits = limits_of(voxels["noise_ceiling"], *(voxels[f"r2_{name}"] for name in encoders))
    for panel, encoder in zip(axes[0], encoders, strict=True):
        chosen = voxels.dropna(subset=["noise_ceiling", f"r2_{encoder}"])
        points(
            panel, chosen["noise_ceiling"].to_numpy(), chosen[f"r2_{encoder}"].to_numpy(), limits
        )
        for share, style in ((1.0, "-"), (0.8, "--")):
            ends = np.array([0, limits[1]])
            panel.plot(ends, share * ends, style, color="#D55E00", lw=0.9)
        panel.set(xlabel="noise ceiling of R²", title=f"{encoder} encoder")
    axes[0, 0].set_ylabel("R² on the test stimuli")
    return figure

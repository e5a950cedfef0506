"""The report: one HTML page that opens anywhere, with its tables and figures inside."""

import base64
import struct
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

from jne import __version__
from jne.analysis.hierarchy import MIN_VOXELS
from jne.analysis.selectivity import WHOLE_BRAIN
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.figures import CAPTIONS, MEASURES
from jne.evaluation.subjects import Subject, is_linear
from jne.evaluation.tables import SubjectTables
from jne.utils.files import atomic_file

_TITLES = {
    "roi": "region",
    "n_voxels": "voxels",
    "n_analysed": "analysed",
    "n_without_p": "without p",
    "n_stimuli": "stimuli",
    "r2_mean": "R² mean",
    "r2_median": "R² median",
    "r2_max": "R² max",
    "r_mean": "r mean",
    "noise_ceiling_mean": "noise ceiling",
    "r2_normalised_median": "R² / ceiling, median",
    "r2_linear": "R² linear",
    "r2_nonlinear": "R² nonlinear",
    "p_holm": "p (Holm)",
    "p_fdr": "p (FDR)",
    "mean_low": "from",
    "mean_high": "to",
    "median_low": "from",
    "median_high": "to",
    "tau": "Kendall's tau",
    "split_half_r": "split-half r",
    "median_interval_width": "median width of the interval",
    "median_jne": "median JNE",
    "n_seeds": "seeds",
    "r_across_seeds": "r across seeds",
    "median_sd_across_seeds": "median sd across seeds",
}


def write_report(
    path: Path,
    config: EvaluateConfig,
    subjects: list[Subject],
    found: list[SubjectTables],
    tables: dict[str, pd.DataFrame],
    figures: dict[str, dict[str, Path]],
    maps: dict[str, dict[str, Path]],
) -> None:
    """Write the page. figures, maps: by subject, then by name."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["cell"] = _cell
    template = environment.from_string(
        files("jne.evaluation").joinpath("report.html.j2").read_text("utf-8")
    )
    data = subjects[0].nonlinear.config["data"]["name"]
    page = template.render(
        title=f"Nonlinearity of encoding models: {data}, {', '.join(s.name for s in subjects)}",
        made=f"Made by jne {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
        runs=_table(_runs(subjects)),
        settings=_settings(config),
        findings=findings(found, tables, config),
        subjects=[
            {"name": one.name, "sections": _sections(one, figures[one.name], maps[one.name])}
            for one in found
        ],
        caveats=_caveats(found, tables),
        folder=path.parent,
    )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def findings(
    found: list[SubjectTables], tables: dict[str, pd.DataFrame], config: EvaluateConfig
) -> list[str]:
    """What the tables say, in sentences."""
    lines = []
    alpha = config.stats.alpha
    for one in found:
        performance = one.tables["performance"].set_index(["encoder", "roi"])
        whole = performance.loc[("nonlinear", WHOLE_BRAIN)]
        lines.append(
            f"{one.name}: mean test R² {whole.r2_mean:.3f} (nonlinear), "
            f"{int(whole.n_analysed)} of {int(whole.n_voxels)} voxels analysed."
        )
        if "comparison" in one.tables:
            row = one.tables["comparison"].iloc[0]
            lines[-1] += (
                f" The R² maps of the linear and the nonlinear encoder correlate at r = {row.r:.2f}"
                f"; the nonlinear one's R² is {'higher' if row.difference > 0 else 'lower'} by "
                f"{abs(row.difference):.3f} on average."
            )
        trend = one.tables["trend"].iloc[0]
        if np.isfinite(trend.tau):
            verdict = "rises" if trend.p < alpha else "does not rise significantly"
            lines.append(
                f"{one.name}: JNE {verdict} from tier to tier (Kendall's tau {trend.tau:.2f}, "
                f"{_p(trend.p)}){_tier_steps(one)}."
            )
        preferred = one.tables["preferences"].query("preferred")
        if one.rois:
            preferred = preferred.query("roi != @WHOLE_BRAIN")
        if len(preferred):
            preferred = preferred.sort_values("ratio", ascending=False)
            named = preferred["roi"].replace(WHOLE_BRAIN, "all voxels")
            parts = [
                f"{roi} for {', '.join(clusters[:3])}"
                for roi, clusters in preferred["cluster"].groupby(named, sort=False)
            ]
            lines.append(f"{one.name}: more nonlinear than for other stimuli: {'; '.join(parts)}.")
        else:
            lines.append(f"{one.name}: no significant preference for a cluster of stimuli.")
        reliability = one.tables["reliability"].iloc[0]
        lines.append(
            f"{one.name}: JNE from two halves of the {int(reliability.n_stimuli)} test stimuli "
            f"correlates at r = {reliability.split_half_r:.3f} over voxels."
        )
        if np.isfinite(reliability.r_across_seeds):
            lines[-1] += (
                f" Across {int(reliability.n_seeds)} seeds of training, "
                f"r = {reliability.r_across_seeds:.3f}."
            )
    across = tables["trend"].query("subject == 'all' and measure == 'jne'")
    if len(across) and np.isfinite(across.iloc[0].tau):
        row = across.iloc[0]
        lines.append(
            f"All subjects: mean Kendall's tau {row.tau:.2f}, combined {_p(row.p)} (Stouffer)."
        )
    return lines


def _tier_steps(one: SubjectTables) -> str:
    pairs = one.tables["pairwise"].query("level == 'tier' and measure == 'jne' and significant")
    steps = [
        f"{lower} < {upper}"
        for lower, upper in (("PVC", "IVC"), ("IVC", "HVC"), ("PVC", "HVC"))
        if ((pairs["greater"] == upper) & (pairs["lesser"] == lower)).any()
    ]
    return f"; significant steps: {', '.join(steps)}" if steps else ""


def _runs(subjects: list[Subject]) -> pd.DataFrame:
    rows = []
    for subject in subjects:
        for run in subject.runs:
            linear = is_linear(run)
            rows.append(
                {
                    "subject": subject.name,
                    "encoder": "linear" if linear else "nonlinear",
                    "activation": "-" if linear else run.config["activation"],
                    "placement": "-" if linear else run.config["placement"],
                    "seed": str(run.config["seed"]),
                    "data": run.config["data"]["name"],
                    "test stimuli": str(len(run.stimuli)),
                    "voxels": str(len(run.voxels)),
                    "epochs": str(len(run.epochs)),
                    "MLflow run": (run.status.get("mlflow_run_id") or "-")[:8],
                    "results": run.path.name,
                }
            )
    return pd.DataFrame(rows)


def _settings(config: EvaluateConfig) -> str:
    which = (
        f"significant in the nonlinear encoder (p < {config.stats.alpha} after FDR)"
        if config.voxels == "significant"
        else "all that have a JNE"
    )
    form = "(k + 1) / (n + 1)" if config.stats.p_value == "plus_one" else "k / n"
    return (
        f"Voxels analysed: {which}. p of R² > 0 from {config.stats.n_bootstrap} resamples of the "
        f"test stimuli, as {form}; Benjamini-Hochberg over the voxels that have a p. "
        f"Noise ceilings are of R², from 0 to 1; nothing is clipped."
    )


def _sections(one: SubjectTables, figures: dict[str, Path], maps: dict[str, Path]) -> list[dict]:
    tables = one.tables
    jne = tables["hierarchy"].query("measure == 'jne'").drop(columns=["subject", "measure"])
    trend = tables["trend"].dropna(subset="tau").drop(columns="subject")
    few = [row.group for row in jne.itertuples() if row.n_voxels < MIN_VOXELS]
    left_out = f" Below {MIN_VOXELS} voxels, so not tested: {', '.join(few)}." if few else ""
    preferred = tables["preferences"].query("preferred").sort_values("p_fdr")
    sections = [
        {
            "title": "Prediction",
            "text": "",
            "tables": [_table(tables["performance"].drop(columns="subject"))],
            "figures": _figures(figures, "r2_ceiling"),
        }
    ]
    if "comparison" in tables:
        sections.append(
            {
                "title": "Linear against nonlinear",
                "text": "R² says how well responses are predicted, and two encoders can reach the "
                "same R² by different maps: where features are deep, a linear readout already "
                "predicts most. JNE asks something else, how much the map itself changes from "
                "stimulus to stimulus. Voxels: all that are scored. Paired test over voxels: "
                "Wilcoxon's, two-sided.",
                "tables": [_table(tables["comparison"].drop(columns="subject"))],
                "figures": _figures(figures, "r2_scatter"),
            }
        )
    if maps:
        sections.append(
            {"title": "Maps", "text": "", "tables": [], "figures": _figures(maps, *maps)}
        )
    sections += [
        {
            "title": "Where JNE is high",
            "text": "Means and medians over voxels with 95 % bootstrap intervals." + left_out,
            "tables": [_table(jne)] if len(jne) else [],
            "figures": _figures(figures, "jne", "pairwise"),
        },
        {
            "title": "Does the choice of measure matter?",
            "text": "JNE is the spread of the Jacobians' deviations, the mean deviation their "
            "size; the z-score variants take a voxel's response gain out."
            + (" Kendall's tau: of each with the tier." if len(trend) else ""),
            "tables": [_table(trend)] if len(trend) else [],
            "figures": _figures(figures, "variants"),
        },
        {
            "title": "Which stimuli",
            "text": ""
            if len(preferred)
            else "No region is significantly more nonlinear for a cluster than for the others.",
            "tables": [_table(preferred.drop(columns=["subject", "preferred"]))]
            if len(preferred)
            else [],
            "figures": _figures(figures, "mom", "embedding", "examples"),
        },
        {
            "title": "Reliability",
            "text": "The mean Jacobian is held; the stimuli over which the spread is taken are "
            "drawn again.",
            "tables": [_table(tables["reliability"].drop(columns="subject"))],
            "figures": _figures(figures, "reliability"),
        },
    ]
    return sections


def _caveats(found: list[SubjectTables], tables: dict[str, pd.DataFrame]) -> list[str]:
    lines = [
        "Voxels are the units of the tests between regions. Neighbouring voxels of a real brain "
        "are correlated and one encoder predicts them all, so these p are smaller than "
        "independent voxels would give; effects that hold in every subject say more.",
        "JNE keeps scale: a voxel that is predicted better has larger Jacobians. The z-score "
        "variants, and R² beside JNE, show whether that explains a difference.",
        "JNE is 0 for a unit that switches between two maps with equal odds; its mean deviation "
        "is not. Read them together.",
        "There is no absolute threshold of JNE that calls a voxel nonlinear.",
    ]
    if len(found) > 1:
        lines.append(
            "Combining p over subjects asks whether there is an effect in these subjects, not in "
            "the population they come from."
        )
    without = tables["performance"].query("roi == @WHOLE_BRAIN and encoder == 'nonlinear'")
    for row in without.itertuples():
        if row.n_without_p:
            lines.append(
                f"{row.subject}: {row.n_without_p} of {row.n_voxels} voxels have no p (missing or "
                f"constant responses) and do not count among the tests of the FDR."
            )
    if any("noise_ceiling" not in one.voxels for one in found):
        lines.append("These data carry no noise ceiling, so R² is shown raw alone.")
    return lines


def _figures(paths: dict[str, Path], *names: str) -> list[dict]:
    return [
        {
            "png": base64.b64encode(paths[name].read_bytes()).decode(),
            "caption": CAPTIONS.get(name, name),
            "width": _pixel_width(paths[name]) * 2 // 3,  # drawn at 150 dpi, shown at 100
        }
        for name in names
        if name in paths
    ]


def _pixel_width(png: Path) -> int:
    return struct.unpack(">I", png.read_bytes()[16:20])[0]  # the first field of its header


def _table(table: pd.DataFrame) -> dict:
    table = table.dropna(axis="columns", how="all")
    if "measure" in table:
        table = table.assign(measure=table["measure"].map(lambda name: MEASURES.get(name, name)))
    columns = [
        {
            "name": name,
            "title": _TITLES.get(name, name.replace("_", " ")),
            "number": pd.api.types.is_numeric_dtype(table[name]),
        }
        for name in table
    ]
    return {"rows": table.to_dict("records"), "columns": columns}


def _cell(value: object) -> str:
    if isinstance(value, float):
        if not np.isfinite(value):
            return "–"
        return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"
    return str(value)


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"

"""The report: one HTML page that opens anywhere, with its tables and figures inside.

Nothing here knows a section by name: the page is made of whatever SECTIONS holds.
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

from jne import __version__
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.sections.base import Section, SectionResults
from jne.evaluation.subjects import Subject, has_twins, is_linear
from jne.evaluation.voxels import SubjectData

DPI = 150  # of the figures; the page shows them at 100
Figures = Mapping[tuple[Section, str], Mapping[str, Path]]
"""PNG files by figure name, for each section and subject."""

# Of columns that several sections have
_HEADINGS = {
    "roi": "region",
    "n_voxels": "voxels",
    "n_analysed": "analysed",
    "n_stimuli": "stimuli",
    "p_holm": "p (Holm)",
    "p_fdr": "p (FDR)",
}


def collect_findings(
    subjects: Sequence[SubjectData], results: Sequence[SectionResults]
) -> list[str]:
    """What the tables show, in sentences: subject by subject, then over all subjects."""
    lines = [
        f"{data.name}: {sentence}"
        for data in subjects
        for result in results
        for sentence in result.section.findings(data, result.by_subject[data.name])
    ]
    for result in results:
        lines += result.section.findings_across(result.tables)
    return lines


def build_page(
    subjects: Sequence[SubjectData],
    results: Sequence[SectionResults],
    figures: Figures,
    findings: Sequence[str],
    folder: Path,
) -> str:
    """The HTML page. folder: the report's folder, which the page mentions."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["cell"] = _cell
    template = environment.from_string(
        files("jne.evaluation").joinpath("report.html.j2").read_text("utf-8")
    )
    name = subjects[0].subject.nonlinear.config["data"]["name"]
    other_files: dict[str, str] = {}
    caveats: list[str] = []
    for result in results:
        other_files |= result.section.files
        caveats += result.section.caveats(subjects, result.tables)
    return template.render(
        title=f"Nonlinearity of encoding models: {name}, {', '.join(d.name for d in subjects)}",
        made=f"Made by jne {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
        runs=_table(_runs([data.subject for data in subjects]), {}),
        settings=_settings(subjects[0].config),
        findings=findings,
        subjects=[
            {"name": data.name, "sections": _sections(data, results, figures)} for data in subjects
        ],
        caveats=caveats,
        folder=folder,
        files=other_files,
    )


def _sections(
    data: SubjectData, results: Sequence[SectionResults], figures: Figures
) -> list[dict[str, Any]]:
    shown = []
    for result in results:
        section, tables = result.section, result.by_subject[data.name]
        page_tables = section.page_tables(data, tables)
        paths = figures[section, data.name]
        if page_tables or paths:
            shown.append(
                {
                    "title": section.title,
                    "text": section.text(data, tables),
                    "tables": [_table(table, section.headings) for table in page_tables],
                    "figures": [
                        _figure(path, section.captions.get(name, name))
                        for name, path in paths.items()
                    ],
                }
            )
    return shown


def _figure(png: Path, caption: str) -> dict[str, Any]:
    content = png.read_bytes()
    (width,) = struct.unpack(">I", content[16:20])  # the first field of its header
    return {
        "png": base64.b64encode(content).decode(),
        "caption": caption,
        "width": width * 100 // DPI,
    }


def _table(table: pd.DataFrame, headings: Mapping[str, str]) -> dict[str, Any]:
    table = table.dropna(axis="columns", how="all")
    titles = {**_HEADINGS, **headings}
    columns = [
        {
            "name": name,
            "title": titles.get(str(name), str(name).replace("_", " ")),
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


def _runs(subjects: Sequence[Subject]) -> pd.DataFrame:
    rows = []
    for subject in subjects:
        for run in subject.runs:
            linear = is_linear(run)
            rows.append(
                {
                    "subject": subject.name,
                    "encoder": "linear" if linear else "nonlinear",
                    "control": "twins" if has_twins(run) else "-",
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
    analysed = (
        f"significant for the nonlinear encoder (p < {config.stats.alpha} after FDR correction)"
        if config.voxels == "significant"
        else "all that have a JNE"
    )
    resamples = f"n = {config.stats.n_bootstrap} bootstrap resamples of the test stimuli"
    p_value = {
        "t_test": "of a one-sided t test of the reduction of the squared error over test stimuli",
        "plus_one": f"(k + 1) / (n + 1), where k of the {resamples} have R² ≤ 0",
        "raw": f"k / n, where k of the {resamples} have R² < 0",
    }[config.stats.p_value]
    return (
        f"Voxels analysed: {analysed}. The p of R² > 0 is {p_value}. It is "
        f"corrected over the voxels that have a p (FDR, Benjamini-Hochberg). The noise ceiling is "
        f"the largest R² that the noise allows, from 0 to 1; no R² is clipped."
    )

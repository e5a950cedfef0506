"""The report: one HTML page that opens anywhere, with its tables and figures inside.

Nothing here knows a section by name: the page is made of whatever SECTIONS holds.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from jne import __version__
from jne.data.contents import combined
from jne.evaluation import html
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.same_data import contents, value_of
from jne.evaluation.sections.base import ALL_SUBJECTS, Section, SectionResults
from jne.evaluation.subjects import Subject, unlike_subjects
from jne.evaluation.voxels import SubjectData
from jne.results import Results
from jne.results.contents import is_linear

Key = tuple[Section, str | None]
"""A section and a subject; None for all subjects together."""
Figures = Mapping[Key, Mapping[str, Path]]
"""PNG files by figure name."""
Findings = Mapping[Key, list[str]]
"""What the tables show, in sentences."""
Files = Mapping[Section, Mapping[str, list[str]]]
"""The other files of a section, by what they hold."""


def collect_findings(
    subjects: Sequence[SubjectData], results: Sequence[SectionResults]
) -> dict[Key, list[str]]:
    """What the tables show, in sentences: of each subject, and of all subjects together."""
    findings: dict[Key, list[str]] = {}
    for result in results:
        for data in subjects:
            tables = result.by_subject[data.name]
            findings[result.section, data.name] = result.section.findings(data, tables)
        if len(subjects) > 1:
            across = result.section.findings_across(subjects, result.tables)
            earlier = [
                line for (_, name), lines in findings.items() if name is None for line in lines
            ]
            findings[result.section, None] = [line for line in across if line not in earlier]
    return findings


def sentences(findings: Findings) -> list[str]:
    """All findings for the console: those of the first screen first, then subject by subject."""
    names = list(dict.fromkeys(name for _, name in findings))
    names.sort(key=lambda name: name is not None)  # all subjects together first
    return [
        line if name is None else f"{name}: {line}"
        for name in names
        for headline in (True, False)
        for (section, subject), lines in findings.items()
        if subject == name and section.headline == headline
        for line in lines
    ]


def build_page(
    subjects: Sequence[SubjectData],
    results: Sequence[SectionResults],
    figures: Figures,
    findings: Findings,
    folder: Path,
    voxel_table: str = "voxels.csv",
    files: Files | None = None,
) -> str:
    """The HTML page.

    folder: the report's folder, which the page mentions. voxel_table: the file in it with one row
    per voxel. files: what else is in it.
    """
    files = files or {}
    data_sets = list(dict.fromkeys(data.subject.data_set for data in subjects))
    who = ", ".join(data.name for data in subjects)
    if len(data_sets) > 1:
        who = f"{len(subjects)} subjects"
    brain = None
    if any(data.may_have_positions for data in subjects):
        from jne.evaluation.viewer import viewer  # nilearn takes seconds to import

        brain = viewer(subjects)
    return html.render(
        {
            "title": f"Nonlinearity of encoding models: {', '.join(data_sets)}, {who}",
            "made": f"Made by jne {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
            "several": len(subjects) > 1,
            "subjects": [data.name for data in subjects],
            "brain": brain,
            "headline": _headline(subjects, findings),
            "sections": [
                content
                for result in results
                if (content := _section(result, subjects, figures, findings, files))
            ],
            "runs": html.table("Runs", _runs([data.subject for data in subjects]), {}),
            "left_out": [line for data in subjects for line in data.subject.left_out],
            "data_warnings": _data_warnings([data.subject for data in subjects]),
            "settings": " ".join(
                [_settings(subjects[0].config), *filter(None, (d.reported_note for d in subjects))]
            ),
            "data": _data([data.subject for data in subjects]),
            "folder": folder,
            "files": [other for of_section in files.values() for other in of_section.items()],
            "voxel_table": voxel_table,
        }
    )


def _headline(subjects: Sequence[SubjectData], findings: Findings) -> dict[str, Any]:
    def headlines(name: str | None) -> list[str]:
        return [
            line
            for (section, subject), lines in findings.items()
            if subject == name and section.headline
            for line in lines
        ]

    return {
        "across": headlines(None),
        "subjects": [{"name": data.name, "findings": headlines(data.name)} for data in subjects],
    }


def _section(
    result: SectionResults,
    subjects: Sequence[SubjectData],
    figures: Figures,
    findings: Findings,
    files: Files,
) -> dict[str, Any] | None:
    """A section as the template takes it; None where it has neither tables nor figures."""
    section = result.section

    def shown_findings(name: str | None) -> list[str]:
        return [] if section.headline else findings.get((section, name), [])

    def pictures(name: str | None, data: SubjectData | None = None) -> list[dict[str, Any]]:
        who = "all subjects" if name is None else name
        entries = []
        for key, path in figures.get((section, name), {}).items():
            caption = section.captions.get(key, key)
            if data is not None and key in section.regional:
                note = data.shown_note(section.regional[key])
                caption += f" Shown: {note}." if note else ""
            alt = f"{section.title}: {key} of {who}"
            entries.append(html.figure(path, caption, alt, section.folded.get(key, "")))
        return entries

    blocks = []
    for data in subjects:
        tables = result.by_subject[data.name]
        page_tables = section.page_tables(data, tables)
        drawn = pictures(data.name, data)
        if page_tables or drawn:
            blocks.append(
                {
                    "name": data.name,
                    "findings": shown_findings(data.name),
                    "figures": drawn,
                    "text": section.text(data, tables),
                    "tables": [
                        html.table(title, table, section.headings, f"{data.file_name}_{title}")
                        for title, table in page_tables.items()
                    ],
                }
            )
    if not blocks and not pictures(None):
        return None
    texts = {block["text"] for block in blocks}
    common = texts.pop() if len(texts) == 1 else section.text_across(subjects, result.tables)
    if common and not texts:  # once for all subjects
        for block in blocks:
            block["text"] = ""
    return {
        "id": html.anchor(section.title),
        "title": section.title,
        "text": common,
        "docs": section.docs,
        "docs_url": html.docs_url(section.docs),
        "findings": shown_findings(None),
        "figures": pictures(None),
        "tables": _across(result) if len(subjects) > 1 else [],
        "subjects": blocks,
        "caveats": section.caveats(subjects, result.tables),
        "files": [name for name, table in result.tables.items() if len(table)],
        "others": list(files.get(section, {}).items()),
    }


def _across(result: SectionResults) -> list[dict[str, Any]]:
    """The rows over all subjects, of the tables that have some."""
    tables = []
    for name, table in result.tables.items():
        rows = table[table["subject"] == ALL_SUBJECTS].drop(columns="subject")
        if len(rows):
            counts = [c for c in rows if str(c).startswith("n_") and rows[c].notna().all()]
            rows = rows.astype(dict.fromkeys(counts, int))  # floats beside rows without them
            title = f"{name.replace('_', ' ').capitalize()}, all subjects"
            tables.append(html.table(title, rows, result.section.headings))
    return tables


def _runs(subjects: Sequence[Subject]) -> pd.DataFrame:
    rows = []
    for subject in subjects:
        for run in subject.runs:
            linear = is_linear(run.voxels)
            rows.append(
                {
                    "subject": subject.name,
                    "encoder": "linear" if linear else "nonlinear",
                    "control": run.config["control"]["kind"].replace("none", "-"),
                    "activation": "-" if linear else run.config["activation"],
                    "placement": "-" if linear else run.config["placement"],
                    "seed": str(run.config["seed"]),
                    "data": run.config["data"]["name"],
                    "digest": _digest(run),
                    "features": value_of(run, "features.name") or "-",
                    "layer": str(_layer(run)),
                    "test stimuli": str(len(run.stimuli)),
                    "voxels": str(len(run.voxels)),
                    "epochs": str(len(run.epochs)),
                    "MLflow run": (run.status.get("mlflow_run_id") or "-")[:8],
                    "results": run.path.name,
                }
            )
    return pd.DataFrame(rows)


def _digest(run: Results) -> str:
    """The first characters of the run's tag `match_contents`."""
    return combined(contents(run))[:8]


def _layer(run: Results) -> Any:
    layers = [value_of(run, key) for key in ("data.layer", "features.layer")]
    return next((layer for layer in layers if layer is not None), "-")


def _data_warnings(subjects: Sequence[Subject]) -> list[str]:
    """What the runs say of their data, each sentence once, and in what subjects differ."""
    names: dict[str, dict[str, None]] = {}
    for subject in subjects:
        for run in subject.runs:
            warnings = run.summary.get("data_warnings", [])
            for warning in warnings if isinstance(warnings, list) else []:
                names.setdefault(str(warning), {})[subject.name] = None
    warnings = [
        f"{', '.join(subject_names)}: {warning}" for warning, subject_names in names.items()
    ]
    return [*warnings, *unlike_subjects(subjects)]


def _data(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """Whose data they are, for each data set once: name, citation, licence, links."""
    data_sets: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        about = subject.nonlinear.about
        if any(about.values()):
            data_sets.setdefault(subject.data_set, {"name": subject.data_set, **about})
    return list(data_sets.values())


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

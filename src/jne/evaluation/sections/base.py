"""What every section of the report has, and how all sections are evaluated."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from jne.analysis.selectivity import WHOLE_BRAIN
from jne.evaluation.subjects import ALL_SUBJECTS
from jne.evaluation.voxels import SubjectData
from jne.utils.progress import stage_progress

Tables = dict[str, pd.DataFrame]
"""Tables by name. A table is written to tables/NAME.csv."""


class Section:
    """One section of the report. What a subclass does not define adds nothing to the report.

    `tables` gives the tables of one subject; the methods below it get these tables back. Methods
    that concern all subjects get the tables of all subjects, whose first column is `subject`.

    On the page of a subject, a section without tables and figures is left out.
    """

    title: str
    captions: Mapping[str, str] = {}
    """By figure name."""
    regional: Mapping[str, int] = {}
    """The most ROIs that a figure shows, by figure name. The page says so where there are more."""
    folded: Mapping[str, str] = {}
    """Figures that the reader opens, by figure name: what stands in their place."""
    headings: Mapping[str, str] = {}
    """Headings of table columns on the page; by default the column's name, without underscores."""
    docs: str = "evaluation.md"
    """The document that explains the method."""
    headline: bool = False
    """Whether its findings stand on the first screen, not at the top of the section."""

    def tables(self, data: SubjectData) -> Tables:
        """The tables of one subject, by names that no other section uses."""
        return {}

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        """The tables shown on the page, by their titles there."""
        return {name.replace("_", " ").capitalize(): table for name, table in tables.items()}

    def text(self, data: SubjectData, tables: Tables) -> str:
        """The method, in two lines."""
        return ""

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        """Figures by name, in the order of the page. They are drawn and written with STYLE."""
        return {}

    def write_files(self, data: SubjectData, folder: Path) -> dict[str, str]:
        """Write other files of one subject into the report's folder.

        Returns what each of them holds, by their names in the folder, for the page.
        """
        return {}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        """What the tables of one subject show, in sentences. The report adds the subject's name."""
        return []

    def across_subjects(self, tables: Tables) -> Tables:
        """Rows over several subjects, appended to the tables of the same names."""
        return {}

    def tables_across(self, subjects: Sequence[SubjectData], tables: Tables) -> Tables:
        """Tables of several subjects together, by names that `tables` does not use."""
        return {}

    def text_across(self, subjects: Sequence[SubjectData], tables: Tables) -> str:
        """The method of what concerns several subjects together."""
        return ""

    def figures_across(self, subjects: Sequence[SubjectData], tables: Tables) -> dict[str, Figure]:
        """Figures of several subjects together, by names that `figures` does not use."""
        return {}

    def findings_across(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        """What the tables of all subjects show together, in sentences."""
        return []

    def scalars(self, tables: Tables) -> dict[str, float]:
        """MLflow metrics from the tables of all subjects. One that is not finite is left out."""
        return {}

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        """What to keep in mind when reading this section, from the tables of all subjects."""
        return []


@dataclass(frozen=True)
class SectionResults:
    """The tables of one section."""

    section: Section
    by_subject: dict[str, Tables]
    """By the subject's name; without the column `subject`."""
    tables: Tables
    """Of all subjects, with the column `subject`, then the rows over several subjects."""


def evaluate_sections(
    sections: Sequence[Section], subjects: Sequence[SubjectData]
) -> list[SectionResults]:
    """The tables of every section for every subject."""
    results = []
    with stage_progress() as progress:
        total = len(sections) * len(subjects)
        task = progress.add_task("sections", total=total, unit="")
        for section in sections:
            by_subject = {}
            for data in subjects:
                progress.update(task, step=section.title)
                by_subject[data.name] = section.tables(data)
                progress.advance(task)
            tables = _of_all(section, subjects, by_subject)
            results.append(SectionResults(section, by_subject, tables))
    return results


def _of_all(
    section: Section, subjects: Sequence[SubjectData], by_subject: Mapping[str, Tables]
) -> Tables:
    names = dict.fromkeys(name for tables in by_subject.values() for name in tables)
    joined = {
        name: concat_subjects(
            {subject: tables[name] for subject, tables in by_subject.items() if name in tables}
        )
        for name in names
    }
    if len(by_subject) > 1:
        for name, rows in section.across_subjects(joined).items():
            rows = with_subject_column(ALL_SUBJECTS, rows)
            joined[name] = pd.concat([joined[name], rows], ignore_index=True)
        for name, rows in section.tables_across(subjects, joined).items():
            joined[name] = with_subject_column(ALL_SUBJECTS, rows)
    return joined


def concat_subjects(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of those of several subjects, given by the subject's name."""
    return pd.concat(
        [with_subject_column(name, table) for name, table in tables.items()], ignore_index=True
    )


def with_subject_column(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table with `name` in a first column `subject`, in place of one that it may have."""
    table = table.drop(columns="subject", errors="ignore")
    table.insert(0, "subject", name)
    return table


def by_region(table: pd.DataFrame, rois: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Name and rows of the whole brain, then of each ROI."""
    yield WHOLE_BRAIN, table
    rows = table.groupby("roi").indices
    for roi in rois:
        yield roi, table.iloc[rows.get(roi, [])]


def first_names(names: Sequence[str], most: int) -> str:
    """The first names of a list, for a sentence, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def p_text(p: float) -> str:
    """A p-value for a sentence."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"

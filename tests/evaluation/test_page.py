"""The page and its figures: nothing is cut off, and only files that are there are listed."""

import re
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
from finished_run import N_VOXELS, evaluate_config, write_run
from matplotlib import rc_context
from matplotlib.text import Text
from region_evidence import with_evidence

from jne.evaluation.report import build_page
from jne.evaluation.run import Report
from jne.evaluation.sections import SECTIONS, evaluate_sections
from jne.evaluation.sections.hierarchy import Hierarchy
from jne.evaluation.sections.maps import Maps
from jne.evaluation.sections.performance import Performance
from jne.evaluation.sections.reliability import Reliability
from jne.evaluation.sections.selectivity import Selectivity
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.plots.style import STYLE
from jne.stages import Stages


@pytest.fixture
def config(tmp_path):
    return evaluate_config(tmp_path, "variants=[l1,l2]")


def with_linear(run, config, names):
    """The run with these ROIs and evidence, beside a linear one."""
    run.voxels["roi"] = np.resize(names, N_VOXELS)
    run.voxels["noise_ceiling"] = 0.99
    run, _ = with_evidence(run, dict(zip(names, np.linspace(0, 1.2, len(names)), strict=True)))
    linear = write_run(run.path.parent / "linear", placement="none")
    return voxel_tables(by_subject([run, linear]), config)[0]


@pytest.mark.runs
@pytest.mark.parametrize(
    "names",
    [
        ["V1", "V2"],
        pytest.param(["V1", "V2", "EBA"], marks=pytest.mark.slow),
        pytest.param([f"a long name of area {k}" for k in range(5)], marks=pytest.mark.slow),
    ],
)
def test_no_text_of_a_figure_is_cut_off(tmp_path, config, names):
    data = with_linear(write_run(tmp_path / "run"), config, names)
    drawn = {}
    with rc_context(STYLE):
        for result in evaluate_sections(SECTIONS, [data]):
            drawn |= result.section.figures(data, result.by_subject[data.name])
        for name, figure in drawn.items():
            figure.canvas.draw()
            for text in figure.findobj(Text):
                if not (text.get_text() and text.get_visible() and text.axes is not None):
                    continue
                if text.axes.get_visible():
                    extent = text.get_window_extent()
                    inside = figure.bbox.padded(2)
                    assert inside.x0 <= extent.x0, (name, text.get_text())
                    assert extent.x1 <= inside.x1, (name, text.get_text())
                    assert inside.y0 <= extent.y0, (name, text.get_text())
                    assert extent.y1 <= inside.y1, (name, text.get_text())
    assert {"summary", "jne", "pairwise", "evidence", "mom", "reliability"} <= drawn.keys()


def page_of(subjects, folder) -> str:
    """The page of these subjects, without figures, and the files that it is to list."""
    results = evaluate_sections((Maps(), Selectivity(), Performance()), subjects)
    nothing = SimpleNamespace(log_file=lambda *_: None, log_metrics=lambda *_: None)
    report = Report(SimpleNamespace(path=folder, figures=folder), nothing, Stages(folder))
    report.write_tables(subjects, results)
    return build_page(subjects, results, {}, {}, folder, "voxels.csv", report.files)


@pytest.mark.runs
def test_the_page_lists_and_links_the_files_that_are_there(tmp_path, config):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", subject="a b/c")]
    subjects = voxel_tables(by_subject(runs), config)
    page = page_of(subjects, tmp_path)
    assert "maps/" not in page, "no voxel has a position"
    listed = page[page.index('<section id="files"') :]
    for section in (page, listed):
        links = re.findall(r'<a href="([^"]*)" download><code>(moj_[^<]*)</code></a>', section)
        assert links[-2:] == [(quote(name), name) for _, name in links[-2:]]
        assert all((tmp_path / name).is_file() for _, name in links)
        assert len({name for _, name in links}) == 2
    runs[0].voxels = runs[0].voxels.assign(hemisphere="left", vertex=range(N_VOXELS))
    page = page_of(voxel_tables(by_subject(runs[:1]), config), tmp_path)
    assert "named as BIDS derivatives: GIFTI" in page
    assert '<a href="maps/"><code>maps/</code></a>' in page
    assert list((tmp_path / "maps" / "sub-01").glob("*.func.gii"))
    method = page[page.index('<section id="prediction"') :]
    assert "the tests of JNE." in method, "not below: the page has it above"


def test_the_split_half_of_text_table_and_figure_is_one_number(tmp_path, config):
    data = with_linear(write_run(tmp_path / "run"), config, ["V1", "EBA"])
    (result,) = evaluate_sections([Reliability()], [data])
    r = result.tables["reliability"]["split_half_r"].iloc[0]
    analysed = data.analysed
    assert r == np.corrcoef(analysed["jne_half1"], analysed["jne_half2"])[0, 1]
    (sentence,) = result.section.findings(data, result.by_subject["subj01"])
    assert f"r = {r:.3f} over voxels" in sentence
    figure = result.section.figures(data, result.by_subject["subj01"])["reliability"]
    assert figure.axes[1].get_title() == f"Split half: r = {r:.3f}"


@pytest.mark.runs
def test_of_many_rois_the_page_says_which_are_reported_and_shown(tmp_path, config, monkeypatch):
    monkeypatch.setattr("jne.evaluation.voxels.MAX_REPORTED", 4)
    monkeypatch.setattr("jne.evaluation.voxels.MAX_SHOWN", 2)
    run = write_run(tmp_path / "run")
    names = [f"area{k}" for k in range(7)] + ["V1"]
    run.voxels["roi"] = np.resize(names, N_VOXELS)
    (data,) = voxel_tables(by_subject([run]), config)
    median = run.voxels.groupby("roi")["jne"].median().drop("V1")
    assert data.rois == ["V1", *sorted(median.nlargest(3).index)]
    said = "Of 8 ROIs of subj01, the 4 with the highest median JNE are reported; rois=[...] names"
    page = page_of([data], tmp_path)
    assert said in page
    assert "tables have all" not in page, "no figure"
    assert (
        data.shown_note() == "the 2 of 4 regions with the highest median JNE; the tables have all"
    )
    assert data.shown_note(1).startswith("the 1 of 4 regions")
    assert Hierarchy.regional == {"jne": 24, "pairwise": 24}
    monkeypatch.setattr("jne.evaluation.voxels.MAX_SHOWN", 10)
    (data,) = voxel_tables(by_subject([run]), config)
    assert data.shown_note(3) == "the first 3 of 4 regions; the tables have all"
    assert data.shown_note() == ""

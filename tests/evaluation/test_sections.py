"""The sections of a report, on runs that were never trained."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from finished_run import N_STIMULI, contents, evaluate_config, write_run
from matplotlib.figure import Figure
from PIL import Image

from jne.analysis.hierarchy import combined_trend
from jne.columns import label
from jne.evaluation.report import build_page, collect_findings, sentences
from jne.evaluation.run import Report
from jne.evaluation.sections import SECTIONS, Section, evaluate_sections, selectivity
from jne.evaluation.sections.hierarchy import Hierarchy
from jne.evaluation.sections.selectivity import Selectivity
from jne.evaluation.sections.variants import Variants
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.features.images import FolderImages
from jne.jacobian.variants import VARIANTS, Variant
from jne.stages import Stages


def data_of(*runs, config):
    """What the sections get, one per run."""
    return voxel_tables(by_subject(list(runs)), config)


@pytest.fixture
def config(tmp_path):
    return evaluate_config(tmp_path, "variants=[l1]")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(N_STIMULI):
        Image.new("RGB", (20, 10), (8 * i, 0, 0)).save(folder / f"{i:02d}.png")
    return folder


def image_names(n=N_STIMULI):
    return {"image": [f"{i:02d}.png" for i in range(n)]}


def draw_selectivity(run, config):
    (data,) = data_of(run, config=config)
    section = Selectivity()
    return section.figures(data, section.tables(data))


def test_examples_are_the_stimuli_nearest_the_middle_of_their_cluster(tmp_path):
    shades = {f"{i:02d}.png": 8 * i for i in range(22)}
    for name, shade in shades.items():
        Image.new("RGB", (20, 10), (shade, 0, 0)).save(tmp_path / name)
    x = np.r_[np.arange(11.0), 100 + np.arange(11.0)]
    cluster = np.repeat(["left", "right"], 11)
    stimuli = pd.DataFrame({"image": list(shades), "cluster": cluster, "x": x, "y": 0.0})
    mom = pd.DataFrame({"roi": "all", "cluster": ["left", "right"], "mom": [0.1, 0.2]})
    figure = selectivity.draw_examples(mom, stimuli, FolderImages(tmp_path))
    rows = np.reshape(figure.axes, (2, -1))
    shown = [{int(panel.images[0].get_array()[0, 0, 0]) // 8 for panel in row} for row in rows]
    assert shown == [set(range(13, 20)), set(range(2, 9))]  # the more nonlinear cluster first


@pytest.mark.runs
def test_images_are_read_from_the_recorded_path(tmp_path, config, images, capsys):
    run = write_run(tmp_path / "run", stimuli=image_names(), images=images)
    assert "examples" in draw_selectivity(run, config)
    assert "example stimuli" not in capsys.readouterr().out


@pytest.mark.runs
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("not recorded", "did not record where its images are"),
        ("gone", "are no longer at"),
        ("empty", "holds no images"),
        ("other", "24 images are not in"),
        ("damaged", "cannot be read"),
    ],
)
def test_without_images_there_are_no_examples_and_one_sentence(
    tmp_path, config, images, capsys, change, reason
):
    if change in ("gone", "empty", "other"):
        shutil.rmtree(images)
    if change in ("empty", "other"):
        images.mkdir()
    if change == "other":
        Image.new("RGB", (20, 10)).save(images / "x.png")
    if change == "damaged":
        for file in images.iterdir():
            file.write_bytes(b"no image")
    recorded = None if change == "not recorded" else images
    run = write_run(tmp_path / "run", stimuli=image_names(), images=recorded)
    figures = draw_selectivity(run, config)
    assert "examples" not in figures
    assert "mom" in figures
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("subj01: the report shows no example stimuli") == 1
    assert reason in shown


@pytest.mark.runs
def test_nothing_named_in_a_results_folder_is_executed(tmp_path, config, images):
    made = tmp_path / "executed"
    data = {"_target_": "os.mkdir", "path": str(made), "name": "made"}
    run = write_run(tmp_path / "run", stimuli=image_names(), images=images, data=data)
    before = contents(run.path)
    subjects = data_of(run, config=config)
    results = evaluate_sections(SECTIONS, subjects)
    for result in results:
        result.section.figures(subjects[0], result.by_subject["subj01"])
    assert not made.exists()
    assert contents(run.path) == before


@pytest.mark.runs
def test_a_new_variant_appears_by_its_label(tmp_path, monkeypatch):
    largest = Variant("JNE-max", lambda values, consume: values.abs().amax(dim=-1))
    monkeypatch.setitem(VARIANTS, "max", largest)
    subjects = data_of(
        write_run(tmp_path / "run"), config=evaluate_config(tmp_path, "variants=[l1,max]")
    )
    (data,) = subjects
    assert data.measures == ["jne", "mean_deviation", "jne_max"]
    assert [label(name) for name in data.measures] == ["JNE", "mean deviation", "JNE-max"]

    run = data.subject.nonlinear
    encoder, x = run.encoder(), torch.tensor(np.array(run.array("features")))
    jacobians = torch.stack([torch.autograd.functional.jacobian(encoder, row) for row in x])
    deviation = (jacobians - jacobians.mean(dim=0)).abs().amax(dim=-1)
    expected = deviation.double().std(dim=0, unbiased=False)
    np.testing.assert_allclose(data.voxels["jne_max"].dropna(), expected, rtol=1e-4)

    section = Variants()
    (figure,) = section.figures(data, section.tables(data)).values()
    assert "JNE-max" in [label.get_text() for label in figure.axes[0].get_xticklabels()]
    hierarchy = Hierarchy()
    *_, trend = hierarchy.page_tables(data, hierarchy.tables(data)).values()
    assert list(trend["measure"]) == ["JNE", "mean deviation", "JNE-max"]


@pytest.mark.runs
def test_rows_over_subjects_follow_those_of_each_subject(tmp_path, config):
    subjects = data_of(
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", subject="subj02", seed=1),
        config=config,
    )
    (result,) = evaluate_sections([Hierarchy()], subjects)
    trend = result.tables["trend"]
    assert list(trend["subject"]) == ["subj01", "subj01", "subj02", "subj02", "all", "all"]
    jne = trend.query("measure == 'jne'")
    tau, p = combined_trend(jne["tau"].to_numpy()[:2], jne["p"].to_numpy()[:2])
    assert tuple(jne.iloc[2][["tau", "p"]]) == (tau, p)
    assert result.section.scalars(result.tables)["trend_tau/all"] == tau
    found = sentences(collect_findings(subjects, [result]))
    assert found[0].startswith("All subjects: JNE rises from tier to tier in ")
    assert [line[:7] for line in found[1:]] == ["subj01:", "subj02:"]
    caveats = result.section.caveats(subjects, result.tables)
    assert any("in these subjects" in caveat for caveat in caveats)


def test_what_a_section_does_not_define_adds_nothing(tmp_path, config):
    class Empty(Section):
        title = "Nothing to see"

    subjects = data_of(write_run(tmp_path / "run"), config=config)
    results = evaluate_sections([Empty()], subjects)
    figures = {(results[0].section, "subj01"): {}}
    findings = collect_findings(subjects, results)
    assert sentences(findings) == []
    assert "Nothing to see" not in build_page(subjects, results, figures, findings, tmp_path)


def test_two_sections_cannot_write_the_same_table_or_figure(tmp_path, config):
    class Copy(Section):
        title = "Copy"

        def tables(self, data):
            return {"copy": pd.DataFrame({"x": [1]})}

        def figures(self, data, tables):
            return {"copy": Figure()}

    subjects = data_of(write_run(tmp_path / "run"), config=config)
    results = evaluate_sections([Copy(), Copy()], subjects)
    folder = SimpleNamespace(path=tmp_path, figures=tmp_path)
    report = Report(folder, SimpleNamespace(log_file=lambda *_: None), Stages(tmp_path))
    with pytest.raises(ValueError, match=r"two sections of the report write copy\.csv"):
        report.write_tables(subjects, results)
    with pytest.raises(ValueError, match=r"two sections of the report write subj01_copy\.png"):
        report.draw(subjects, results)

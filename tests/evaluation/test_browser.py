"""The page in a real browser, where there is one: chromium, without a screen."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from finished_run import evaluate_config, write_run

from jne.evaluation.report import build_page, collect_findings
from jne.evaluation.sections import SECTIONS, evaluate_sections
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]


def shown(page):
    """The page's HTML once its scripts have run, and what they wrote to the console."""
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu-sandbox",
         "--enable-unsafe-swiftshader", "--use-gl=angle", "--use-angle=swiftshader",
         "--enable-logging=stderr", "--virtual-time-budget=30000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture
def subjects(tmp_path):
    runs = [write_run(tmp_path / name, subject=name) for name in ("subj01", "subj02")]
    return voxel_tables(by_subject(runs), evaluate_config(tmp_path, "variants=[l1]"))


def page_of(subjects, tmp_path):
    results = evaluate_sections(SECTIONS, subjects)
    findings = collect_findings(subjects, results)
    page = tmp_path / "report.html"
    page.write_text(build_page(subjects, results, {}, findings, tmp_path), encoding="utf-8")
    return page


def test_the_brain_is_drawn_and_one_subject_is_shown(subjects, tmp_path):
    for data in subjects:
        data.voxels["hemisphere"] = "left"
        data.voxels["vertex"] = pd.array(range(len(data.voxels)), dtype="Int64")
    dom, console = shown(page_of(subjects, tmp_path))
    assert 'data-ready="true"' in dom
    assert "Drag to turn" in dom
    assert re.search(r'<div class="subject" data-subject="subj02" hidden', dom)
    assert not re.search(r'<div class="subject" data-subject="subj01" hidden', dom)
    assert '<th scope="col"><button type="button">region</button></th>' in dom
    assert [line for line in console if "Uncaught" in line or "ERR_" in line] == []


def test_a_volume_is_drawn(subjects, tmp_path):
    data = subjects[0]
    for axis in "ijk":
        data.voxels[axis] = range(len(data.voxels))
    affine = [[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]
    data.subject.nonlinear.space = {"shape": [20, 20, 20], "affine": affine}
    dom, console = shown(page_of([data], tmp_path))
    assert 'data-ready="true"' in dom
    assert "Click a voxel" in dom
    assert [line for line in console if "Uncaught" in line] == []


def test_a_table_that_is_saved_holds_no_formula(subjects, tmp_path):
    run = subjects[0].subject.nonlinear
    formulas = ["=1+1", "@SUM(A1)", "'=2", "+3", "V1", "-"]
    run.voxels["roi"] = [formulas[k % 6] for k in range(len(run.voxels))]
    config = evaluate_config(tmp_path, "variants=[l1]")
    page = page_of(voxel_tables(by_subject([run]), config), tmp_path)
    click = """<script>
      const show = (blob) => { blob.text().then((text) => document.body.append(text)); };
      URL.createObjectURL = (blob) => { show(blob); return "#"; };
      document.querySelector("#summary [data-act=csv]").click();
    </script>"""
    page.write_text(page.read_text() + click)
    dom, _ = shown(page)
    saved = dom[dom.rindex("region,tier") :]
    rows = [line.split(",")[0] for line in saved.splitlines()[2:8]]
    assert sorted(rows) == sorted(["'=1+1", "'@SUM(A1)", "''=2", "'+3", "V1", "-"])
    assert re.search(r"^V1,[^,]*,\d", saved, re.MULTILINE), "numbers stay as they are"

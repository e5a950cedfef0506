"""The section on what switches, against NumPy's decomposition of autograd Jacobians."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from finished_run import N_STIMULI, evaluate_config, write_run
from matplotlib import rc_context
from PIL import Image
from region_evidence import with_evidence

from jne.errors import InputError
from jne.evaluation.report import build_page, collect_findings
from jne.evaluation.sections import evaluate_sections
from jne.evaluation.sections.switching import Switches
from jne.evaluation.subjects import by_subject
from jne.evaluation.switched import switching_regions
from jne.evaluation.voxels import voxel_tables
from jne.plots.style import STYLE
from jne.results import Results
from jne.results.spaces import write_spaces
from jne.utils.files import write_json
from jne.utils.spaces import cell_names

NONLINEAR = {"V1": 0.0, "V2": 1.5, "EBA": 1.5}
MEMBERS = {"V2": np.arange(5, 10), "EBA": np.arange(10, 15)}
BRIGHT = np.random.default_rng(5).standard_normal(N_STIMULI)
PROPERTIES = {"brightness": BRIGHT, "image": [f"{i:02d}.png" for i in range(N_STIMULI)]}


def jacobians(run, members):
    """(N, v, D) of rows of the voxel table, of which one before these has no output."""
    encoder, x = run.encoder(), torch.tensor(np.array(run.array("features")))
    of_all = torch.stack([torch.autograd.functional.jacobian(encoder, row) for row in x])
    return of_all.double().numpy()[:, members - 1]


def decomposed(j):
    """Directions (D, 3), their shares, and how many are in use, by NumPy."""
    a = (j - j.mean(axis=0)).reshape(-1, j.shape[2])
    _, s, vt = np.linalg.svd(a, full_matrices=False)
    return vt[:3].T, s[:3] ** 2 / (s**2).sum(), (s**2).sum() ** 2 / (s**4).sum()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("switching")


def with_images(folder):
    images = folder / "images"
    images.mkdir(parents=True)
    for i in range(N_STIMULI):
        Image.new("RGB", (20, 10), (8 * i, 0, 0)).save(images / f"{i:02d}.png")
    return images


@pytest.fixture(scope="module")
def data(folder):
    run = write_run(folder / "a", stimuli=PROPERTIES, images=with_images(folder))
    run, _ = with_evidence(run, NONLINEAR)
    write_spaces(run.path, run.voxels, {"clip": slice(0, 2), "depth": slice(2, 6)}, {})
    return of_runs(
        folder, Results(run.path), write_run(folder / "seed", seed=1, stimuli=PROPERTIES)
    )


def of_runs(folder, *runs):
    (data,) = voxel_tables(by_subject(list(runs)), evaluate_config(folder, "variants=[l1]"))
    return data


@pytest.fixture(scope="module")
def tables(data):
    (result,) = evaluate_sections([Switches()], [data])
    return result.by_subject["subj01"]


def test_regions_are_those_with_evidence_and_their_nonlinear_voxels(data):
    regions = switching_regions(data)
    assert list(regions) == ["V2", "EBA"]
    for roi, members in regions.items():
        assert set(members) == set(MEMBERS[roi][data.voxels["nonlinear"][MEMBERS[roi]]])


def test_every_number_is_that_of_the_stacked_deviations(data, tables):
    table = tables["switching"].set_index(["roi", "direction"])
    assert list(table.index) == [(roi, k) for roi in MEMBERS for k in (1, 2, 3)]
    seed = data.subject.seeds[0]
    for roi, members in switching_regions(data).items():
        j = jacobians(data.subject.nonlinear, members)
        directions, share, ratio = decomposed(j)
        rows = table.loc[roi]
        np.testing.assert_allclose(rows["share"], share, rtol=1e-4)
        np.testing.assert_allclose(rows["participation_ratio"], ratio, rtol=1e-4)
        assert (rows["n_voxels"] == len(members)).all()
        halves = [decomposed(j[start::2])[0] for start in (0, 1)]
        others = [directions, decomposed(jacobians(seed, members))[0]]
        for name, (first, second) in (("stability", halves), ("agreement", others)):
            cosines = [
                np.linalg.svd(first[:, :k].T @ second[:, :k], compute_uv=False).mean()
                for k in (1, 2, 3)
            ]
            np.testing.assert_allclose(rows[name], cosines, atol=1e-3)
        in_clip = (directions[:2] ** 2).sum(axis=0)
        assert list(rows["space"]) == ["clip" if part > 0.5 else "depth" for part in in_clip]
        np.testing.assert_allclose(rows["in_space"], np.maximum(in_clip, 1 - in_clip), rtol=1e-3)
        written = tables["switching_directions"][[f"{roi} {k}" for k in (1, 2, 3)]].to_numpy()
        np.testing.assert_allclose(np.abs((written * directions).sum(axis=0)), 1, rtol=1e-4)


def test_the_ends_and_correlations_are_those_of_the_loadings(data, tables):
    j = jacobians(data.subject.nonlinear, switching_regions(data)["V2"])
    direction = tables["switching_directions"]["V2 1"].to_numpy()
    u, s, _ = np.linalg.svd((j - j.mean(axis=0)) @ direction, full_matrices=False)
    loadings = u[:, 0] * s[0]
    loadings *= -1 if loadings.max() < -loadings.min() else 1
    written = tables["switching_loadings"].query("roi == 'V2' and direction == 1")
    np.testing.assert_allclose(written["loading"], loadings, atol=1e-4)
    ends = tables["switching_ends"].query("roi == 'V2' and direction == 1")
    order = np.argsort(loadings)
    for end, expected in (("lowest", order[:6]), ("highest", order[::-1][:6])):
        assert list(ends.loc[ends["end"] == end, "stimulus"]) == [f"s{i:02d}" for i in expected]
    r = tables["switching_correlations"].set_index(["roi", "direction", "column"])["r"]
    assert set(r.index.get_level_values("column")) == {"brightness"}
    expected = np.corrcoef(loadings, BRIGHT)[0, 1]
    assert r["V2", 1, "brightness"] == pytest.approx(expected, abs=1e-4)


def test_what_the_reader_is_told(data, tables, tmp_path):
    section = Switches()
    (sentence,) = section.findings(data, tables)
    first = tables["switching"].iloc[0]
    expected = f"{first['participation_ratio']:.1f} in V2 ({100 * first['share']:.0f} %), "
    assert expected in sentence
    table, r = section.page_tables(data, tables).values()
    lowest = tables["switching_ends"].query("roi == 'V2' and direction == 1 and end == 'lowest'")
    n = (lowest["category"] == "animals").sum()
    assert table["lowest"][0] in (f"animals {n}, scenes {6 - n}", f"scenes {6 - n}, animals {n}",
                                  "animals 6", "scenes 6")  # fmt: skip
    assert list(r.columns) == ["roi", "direction", "brightness"]
    assert "1 other seed." in section.text(data, tables)
    (result,) = evaluate_sections([section], [data])
    page = build_page([data], [result], {}, collect_findings([data], [result]), tmp_path)
    assert section.title in page
    assert "a linear region has nothing that switches" in page


def test_images_of_the_ends_are_drawn_from_the_lowest_to_the_highest(data, tables):
    with rc_context(STYLE):
        shares, ends = Switches().figures(data, tables).values()
    assert len(shares.axes[0].patches) == 6
    rows = np.reshape(ends.axes, (6, 9))
    drawn = [
        int(panel.images[0].get_array()[0, 0, 0]) // 8 if panel.images else None
        for panel in rows[0]
    ]
    loadings = tables["switching_loadings"].query("roi == 'V2' and direction == 1")["loading"]
    order = list(np.argsort(loadings.to_numpy()))
    assert drawn == [*order[:4], None, *order[-4:]]


def test_of_cells_the_deviation_of_each_stimulus_is_drawn_over_its_image(folder):
    images = with_images(folder / "cells")
    run = write_run(folder / "cells" / "run", stimuli=PROPERTIES, images=images)
    run, _ = with_evidence(run, NONLINEAR)
    columns = slice(0, 1), slice(1, 3), slice(3, 4), slice(4, 6)
    cells = dict(zip(cell_names(2), columns, strict=True))
    write_spaces(run.path, run.voxels, cells, {})
    data = of_runs(folder, Results(run.path))
    tables = Switches().tables(data)
    j = jacobians(data.subject.nonlinear, switching_regions(data)["EBA"])
    deviation = np.abs(j - j.mean(axis=0)).sum(axis=1)  # over voxels
    ends = tables["switching_ends"].query("roi == 'EBA' and direction == 1")
    number = ends["stimulus"].str[1:].astype(int).to_numpy()
    for name, of_cell in cells.items():
        expected = deviation[:, of_cell].sum(axis=1) / deviation.sum(axis=1)
        np.testing.assert_allclose(ends[name], expected[number], rtol=1e-4)
    with rc_context(STYLE):
        figure = Switches().figures(data, tables)["switching_cells"]
    *panels, bar = figure.axes
    assert len(panels) == 2 * 9
    assert bar.get_ylabel() == "share of deviation"
    picture, over = panels[9].images
    assert picture.get_size() == (10, 20)
    assert over.get_extent() == [4.5, 14.5, 9.5, -0.5]  # the square at the centre
    assert panels[9].get_xlim() == (-0.5, 19.5)
    lowest = ends.query("end == 'lowest' and rank == 1")[cell_names(2)]
    np.testing.assert_allclose(over.get_array().ravel(), lowest.to_numpy()[0])


def test_without_evidence_and_in_linear_regions_there_is_no_section(folder, tmp_path):
    linear, _ = with_evidence(write_run(folder / "linear"), dict.fromkeys(NONLINEAR, 0.0), seed=5)
    for run in (write_run(folder / "plain"), linear):
        data = of_runs(folder, run)
        (result,) = evaluate_sections([Switches()], [data])
        section, nothing = result.section, result.by_subject["subj01"]
        assert result.tables == nothing == section.figures(data, nothing) == {}
        assert section.findings(data, nothing) == section.caveats([data], {}) == []
        assert section.title not in build_page([data], [result], {}, {}, tmp_path)


def test_an_encoder_that_may_not_be_read_costs_one_sentence(data, monkeypatch, capsys):
    def refuse(*_):
        raise InputError("trust", "names no such package")

    monkeypatch.setattr(Results, "encoder", refuse)
    assert Switches().tables(data) == {}
    told = " ".join(capsys.readouterr().out.split())
    assert "subj01: the report does not say what switches (trust: names no such package)" in told


def test_of_folds_each_encoder_is_at_its_own_stimuli(folder):
    fold = np.arange(N_STIMULI) % 2 + 1
    run, _ = with_evidence(write_run(folder / "folds", stimuli={"fold": fold}), NONLINEAR)
    other = write_run(folder / "other", seed=1)
    shutil.copy(run.path / "encoder.pt", run.path / "encoder_fold_1.pt")
    shutil.copy(other.path / "encoder.pt", run.path / "encoder_fold_2.pt")
    config = run.config | {"data": run.config["data"] | {"folds": 2}}
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    status = {"status": "FINISHED", "contents": run.status["contents"]}
    write_json(run.path / "status.json", status)
    data = of_runs(folder, Results(run.path))
    tables = Switches().tables(data)
    assert set(tables["switching_loadings"]["stimulus"]) == {f"s{i:02d}" for i in range(0, 24, 2)}
    members = switching_regions(data)["EBA"]
    first = decomposed(jacobians(run, members)[::2])
    second = decomposed(jacobians(other, members)[1::2])
    rows = tables["switching"].set_index("roi").loc["EBA"]
    np.testing.assert_allclose(rows["share"], first[1], rtol=1e-4)
    agreement = abs(first[0][:, 0] @ second[0][:, 0])
    assert rows["agreement"].iloc[0] == pytest.approx(agreement, abs=1e-3)
    assert set(rows["with"]) == {"1 other fold"}
    assert "of the first fold, by its encoder, of" in Switches().text(data, tables)

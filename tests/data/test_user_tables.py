"""Tables of users: every cell is text as it stands there, in prepared data and in results, too."""

import numpy as np
import pandas as pd
import pytest
from finished_run import N_STIMULI, N_VOXELS, write_run
from helpers import compose_train

from jne.data.prepared import prepare
from jne.errors import InputError
from jne.features import Precomputed
from jne.results import Results
from jne.training.config import check_config
from jne.utils.tables import read_table, write_table
from jne.utils.user_tables import read_user_table

ROIS = ["NA", "null", "None", "nan", "01", "1", "1.0", "1.50", "TRUE", "", "V1", "-"]


@pytest.fixture
def tabled(recorded):
    """A source of arrays with 12 voxels, and a function that writes its tables."""
    folder, _, _, source = recorded
    np.save(folder / "y.npy", np.random.default_rng(0).standard_normal((50, 12)))

    def write(voxels=None, stimuli=None):
        for name, text in (("v.csv", voxels), ("s.csv", stimuli)):
            if text is not None:
                (folder / name).write_text(text)
        return source(
            voxels=None if voxels is None else "v.csv",
            stimuli=None if stimuli is None else "s.csv",
        )

    return folder, source, write


def column(name: str, cells) -> str:
    return "\n".join([name, *(cell or '""' for cell in cells), ""])


# --- names ---------------------------------------------------------------------------------------


def test_any_word_is_the_name_of_an_roi(tabled):
    folder, _, write = tabled
    prepared = prepare(write(column("roi", ROIS)), folder / "p")
    assert prepared.voxels["roi"].tolist() == ROIS


def test_ids_keep_their_zeros_and_words(tabled):
    folder, _, write = tabled
    ids = ["01", "1", "NA", "None", "1e3", "1000", *map(str, range(50, 94))]
    prepared = prepare(write(stimuli=column("stimulus", ids)), folder / "p")
    assert prepared.stimuli["stimulus"].tolist() == ids
    numbers = list(range(100, 150))
    prepared = prepare(write(stimuli=column("stimulus", map(str, numbers))), folder / "p")
    assert prepared.stimuli["stimulus"].tolist() == numbers  # whole numbers, as before


def test_names_survive_the_results_folder(tmp_path):
    """Written by a run and read by evaluate.py."""
    ids = ["01", "1", "NA", "None", *(f"{k:03d}" for k in range(N_STIMULI - 4))]
    run = write_run(tmp_path / "run", stimuli={"stimulus": ids, "category": "NA", "image": "null"})
    rois = (ROIS * 2)[:N_VOXELS]
    write_table(run.path / "voxels.csv", run.voxels.assign(roi=rois))
    again = Results(run.path)
    assert again.stimuli["stimulus"].tolist() == ids
    assert set(again.stimuli["category"]) == {"NA"}
    assert set(again.stimuli["image"]) == {"null"}
    assert again.voxels["roi"].tolist() == rois
    np.testing.assert_array_equal(again.voxels["jne"], run.voxels["jne"])
    written = (run.path / "voxels.csv").read_bytes()
    write_table(run.path / "voxels.csv", again.voxels)
    assert (run.path / "voxels.csv").read_bytes() == written


def test_numbers_that_are_missing_and_empty_text_are_read_back_as_before(tmp_path):
    table = pd.DataFrame(
        {"voxel": [3, 1], "roi": ["", ""], "r2": [np.nan, 0.1], "w": np.nan, "label": ["", "x"]}
    )
    write_table(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table)


def test_what_differs_in_blanks_alone_is_one_name_and_said(tabled, capsys):
    folder, _, write = tabled
    rois = ["V1", "V1 ", " V1", "V2", *["V3 "] * 8]
    prepared = prepare(
        write(" roi , depth\n" + "\n".join(f"{roi}, 1" for roi in rois)), folder / "p"
    )
    assert prepared.voxels["roi"].tolist() == ["V1", "V1", "V1", "V2", *["V3"] * 8]
    assert prepared.voxels["depth"].tolist() == [1] * 12
    said = " ".join(capsys.readouterr().out.split())
    assert "v.csv: 'V1', 'V1 ' in the column roi differ only in blanks around them" in said
    assert said.count("differ only") == 1
    ids = ["a", "a ", *map(str, range(48))]
    with pytest.raises(InputError, match=r"^data\.stimuli: stimulus a has several rows"):
        prepare(write(stimuli=column("stimulus", ids)), folder / "p")


# --- lines and headers ---------------------------------------------------------------------------


def test_a_trailing_field_shifts_no_column(tabled):
    folder, _, write = tabled
    lines = "\n".join(f"V{k},{k}," for k in range(12))
    prepared = prepare(write(f"roi,depth\n{lines}\n"), folder / "p")
    assert prepared.voxels["roi"].tolist() == [f"V{k}" for k in range(12)]
    assert prepared.voxels["depth"].tolist() == list(range(12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("roi,depth\nV1,1\nV1,2,3\n", r"line 3 of .*v\.csv has 3 fields, but the header names 2 c"),
        ("roi,depth\nV1,1\nV1\n", "line 3 of .* has 1 fields, but the header names 2 columns"),
        ("roi,depth,roi\nV1,1,V2\n", "has two columns called roi; rename one"),
        ("", "is empty; its first line must name the columns"),
        ("roi\nV1\n", r"v\.csv has 1 rows, but the arrays have 12 voxels"),
        ("roi\n" + "x" * 200_000, r"v\.csv cannot be read \(field larger than field limit"),
        ("roi\nV1\0\n", r"v\.csv has 1 rows|cannot be read"),
    ],
)
def test_a_table_of_another_shape_is_refused_in_one_sentence(tabled, text, message):
    folder, _, write = tabled
    with pytest.raises(InputError, match=f"^data\\.voxels: .*{message}") as refused:
        prepare(write(text), folder / "p")
    assert len(str(refused.value).splitlines()) == 1


def test_tables_as_programs_write_them(tmp_path):
    """pandas with its index, Excel with a byte order mark and CRLF, text in quotes, blank lines."""
    path = tmp_path / "t.csv"
    frame = pd.DataFrame({"roi": ["a,b", 'say "x"', "two\nlines"], "n": [1, 2, 3]})
    frame.to_csv(path)
    table = read_user_table(path, "key")
    assert list(table) == ["Unnamed: 0", "roi", "n"]
    assert table["roi"].tolist() == frame["roi"].tolist()
    path.write_bytes("\ufeffroi,n\r\n\r\nrégion,1\r\n".encode())
    table = read_user_table(path, "key")
    assert table.to_dict("list") == {"roi": ["région"], "n": ["1"]}
    path.write_bytes(b"roi\nV\xe9\n")
    with pytest.raises(InputError, match=r"^key: .*t\.csv cannot be read"):
        read_user_table(path, "key")


# --- numbers -------------------------------------------------------------------------------------


def ceilings(cells) -> str:
    return "roi,noise_ceiling\n" + "\n".join(f"V1,{cell}" for cell in cells)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("50", "must hold shares of the variance from 0 to 1, found 50; leave .* percent set data"),
        ("-50", "from 0 to 1, found -50"),
        ("-0.02", "from 0 to 1, found -0.02"),
        ("0,5", "line 2 of"),
        ("0.5%", "must hold numbers, found '0.5%'"),
    ],
)
def test_a_noise_ceiling_that_is_no_share_is_refused(tabled, value, message):
    folder, _, write = tabled
    with pytest.raises(InputError, match=f"^data\\.voxels: .*{message}"):
        prepare(write(ceilings([value] + ["0.5"] * 11)), folder / "p")


def test_noise_ceilings_in_percent_say_so(tabled):
    folder, source, write = tabled
    cells = ["50", "0", "100", "", "NaN", "NA", *["12.5"] * 6]
    write(ceilings(cells))
    percent = source(voxels="v.csv", noise_ceiling_unit="percent")
    found = prepare(percent, folder / "p").voxels["noise_ceiling"]
    np.testing.assert_array_equal(found, [0.5, 0, 1, *[np.nan] * 3, *[0.125] * 6])
    write(ceilings(["50"] * 11 + ["-3"]))
    with pytest.raises(InputError, match=r"must hold percent from 0 to 100, found -3$"):
        prepare(percent, folder / "p")
    write(column("roi", ["V1"] * 12))
    with pytest.raises(InputError, match=r"^data\.noise_ceiling_unit=percent: v\.csv has no"):
        prepare(percent, folder / "p")


def test_a_unit_changes_the_name_and_its_absence_does_not(tabled):
    _, source, write = tabled
    write(ceilings(["0.5"] * 12))
    assert "noise_ceiling_unit" not in source(voxels="v.csv").model_dump(mode="json")
    percent = source(voxels="v.csv", noise_ceiling_unit="percent").model_dump(mode="json")
    assert percent["noise_ceiling_unit"] == "percent"


def test_a_unit_without_a_table_is_refused(tmp_path):
    arrays = ("data=arrays", "data.features=x.npy", "data.responses=y.npy")
    composed = compose_train(tmp_path, *arrays, "data.noise_ceiling_unit=percent")
    message = (
        r"^data\.noise_ceiling_unit=percent: has no effect without data\.voxels; leave it out$"
    )
    with pytest.raises(InputError, match=message):
        check_config(composed)


def test_an_older_folder_with_percent_is_refused(tabled):
    folder, _, write = tabled
    chosen = write(ceilings(["0.5"] * 12))
    prepared = prepare(chosen, folder / "p")
    write_table(prepared.folder / "voxels.csv", prepared.voxels.assign(noise_ceiling=50))
    with pytest.raises(InputError, match=r"^data: .*voxels\.csv: .* from 0 to 1, found 50"):
        prepare(chosen, folder / "p")


# --- ids of features -----------------------------------------------------------------------------


def test_ids_of_features_are_text(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(4.0)[:, None])
    (tmp_path / "ids.csv").write_text("stimulus,\nNA,\n01,\n1,\nNone,\n")
    keys = {"name": "x", "path": tmp_path / "x.npy", "key": None, "first_layer": 0, "layer": None}
    features = Precomputed(**keys, ids=tmp_path / "ids.csv")
    found = features.of_stimuli(np.array(["1", "None", "NA", "01"]))
    np.testing.assert_array_equal(found[:, 0], [2, 3, 0, 1])
    (tmp_path / "ids.csv").write_text("stimulus\na\na \nb\nc\n")
    with pytest.raises(InputError, match=r"^features\.ids: .* several rows of the stimulus a"):
        features.of_stimuli(np.array(["a"]))
    (tmp_path / "ids.csv").write_text("stimulus\n3\n1\n2\nNA\n")
    with pytest.raises(InputError, match=r"^features\.ids: .*ids\.csv must hold whole numbers"):
        features.of_stimuli(np.array([1]), n_numbered=10)


# --- folders of earlier versions -----------------------------------------------------------------


def test_a_folder_in_which_names_were_taken_for_numbers_is_prepared_again(tabled):
    folder, _, write = tabled
    for rois, then in (
        (ROIS, lambda text: pd.read_csv(text)["roi"].fillna("").astype(str)),
        (["01", "1", "02"] * 4, lambda text: pd.read_csv(text)["roi"].astype(str)),
    ):
        first = prepare(write(column("roi", rois)), folder / "p")
        write_table(first.folder / "voxels.csv", first.voxels.assign(roi=then(folder / "v.csv")))
        (first.folder / "checks.json").unlink()
        second = prepare(write(column("roi", rois)), folder / "p")
        assert second.voxels["roi"].tolist() == rois


def test_a_folder_that_an_earlier_version_read_alike_stays(tabled, monkeypatch):
    folder, _, write = tabled
    split = ["train"] * 40 + ["val"] * 5 + ["test"] * 5
    stimuli = "stimulus,split,score\n" + "\n".join(
        f"{100 + k},{name},{k / 7}" for k, name in enumerate(split)
    )
    chosen = write(
        "roi,depth,noise_ceiling\n" + "\n".join(f"V{k},0.50,0.5" for k in range(12)), stimuli
    )
    first = prepare(chosen, folder / "p").folder
    for name, file in (("stimuli", "s.csv"), ("voxels", "v.csv")):  # as pandas read and wrote them
        table = pd.read_csv(folder / file)
        if name == "voxels":
            table.insert(0, "voxel", np.arange(12))
        else:
            table["split"] = read_table(first / "stimuli.csv")["split"]
        write_table(first / f"{name}.csv", table)
    (first / "checks.json").unlink()
    monkeypatch.setattr(type(chosen), "write", lambda *_: pytest.fail("prepared again"))
    assert prepare(chosen, folder / "p").folder == first


@pytest.mark.parametrize("what", ["float16 repeats", "far responses", "far features"])
def test_a_folder_that_was_rounded_is_prepared_again(recorded, what):
    folder, x, y, source = recorded
    if what == "float16 repeats":
        np.save(folder / "y.npy", (5000 + y[:, :, None] * [40, 40, 40]).astype(np.float16))
    elif what == "far responses":
        np.save(folder / "y.npy", y + 1e8)
    else:
        np.save(folder / "x.npy", x + 1e8)
    first = prepare(source(), folder / "p")
    (first.folder / "checks.json").unlink()
    for path in first.folder.glob("*_offset.npy"):
        path.unlink()
    second = prepare(source(), folder / "p")
    assert second.folder != first.folder
    assert prepare(source(), folder / "p").folder == second.folder
    assert (second.offset("feature") is not None) == (what == "far features")

"""MOSAIC's stimulus tables, the split by its phases, and the images in users' own copies."""

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from jne.data.mosaic.catalogue import DATA_SETS
from jne.data.nsd.images import N_IMAGES, rows_of
from jne.errors import InputError
from jne.features.images import Hdf5Images, Images
from jne.utils.reading import reading

_COLUMNS = ("filename", "alias", "source", "test_train")
_ARTIFICIAL = ("NSDsynthetic", "Artificial")  # in the column source; their phase is `test`


def table_file(root: Path, name: str) -> Path:
    """The stimulus table of a data set: in the bucket's folder, or directly in `root`."""
    file = f"{DATA_SETS[name].stimuli}_stiminfo.tsv"
    beside = root / file
    return beside if beside.exists() else root / "stimulus_info" / file


def read_table(path: Path) -> pd.DataFrame:
    """The stimulus table by file name: alias, source, test_train, all text.

    Raises InputError, naming `data.root`, where a column is missing or a name is there twice.
    """
    with reading(path, "data.root"):
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    for column in _COLUMNS:
        if column not in table:
            raise InputError("data.root", f"{path} has no column {column}")
    repeated = table.loc[table["filename"].duplicated(), "filename"]
    if len(repeated):
        raise InputError("data.root", f"{path} has several rows of {repeated.iloc[0]}")
    return table.set_index("filename")


def stimulus_table(
    trials: pd.DataFrame, table: pd.DataFrame, n_val: float, seed: int, path: Path
) -> pd.DataFrame:
    """One row per stimulus, by its name: stimulus, split, n_repeats, alias, source.

    Artificial stimuli are left out. trials: as of `SubjectFile.trials`. table: as of `read_table`
    from `path`. n_val: a share or a number of the train stimuli. Raises InputError where table and
    trials contradict each other, or no stimulus is left to train on.
    """
    rows = _with_trials(trials, table, path)
    natural = rows[~rows["source"].isin(_ARTIFICIAL)].reset_index()
    train = np.flatnonzero(natural["phase"] == "train")
    if len(train) < 2:
        raise InputError("data.root", f"{len(train)} stimuli of the phase train have trials")
    size = n_val if isinstance(n_val, int) else max(round(n_val * len(train)), 1)
    if size >= len(train):
        raise InputError(
            "data.n_val",
            f"of {len(train)} stimuli this leaves none to train on; give a smaller number or a "
            f"share",
            value=n_val,
        )
    split = natural["phase"].to_numpy(dtype="<U5")
    split[train_test_split(train, test_size=size, random_state=seed)[1]] = "val"
    natural.insert(1, "split", split)
    return natural[["stimulus", "split", "n_repeats", "alias", "source"]]


def artificial_table(trials: pd.DataFrame, table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """One row per artificial stimulus, all to test; arguments and columns as `stimulus_table`.

    Raises InputError where the subject saw none.
    """
    rows = _with_trials(trials, table, path)
    artificial = rows[rows["source"].isin(_ARTIFICIAL)].reset_index()
    if artificial.empty:
        raise InputError(
            "data",
            f"no artificial stimulus in {path.name} has trials; NSD and deeprecon have some",
        )
    artificial.insert(1, "split", "test")
    return artificial[["stimulus", "split", "n_repeats", "alias", "source"]]


def _with_trials(trials: pd.DataFrame, table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The stimuli that have trials, by name: phase, n_repeats, alias, source."""
    rows = trials.groupby("stimulus").agg(
        phase=("phase", "first"), n_phases=("phase", "nunique"), n_repeats=("key", "size")
    )
    absent = rows.index.difference(table.index)
    if len(absent):
        raise InputError(
            "data.root",
            f"{path} lacks {len(absent)} of {len(rows)} stimuli that have trials, such "
            f"as {absent[0]}",
        )
    rows = rows.join(table[["alias", "source", "test_train"]])
    wrong = rows[(rows["n_phases"] > 1) | (rows["phase"] != rows["test_train"])]
    if len(wrong):
        first = wrong.iloc[0]
        phases = "both phases" if first["n_phases"] > 1 else f"the phase {first['phase']}"
        raise InputError(
            "data.root",
            f"{path} marks {wrong.index[0]} as {first['test_train']}, but it has trials "
            f"of {phases}",
        )
    return rows


def nsd_numbers(stimuli: pd.DataFrame) -> NDArray[np.int64]:
    """NSD's number from 0 (nsdId) of each stimulus (N,), which is its alias there."""
    numbers = pd.to_numeric(stimuli["alias"], errors="coerce")
    wrong = stimuli.loc[~numbers.between(0, N_IMAGES - 1) | (numbers % 1 != 0), "alias"]
    if len(wrong):
        raise InputError(
            "data.root",
            f"the stimulus table of NSD has the alias {wrong.iloc[0]!r}, expected a "
            f"number from 0 to {N_IMAGES - 1}",
        )
    return numbers.to_numpy(dtype=np.int64)


def image_rows(images: Images, stimuli: pd.DataFrame, name: str) -> NDArray[np.int64]:
    """Where the stimuli (N,) are among the user's images: (N,).

    By the name of the file, in whatever folder it is. Of a video, by the name of a frame,
    STEM_frame-NUMBER_OF.jpg (as MOSAIC's authors call theirs) or STEM.jpg. NSD's own HDF5 file by
    number. Raises InputError, naming `data.images`, where one is missing or there twice.
    """
    if name == "NSD" and isinstance(images, Hdf5Images):
        return rows_of(images, nsd_numbers(stimuli))
    return rows_by_file(images, stimuli, name)


def rows_by_file(images: Images, stimuli: pd.DataFrame, name: str) -> NDArray[np.int64]:
    """As `image_rows`, always by the name of the file."""
    video = DATA_SETS[name].video
    rows: dict[str, list[int]] = {}
    for row, path in enumerate(images.names):
        file = PurePosixPath(path)
        image_name = file.stem.rpartition("_frame-")[0] or file.stem if video else file.name
        rows.setdefault(image_name, []).append(row)
    wanted = [PurePosixPath(file).stem if video else file for file in stimuli["stimulus"]]
    absent = [key for key in wanted if key not in rows]
    if absent:
        one = f"a frame of {absent[0]}, {absent[0]}_frame-MMMM_TTTT.jpg" if video else absent[0]
        raise InputError(
            "data.images",
            f"{images.path} holds {len(images)} images, but {len(absent)} of the "
            f"{len(wanted)} stimuli of {name} are missing, such as {one}",
        )
    twice = [key for key in wanted if len(rows[key]) > 1]
    if twice:
        first, second = (images.names[row] for row in rows[twice[0]][:2])
        raise InputError(
            "data.images",
            f"{images.path} has two images of {twice[0]}, {first} and {second}; keep one",
        )
    return np.array([rows[key][0] for key in wanted])

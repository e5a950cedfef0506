"""Small trees of random numbers in MOSAIC's layout: the eight data sets, in the bucket's folders.

No value comes from MOSAIC. The number of grayordinates of a trial is fixed by the layout; those
that no test looks at are 0.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from PIL import Image

N = 91_282
N_CORTEX = 59_412
BETAS = Path("fMRIPrepv23_2_0/task_fMRI/betas/GLMsinglev1_2")
INVALID = 54  # a grayordinate of V1 that is NaN in every trial
INFINITE = 55  # of V1, infinite in one trial of a repeated stimulus, or of a stimulus shown once
SUBCORTICAL = 60_000


@dataclass(frozen=True)
class Layout:
    long: str
    stimuli: str
    names: str
    """How the files of stimuli are called."""
    train: int  # repeats
    test: int
    artificial: tuple[str, str, int] | None = None  # source, names, repeats
    ceilings: tuple[str, ...] = ()
    dtype: str = "f8"
    named: str = ""  # the attribute dataset_name, where it is not `long`


LAYOUTS = {
    "NSD": Layout("NaturalScenesDataset", "nsd", "{:012d}.jpg", 3, 3,
                  ("NSDsynthetic", "{:03d}.jpg", 4), ("train", "test", "artificial")),
    "BOLD5000": Layout("BOLD5000", "b5000", "COCO_train2014_{:012d}.jpg", 1, 5, None, ("test",)),
    "THINGS": Layout("THINGS", "things", "aardvark_{:02d}b.jpg", 1, 12, None, ("test",), "f4",
                     "THINGS_fmri"),
    "GOD": Layout("GenericObjectDecoding", "god", "n01443537_{}.JPEG", 1, 7, None, ("test",)),
    "deeprecon": Layout("deeprecon", "deeprecon", "n01443537_{}.JPEG", 5, 6,
                        ("Artificial", "shape-{:02d}_a.b.tiff", 4),
                        ("train", "test", "artificial")),
    "NOD": Layout("NaturalObjectDataset", "nod", "n01440764_{}.JPEG", 1, 1),
    "BMD": Layout("BOLDMomentsDataset", "bmd", "{:04d}.mp4", 3, 10, None, ("train", "test")),
    "HAD": Layout("HumanActionsDataset", "had", "v_Archery_id_{}.mp4", 1, 1),
}  # fmt: skip
N_TRAIN, N_TEST, N_ARTIFICIAL = 12, 5, 3


def betas_file(root: Path, name: str, subject: str = "sub-01") -> Path:
    return root / BETAS / LAYOUTS[name].long / f"{subject}_{name}.hdf5"


def stimulus_file(root: Path, name: str) -> Path:
    return root / "stimulus_info" / f"{LAYOUTS[name].stimuli}_stiminfo.tsv"


@cache
def places() -> np.ndarray:
    """The grayordinates that are not 0: some of each visual area on both sides, some below."""
    from jne.utils import fslr

    area = fslr.areas()
    chosen = [np.flatnonzero(area == a) for a in ("V1", "V2", "V3", "V4", "FFC", "MT", "PHA1")]
    chosen = [np.concatenate([all_of[:9], all_of[-5:]]) for all_of in chosen]
    return np.unique(np.concatenate([*chosen, [INVALID, INFINITE, SUBCORTICAL, N - 1]]))


def write_mosaic(
    root: Path,
    name: str,
    subject: str = "sub-01",
    seed: int = 0,
    n_train: int = N_TRAIN,
    n_test: int = N_TEST,
    where: np.ndarray | None = None,
    signal: np.ndarray | None = None,
) -> Path:
    """The file of a subject and the stimulus table of a data set.

    where: the grayordinates that are not 0. signal: (n_train + n_test, len(where)), what all
    repeats of a stimulus have in common; by default random.
    """
    layout, where = LAYOUTS[name], places() if where is None else where
    rng = np.random.default_rng([seed, *name.encode()])
    stimuli = stimulus_table(name, subject, n_train, n_test)
    path = betas_file(root, name, subject)
    for folder in (path.parent, stimulus_file(root, name).parent):
        folder.mkdir(parents=True, exist_ok=True)
    stimuli.to_csv(stimulus_file(root, name), sep="\t", index=False)
    with h5py.File(path, "w", track_order=True) as file:
        file.attrs["dataset_name"] = layout.named or layout.long
        file.attrs["subjectID"] = subject
        file.attrs["beta_pipeline"] = "GLMsinglev1.2"
        betas = file.create_group("betas", track_order=True)
        # Creation order as MOSAIC's: test, train, artificial
        order = np.argsort(stimuli["test_train"].to_numpy(), kind="stable")
        for number, row in zip(order, stimuli.iloc[order].to_dict("records"), strict=True):
            common = rng.standard_normal(len(where))
            if signal is not None and number < len(signal):
                common = signal[number]
            for k in range(row[f"{subject}_reps"]):
                values = common + rng.standard_normal(len(where))
                values[where == INVALID] = np.nan
                if number == 0 and k == 0:
                    values[where == INFINITE] = np.inf
                stimulus, phase = row["filename"], row["test_train"]
                at = pd.Series(values, index=where)
                write_trial(betas, name, subject, stimulus, phase, k, at, layout.dtype)
        file["nan_indices_all"] = np.array([INFINITE, INVALID])
        for phase in layout.ceilings:
            group = file.require_group("noiseceilings")
            for n in ("1", "avg"):
                ceiling = np.clip(50 * rng.standard_normal(N) + 20, 0, 100)
                stored = group.create_dataset(
                    f"{subject}_{name}_phase-{phase}_n-{n}_noiseceiling", data=ceiling
                )
                stored.attrs["phase"] = "test" if phase == "artificial" else phase
                stored.attrs["n"] = n
    return path


def write_trial(betas, name, subject, stimulus, phase, k, values: pd.Series, dtype) -> None:
    """values: by grayordinate. In chunks, of which those that are 0 take neither space nor time."""
    stem, where = stimulus.rpartition(".")[0], values.index.to_numpy()
    key = f"{subject}_{name}_stimulus-{stem}_phase-{phase}_rep-{k}"
    trial = betas.create_dataset(key, (N,), dtype, chunks=(2048,))
    everything = np.zeros(N, dtype)
    everything[where] = values
    for start in np.unique(where // 2048) * 2048:
        trial[start : start + 2048] = everything[start : start + 2048]
    trial.attrs["nan_indices"] = where[~np.isfinite(values)]
    trial.attrs["phase"], trial.attrs["repetition"] = phase, k
    trial.attrs["presented_stimulus_filename"] = stimulus


def stimulus_table(name: str, subject: str, n_train: int, n_test: int) -> pd.DataFrame:
    """One row per stimulus, and one that this subject never saw."""
    layout = LAYOUTS[name]
    source = {"BMD": "MomentsInTime", "HAD": "HumanActionClipsAndSegments"}.get(name, "COCO")
    rows = []
    for i in range(n_train + n_test + 1):
        number = 7 * i + 3
        phase, n = ("train", layout.train) if i < n_train else ("test", layout.test)
        alias = str(number) if name == "NSD" else "n/a"
        shown = n if i < n_train + n_test else 0
        rows.append((layout.names.format(number), alias, source, phase, shown))
    if layout.artificial:
        artificial, names, n = layout.artificial
        rows += [
            (names.format(i + 1), str(i + 1), artificial, "test", n) for i in range(N_ARTIFICIAL)
        ]
    columns = ("filename", "alias", "source", "test_train", f"{subject}_reps")
    return pd.DataFrame(rows, columns=columns)


def write_images(folder: Path, name: str, n_train: int = N_TRAIN, n_test: int = N_TEST) -> Path:
    """Images of the stimuli in folders, as users may have them; of videos, their middle frames."""
    rng = np.random.default_rng(1)
    for i, file in enumerate(stimulus_table(name, "sub-01", n_train, n_test)["filename"]):
        path = folder / f"class{i % 2}" / file
        if path.suffix == ".mp4":
            path = path.with_name(f"{path.stem}_frame-0045_0090.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="PNG")
    return folder


def write_features(
    path: Path, name: str, n_train: int = N_TRAIN, n_test: int = N_TEST, n_features: int = 6
) -> Path:
    """Features by the names of the stimuli; of NSD, by NSD's numbers. Returns the array's path."""
    table = stimulus_table(name, "sub-01", n_train, n_test)
    if name == "NSD":
        table = table[table["source"] == "COCO"]
    ids = table["alias"] if name == "NSD" else table["filename"]
    path.parent.mkdir(parents=True, exist_ok=True)
    ids.rename("stimulus").to_csv(path.with_suffix(".csv"), index=False)
    rng = np.random.default_rng(2)
    np.save(path, rng.standard_normal((len(table), n_features), dtype=np.float32))
    return path

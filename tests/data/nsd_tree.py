"""Small trees of random numbers, in the layouts in which NSD and Algonauts 2023 are released.

No value comes from either data set. The sizes are small wherever the layout leaves them free.
"""

import io
import pickle
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image

SUBJECT = "subj01"
BETAS = "betas_fithrf_GLMdenoise_RR"
GRID = (6, 5, 4)  # X, Y, Z
N_FSAVERAGE = 163_842
SESSIONS = (1, 2, 4)  # the third was never downloaded
RUNS = np.repeat([1, 2, 3], 6)  # of the trials of a session
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])
AFFINE[:3, 3] = -4.5, -3.6, -2.7
N_IMAGES = 120
COLUMNS = (
    "SUBJECT SESSION RUN TRIAL 73KID 10KID TIME ISOLD ISCORRECT RT CHANGEMIND MEMORYRECENT "
    "MEMORYFIRST ISOLDCURRENT ISCORRECTCURRENT TOTAL1 TOTAL2 BUTTON MISSINGDATA"
).split()
CONSTANT = (1, 1, 1)  # a voxel of the brain that is 0 in every session
INVALID_IN_2 = (2, 1, 1)  # 0 in the second session alone
SATURATED = (3, 1, 1)  # at both ends of the int16 range
CONSTANT_RUN = (4, 1, 1)  # constant in the second run of the first session alone


def write_nsd(root: Path, suffix: str = "hdf5", seed: int = 0) -> Path:
    """The volume betas of a subject in func1pt8mm, with behaviour, masks, ROIs and images."""
    rng = np.random.default_rng(seed)
    trials = write_behaviour(root)
    ppdata = root / "nsddata" / "ppdata" / SUBJECT / "func1pt8mm"
    betas = root / "nsddata_betas" / "ppdata" / SUBJECT / "func1pt8mm" / BETAS
    for folder in (ppdata / "roi", betas):
        folder.mkdir(parents=True, exist_ok=True)
    brain = np.ones(GRID, dtype=np.int16)
    brain[0] = 0
    save_nifti(ppdata / "brainmask.nii.gz", brain)
    signal = rng.standard_normal((N_IMAGES, *GRID))
    for session in SESSIONS:
        image = trials.loc[trials["SESSION"] == session, "73KID"].to_numpy() - 1
        percent = 2 * signal[image] + rng.standard_normal((len(image), *GRID)) + session
        raw = np.rint(percent * 300).astype(np.int16)
        raw[:, brain == 0] = 0
        raw[(slice(None), *CONSTANT)] = 0
        if session == 2:
            raw[(slice(None), *INVALID_IN_2)] = 0
        if session == 1:
            raw[(RUNS == 2, *CONSTANT_RUN)] = 300
        raw[(0, *SATURATED)], raw[(1, *SATURATED)] = 32767, -32768
        write_volume_session(betas, session, raw, suffix)
    ncsnr = rng.random(GRID).astype(np.float32)
    ncsnr[CONSTANT] = np.nan
    save_nifti(betas / "ncsnr.nii.gz", ncsnr)
    write_volume_rois(root, rng)
    write_images(root, rng)
    return root


def write_behaviour(root: Path) -> pd.DataFrame:
    """responses.tsv of four sessions; 10KID up to 1000 are the shared images."""
    rng = np.random.default_rng(5)
    chosen = rng.choice(N_IMAGES, 24, replace=False) + 1  # 73KID counts from 1
    shown = np.concatenate([np.arange(24)] * 3)  # up to three times each, also within a session
    shown = rng.permutation(shown)[: 4 * len(RUNS)]
    shared = np.sort(rng.permutation(1000)[:6] + 1)
    others = np.sort(rng.permutation(9000)[:18] + 1001)
    ten = np.concatenate([shared, others])
    table = pd.DataFrame({column: np.nan for column in COLUMNS}, index=range(len(shown)))
    table["SUBJECT"] = 1
    table["SESSION"] = np.repeat([1, 2, 3, 4], len(RUNS))
    table["RUN"] = np.tile(RUNS, 4)
    table["TRIAL"] = np.tile(np.arange(len(RUNS)) + 1, 4)
    table["73KID"], table["10KID"] = chosen[shown], ten[shown]
    table["MISSINGDATA"] = 0
    path = root / "nsddata" / "ppdata" / SUBJECT / "behav" / "responses.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False, na_rep="NaN")
    return table


def behaviour(root: Path) -> pd.DataFrame:
    path = root / "nsddata" / "ppdata" / SUBJECT / "behav" / "responses.tsv"
    return pd.read_csv(path, sep="\t")


def write_volume_session(folder: Path, session: int, raw: np.ndarray, suffix: str) -> None:
    """raw: (n_trials, X, Y, Z) int16. HDF5 has the axes the other way round than NIfTI."""
    path = folder / f"betas_session{session:02d}.{suffix}"
    if suffix == "nii.gz":
        save_nifti(path, raw.transpose(1, 2, 3, 0))
    else:
        reverse = raw.transpose(0, 3, 2, 1)
        with h5py.File(path, "w") as file:
            file.create_dataset("betas", data=reverse, chunks=(len(raw), 1, 1, 1))


def write_volume_rois(root: Path, rng: np.random.Generator) -> None:
    folder = root / "nsddata" / "ppdata" / SUBJECT / "func1pt8mm" / "roi"
    sizes = {"prf-visualrois": 7, "floc-faces": 5, "floc-places": 3, "floc-bodies": 4,
             "nsdgeneral": 1, "Kastner2015": 3, "MTL": 2}  # fmt: skip
    for name, n_labels in sizes.items():
        labels = rng.integers(-1, n_labels + 1, GRID)
        half = np.arange(GRID[0]) < GRID[0] // 2
        save_nifti(folder / f"{name}.nii.gz", labels.astype(np.float64))
        for side, inside in (("lh", half), ("rh", ~half)):
            hemisphere = np.where(inside[:, None, None], labels, -1)
            save_nifti(folder / f"{side}.{name}.nii.gz", hemisphere.astype(np.float64))
    labels = root / "nsddata" / "freesurfer" / "fsaverage" / "label"
    labels.mkdir(parents=True)
    (labels / "Kastner2015.mgz.ctab").write_text("0 Unknown\n1 V1v\t    \n2 V1d\t    \n3 V2v\t\n")


def write_images(root: Path, rng: np.random.Generator) -> None:
    path = root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["imgBrick"] = rng.integers(0, 256, (N_IMAGES, 20, 20, 3), dtype=np.uint8)


def write_surface(root: Path) -> Path:
    """The betas of two sessions on fsaverage, already in percent, with vertices that are NaN."""
    rng = np.random.default_rng(1)
    write_behaviour(root)
    betas = root / "nsddata_betas" / "ppdata" / SUBJECT / "fsaverage" / BETAS
    labels = root / "nsddata" / "freesurfer" / "fsaverage" / "label"
    for folder in (betas, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for hemisphere in ("lh", "rh"):
        for session in (1, 4):
            values = rng.standard_normal((N_FSAVERAGE, 1, 1, len(RUNS)), dtype=np.float32)
            values[10 + session] = np.nan
            save_mgh(betas / f"{hemisphere}.betas_session{session:02d}.mgh", values)
        save_mgh(betas / f"{hemisphere}.ncsnr.mgh", rng.random((N_FSAVERAGE, 1, 1), np.float32))
        general = np.zeros((N_FSAVERAGE, 1, 1), dtype=np.int32)
        general[:40] = general[-5:] = 1
        save_mgh(labels / f"{hemisphere}.nsdgeneral.mgz", general)
        glasser = np.arange(N_FSAVERAGE, dtype=np.int32).reshape(-1, 1, 1) % 181
        save_mgh(labels / f"{hemisphere}.HCP_MMP1.mgz", glasser)
        save_mgh(labels / f"{hemisphere}.probmap_FFA-1.mgz", rng.random((N_FSAVERAGE, 1, 1)))
    (labels / "HCP_MMP1.mgz.ctab").write_text("0 Unknown\n1 V1 \n2 MST \n180 p24 \n")
    return root


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def write_algonauts(root: Path, n_images: int = 20) -> Path:
    """A subject of the challenge; its mapping files are pickles that leave a trace when read."""
    rng = np.random.default_rng(2)
    masks = root / SUBJECT / "roi_masks"
    fmri = root / SUBJECT / "training_split" / "training_fmri"
    images = root / SUBJECT / "training_split" / "training_images"
    for folder in (masks, fmri, images):
        folder.mkdir(parents=True)
    for side, n_vertices in (("lh", 12), ("rh", 9)):
        everything = np.zeros(N_FSAVERAGE, dtype=np.int64)
        everything[np.sort(rng.choice(N_FSAVERAGE, n_vertices, replace=False))] = 1
        np.save(masks / f"{side}.all-vertices_fsaverage_space.npy", everything)
        for name, n_labels in (("prf-visualrois", 7), ("floc-faces", 5), ("streams", 7)):
            labels = rng.integers(0, n_labels + 1, n_vertices)
            np.save(masks / f"{side}.{name}_challenge_space.npy", labels)
        values = rng.standard_normal((n_images, n_vertices), dtype=np.float32)
        np.save(fmri / f"{side}_training_fmri.npy", values)
    for name in ("prf-visualrois", "floc-faces", "streams"):
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        (masks / f"mapping_{name}.npy").write_bytes(
            file.getvalue() + pickle.dumps(Bomb(root / "unpickled"))
        )
    for i in range(n_images):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"train-{i + 1:04d}_nsd-{7 * i % N_IMAGES:05d}.png")
    return root


def save_nifti(path: Path, values: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(values, AFFINE), path)


def save_mgh(path: Path, values: np.ndarray) -> None:
    values = values.astype(np.float32 if values.dtype.kind == "f" else np.int32)
    nib.save(nib.MGHImage(values, np.eye(4)), path)

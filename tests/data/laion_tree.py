"""A small tree of random numbers in the layout in which LAION-fMRI is described.

No value comes from the data set, and nothing here is the reader's. Two people, sub-01 and sub-03,
whose own images end in _p01 and _p04. Grid, sessions and images are few.
"""

import gzip
import io
import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image

GRID = (6, 5, 4)
AFFINE = np.array([[-1.7778, 0.02, 0, 70.5], [0.01, 1.7778, 0.03, -90.25],
                   [0, 0.05, 1.7778, -40], [0, 0, 0, 1]])  # fmt: skip
SUFFIX = {"sub-01": "p01", "sub-03": "p04"}
SESSIONS = {1: (25, 24), 2: (19, 19)}  # trials of each run
BRAIN_EDGE = (5, 4, 3)  # in the mask by R2, not in that of the T1w image
NAN_IN_1 = (2, 1, 1)  # NaN in one trial of the first session alone
INFINITE_IN_1 = (3, 1, 1)
ZERO_IN_2 = (4, 1, 1)  # in every trial
CONSTANT = (2, 2, 2)  # in both sessions, with the value 0.7
FULL, SHORT, FEW = 12, 11, 4  # repeats
SHORT_IMAGE = "shared_12rep_LAION_cluster_2677_i5.jpg"

LAION12 = [SHORT_IMAGE, "shared_12rep_LAION_cluster_11_i0.jpg"]
THINGS12 = ["shared_12rep_THINGS+_kmeans_3_aardvark.jpg"]
NSD4 = [f"shared_4rep_NSD_special1000_{n}.jpg" for n in (4, 9)]
OOD = {
    "shared_4rep_OOD_shape_cat.png": "shape",
    "shared_4rep_OOD_illusion-classic_muller.png": "illusion-classic",
    "shared_4rep_OOD_gabor_02.jpg": "gabor",
    "shared_4rep_OOD_cropped_dog.png": "cropped",
}
SHARED = [*LAION12, *THINGS12, *NSD4]


def unique(person: str) -> list[str]:
    end = f"{SUFFIX[person]}.jpg"
    return [
        f"unique_LAION_new_cluster_475_i49_{end}", f"unique_LAION_initial_cluster_5192_i30_{end}",
        f"unique_LAION_fillup_cluster_8_i1_{end}", f"unique_THINGS_axe_{end}",
        f"unique_THINGS+_ball_{end}", f"unique_LAION_new_cluster_7_i2_{end}",
        f"unique_LAION_new_cluster_7_i3_{end}",
    ]  # fmt: skip


NAMES = sorted([*SHARED, *OOD, *unique("sub-01"), *unique("sub-03")])
ROIS = {
    "retinotopy": ["V1d", "V1v", "V2d", "V2v", "V3d", "V3v", "hV4", "V3A"],
    "face": ["FFA-1", "FFA2", "OFA"],  # FFA2 is missing of sub-03
    "place": ["MPA", "OPA", "PPA"],
    "body": ["EBA", "FBA"],
    "laion": ["laiongeneral", "laion-ventral"],  # the second is within the first
}


def glm(root: Path, person: str) -> Path:
    return root / "derivatives" / "glmsingle-tedana" / person


def betas_file(root: Path, person: str, session: int) -> Path:
    name = f"{person}_ses-{session:02d}_task-images_space-T1w_stat-effect_desc-SingletrialBetas"
    return glm(root, person) / f"ses-{session:02d}" / "func" / f"{name}_statmap.nii.gz"


def trials_file(root: Path, person: str, session: int) -> Path:
    name = f"{person}_ses-{session:02d}_task-images_desc-SingletrialBetas_trials.tsv"
    return glm(root, person) / f"ses-{session:02d}" / "func" / name


def map_file(root: Path, person: str, name: str) -> Path:
    return glm(root, person) / f"{person}_task-images_space-T1w_{name}_statmap.nii.gz"


def anatomical(root: Path, person: str, name: str) -> Path:
    folder = root / "derivatives" / "anatomical" / person / "ses-PrismaAnat" / "anat"
    return folder / f"{person}_ses-PrismaAnat_space-T1w_res-1pt8_{name}.nii.gz"


def roi_file(root: Path, person: str, category: str, label: str, res: str = "1pt8") -> Path:
    name = f"{person}_space-T1w_res-{res}_label-{label}_mask.nii.gz"
    return root / "derivatives" / "rois" / person / category / name


def embedding_file(root: Path, model: str = "CLIP") -> Path:
    return root / "stimuli" / f"task-images_desc-{model}_embeddings.h5"


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def shown_labels(person: str, rng: np.random.Generator) -> list[str]:
    """The image of each trial of both sessions, one after the other."""
    own = unique(person)
    times = {name: FEW for name in (*own, *NSD4, *OOD)} | dict.fromkeys((*LAION12, *THINGS12), FULL)
    times[SHORT_IMAGE] = SHORT
    trials = [name for name, n in times.items() for _ in range(n)]
    assert len(trials) == sum(map(sum, SESSIONS.values()))
    return [str(name) for name in rng.permutation(trials)]


def write_laion(root: Path, seed: int = 0) -> Path:
    for number, person in enumerate(SUFFIX):
        write_person(root, person, np.random.default_rng([seed, number]))
    write_stimuli(root, np.random.default_rng([seed, 9]))
    write_splits(root / "splits")
    return root


def write_person(root: Path, person: str, rng: np.random.Generator) -> None:
    brain = np.zeros(GRID, dtype=np.uint8)
    brain[1:] = 1
    by_r2 = brain * rng.uniform(0.1, 60, GRID).astype(np.float32)
    brain[BRAIN_EDGE] = 0
    save(anatomical(root, person, "desc-brain_mask"), brain)
    save(anatomical(root, person, "T1w"), rng.uniform(0, 900, GRID).astype(np.float32))
    save(map_file(root, person, "stat-rsquare_desc-R2mean"), by_r2)
    for images, most in (("12rep", 90), ("4rep", 70), ("Allrep", 80)):
        ceiling = brain * rng.uniform(0, most, GRID).astype(np.float32)
        ceiling[1, 0, 0] = np.nan
        save(map_file(root, person, f"desc-Noiseceiling{images}"), ceiling)
    write_rois(root, person, rng)
    labels, start = shown_labels(person, rng), 0
    signal = {name: rng.standard_normal(GRID) for name in NAMES}
    for session, runs in SESSIONS.items():
        n = sum(runs)
        some, start = labels[start : start + n], start + n
        gain = rng.uniform(0.2, 3, GRID)  # ridge shrinks each voxel otherwise
        betas = np.stack([gain * signal[s] + rng.standard_normal(GRID) + session for s in some], -1)
        betas[by_r2 == 0] = 0
        betas[CONSTANT] = 0.7
        write_trials(root, person, session, some, runs)
        if session == 1:
            betas[(*NAN_IN_1, 3)], betas[(*INFINITE_IN_1, 5)] = np.nan, np.inf
            save(betas_file(root, person, session), betas.astype(np.float32))
        else:
            betas[ZERO_IN_2] = 0
            save_scaled(betas_file(root, person, session), betas)
    # A later session, of other images and tasks
    write_trials(root, person, 31, ["blank", "other.jpg"], (2,))
    save(betas_file(root, person, 31), np.ones((*GRID, 2), dtype=np.float32))


def save_scaled(path: Path, betas: np.ndarray) -> None:
    """As int16 with a slope and an intercept. 0 is not among the values that it can hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.zeros(betas.shape, dtype=np.int16), AFFINE)
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.0005, 1.25)
    raw = np.rint((betas - 1.25) / 0.0005).clip(-32768, 32767).astype("<i2")
    content = io.BytesIO()
    image.header.write_to(content)
    content.write(b"\0" * (352 - content.tell()))
    content.write(raw.tobytes(order="F"))
    path.write_bytes(gzip.compress(content.getvalue()))


def write_trials(root: Path, person: str, session: int, labels: list[str], runs) -> None:
    path = trials_file(root, person, session)
    path.parent.mkdir(parents=True, exist_ok=True)
    run = np.repeat(np.arange(len(runs)) + 1, runs)
    lines = ["session\trun\tbeta_index\tlabel"]
    lines += [f"ses-{session:02d}\t{run[i]}\t{i}\t{label}" for i, label in enumerate(labels)]
    path.write_text("\n".join(lines) + "\n")


def write_rois(root: Path, person: str, rng: np.random.Generator) -> None:
    for category, labels in ROIS.items():
        owner = rng.integers(0, len(labels) + 1, GRID)
        owner[1, 0, :] = np.arange(4) % len(labels)  # each has voxels in the brain
        for number, label in enumerate(labels):
            mask = owner == number
            if label == "laiongeneral":
                mask = owner <= 1
            if (person, label) == ("sub-03", "FFA2"):
                continue
            save(roi_file(root, person, category, label), mask.astype(np.uint8))
    finer = tuple(2 * n for n in GRID)
    for category, label in (("face", "FFA-1"), ("place", "PPA")):
        path = roi_file(root, person, category, label, "1pt5")
        save(path, np.ones(finer, dtype=np.uint8))


def write_stimuli(root: Path, rng: np.random.Generator) -> None:
    folder = root / "stimuli"
    folder.mkdir(parents=True, exist_ok=True)
    order = rng.permutation(len(NAMES))
    table = pd.DataFrame({"image_name": [NAMES[i] for i in order]})
    table["n_reps"] = ["12rep" if "12rep" in name else "4rep" for name in table["image_name"]]
    table.to_csv(folder / "task-images_metadata.csv", index=False)
    with h5py.File(folder / "task-images_stimuli.h5", "w") as file:
        data = file.create_dataset("images", (len(NAMES),), h5py.vlen_dtype(np.uint8))
        for row, name in enumerate(table["image_name"]):
            data[row] = np.frombuffer(encoded(name), dtype=np.uint8)
    for model, width in (("CLIP", 8), ("DINOv2", 8), ("PEcore", 8), ("SigLIP2", 9)):
        write_embedding(embedding_file(root, model), rng, width)


def encoded(name: str) -> bytes:
    """A JPEG, or for OOD PNG names a PNG with a transparent half."""
    shade = sum(name.encode()) % 200
    pixels = np.full((10, 10, 4), shade, dtype=np.uint8)
    pixels[..., 3] = 255
    content = io.BytesIO()
    if name.endswith("png"):
        pixels[5:, :, 3] = 0
        Image.fromarray(pixels).save(content, "PNG")
    else:
        Image.fromarray(pixels[..., :3]).save(content, "JPEG")
    return content.getvalue()


def write_embedding(path: Path, rng: np.random.Generator, width: int, names=None) -> None:
    """In another order than the table of images."""
    names = list(rng.permutation(NAMES)) if names is None else names
    with h5py.File(path, "w") as file:
        values = rng.standard_normal((len(names), width))
        file["embedding"] = values.astype(np.float16)
        file.create_dataset("image_ids", data=names, dtype=h5py.string_dtype())
        file["valid"] = np.ones(len(names), dtype=bool)


def write_split(root: Path, pool: str, name: str, train, test, **more) -> Path:
    """pool is the folder; the text in the file has the old number of the person."""
    content = {
        "name": name,
        "pool": f"{pool.replace('sub-03', 'sub-04')} full pool",
        "splitter": "tau",
        "params": {},
        "n_train": len(train),
        "n_test": len(test),
        "variants": [{"variant_id": 0, "train_ids": list(train), "test_ids": list(test)}],
    } | more
    path = root / pool / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_splits(root: Path) -> None:
    kfold = {"splitter": "random_kfold", "params": {"seed": 42, "fold": 0}}
    for person in SUFFIX:
        own = unique(person)
        everything = [*SHARED, *own]
        test = [SHARED[0], SHARED[3], own[0]]
        rest = [name for name in everything if name not in test]
        write_split(root, person, "tau", rest, test)
        write_split(root, person, "cluster_k5_0", everything[3:], everything[:3], splitter="kmeans")
        write_split(root, person, "ood", everything, list(OOD))
        revised = {"params": {"seed": 42, "fold": 0, "revision": 2}}
        write_split(root, person, "random_0", rest, test, **kfold | revised)
        write_split(root, person, "random_1", rest, test, **kfold)
        write_split(root, person, "random_2", rest, test, splitter="uniform_random",
                    params={"seed": 2})  # fmt: skip
    write_split(root, "shared", "ood", SHARED, list(OOD))
    both = [*SHARED, *unique("sub-01"), *unique("sub-03")]
    test = [SHARED[1], unique("sub-01")[0], unique("sub-01")[1], unique("sub-03")[2], SHARED[4]]
    write_split(root, "pooled", "tau", [name for name in both if name not in test], test)

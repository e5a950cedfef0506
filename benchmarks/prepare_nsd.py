"""The preparation of a whole-brain NSD subject with 40 sessions: time, memory, the cost of a kill.

python benchmarks/prepare_nsd.py FOLDER [SESSIONS]

Writes a synthetic tree with the layout and the size of the release (81 x 104 x 83 voxels, 226,000
of them in the brain, 750 trials per session) into FOLDER, which needs about 25 GB for 40 sessions.
Four session files are written; the others are links to them. Everything is deleted at the end.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd

GRID = (81, 104, 83)
N_VOXELS, N_TRIALS, N_FILES = 226_000, 750, 4
SUBJECT, BETAS = "subj01", "betas_fithrf_GLMdenoise_RR"
RUNS = np.repeat(np.arange(1, 13), [63, 62] * 6)


def write_trials(ppdata: Path, n_sessions: int, rng: np.random.Generator) -> np.ndarray:
    """Write responses.tsv: each image three times. Returns which image each trial shows."""
    n_images = n_sessions * N_TRIALS // 3
    shown = rng.permutation(np.repeat(np.arange(n_images), 3))
    ten = rng.choice(10_000, n_images, replace=False) + 1  # the first thousand are shared
    chosen = np.sort(rng.choice(73_000, n_images, replace=False)) + 1
    pd.DataFrame(
        {
            "SESSION": np.repeat(np.arange(n_sessions) + 1, N_TRIALS),
            "RUN": np.tile(RUNS, n_sessions),
            "73KID": chosen[shown],
            "10KID": ten[shown],
        }
    ).to_csv(ppdata / "behav" / "responses.tsv", sep="\t", index=False)
    return shown


def write_tree(root: Path, n_sessions: int) -> None:
    rng = np.random.default_rng(0)
    ppdata = root / "nsddata" / "ppdata" / SUBJECT
    betas = root / "nsddata_betas" / "ppdata" / SUBJECT / "func1pt8mm" / BETAS
    for folder in (ppdata / "behav", ppdata / "func1pt8mm", betas):
        folder.mkdir(parents=True)
    brain = np.zeros(GRID, dtype=np.int16)
    distance = np.square((np.indices(GRID).T - np.array(GRID) / 2) / np.array(GRID)).T.sum(axis=0)
    brain.flat[np.argsort(distance, axis=None)[:N_VOXELS]] = 1
    affine = np.diag([1.8, 1.8, 1.8, 1.0])
    nib.save(nib.Nifti1Image(brain, affine), ppdata / "func1pt8mm" / "brainmask.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(GRID, np.float32), affine), betas / "ncsnr.nii.gz")

    n_images = write_trials(ppdata, n_sessions, rng).max() + 1
    for number in range(min(N_FILES, n_sessions)):
        with h5py.File(betas / f"betas_session{number + 1:02d}.hdf5", "w") as file:
            data = file.create_dataset(
                "betas", (N_TRIALS, *GRID[::-1]), "i2", chunks=(N_TRIALS, 1, 1, 1)
            )
            for k in range(GRID[2]):
                slab = rng.standard_normal((N_TRIALS, *GRID[1::-1]), dtype=np.float32) * 600
                data[:, k] = slab.astype(np.int16) * brain[:, :, k].T
    for number in range(N_FILES, n_sessions):
        name = betas / f"betas_session{number + 1:02d}.hdf5"
        os.link(betas / f"betas_session{number % N_FILES + 1:02d}.hdf5", name)
    np.save(root / "features.npy", rng.standard_normal((n_images, 8), dtype=np.float32))


def prepare(root: Path, out: Path) -> None:
    from jne.data.nsd import NSD
    from jne.data.prepared import prepare
    from jne.features import Precomputed

    features = Precomputed(
        name="precomputed",
        layer=None,
        path=root / "features.npy",
        ids="sorted",
        key=None,
        first_layer=1,
    )
    source = NSD(
        name="nsd",
        subject=SUBJECT,
        root=root,
        space="func1pt8mm",
        betas=BETAS,
        voxels="brainmask",
        zscore="run",
        feature_zscore="train",
        noise_ceiling="ncsnr",
        n_val=0.1,
        split_seed=0,
        image_features=features,
    )
    prepare(source, out)


def run(root: Path, out: Path, kill_after: float = np.inf) -> tuple[float, float]:
    """Prepare in a new process. Returns the seconds and its peak memory in GB, page cache excluded.

    kill_after: seconds until SIGKILL.
    """
    start, peak = time.perf_counter(), 0.0
    child = subprocess.Popen([sys.executable, __file__, "child", root, out])
    while child.poll() is None:
        status = Path(f"/proc/{child.pid}/status").read_text()
        for line in status.splitlines():
            if line.startswith("RssAnon"):
                peak = max(peak, int(line.split()[1]) * 1024 / 1e9)
        if time.perf_counter() - start > kill_after:
            child.send_signal(signal.SIGKILL)
        time.sleep(0.05)
    if child.returncode not in (0, -signal.SIGKILL):
        raise SystemExit("the preparation failed")
    return time.perf_counter() - start, peak


def digest(out: Path) -> str:
    """A digest of the one prepared folder below `out`."""
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    digests = hashlib.sha256()
    for name in ("features.npy", "responses.npy", "stimuli.csv", "voxels.csv"):
        with open(folder / name, "rb") as file:
            digests.update(hashlib.file_digest(file, "sha256").digest())
    return digests.hexdigest()


def main(folder: Path, n_sessions: int) -> None:
    root, out = folder / "nsd", folder / "prepared"
    start = time.perf_counter()
    write_tree(root, n_sessions)
    print(f"{n_sessions} sessions written: {time.perf_counter() - start:.0f} s")
    try:
        seconds, peak = run(root, out)
        n_images = n_sessions * N_TRIALS // 3
        print(f"{N_VOXELS} voxels, {n_sessions} sessions, {n_images} images: {seconds:.0f} s, "
              f"{seconds / n_sessions:.1f} s per session, peak {peak:.2f} GB beyond the page cache"
        )  # fmt: skip
        whole = digest(out)
        shutil.rmtree(out)
        total = 0.0
        for share in (0.3, 0.4):
            total += run(root, out, share * seconds)[0]
            assert not [path for path in out.iterdir() if path.name[0] != "."]
        total += run(root, out)[0]
        same = "identical" if digest(out) == whole else "DIFFERENT"
        print(f"killed twice with SIGKILL: {total:.0f} s in total, {same} bytes")
    finally:
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] == "child":
        prepare(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40)

"""A session of LAION-fMRI at full size: time and memory of its preparation.

python benchmarks/laion.py FOLDER [TRIALS] [SIDE]

Writes one session of sub-01, TRIALS (1,050) volumes of SIDE (143) voxels along each axis: random
numbers in a ball of 272,080 (at that side), which is the brain, 0 outside. Times how long it takes
to read and unpack the file alone, and to prepare the whole brain; compares a thousand voxels with a
plain computation; deletes what it wrote. At full size it needs 4 GB on the disk.
"""

import gzip
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / part) for part in ("", "data")]
import laion_tree as tree

PERSON, N_BRAIN, SIDE = "sub-01", 272_080, 143
AFFINE = np.diag([1.7778, 1.7778, 1.7778, 1.0])


def write(root: Path, n_trials: int, side: int) -> np.ndarray:
    """The tree; returns the brain mask."""
    rng = np.random.default_rng(0)
    grid = (side, side, side)
    distance = np.square(np.indices(grid, dtype=np.float32) - side / 2).sum(axis=0).ravel()
    brain = np.zeros(side**3, dtype=np.uint8)
    brain[np.argsort(distance)[: round(N_BRAIN * (side / SIDE) ** 3)]] = 1
    brain = brain.reshape(grid)
    tree.save(tree.anatomical(root, PERSON, "desc-brain_mask"), brain, AFFINE)
    ceiling = brain * rng.uniform(0, 90, grid).astype(np.float32)
    tree.save(tree.map_file(root, PERSON, "desc-Noiseceiling12rep"), ceiling, AFFINE)
    names = [f"unique_LAION_new_cluster_{n}_i0_p01.jpg" for n in range(n_trials // 2)]
    labels = [str(name) for name in rng.permutation(names * 2)]
    tree.write_trials(root, PERSON, 1, labels, (len(labels),))
    tree.write_split(root / "splits", PERSON, "tau", names[100:], names[:100])
    (root / "stimuli").mkdir()
    tree.write_embedding(tree.embedding_file(root), rng, 16, names)
    header = nib.Nifti1Image(np.zeros((1, 1, 1, 1), np.float32), AFFINE).header
    header.set_data_shape((*grid, len(labels)))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tree.betas_file(root, PERSON, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    inside = np.flatnonzero(brain.ravel(order="F"))
    volume = np.zeros(side**3, dtype=np.float32)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + b"\0" * 4)
        for _ in labels:
            volume[inside] = rng.standard_normal(len(inside), dtype=np.float32)
            file.write(volume.data)
    return brain


def unpack(path: Path) -> float:
    """Seconds that it takes to read and unpack a file."""
    start = time.perf_counter()
    with gzip.open(path) as file:
        while file.read(2**24):
            pass
    return time.perf_counter() - start


def prepare(root: Path, out: Path) -> None:
    from jne.data.laion import LaionFMRI
    from jne.data.prepared import prepare
    from jne.features import LaionEmbedding

    features = LaionEmbedding(name="laion_clip", layer=None, path=tree.embedding_file(root))
    source = LaionFMRI(
        name="laion", subject="subj01", root=root, mask="anatomical", voxels="brainmask",
        noise_ceiling="12rep", split="tau", pool="own", splits=root / "splits", n_val=0.1,
        split_seed=0, image_features=features,
    )  # fmt: skip
    prepare(source, out)


def run(root: Path, out: Path) -> tuple[float, float, float]:
    """Prepare in a new process: seconds, peak memory in GB, and without the page cache."""
    start, peak, anonymous = time.perf_counter(), 0.0, 0.0
    child = subprocess.Popen([sys.executable, __file__, "child", root, out])
    while child.poll() is None:
        for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                anonymous = max(anonymous, int(line.split()[1]) * 1024 / 1e9)
        time.sleep(0.05)
    if child.returncode:
        raise SystemExit("the preparation failed")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    return time.perf_counter() - start, peak, anonymous


def check(root: Path, out: Path, brain: np.ndarray) -> tuple[int, int]:
    """A thousand voxels by a plain computation: how many values, and how many differ."""
    (folder,) = (path for path in out.iterdir() if path.name[0] != ".")
    responses = np.load(folder / "responses.npy", mmap_mode="r")
    chosen = np.sort(np.random.default_rng(1).choice(responses.shape[1], 1000, replace=False))
    places = tuple(np.argwhere(brain)[chosen].T)
    labels = [line.split("\t")[3] for line in
              tree.trials_file(root, PERSON, 1).read_text().splitlines()[1:]]  # fmt: skip
    offset = np.ravel_multi_index(places, brain.shape, order="F")
    betas = np.empty((len(labels), len(chosen)))
    with gzip.open(tree.betas_file(root, PERSON, 1)) as file:
        file.read(352)
        for row in betas:
            row[:] = np.frombuffer(file.read(4 * brain.size), np.float32)[offset]
    z = (betas - betas.mean(axis=0)) / betas.std(axis=0)
    names = [line.split(",")[0] for line in
             (folder / "stimuli.csv").read_text().splitlines()[1:]]  # fmt: skip
    expected = np.stack([z[np.array(labels) == name].mean(axis=0) for name in names])
    return expected.size, int((~np.isclose(responses[:, chosen], expected, atol=1e-6)).sum())


def main(folder: Path, n_trials: int, side: int) -> None:
    root, out = folder / "laion", folder / "prepared"
    start = time.perf_counter()
    brain = write(root, n_trials, side)
    path = tree.betas_file(root, PERSON, 1)
    print(f"{path.stat().st_size / 1e9:.2f} GB, {4 * n_trials * side**3 / 1e9:.1f} GB unpacked, "
          f"written in {time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip
    alone = unpack(path)
    seconds, peak, anonymous = run(root, out)
    print(
        f"read and unpacked in {alone:.0f} s; prepared in {seconds:.0f} s, {seconds / alone:.2f} "
        f"times that; at most {peak:.2f} GB of memory, {anonymous:.2f} GB without the page cache"
    )
    n, different = check(root, out, brain)
    print(f"{different} of {n} values differ from a plain computation")
    shutil.rmtree(root)
    shutil.rmtree(out)


if __name__ == "__main__":
    if sys.argv[1] == "child":
        prepare(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sizes = [int(word) for word in sys.argv[2:]]
        main(Path(sys.argv[1]), *(sizes + [1050, SIDE][len(sizes) :]))

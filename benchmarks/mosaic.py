"""MOSAIC: a file at full size, and all eight data sets in small from the files to the report.

python benchmarks/mosaic.py size FOLDER [TRIALS]   time and memory of a preparation, and of a kill
python benchmarks/mosaic.py report FOLDER          train on each data set, compare all in a report

`size` writes the file of a subject in MOSAIC's layout, TRIALS (10,000) trials of 91,282 float64,
which take 7.3 GB, prepares all grayordinates of it, checks every value against a second reading,
and deletes what it wrote. In `report` the numbers are random, with a planted nonlinearity.
"""

import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / part) for part in ("", "data")]
import mosaic_tree as tree

DIM = 12  # features
SUBJECTS = {name: ("sub-01",) for name in tree.LAYOUTS} | {"NSD": ("sub-01", "sub-02")}


def write_full(root: Path, n_trials: int) -> None:
    """The file of sub-01 of BOLD5000: train stimuli shown once, a third of the trials are tests."""
    rng = np.random.default_rng(0)
    n_test = n_trials // 15
    n_train = n_trials - 5 * n_test
    path = tree.betas_file(root, "BOLD5000")
    path.parent.mkdir(parents=True)
    tree.stimulus_file(root, "BOLD5000").parent.mkdir()
    table = tree.stimulus_table("BOLD5000", "sub-01", n_train, n_test).iloc[:-1]
    table.to_csv(tree.stimulus_file(root, "BOLD5000"), sep="\t", index=False)
    pool = rng.standard_normal(1_000_000)  # random numbers are slow; each trial is a piece of these
    with h5py.File(path, "w", track_order=True) as file:
        file.attrs["dataset_name"], file.attrs["subjectID"] = "BOLD5000", "sub-01"
        betas = file.create_group("betas", track_order=True)
        for row in table.to_dict("records"):
            for k in range(row["sub-01_reps"]):
                start = rng.integers(len(pool) - tree.N)
                values = pool[start : start + tree.N] + rng.standard_normal()
                values[tree.INVALID] = np.nan
                stem = row["filename"].rpartition(".")[0]
                key = f"sub-01_BOLD5000_stimulus-{stem}_phase-{row['test_train']}_rep-{k}"
                trial = betas.create_dataset(key, data=values)
                trial.attrs["nan_indices"] = np.array([tree.INVALID])
                trial.attrs["phase"], trial.attrs["repetition"] = row["test_train"], k
                trial.attrs["presented_stimulus_filename"] = row["filename"]
        file["nan_indices_all"] = np.array([tree.INVALID])
    tree.write_features(root / "features.npy", "BOLD5000", n_train, n_test)


def prepare(root: Path, out: Path) -> None:
    from jne.data.mosaic import Mosaic
    from jne.data.prepared import prepare
    from jne.features import Precomputed

    features = Precomputed(
        name="p", layer=None, path=root / "features.npy", key=None, first_layer=1,
        ids=root / "features.csv",
    )  # fmt: skip
    source = Mosaic(
        name="mosaic", subject="subj01", root=root, dataset="BOLD5000", voxels="grayordinates",
        roi="HCP_MMP1", noise_ceiling="repeats", n_val=0.1, split_seed=0, image_features=features,
    )  # fmt: skip
    prepare(source, out)


def run(root: Path, out: Path, kill_after: float = np.inf) -> tuple[float, float, float, float]:
    """Prepare in a new process: seconds, those of a core, peak memory in GB, all and its own.

    Its own is what is not in the page cache. kill_after: seconds until SIGKILL.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, peak, anonymous = time.perf_counter(), 0.0, 0.0
    child = subprocess.Popen([sys.executable, __file__, "child", root, out])
    while child.poll() is None:
        for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                peak = max(peak, int(line.split()[1]) * 1024 / 1e9)
            if line.startswith("RssAnon"):
                anonymous = max(anonymous, int(line.split()[1]) * 1024 / 1e9)
        if time.perf_counter() - start > kill_after:
            child.send_signal(signal.SIGKILL)
        time.sleep(0.05)
    if child.returncode not in (0, -signal.SIGKILL):
        raise SystemExit("the preparation failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    core = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - start, core, peak, anonymous


def check(root: Path, out: Path) -> tuple[int, int]:
    """Read every trial again, in the order of the file: how many values, and how many differ."""
    (folder,) = (path for path in out.iterdir() if path.name[0] != ".")
    responses = np.load(folder / "responses.npy", mmap_mode="r")
    row = {name: i for i, name in enumerate(pd.read_csv(folder / "stimuli.csv")["stimulus"])}
    different, seen = 0, {}
    with h5py.File(tree.betas_file(root, "BOLD5000")) as file:
        for item in file["betas"].values():
            name = item.attrs["presented_stimulus_filename"]
            total, n = seen.pop(name, (0.0, 0))
            total, n = total + item[()], n + 1
            if n < (1 if item.attrs["phase"] == "train" else 5):
                seen[name] = (total, n)
                continue
            expected = (total / n).astype(np.float32)
            same = np.isclose(responses[row[name]], expected, rtol=1e-6, atol=1e-7, equal_nan=True)
            different += int((~same).sum())
    assert not seen
    return responses.size, different


def size(folder: Path, n_trials: int) -> None:
    root, out = folder / "mosaic", folder / "prepared"
    start = time.perf_counter()
    try:
        write_full(root, n_trials)
        file = tree.betas_file(root, "BOLD5000").stat().st_size / 1e9
        print(f"{n_trials} trials of {tree.N} written: {file:.1f} GB, "
              f"{time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip
        seconds, core, peak, anonymous = run(root, out)
        n, different = check(root, out)
        print(f"prepared in {seconds:.0f} s, {core:.0f} s of a core, peak {peak:.2f} GB, "
              f"{anonymous:.2f} GB beyond the "
              f"page cache; {different} of {n:,} values differ from a second reading")  # fmt: skip
        whole = {path.name: path.read_bytes() for path in out.glob("*/*.csv")}
        (first,) = out.glob("[!.]*")
        shutil.move(first, folder / "first")
        total = sum(run(root, out, share * seconds)[0] for share in (0.4, 0.4))
        total += run(root, out)[0]
        (again,) = out.glob("[!.]*")
        arrays = [
            np.load(path / "responses.npy", mmap_mode="r") for path in (folder / "first", again)
        ]
        same = all(
            np.array_equal(arrays[0][i : i + 100], arrays[1][i : i + 100], equal_nan=True)
            for i in range(0, len(arrays[0]), 100)
        ) and whole == {path.name: path.read_bytes() for path in again.glob("*.csv")}
        print(f"killed twice with SIGKILL: {total:.0f} s in total, "
              f"{'the same values' if same else 'DIFFERENT'}")  # fmt: skip
    finally:
        for path in (root, out, folder / "first"):
            shutil.rmtree(path, ignore_errors=True)


def planted(name: str, seed: int, n: int, where: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Responses (n, len(where)) whose nonlinear share rises from V1 to the areas of the HVC."""
    from jne.roi import tier_of
    from jne.utils import fslr

    rng = np.random.default_rng([7, seed, *name.encode()])
    share = {"PVC": 0.0, "IVC": 0.25, "HVC": 0.6, "": 0.4}
    area = fslr.areas()[where]
    alpha = np.array([share[tier_of(a, a)] for a in area])
    of_area = {a: rng.uniform(-0.1, 0.1) for a in np.unique(area)}  # differs between subjects
    alpha = np.clip(alpha + np.array([of_area[a] for a in area]), 0, 0.9)
    linear = features @ rng.standard_normal((DIM, len(where))) / np.sqrt(DIM)
    hidden = np.maximum(features @ rng.standard_normal((DIM, 6)) / np.sqrt(DIM) * 2 - 0.5, 0)
    nonlinear = hidden @ rng.standard_normal((6, len(where)))
    nonlinear = (nonlinear - nonlinear.mean(axis=0)) / nonlinear.std(axis=0)
    return 1.5 * (np.sqrt(1 - alpha) * linear + np.sqrt(alpha) * nonlinear)


def report(folder: Path, n_train: int = 300, n_test: int = 60) -> None:
    from helpers import no_figures, run_quietly

    from jne.cli import register_resolvers
    from jne.roi import HCP_MMP1_VISUAL
    from jne.utils import fslr

    register_resolvers()
    root, out = folder / "mosaic", folder / "outputs"
    store = f"sqlite:///{out / 'mlflow.db'}"
    areas = [a for group in HCP_MMP1_VISUAL.values() for a in group] + ["PHA1", "PHA2", "PHA3"]
    rng = np.random.default_rng(0)
    where = np.sort(np.concatenate(
        [rng.choice(np.flatnonzero(fslr.areas() == area), 12, replace=False) for area in areas]
        + [[tree.INVALID, tree.INFINITE]]
    ))  # fmt: skip
    where = np.unique(where)
    runs = []
    for name, subjects in SUBJECTS.items():
        path = tree.write_features(root / f"{name}.npy", name, n_train, n_test, DIM)
        features = np.load(path)
        for number, subject in enumerate(subjects):
            values = planted(name, number, n_train + n_test, where, features)
            tree.write_mosaic(root, name, subject, number, n_train, n_test, where, signal=values)
            chosen = (
                "data=mosaic", f"data.root={root}", f"data.dataset={name}",
                f"subject=s{number + 1}",
                "data.voxels=[visual,HVC]", "features=precomputed", f"features.path={path}",
                f"features.ids={path.with_suffix('.csv')}", "encoder.hidden_width=32",
                "trainer.max_epochs=60",
            )  # fmt: skip
            with no_figures():
                runs += run_quietly(out, store, "train.py", *chosen)
    run_quietly(
        out, store, "evaluate.py", f"runs=[{','.join(map(str, runs))}]", "variants=[l1]",
        "selectivity.n_permutations=99",
    )  # fmt: skip


if __name__ == "__main__":
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "child":
        prepare(folder, Path(sys.argv[3]))
    elif command == "size":
        size(folder, int(sys.argv[3]) if len(sys.argv) > 3 else 10_000)
    else:
        report(folder)

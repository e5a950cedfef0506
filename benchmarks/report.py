"""How long a report takes, and how much memory: runs of any size that were never trained.

python benchmarks/report.py                                  # four subjects of 20,000 voxels
python benchmarks/report.py voxels=226000 rois=180     # one subject, a whole brain
python benchmarks/report.py voxels=20000 rois=360 subjects=1
python benchmarks/report.py voxels=20000 place=fsaverage     # or volume

The encoder is random and the arrays are drawn, with an effect of the ROI. evaluate.py computes no
variants of JNE (variants=[l1]): how long these take, benchmarks/jacobian.py says. The folder is
deleted at the end, unless keep=FOLDER.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from jne import __version__
from jne.analysis import nonlinearity, prediction
from jne.data.contents import PARTS
from jne.encoders import ResidualEncoder
from jne.results.contents import summarise, write_encoder, write_results
from jne.roi import ROIS
from jne.utils.blocks import voxel_blocks
from jne.utils.files import make_folder, write_json

ROOT = Path(__file__).parents[1]
N_FEATURES = 64
SHAPE, AFFINE = (145, 186, 148), np.diag([1.0, 1, 1, 1])  # func1mm of NSD's subj01


def positions(place: str, n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, dict | None]:
    if place == "volume":
        middle = np.array(SHAPE)[:, None] / 2
        grid = np.indices(SHAPE).reshape(3, -1)
        nearest = np.argsort(np.square((grid - middle) / middle).sum(axis=0), kind="stable")[:n]
        table = pd.DataFrame(dict(zip("ijk", grid[:, np.sort(nearest)], strict=True)))
        return table, {"shape": list(SHAPE), "affine": AFFINE.tolist()}
    vertex = np.sort(rng.permutation(2 * 163_842)[:n])
    side = np.where(vertex < 163_842, "left", "right")
    return pd.DataFrame({"hemisphere": side, "vertex": vertex % 163_842, "mesh": place}), None


def write_run(path: Path, subject: str, n: int, n_rois: int, n_stimuli: int, place: str) -> None:
    import torch

    rng = np.random.default_rng(len(subject) + int(subject[-2:]))
    names = np.array([*ROIS, *(f"area{k:04d}" for k in range(n_rois))][:n_rois])
    roi = np.sort(rng.integers(n_rois, size=n))
    strength = 0.2 + roi / n_rois
    table, space = positions(place, n, rng)
    voxels = pd.DataFrame({"voxel": range(n), "roi": names[roi], "noise_ceiling": 0.6})
    voxels = pd.concat([voxels, table], axis=1).assign(status="ok")
    arrays = {}
    folder = make_folder(path / "drawn")
    for name in ("deviation", "gain", "predictions", "responses", "jne_ss"):
        arrays[name] = np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(n_stimuli, n)
        )
    for columns in voxel_blocks(n):
        size = (n_stimuli, columns.stop - columns.start)
        signal = rng.standard_normal(size, dtype=np.float32)
        arrays["predictions"][:, columns] = signal
        noise = rng.standard_normal(size, dtype=np.float32)
        arrays["responses"][:, columns] = signal + noise
        arrays["deviation"][:, columns] = np.abs(noise) * strength[columns].astype(np.float32)
        arrays["gain"][:, columns] = 1 + 0.1 * noise
    nonlinearity.jne_ss(arrays["deviation"], out=arrays["jne_ss"])
    voxels["jne"] = nonlinearity.jne(arrays["deviation"])
    voxels["mean_deviation"] = nonlinearity.mean_deviation(arrays["deviation"])
    voxels["gain_change"] = nonlinearity.gain_change(arrays["gain"])
    voxels["shape_change"] = voxels["gain_change"]
    voxels["jne_ss_p95"] = voxels["jne"] ** 2
    voxels["r2"] = prediction.r2_score(arrays["responses"], arrays["predictions"])
    voxels["r2_ridge"] = voxels["r2"] - 0.1
    voxels["p"] = prediction.t_test_p(arrays["responses"], arrays["predictions"])
    voxels["p_fdr"] = prediction.fdr(voxels["p"].to_numpy())
    features = rng.standard_normal((n_stimuli, N_FEATURES)).astype(np.float32)
    stimuli = pd.DataFrame(
        {
            "stimulus": [f"image{i:05d}" for i in range(n_stimuli)],
            "category": np.array(["people", "food", "outdoor", "indoor"])[np.arange(n_stimuli) % 4],
        }
    )
    epochs = pd.DataFrame({"epoch": [1], "train/loss": [1.0], "val/loss": [1.0], "val/r2": [0.1]})
    encoder_config = {"_target_": "jne.encoders.ResidualEncoder", "hidden_width": 8}
    encoder_config |= {"activation": "relu", "placement": "both"}
    encoder = ResidualEncoder(N_FEATURES, n, hidden_width=8, activation="relu", placement="both")
    config = {
        "subject": subject,
        "activation": "relu",
        "placement": "both",
        "seed": 0,
        "control": {"kind": "none"},
        "data": {"name": "benchmark", "_target_": "jne.data.synthetic.Synthetic"},
        "encoder": encoder_config,
    }
    write_results(
        path,
        voxels=voxels,
        stimuli=stimuli,
        epochs=epochs,
        arrays={"features": features},
        summary=summarise(voxels, 0.05),
        space=space,
        images=None,
        about={"citation": "", "licence": "", "links": []},
    )
    for name in arrays:
        (folder / f"{name}.npy").rename(path / f"{name}.npy")
    folder.rmdir()
    zeros = {"feature": N_FEATURES, "response": n}
    scaling = {f"{name}_mean": torch.zeros(size) for name, size in zeros.items()}
    scaling |= {f"{name}_scale": torch.ones(size) for name, size in zeros.items()}
    write_encoder(path / "encoder.pt", encoder_config, encoder, scaling)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(
        path / "status.json",
        {
            "status": "FINISHED",
            "versions": {"jne": __version__},
            "contents": {part: subject for part in PARTS},
        },
    )


def report(folder: Path, settings: dict[str, str]) -> None:
    n = int(settings.get("voxels", 20_000))
    n_rois = int(settings.get("rois", 10))
    subjects = int(settings.get("subjects", 1 if n > 100_000 else 4))
    n_stimuli = int(settings.get("stimuli", 1000))
    place = settings.get("place", "volume")
    runs = [folder / f"run{k:02d}" for k in range(subjects)]
    for k, path in enumerate(runs):
        if not path.exists():
            write_run(path, f"subj{k + 1:02d}", n, n_rois, n_stimuli, place)
    command = [sys.executable, str(ROOT / "evaluate.py"), "variants=[l1]", f"output={folder}"]
    command += [f"runs=[{','.join(map(str, runs))}]", f"tracking.uri=sqlite:///{folder}/mlflow.db"]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    (made,) = sorted((folder / "reports").iterdir())[-1:]
    status = json.loads((made / "status.json").read_text())
    size = (made / "report.html").stat().st_size / 1e6
    cpu = used.ru_utime + used.ru_stime
    print(
        f"{subjects} subjects, {n} voxels, {n_rois} ROIs, {n_stimuli} stimuli, {place}: "
        f"{seconds:.0f} s ({cpu:.0f} s of CPU), {status['peak_memory_gb']:.1f} GB, "
        f"page {size:.1f} MB in {made}"
    )


if __name__ == "__main__":
    chosen = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if "keep" in chosen:
        report(make_folder(Path(chosen["keep"])), chosen)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            report(Path(temporary), chosen)

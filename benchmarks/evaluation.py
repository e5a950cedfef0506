"""The statistics of evaluate.py: how fast the bootstrap is, and how often a test is wrong.

python benchmarks/evaluation.py             # all parts
python benchmarks/evaluation.py bootstrap   # resampling counts against a loop with indexing
python benchmarks/evaluation.py errors      # false positives over 100 small data sets, each
                                            # with its own training
python benchmarks/evaluation.py ceiling FOLDER   # noise ceiling of raw repeats against the
                                                 # split half; FOLDER/responses_raw.npy
"""

import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from jne.analysis import hierarchy, selectivity
from jne.analysis.noise_ceiling import noise_ceiling, noise_ceiling_snr
from jne.analysis.nonlinearity import jne, jne_ss
from jne.analysis.prediction import bootstrap_p, bootstrap_r2, fdr, pearson_r
from jne.data import synthetic
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.data.synthetic import Synthetic
from jne.fitting.callbacks import BestWeights
from jne.fitting.module import EncodingModule
from jne.jacobian import jacobian_deviation
from jne.roi import ROIS, TIERS, tier_of
from jne.utils.machine import peak_memory_gb

N_SETS = 100
ENCODER = {
    "_target_": "jne.encoders.ResidualEncoder",
    "hidden_width": 64,
    "n_hidden": 3,
    "activation": "relu",
    "placement": "both",
}
OPTIMIZER = {"_target_": "torch.optim.Adam", "lr": 3e-3}


def bootstrap() -> None:
    rng = np.random.default_rng(0)
    n, n_voxels, n_bootstrap = 1000, 20_000, 200
    y = rng.standard_normal((n, n_voxels), dtype=np.float32)
    prediction = (0.5 * y + rng.standard_normal((n, n_voxels), dtype=np.float32)).astype(np.float32)
    before = peak_memory_gb()
    start = time.perf_counter()
    found = bootstrap_r2(y, prediction, n_bootstrap, 0)
    ours = time.perf_counter() - start
    extra = peak_memory_gb() - before
    draws = np.random.default_rng(0).integers(n, size=(n_bootstrap, n))
    start, largest = time.perf_counter(), 0.0
    for k, draw in enumerate(draws):
        yk, pk = y[draw], prediction[draw]
        r2 = 1 - np.square(yk - pk).mean(axis=0) / yk.var(axis=0)
        largest = max(largest, np.abs(r2 - found[k]).max())
    loop = time.perf_counter() - start
    print(
        f"bootstrap of {n} x {n_voxels}, {n_bootstrap} resamples: {ours:.2f} s, loop with indexing "
        f"{loop:.1f} s, {loop / ours:.0f} times; peak extra memory {extra:.2f} GB; largest "
        f"difference {largest:.1e} (the loop is in float32)"
    )


def trained(folder: Path, seed: int, shuffle: bool) -> tuple[EncodingData, EncodingModule]:
    source = Synthetic(
        name="errors",
        subject=f"set{seed}",
        seed=seed,
        n_features=64,
        n_train=200,
        n_val=40,
        n_test=80,
        voxels_per_roi=8,
        n_repeats=3,
        noise_ceiling=0.7,
    )
    data = EncodingData(prepare(source, folder), batch_size=50, seed=seed, shuffle=shuffle)
    pl.seed_everything(seed, verbose=False)
    module = EncodingModule(64, len(data.kept), ENCODER, OPTIMIZER)
    trainer = pl.Trainer(
        max_epochs=12,
        callbacks=[BestWeights()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data)
    return data, module


def errors() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
    logging.getLogger("jne").setLevel(logging.WARNING)
    nominal = 0.05
    claims = {
        "R², stimuli shuffled: share of voxels with p < .05": [],
        "R², stimuli shuffled: data sets with a voxel of p_fdr < .05": [],
        "preference, categories permuted: data sets with any": [],
        "hierarchy, equal voxels: data sets with a significant pair of ROIs": [],
        "hierarchy, equal voxels: data sets with a significant pair of tiers": [],
        "hierarchy, equal voxels: data sets with a trend of p < .05": [],
    }
    r2, r2_fdr, preference, rois, tiers, trends = claims.values()
    # Every voxel the same: one alpha, no preferred category
    synthetic.ALPHA.update(dict.fromkeys(ROIS, 0.4))
    synthetic.PREFERRED.clear()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(N_SETS):
            data, module = trained(Path(folder), seed, shuffle=True)
            features, responses = data.split("test")
            prediction = module.encoder(features).detach().numpy()
            resampled = bootstrap_r2(responses.numpy(), prediction, 200, seed)
            p = bootstrap_p(resampled)
            r2.append(np.mean(p < nominal))
            r2_fdr.append((fdr(p) < nominal).any())

            data, module = trained(Path(folder), seed, shuffle=False)
            features, _ = data.split("test")
            deviation = jacobian_deviation(module.encoder.eval(), features)
            values = jne(deviation)
            roi = data.prepared.voxels["roi"].iloc[data.kept].to_numpy()
            tier = np.array([tier_of(name) for name in roi])
            pairs = hierarchy.pairwise(values, roi, ROIS, nominal)
            rois.append(pairs["significant"].any())
            pairs = hierarchy.pairwise(values, tier, list(TIERS), nominal)
            tiers.append(pairs["significant"].any())
            trends.append(hierarchy.trend(values, tier, list(TIERS))[1] < nominal)

            category = data.prepared.stimuli["category"].to_numpy()[data.rows["test"]]
            names, label = np.unique(category, return_inverse=True)
            label = np.random.default_rng(seed).permutation(label)
            clusters = selectivity.Clusters(list(names), label, np.zeros((len(label), 2)), {})
            by_stimulus = selectivity.mean_over_regions(jne_ss(deviation), roi, ROIS)
            found = selectivity.preferences(by_stimulus, clusters, 2000, seed, nominal)
            preference.append(found["preferred"].any())
            if sys.stderr.isatty():
                print(f"\r{seed + 1}/{N_SETS}", end="", file=sys.stderr)
    for name, values in claims.items():
        mean = np.mean(values)
        error = np.std(values) / np.sqrt(len(values))
        print(f"{name:<72} {mean:.3f} ± {error:.3f}")


def ceiling(folder: str) -> None:
    repeats = np.load(Path(folder) / "responses_raw.npy", allow_pickle=False)
    if repeats.shape[0] < repeats.shape[1]:  # stored (units, stimuli, repeats)
        repeats = repeats.swapaxes(0, 1)
    counts = np.isfinite(repeats).sum(axis=2)
    ncsnr = noise_ceiling_snr(repeats)
    ceilings = noise_ceiling(ncsnr, (1 / counts).mean(axis=0))
    rng = np.random.default_rng(0)
    halves = []
    for _ in range(50):
        rank = np.argsort(
            np.where(np.isfinite(repeats), rng.random(repeats.shape), 2.0), axis=2
        ).argsort(axis=2)
        first = rank < (counts // 2)[:, :, None]
        second = (rank < counts[:, :, None]) & ~first
        means = [
            np.where(half, repeats, 0).sum(axis=2, where=half) / half.sum(axis=2)
            for half in (first, second)
        ]
        halves.append(pearson_r(*means))
    r = np.mean(halves, axis=0)
    corrected = 2 * r / (1 + r)
    print(
        f"noise ceiling of the average: median {np.median(ceilings):.3f}; split half r, median "
        f"{np.median(r):.3f}, Spearman-Brown {np.median(corrected):.3f}; r over units of ceiling "
        f"and Spearman-Brown {np.corrcoef(ceilings, corrected)[0, 1]:.4f}, largest difference "
        f"{np.abs(ceilings - corrected).max():.3f}"
    )


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["bootstrap", "errors"]
    if chosen[0] == "ceiling":
        ceiling(chosen[1])
    else:
        for part in chosen:
            {"bootstrap": bootstrap, "errors": errors}[part]()

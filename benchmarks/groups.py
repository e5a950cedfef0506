"""What data.groups and data.purge keep from being found in noise.

python benchmarks/groups.py

200 voxels that no feature predicts, 900 rows, 100 features, the default encoder 64 wide; the share
of voxels with p_fdr < .05 of R2, and of the nonlinear part in unseen responses. repeats: each of
300 images is in three rows, and a voxel has a response to each image. film: features and noise of
consecutive rows are alike (AR(1), .8).
"""

import decay
import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from jne.analysis.evidence import evidence_of
from jne.analysis.prediction import fdr, r2_score, t_test_p
from jne.data.datamodule import StandardisedData
from jne.data.folds import Belonging
from jne.fitting.baseline import linear_predictions
from jne.fitting.folds import fit_folds
from jne.measuring.evidence import nonlinear_part
from jne.utils.progress import without_progress

N, D, V, COHORTS = 900, 100, 200, 3


def repeats(rng: np.random.Generator) -> tuple[NDArray, NDArray, list[Belonging]]:
    image = rng.permutation(np.repeat(np.arange(N // 3), 3))
    x, y = (rng.standard_normal((N // 3, k))[image] for k in (D, V))
    return x, y + rng.standard_normal(y.shape), [Belonging(), Belonging(image)]


def film(rng: np.random.Generator) -> tuple[NDArray, NDArray, list[Belonging]]:
    x, y = (lfilter([1], [1, -0.8], rng.standard_normal((N, k)), axis=0) for k in (D, V))
    runs = np.repeat(np.arange(N // 60), 60)
    return x, y, [Belonging(), Belonging(runs, purge=20), Belonging(purge=20)]


def found(x: NDArray, y: NDArray, belonging: Belonging) -> tuple[float, float, float]:
    """Mean R2, share of voxels with p_fdr < .05 of R2, and of the nonlinear part."""
    parts = []
    for rest, test in belonging.folds(np.arange(N), 5):
        train, val = belonging.folds(rest, 8)[0]
        rows = {"train": rest[train], "val": rest[val], "test": test}
        arrays = x.astype(np.float32), y.astype(np.float32)
        parts.append(StandardisedData(*arrays, rows, batch_size=256, seed=0, belonging=belonging))
    with without_progress():
        fits = fit_folds(parts, decay.settings(0.01, 64))
    f, g, r, o = np.empty((4, N, V), dtype=np.float32)
    for part, fitted in zip(parts, fits, strict=True):
        rows, columns = part.rows["test"], np.arange(V)
        f[rows] = fitted.encoder(part.split("test")[0]).detach()
        g[rows] = nonlinear_part(fitted.encoder, part)[:, columns]
        r[rows], o[rows] = linear_predictions(part)
    z = (y - y.mean(axis=0)) / y.std(axis=0)
    sets, clusters = np.zeros(V, dtype=np.int64), belonging.clusters(np.arange(N))
    evidence, _ = evidence_of(z, f, g, [r, o], sets, 1, groups=clusters, crossed=np.full(V, np.inf))
    of_r2 = fdr(t_test_p(z, f, clusters))
    return r2_score(z, f).mean(), (of_r2 < 0.05).mean(), (evidence.p_fdr < 0.05).mean()


def main() -> None:
    for make in (repeats, film):
        results: dict[str, list[tuple[float, float, float]]] = {}
        for seed in range(6000, 6000 + COHORTS):
            x, y, cuts = make(np.random.default_rng(seed))
            for belonging in cuts:
                grouped = "groups" if belonging.groups is not None else "rows"
                name = f"{grouped}, purge {belonging.purge}"
                results.setdefault(name, []).append(found(x, y, belonging))
        for name, values in results.items():
            r2, of_r2, nonlinear = np.mean(values, axis=0)
            print(
                f"{make.__name__}, {name}: R2 {r2:+.3f}; p_fdr < .05 {of_r2:.3f}, of the nonlinear "
                f"part {nonlinear:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

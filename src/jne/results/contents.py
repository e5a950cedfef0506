"""The results folder of a training run: what is in it, and how it is written.

    config.yaml       the resolved config, written first
    status.json       RUNNING, then FINISHED, FAILED (with the error) or KILLED; versions, host,
                      durations, peak memory, digests of the data, and what a restart recognises the
                      run by
    summary.json      the scalars, by their names in MLflow; counts of voxels left out
    voxels.csv        one row per voxel: the prepared table, then status and what was measured, by
                      the names of `jne.columns`
    spaces.csv        of several feature spaces: one row per voxel and space (jne.results.spaces)
    feature_spaces.json  of several feature spaces: {name: number of columns}, in their order
    stimuli.csv       the test stimuli, in the order of the rows of the arrays
    epochs.csv        the training curves; epochs count from 1
    trajectory.csv    with jacobian.trajectory: epoch, stage (training, or final for the saved
                      encoder), voxel, roi, and on the test stimuli r2, jne; one row per epoch and
                      followed voxel
    evidence.npz      what unseen responses say of regions, per stimulus (jne.results.evidence)
    evidence.npy      with evidence.keep: (n_test, n_voxels) float32, the product per stimulus
    halves.csv        with halves=true: what two encoders of disjoint halves of the stimuli say of
                      voxels (jne.results.halves)
    nonlinear_share.npz  what the nonlinear shares of regions follow from (jne.results.shares)
    features.npy      (n_test, n_features) float32, standardised: the input of the encoder
    responses.npy     (n_test, n_voxels) float32, standardised
    predictions.npy   (n_test, n_voxels) float32, in the units of responses.npy
    deviation.npy     (n_test, n_voxels) float32
    gain.npy          (n_test, n_voxels) float32
    jne_ss.npy        (n_test, n_voxels) float32
    encoder.pt        the best weights, the config of the encoder, and the standardisation
    encoder_fold_1.pt ...  with data.folds, in its place: the encoder that did not see the stimuli
                      whose `fold` in stimuli.csv is 1
    space.json        shape and affine of the volume, for voxels with columns i, j, k
    images.json       the path of the images that column `image` of stimuli.csv names
    data.json         citation, licence and links of the data
    figures/          PNG, and PDF for a paper

While a run is being written there are also .lock, held by the process that writes, and *.partial.

With jacobian.voxels=none there is no deviation.npy, gain.npy or jne_ss.npy.

NaN stands for a voxel that was left out. Everything but status.json and train.log depends only on
the config and the data: the same seed gives the same bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.columns import averaged, entry_of, matching, regional
from jne.results.evidence import RegionEvidence
from jne.results.shares import RegionShares
from jne.roi import ROIS, ordered
from jne.utils.blocks import among_all
from jne.utils.files import atomic_file, write_array, write_json
from jne.utils.tables import write_table

_RATE = 0.1  # of false discoveries, at which nonlinear voxels are counted
_MAX_ROI_METRICS = 12  # more would make a section of the MLflow UI unreadable; rois.csv has all


def write_results(
    path: Path,
    *,
    voxels: pd.DataFrame,
    stimuli: pd.DataFrame,
    epochs: pd.DataFrame,
    trajectory: pd.DataFrame | None = None,
    arrays: Mapping[str, NDArray],
    summary: Mapping[str, Any],
    space: Mapping[str, Any] | None,
    images: Path | None,
    about: Mapping[str, Any],
) -> None:
    """Write the tables, arrays and JSON files.

    arrays: by the names of their files. about: citation, licence and links of the data.
    """
    write_table(path / "voxels.csv", voxels)
    write_table(path / "stimuli.csv", stimuli)
    write_table(path / "epochs.csv", epochs)
    if trajectory is not None:
        write_table(path / "trajectory.csv", trajectory)
    for name, array in arrays.items():
        write_array(path / f"{name}.npy", array)
    if space is not None:
        write_json(path / "space.json", space)
    if images is not None:
        write_json(path / "images.json", {"path": str(images.absolute())})
    write_json(path / "data.json", about)
    write_json(path / "summary.json", summary)


def write_encoder(
    path: Path, config: Mapping[str, Any], encoder: nn.Module, scaling: Mapping[str, Tensor]
) -> None:
    """Write encoder.pt, or the file of a fold.

    config: the config section `encoder`; an encoder may know arguments of its class that depend on
    the data, `arguments_of_data`. scaling: feature_mean, feature_scale (D,) and
    response_mean, response_scale (V',).
    """
    config = {**config, **getattr(encoder, "arguments_of_data", {})}
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        torch.save({"config": config, "weights": encoder.state_dict(), **scaling}, file)


def encoder_files(n_folds: int) -> list[str]:
    """Their names, of a run in so many folds."""
    if n_folds == 1:
        return ["encoder.pt"]
    return [f"encoder_fold_{k}.pt" for k in range(1, n_folds + 1)]


def voxel_table(
    voxels: pd.DataFrame,
    status: NDArray[np.str_],
    kept: NDArray[np.int64],
    scores: Mapping[str, NDArray],
    nonlinearity: Mapping[str, NDArray],
) -> pd.DataFrame:
    """The prepared voxel table (V rows) with what was measured.

    status: (V,), why a voxel was left out, or `ok`. kept: (V',), indices of the voxels trained on.
    scores: columns of (V',) values. nonlinearity: columns of (V,) values. Raises KeyError for one
    without an entry in `jne.columns`.
    """
    table = voxels.assign(status=status)
    for name in (*scores, *nonlinearity):
        entry_of(name)
    for name, values in scores.items():
        table[name] = among_all(values, kept, len(voxels))
    return table.assign(**nonlinearity)


def is_linear(voxels: pd.DataFrame) -> bool:
    """Whether the Jacobian is the same at every stimulus: all deviations are exactly 0."""
    deviation = voxels["mean_deviation"].dropna()
    if not len(deviation) and "rms_deviation" in voxels:
        deviation = voxels["rms_deviation"].dropna()
    return len(deviation) > 0 and not deviation.any()


def roi_table(
    voxels: pd.DataFrame,
    shares: RegionShares | None = None,
    evidence: RegionEvidence | None = None,
) -> pd.DataFrame:
    """Means over the voxels of each ROI and over all voxels: one row per ROI, `all` last.

    shares, evidence: of the same ROIs, where they were measured. Those of a ROI are of its sums
    over voxels. `nonlinear` is the share of the tested voxels that are nonlinear at a false
    discovery rate of 10 % in the run.
    """
    columns = {name: voxels[name].to_numpy() for name in averaged(voxels)}
    columns["jne_ss_mean"] = np.square(columns["jne"])  # mean_i JNE-SS = JNE^2
    rows_of = voxels.groupby("roi", observed=True).indices
    rows: list[dict[str, Any]] = []
    for roi in [*ordered(voxels["roi"]), "all"]:
        chosen = np.arange(len(voxels)) if roi == "all" else rows_of[roi]
        means = {name: _mean(values[chosen]) for name, values in columns.items()}
        rows.append({"roi": roi, "n_voxels": len(chosen), **means})
        if "nonlinear_p_fdr" in voxels:
            rows[-1]["nonlinear"] = nonlinear_voxels(voxels.iloc[chosen])
    table = pd.DataFrame(rows)
    if shares is not None:
        table = table.join(shares.table(shares.each()), on="roi")
    return table if evidence is None else table.join(evidence.table(), on="roi")


def nonlinear_voxels(voxels: pd.DataFrame) -> float:
    """The share of the tested voxels that are nonlinear at a false discovery rate of 10 %."""
    q = voxels["nonlinear_p_fdr"]
    return float((q <= _RATE).sum() / max(q.count(), 1))


def _mean(values: NDArray) -> float:
    """The mean of the values that are not NaN; NaN where there is none."""
    numbers = values[~np.isnan(values)]
    return numbers.sum() / len(numbers) if len(numbers) else np.nan


def regions_in_mlflow(regions: pd.DataFrame) -> list[str]:
    """The ROIs whose means are metrics in MLflow: of many, those of the paper.

    regions: as `roi_table` returns it.
    """
    names = [roi for roi in regions["roi"] if roi != "all"]
    return names if len(names) <= _MAX_ROI_METRICS else [roi for roi in ROIS if roi in names]


def summarise(voxels: pd.DataFrame, alpha: float, regions: pd.DataFrame | None = None) -> dict:
    """The scalars of a run by their names in MLflow, and the counts of voxels left out.

    alpha: significant below this. regions: what `roi_table` returns, where it was computed. A
    scalar that is not finite is left out: JSON and MLflow's charts have no place for NaN.
    """
    r2, jne = voxels["r2"], voxels["jne"]
    beside_the_mean = {
        "r2": {
            "r2/median": r2.median(),
            "r2/max": r2.max(),
            "r2/significant_share": (voxels["p_fdr"] < alpha).sum()
            / max(voxels["p_fdr"].count(), 1),
        },
        "jne": {
            "jne/median": jne.median(),
            "jne_ss/mean": np.square(jne).mean(),
            "jne_ss/p95": voxels["jne_ss_p95"].mean(),
        },
    }
    if "r2_ridge" in voxels:
        beside_the_mean["r2"]["r2/above_ridge"] = (r2 - voxels["r2_ridge"]).mean()
    metrics: dict[str, float] = {}
    for name in averaged(voxels):
        metrics[f"{name}/mean"] = voxels[name].mean()
        metrics |= beside_the_mean.get(name, {})
    for name in matching("{fit}_penalty_end", voxels):
        metrics[f"{name.removesuffix('_end')}_at_end"] = voxels[name].dropna().ne(0).mean()
    regions = roi_table(voxels) if regions is None else regions
    regions = regions.set_index("roi")
    in_regions = regional(regions)
    metrics |= {f"{name}/all": regions[name]["all"] for name in in_regions}
    regions = regions.loc[regions_in_mlflow(regions.reset_index())]
    for name in (*averaged(voxels), "jne_ss_mean", *in_regions):
        section = name.removesuffix("_mean")
        metrics |= {f"{section}/{roi}": value for roi, value in regions[name].items()}
    counts = voxels["status"].value_counts()
    return {
        "metrics": {name: float(value) for name, value in metrics.items() if np.isfinite(value)},
        "voxels": {
            "all": len(voxels),
            "scored": int(r2.count()),
            "measured": int(jne.count()),
            "constant": int(counts.get("constant", 0)),
            "missing": int(counts.get("missing", 0)),
        },
    }

"""Two subjects with all kinds of runs, for the tests of every number of a report."""

from pathlib import Path

import numpy as np
import pytest
from finished_run import N_VOXELS, evaluate_config, write_run

from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.results import Results

CEILING = np.linspace(0.2, 0.9, N_VOXELS)
N_RESAMPLES = 400


def with_ceiling(run):
    voxels = run.voxels.copy()
    voxels.insert(2, "noise_ceiling", CEILING)
    voxels["r2_kernel"] = voxels["r2"] - 0.2
    voxels.to_csv(run.path / "voxels.csv", index=False)
    return Results(run.path)


def write_runs(folder: Path) -> list[Results]:
    """Two subjects, each with all kinds of runs; the second one's predict worse."""
    made = []
    for k, subject in enumerate(("subj01", "subj02")):
        path = folder / subject
        shift = {"shift": 0.3 * k}
        made += [
            with_ceiling(write_run(path / "plain", subject=subject, **shift)),
            write_run(path / "linear", subject=subject, placement="none", seed=5 + k, **shift),
            write_run(path / "seed", subject=subject, seed=1, **shift),
            write_run(path / "seed2", subject=subject, seed=2, **shift),
        ]
    return made


def tables_of(folder, *runs):
    """The tables of runs of which every fifth voxel is not analysed."""
    data = voxel_tables(by_subject(list(runs)), evaluate_config(folder, "variants=[l1]"))
    for subject in data:
        subject.voxels["analysed"] &= subject.voxels.index % 5 != 2
    return data


def tables_of_voxels(runs: list[Results], output: Path):
    """Of each subject; not all voxels are analysed, as where some are not significant."""
    config = evaluate_config(output, "variants=[l1,l2]", f"stats.n_bootstrap={N_RESAMPLES}")
    tables = voxel_tables(by_subject(runs), config)
    for data in tables:
        data.voxels["analysed"] &= data.voxels.index % 5 != 2
    return tables


def groups(voxels):
    """Level, name and rows of the brain, each ROI and each tier."""
    yield "brain", "all", voxels
    for level in ("roi", "tier"):
        for name, rows in voxels.groupby(level):
            yield level, name, rows


def close(found, expected, names, **tolerance):
    for name in names:
        assert found[name] == pytest.approx(expected[name], nan_ok=True, **tolerance), name

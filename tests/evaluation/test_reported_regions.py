"""Which regions a report is on."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from jne.evaluation.voxels import _strongest


def test_of_more_than_a_thousand_regions_those_with_the_highest_median_are_reported():
    names = ["V1", *(f"r{k:04d}" for k in range(1001))]
    values = np.random.default_rng(0).permutation(1001).astype(float)
    jne = np.r_[[-1.0] * 3, np.repeat(values, 3)]  # the paper's regions are reported all the same
    jne[5::3] += 5000.0  # one voxel of three: the mean, but not the median
    voxels = pd.DataFrame({"roi": np.repeat(names, 3), "jne": jne})
    run = SimpleNamespace(path="run", voxels=voxels)
    assert _strongest(run, names[:1000]) == names[:1000]
    lowest = {f"r{k:04d}" for k in np.argsort(values)[:2]}
    assert _strongest(run, names) == [name for name in names if name not in lowest]

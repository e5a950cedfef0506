"""Which voxels a report analyses."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jne.errors import InputError
from jne.evaluation.voxels import _analysed


def analysed(table, voxels, alpha=0.05):
    subject = SimpleNamespace(name="subj01", nonlinear=SimpleNamespace(path="runs/a"))
    config = SimpleNamespace(voxels=voxels, stats=SimpleNamespace(alpha=alpha))
    return _analysed(table, subject, config).tolist()


def test_significant_voxels_have_a_jne_and_p_below_alpha():
    table = pd.DataFrame(
        {
            "roi": ["V1", "V1", "", "V2", "V2", "V2"],
            "jne": [0.1, np.nan, 0.3, 0.4, 0.5, 0.0],
            "p_nonlinear": [1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3],
            "p_fdr_nonlinear": [0.04, 0.001, 0.05, 0.06, np.nan, 0.0],
            "p_fdr_linear": [0.9, 0.9, 0.9, 0.9, 0.9, 0.9],
        }
    )
    assert analysed(table, "significant") == [True, False, False, False, False, True]
    assert analysed(table, "significant", 0.06) == [True, False, True, False, False, True]
    assert analysed(table, "all") == [True, False, True, True, True, True]
    with pytest.raises(InputError, match=r"^voxels=significant: no voxel of subj01 that has"):
        analysed(table.iloc[1:5], "significant")

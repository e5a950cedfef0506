"""docs/api.md: each example runs, after those before it, and says what the page says."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT


@pytest.mark.runs
def test_the_examples_of_the_page_run():
    page = Path(ROOT, "docs", "api.md").read_text()
    found = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(found) > 8
    names = {}
    for example in found:
        exec(compile(example, "docs/api.md", "exec"), names)
    assert names["search"].best_score_ > 0.5
    linear, nonlinear = names["model"].jne(names["X_test"])
    assert nonlinear > linear
    assert names["callback"].measurement.jne.shape == (20,)
    ridge, module = names["ridge"], names["OfHimalaya"](names["ridge"])
    tested = names["X_test"]
    predicted = module(names["torch"].from_numpy(tested))
    np.testing.assert_allclose(predicted, ridge.predict(tested), rtol=1e-3, atol=1e-4)

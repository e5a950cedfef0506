"""Two runs, region by region."""

from pathlib import Path

import pandas as pd

from jne.errors import InputError
from jne.evaluation.same_data import other_data, other_settings
from jne.results import Results

_MEASURES = ("r2", "validated_share", "jne")


def compare(run_a: Results | str | Path, run_b: Results | str | Path) -> pd.DataFrame:
    """R2, validated share and JNE of two runs of the same responses, by region.

    Parameters
    ----------
    run_a, run_b : Results or path
        Their features may differ, as those of two layers; JNE is then in units of each one's own
        features, and so it has no difference.

    Returns
    -------
    DataFrame
        A row per region and one of all voxels; for each of r2, validated_share and jne the columns
        a, b and difference, b - a, NaN where a run has none. `attrs` has what differs in the
        settings, as `differs`.

    Raises
    ------
    InputError
        A `ValueError`: where stimuli, responses or voxels differ, or one run pairs stimuli with
        other responses (control=shuffle).
    """
    a, b = (run if isinstance(run, Results) else Results(run) for run in (run_a, run_b))
    different = other_data(a, b, ["features"])
    if different:
        raise InputError("run_b", f"{b.path} has other {different} than {a.path}")
    regions = [run.regions.set_index("roi") for run in (a, b)]
    columns: dict[tuple[str, str], pd.Series] = {}
    for name in _MEASURES:
        of_a, of_b = (
            table.get(name, pd.Series(float("nan"), index=table.index)) for table in regions
        )
        difference = of_b - of_a
        if name == "jne" and other_data(a, b):
            difference = difference * float("nan")
        columns |= {(name, "a"): of_a, (name, "b"): of_b, (name, "difference"): difference}
    table = pd.DataFrame(columns)
    table.insert(0, ("n_voxels", ""), regions[0]["n_voxels"])
    table.attrs |= {"a": a.name, "b": b.name, "differs": other_settings(a, b)}
    return table

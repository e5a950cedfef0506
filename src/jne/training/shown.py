"""What a run of train.py shows on the terminal: its table by ROI, and what the table says."""

import numpy as np
import pandas as pd
from rich.table import Table

from jne.columns import label, matching
from jne.fitting.history import chosen_decays
from jne.results.contents import regions_in_mlflow
from jne.results.halves import of_all_voxels, repeats
from jne.utils.progress import print_table, say

_MAX_ROWS = 50  # ROIs in the table on the terminal
_COLUMNS = ("r2", "r2_ridge", "r2_kernel", "r2_banded", "jne", "validated_share", "nonlinear")
"""A terminal of 80 columns has no room for all, which rois.csv has."""
_P = 0.05
_MANY_AT_END = 0.05  # of the voxels
_ENDS = {
    1: "have the largest penalty of the grid (hardly more than the mean is predicted)",
    -1: "have the smallest penalty of the grid (nearly least squares)",
}

# Columns of spaces.csv: what they are called, and the column of rois.csv that they are parts of
_OF_SPACES = {
    "r2_split": ("R² of banded ridge, its parts by feature space", "r2_banded"),
    "r2_unique": ("R² that a feature space alone adds", "r2_shared"),
}


def show_regions(name: str, regions: pd.DataFrame) -> None:
    """The table of a run: what `roi_table` returns."""
    table = Table(title=name, title_justify="left")
    table.add_column("ROI")
    jne = "rms_deviation" if regions["jne"].isna().all() else "jne"  # jacobian.voxels=none
    names = [jne if name == "jne" else name for name in _COLUMNS]
    columns = {label(column): column for column in names if column in regions}
    for heading in ("voxels", *columns):
        longest = max(map(len, heading.split()))  # a heading breaks between words alone
        table.add_column(heading, justify="right", min_width=longest)
    rows = regions
    if len(regions) - 1 > _MAX_ROWS:
        strongest = regions[:-1].nlargest(_MAX_ROWS, "jne").index
        rows = regions.loc[[*strongest, regions.index[-1]]]
    for _, row in rows.iterrows():
        if row["roi"] == "all":
            table.add_section()
        values = (
            _percent(row[column]) if column == "nonlinear" else _number(row[column])
            for column in columns.values()
        )
        table.add_row(row["roi"], str(row["n_voxels"]), *values)
    print_table(table)
    say_what_is_shown(regions)


def say_what_is_shown(regions: pd.DataFrame) -> None:
    """Say which of many ROIs are in the table on the terminal, and which in MLflow."""
    n_rois, in_mlflow = len(regions) - 1, regions_in_mlflow(regions)
    if n_rois > _MAX_ROWS:
        say(f"the {_MAX_ROWS} of {n_rois} ROIs with the highest mean JNE; rois.csv has all")
    if len(in_mlflow) < n_rois:
        say(
            f"of {n_rois} ROIs, MLflow has metrics of {', '.join(in_mlflow) or 'none'}; "
            f"rois.csv (in MLflow: tables/rois.csv) has all",
            soft_wrap=True,
        )


def say_decay(decays: pd.DataFrame) -> None:
    """Say which weight decay was chosen, in each fold."""
    if "fold" in decays:
        chosen = ", ".join(f"{decay:g}" for decay in chosen_decays(decays))
        say(f"weight decays of the folds, each of the lowest validation loss: {chosen}")
        return
    losses = decays["loss"].to_numpy()
    best = losses.argmin()
    say(
        f"weight decay {decays['weight_decay'].iloc[best]:g}, of {len(decays)} the one of the "
        f"lowest validation loss ({losses[best]:.4f}; of the last, none, {losses[-1]:.4f})",
        soft_wrap=True,
    )


def say_verdict(voxels: pd.DataFrame, regions: pd.DataFrame) -> None:
    """How much of the signal is nonlinear, and how much of that the encoder has learned."""
    whole = regions.iloc[-1]
    if "nonlinear_share" in regions:
        if np.isfinite(whole["nonlinear_share"]):
            say(
                f"the data: {_interval(whole, 'nonlinear_share')} of the signal is nonlinear in "
                f"the features (docs/share.md)",
                soft_wrap=True,
            )
        else:
            say("no signal above the noise, so no nonlinear share", style="yellow")
    if "nonlinear_z" not in regions:
        return
    if not np.isfinite(whole["nonlinear_z"]):
        return  # a linear encoder
    if whole["nonlinear"] == 0 and not whole["nonlinear_p"] < _P:
        say(
            "the encoder: no nonlinear part of its prediction exists in unseen responses: JNE here "
            "describes the training, not the brain (docs/evidence.md)",
            style="yellow",
            soft_wrap=True,
        )
        return
    words = [
        f"{_percent(whole['nonlinear'])} of voxels nonlinear at q = .1",
        f"validated share {_interval(whole, 'validated_share')}",
    ]
    if "r2_ridge" in voxels:
        gain = (voxels["r2"] - voxels["r2_ridge"]).dropna()
        above = f"R² above ridge in {_percent((gain > 0).mean())} of voxels"
        words.insert(0, f"{above}, by {gain.mean():.3f} on average")
    say(f"the encoder: {'; '.join(words)} (docs/evidence.md)", soft_wrap=True)


def say_spaces(voxels: pd.DataFrame, regions: pd.DataFrame, of_all: pd.DataFrame) -> None:
    """What each feature space explains. of_all: of `space_regions`, means over all voxels."""
    whole = regions.iloc[-1]
    for name, (title, column) in _OF_SPACES.items():
        if name in of_all:
            parts = ", ".join(
                f"{space} {_number(mean)}" for space, mean in of_all[name].dropna().items()
            )
            rest = f"{label(column)} {_number(whole[column])}"
            say(f"{title}: {parts}; {rest} (docs/features.md)", soft_wrap=True)
    if "nonlinear_in" in voxels:
        counts = voxels["nonlinear_in"].replace("", np.nan).value_counts()
        parts = ", ".join(f"{name} {n}" for name, n in counts.items())
        say(f"what voxels are nonlinear in: {parts} (docs/evidence.md)", soft_wrap=True)


def say_penalty_ends(voxels: pd.DataFrame) -> None:
    """Say for how many voxels a penalty is at an end of its grid, where these are many."""
    for name in matching("{fit}_penalty_end", voxels):
        ends = voxels[name].dropna()
        parts = [
            f"{(ends == end).sum()} {meaning}"
            for end, meaning in _ENDS.items()
            if (ends == end).any()
        ]
        if ends.ne(0).sum() > _MANY_AT_END * len(ends):
            say(
                f"{label(name.removesuffix('_end'))}: of {len(ends)} voxels, {' and '.join(parts)}",
                style="yellow",
                soft_wrap=True,
            )


def say_halves(agreed: pd.DataFrame) -> None:
    """How far voxels agree between two halves of the stimuli. agreed: of `agreement`."""
    of_all = of_all_voxels(agreed)
    if not of_all:
        return
    parts = [f"{label(name)} {r:.2f}" for name, r in of_all.items()]
    text = f"two disjoint halves of the stimuli agree on voxels (Spearman's r): {', '.join(parts)}"
    if not repeats(of_all):
        text += "; below .5 a map says that there is nonlinearity, not which voxels have it"
    say(text, soft_wrap=True)


def _interval(row: pd.Series, name: str) -> str:
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: float) -> str:
    return f"{value:z.3f}" if np.isfinite(value) else "-"

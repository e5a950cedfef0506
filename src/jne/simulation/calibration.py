"""Is the test by unseen responses calibrated, and what does it find?

Every cohort is a synthetic subject of `data=cells`, of known truth, trained as by `train.py`.
Its table is kept: a study that is stopped, or asked for more cohorts, goes on from those that are
there. docs/evidence.md
"""

import shutil
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field, PrivateAttr, field_validator
from scipy.stats import binom, ttest_ind

from jne.data.cells import Cells, Noise
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.fitting.baseline import linear_predictions
from jne.measuring.config import JacobianConfig
from jne.measuring.evidence import EvidenceConfig, measure_evidence
from jne.plots.style import subplots
from jne.simulation.base import Progress, Study
from jne.simulation.labels import COLOURS
from jne.stages import Stages
from jne.training.config import MethodConfig
from jne.training.steps import fit_and_measure
from jne.utils.files import make_folder
from jne.utils.progress import without_progress
from jne.utils.tables import read_table, write_table

Share = Annotated[float, Field(ge=0, le=1)]
_COLUMNS = ("alpha", "noise_ceiling", "r2", "jne", "nonlinear_p", "nonlinear_p_fdr",
            "validated_share")  # fmt: skip
_FILE = "voxels.csv"
_CLAIM = 0.05  # p below which a rise from tier to tier is claimed
_POWER_RATE = 0.1
_SMALL = 0.05


class Calibration(Study, MethodConfig):
    """What the test says of linear voxels, its false discoveries and power; shares by alpha.

    The keys of `MethodConfig` are those of train.py, those of the cohorts those of `data=cells`.
    """

    folder: Path
    n_cohorts: int = Field(ge=1)
    noise: list[Noise] = Field(min_length=1)
    n_train: list[Annotated[int, Field(ge=16)]] = Field(min_length=1)
    rates: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)
    alpha: list[Share] = Field(min_length=1)
    noise_ceiling: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)
    voxels_per_cell: int = Field(ge=1)
    shared_noise: Share
    n_features: int = Field(ge=64)
    n_test: int = Field(ge=2)

    _stages: Stages = PrivateAttr()

    def model_post_init(self, _: object) -> None:
        self._stages = Stages(self.folder)

    @property
    def stages_used(self) -> list[str]:
        return self._stages.used

    @field_validator("jacobian")
    @classmethod
    def _whole(cls, jacobian: JacobianConfig) -> JacobianConfig:
        if jacobian.shard is not None:
            raise ValueError(f"shard={jacobian.shard}: only train.py computes a run in shards")
        return jacobian

    def run(self, progress: Progress) -> pd.DataFrame:
        cohorts = list(product(self.n_train, range(self.n_cohorts), self.noise))
        tables = []
        for done, (n_train, number, noise) in enumerate(cohorts):
            progress(done / len(cohorts))
            table = self._cohort(noise, n_train, self.seed + number)
            tables.append(table.assign(noise=noise, n_train=n_train, cohort=self.seed + number))
        return pd.concat(tables, ignore_index=True)

    def _cohort(self, noise: Noise, n_train: int, seed: int) -> pd.DataFrame:
        """The voxels of a cohort, trained now or before."""
        source = Cells(
            name=f"cells_{noise}",
            subject=f"cohort {seed}",
            seed=seed,
            alpha=self.alpha,
            noise_ceiling=self.noise_ceiling,
            voxels_per_cell=self.voxels_per_cell,
            noise=noise,
            shared_noise=self.shared_noise,
            n_features=self.n_features,
            n_train=n_train,
            n_val=max(n_train // 8, 2),
            n_test=self.n_test,
        )
        config = self.model_copy(update={"seed": seed})
        about = {"source": source.model_dump(mode="json"), "settings": plain_settings(config)}

        def write(folder: Path) -> None:
            working = make_folder(folder / "working")
            with without_progress():
                write_table(folder / _FILE, train_cohort(source, config, working))
            shutil.rmtree(working)

        return read_table(self._stages.make("cohort", about, write) / _FILE)

    def _groups(self, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        """Name and voxels of each structure of noise and number of training stimuli."""
        groups = []
        for noise, n_train in product(self.noise, self.n_train):
            chosen = (table["noise"] == noise) & (table["n_train"] == n_train)
            name = noise if len(self.n_train) == 1 else f"{noise}_{n_train}"
            groups.append((name, table[chosen]))
        return groups

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name, voxels in self._groups(table):
            small = small_p(voxels)[["noise_ceiling", "share"]].to_numpy()
            numbers |= {f"evidence_p05/{name}_{ceiling:g}": share for ceiling, share in small}
            proportions = false_discoveries(voxels, self.rates)[["rate", "fdp"]].to_numpy()
            numbers |= {f"evidence_fdp/{name}_q{100 * rate:g}": fdp for rate, fdp in proportions}
            by_cell = cells(voxels).set_index(["alpha", "noise_ceiling"])
            for measure in ("evidence_power", "validated_share"):
                for alpha, ceiling in by_cell.index:
                    key = f"{measure}/{name}_alpha{alpha:g}_{ceiling:g}"
                    if alpha or measure != "evidence_power":
                        numbers[key] = by_cell[measure][alpha, ceiling]
            numbers |= {f"claims/{name}_{m}": share for m, share in claims(voxels).to_numpy()}
        return {key: float(value) for key, value in numbers.items() if np.isfinite(value)}

    def figure(self, table: pd.DataFrame) -> Figure:
        """A row for each structure of noise and number of stimuli, a column for each question."""
        groups = self._groups(table)
        titles = [
            "linear voxels:\np < 0.05",
            "false discoveries",
            "nonlinear voxels",
            "validated share",
            "JNE",
        ]
        figure, axes = subplots(
            len(groups),
            len(titles),
            figsize=(1.0 + 1.9 * len(titles), 0.6 + 1.9 * len(groups)),
            squeeze=False,
            layout="constrained",
        )
        for row, (name, voxels) in zip(axes, groups, strict=True):
            _draw_small_p(row[0], small_p(voxels))
            _draw_false_discoveries(row[1], false_discoveries(voxels, self.rates))
            by_cell = cells(voxels)
            above_0 = by_cell[by_cell["alpha"] > 0]
            _draw_cells(row[2], above_0, "evidence_power", "power at q = 0.1")
            _draw_cells(row[3], by_cell, "validated_share", "share")
            _draw_cells(row[4], by_cell, "jne", "JNE")
            row[0].set_ylabel(name)
        axes[0, 2].legend(title="noise ceiling", fontsize=6, title_fontsize=6)
        for panel, title in zip(axes[0], titles, strict=True):
            panel.set_title(title)
        return figure


def train_cohort(source: Cells, config: MethodConfig, folder: Path) -> pd.DataFrame:
    """The voxels of a trained cohort: _COLUMNS.

    folder: for what a restart goes on from.
    """
    prepared = prepare(source, folder / "prepared")
    data = EncodingData(prepared, batch_size=config.trainer.batch_size, seed=config.seed)
    stages = Stages(folder / "stages")
    evidence = partial(
        measure_evidence,
        linear=linear_predictions(data, stages),
        settings=EvidenceConfig(keep=False),
        folder=folder,
    )
    table = fit_and_measure(data, config, stages, folder, evidence=evidence).voxels()
    return table[[*_COLUMNS]]


def small_p(voxels: pd.DataFrame) -> pd.DataFrame:
    """By noise ceiling, the share of linear voxels with p < .05, and the 99 % interval of a chance.

    noise_ceiling, n, share, low, high. Voxels are taken as independent.
    """
    rows = []
    linear = voxels[voxels["alpha"] == 0]
    for ceiling, p in linear.groupby("noise_ceiling")["nonlinear_p"]:
        low, high = np.array(binom.interval(0.99, len(p), _SMALL)) / len(p)
        rows.append([ceiling, len(p), float((p < _SMALL).mean()), low, high])
    return pd.DataFrame(rows, columns=["noise_ceiling", "n", "share", "low", "high"])


def false_discoveries(voxels: pd.DataFrame, rates: Sequence[float]) -> pd.DataFrame:
    """By rate, the share of linear voxels among those found: mean over cohorts and its error.

    Returns rate, fdp, error (NaN for one cohort). A cohort in which none is found has 0.
    """
    rows = []
    for rate in rates:
        each = []
        for _, cohort in voxels.groupby("cohort"):
            discoveries = cohort[cohort["nonlinear_p_fdr"] <= rate]
            each.append(float((discoveries["alpha"] == 0).mean()) if len(discoveries) else 0.0)
        error = np.std(each, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
        rows.append([rate, np.mean(each), error])
    return pd.DataFrame(rows, columns=["rate", "fdp", "error"])


def cells(voxels: pd.DataFrame) -> pd.DataFrame:
    """By alpha and noise ceiling: power at q = .1, means of JNE and shares."""
    measured = voxels.assign(evidence_power=voxels["nonlinear_p_fdr"] <= _POWER_RATE)
    by_cell = measured.groupby(["alpha", "noise_ceiling"], as_index=False)
    return by_cell[["evidence_power", "jne", "validated_share"]].mean()


def claims(voxels: pd.DataFrame) -> pd.DataFrame:
    """Would a rise from tier to tier be claimed where only the noise ceiling rises?

    In each cohort, the voxels of one alpha > 0 stand for a brain whose tiers differ in their noise
    ceilings alone. measure (jne), share: of cohorts and alphas in which the mean
    of the highest ceiling exceeds that of the lowest (Welch's t test, p < .05, two-sided).
    """
    rises = []
    for _, brain in voxels[voxels["alpha"] > 0].groupby(["cohort", "alpha"]):
        ceiling, values = brain["noise_ceiling"], brain["jne"]
        low, high = values[ceiling == ceiling.min()], values[ceiling == ceiling.max()]
        t, p = ttest_ind(high, low, equal_var=False, nan_policy="omit")
        rises.append(t > 0 and p < _CLAIM)
    return pd.DataFrame([["jne", np.mean(rises)]], columns=["measure", "share"])


def plain_settings(config: MethodConfig) -> dict[str, Any]:
    """The keys of MethodConfig as plain values: what the table of a cohort depends on."""
    plain = config.model_dump(mode="json", include=set(MethodConfig.model_fields))
    del plain["trainer"]["checkpoint_seconds"]
    del plain["jacobian"]["max_memory_gb"], plain["jacobian"]["shard"]
    return plain


def _draw_small_p(panel: Axes, table: pd.DataFrame) -> None:
    """What `small_p` returns, beside what is expected."""
    x = np.arange(len(table))
    panel.fill_between(
        [-0.5, len(x) - 0.5], table["low"].iloc[0], table["high"].iloc[0], color="#DDDDDD"
    )
    panel.axhline(_SMALL, color="#999999", lw=0.7)
    panel.plot(x, table["share"], "o", color=COLOURS[0], ms=4)
    panel.set_xticks(x, [f"{ceiling:g}" for ceiling in table["noise_ceiling"]])
    panel.set(ylim=(0, 0.2), xlim=(-0.5, len(x) - 0.5), xlabel="noise ceiling")


def _draw_false_discoveries(panel: Axes, table: pd.DataFrame) -> None:
    """What `false_discoveries` returns, beside the line that it must not exceed."""
    panel.axline((0, 0), slope=1, color="#999999", lw=0.7)
    error = None if table["error"].isna().any() else table["error"]
    panel.errorbar(table["rate"], table["fdp"], error, fmt="o-", color=COLOURS[1], ms=4, lw=1)
    limits = (0, 1.15 * table[["rate", "fdp"]].to_numpy().max())
    panel.set(xlim=limits, ylim=limits, xlabel="q", ylabel="false discoveries")


def _draw_cells(panel: Axes, table: pd.DataFrame, measure: str, label: str) -> None:
    for colour, (ceiling, cell) in zip(COLOURS, table.groupby("noise_ceiling"), strict=False):
        panel.plot(
            cell["alpha"], cell[measure], "o-", color=colour, ms=3, lw=1, label=f"{ceiling:g}"
        )
    panel.set(xlabel="planted share alpha", ylabel=label)
    panel.set_ylim(bottom=min(0, float(table[measure].min())))

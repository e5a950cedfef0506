"""Which measure of nonlinearity is right? All of them on the same cohorts of known truth.

Cohorts of six worlds and five structures of noise (`jne.simulation.worlds`); one world is varied in
its settings, too. Measures are in `jne.simulation.candidates`, their scores in
`jne.simulation.scores`. What a cohort says is kept: a study that is stopped, or asked for another
measure or setting, goes on from what is there. docs/measures.md
"""

import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field, PrivateAttr, model_validator

from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.plots.style import subplots
from jne.results.evidence import ALL, RegionEvidence
from jne.simulation import candidates, scores, worlds
from jne.simulation.base import Progress, Study
from jne.simulation.calibration import Share, plain_settings
from jne.simulation.candidates import MEASURES, Clock, FittedCohort, Measure, measured
from jne.simulation.worlds import Cohort, NoiseName, WorldName
from jne.stages import Stages, code_digest, file_digest
from jne.training.config import MethodConfig
from jne.utils.files import make_folder, write_json
from jne.utils.instantiate import instantiate
from jne.utils.plain import read_json
from jne.utils.progress import without_progress
from jne.utils.tables import read_table, write_table

_VOXELS, _REGIONS, _SECONDS = "voxels.csv", "regions.csv", "seconds.json"
_DEFAULT = "default"


class _Case(NamedTuple):
    """A cohort to fit, and with what."""

    world: WorldName
    noise: NoiseName
    setting: str
    source: Cohort
    config: MethodConfig


class Measures(Study, MethodConfig):
    """Scores of measures of nonlinearity: by world and noise, and what they depend on.

    The keys of `MethodConfig` are those of train.py, others those of `data=cells`.
    """

    folder: Path
    worlds: list[WorldName] = Field(min_length=1)
    noise: list[NoiseName] = Field(min_length=1)
    vary: dict[str, list[Any]]
    """Keys of the cohort, the encoder or the trainer, and the other values that they take in the
    first world and noise; seed is added to that of the encoder."""
    more: dict[str, dict[str, Any]]
    """Measures beside those of `jne.simulation.candidates`, each a function by `_target_`."""
    alpha: list[Share] = Field(min_length=2)
    noise_ceiling: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)
    voxels_per_cell: int = Field(ge=1)
    n_repeats: int = Field(ge=2)
    n_features: int = Field(ge=64)
    n_train: int = Field(ge=16)
    n_test: int = Field(ge=8)

    _stages: Stages = PrivateAttr()
    _more: dict[str, partial[Any]] = PrivateAttr()

    def model_post_init(self, _: object) -> None:
        self._stages = Stages(self.folder)

    @model_validator(mode="after")
    def _usable(self) -> "Measures":
        self._more = {}
        for name, settings in self.more.items():
            if name in MEASURES:
                raise InputError(f"more.{name}", "is a measure of the package; give another name")
            # `_partial_`: the function itself, not what it returns
            self._more[name] = instantiate(settings | {"_partial_": True}, f"more.{name}")
        for case in self._cases():  # raises for a setting that is none
            source = case.source
            n = source.n_train + source.n_val + source.n_test
            if n < 2 * source.n_features:
                raise InputError(
                    "n_features",
                    f"{n} stimuli of {case.setting} are too few for the share; give "
                    f"{2 * source.n_features} or more",
                    source.n_features,
                )
        return self

    @property
    def stages_used(self) -> list[str]:
        return self._stages.used

    def run(self, progress: Progress) -> pd.DataFrame:
        cases = list(self._cases())
        tables: dict[tuple[str, ...], pd.DataFrame] = {}
        rows: list[tuple[Any, ...]] = []
        for done, case in enumerate(cases):
            progress(done / len(cases))
            tables[case[:3]], scores_of_case = self._measured(case)
            rows += scores_of_case
        first = self.worlds[0], self.noise[0]
        for (world, noise, setting), voxels in tables.items():
            for name in (*MEASURES, *self._more):
                mine, key = _of_measure(voxels, name), (name, world, noise, setting)
                each = scores.of_cohort(mine, name)
                if setting != _DEFAULT:
                    other = _of_measure(tables[*first, _DEFAULT], name)
                    each["ratio"] = scores.ratio(other, mine)
                    if setting.startswith(("seed=", "sample=")):
                        each["repeatability"] = scores.repeatability(other, mine)
                elif noise != self.noise[0]:
                    other = _of_measure(tables[world, self.noise[0], _DEFAULT], name)
                    each["noise_ratio"] = scores.ratio(other, mine)
                rows += [(*key, score, value) for score, value in each.items()]
        columns = ["measure", "world", "noise", "setting", "score", "value"]
        return pd.DataFrame(rows, columns=columns)

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        wide = scores.overview(table, self.vary)
        numbers = {
            f"{score}/{measure}": value
            for score in wide
            for measure, value in wide[score].astype(float).items()
        }
        below = table[table["score"] == "validated_at_most_share"]["value"]
        numbers["validated_at_most_share"] = float(below.mean())
        return {key: value for key, value in numbers.items() if np.isfinite(value)}

    def overview(self, table: pd.DataFrame) -> pd.DataFrame:
        result = scores.overview(table, self.vary)
        better = scores.dominated(result)
        return result.assign(dominated_by=[" ".join(better.get(m, [])) for m in result.index])

    def figure(self, table: pd.DataFrame) -> Figure:
        """A row per measure, a column per score, in the colour of its rank."""
        summary = scores.overview(table, self.vary)
        ranks = scores.badness(summary)
        height, width = ranks.shape
        figure, panel = subplots(figsize=(1.5 + 0.5 * width, 0.9 + 0.22 * height))
        panel.imshow(np.ma.masked_invalid(ranks), cmap="viridis_r", vmin=0, vmax=1, aspect="auto")
        values, places = summary.to_numpy(), ranks.to_numpy()
        for i, j in zip(*np.nonzero(np.isfinite(places)), strict=True):
            text = f"{values[i, j]:.2g}" if values[i, j] < 100 else f"{values[i, j]:.0f}"
            colour = "white" if places[i, j] > 0.5 else "black"
            panel.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
        panel.set_xticks(range(width), summary.columns, rotation=45, ha="right")
        panel.set_yticks(range(height), summary.index)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_title("scores of measures (yellow: the best of a column)")
        return figure

    def _cases(self) -> Iterator[_Case]:
        """Every world with every noise; then the first of both with other settings."""
        plain = {name: getattr(self, name) for name in MethodConfig.model_fields}
        config = MethodConfig(**plain)
        for world, noise in product(self.worlds, self.noise):
            yield _Case(world, noise, _DEFAULT, self._source(world, noise), config)
        world, noise = self.worlds[0], self.noise[0]
        for key, values in self.vary.items():
            for value in values:
                source, method = self._source(world, noise), config
                if key == "seed":
                    method = config.model_copy(update={"seed": self.seed + value})
                elif key in Cohort.model_fields:
                    source = self._source(world, noise, **{key: value})
                elif key in config.encoder:
                    method = config.model_copy(update={"encoder": config.encoder | {key: value}})
                elif key in type(config.trainer).model_fields:
                    trainer = config.trainer.model_copy(update={key: value})
                    method = config.model_copy(update={"trainer": trainer})
                else:
                    raise InputError(f"vary.{key}", "is no key of a cohort, encoder or trainer")
                yield _Case(world, noise, f"{key}={value}", source, method)

    def _source(self, world: WorldName, noise: NoiseName, **more: Any) -> Cohort:
        names = ("alpha", "noise_ceiling", "voxels_per_cell", "n_repeats", "n_features", "n_test")
        settings = {name: getattr(self, name) for name in (*names, "n_train", "seed")} | more
        settings["n_val"] = max(settings["n_train"] // 8, 2)
        subject = f"cohort {self.seed}"
        return Cohort(name=world, subject=subject, world=world, noise=noise, **settings)

    def _measured(self, case: _Case) -> tuple[pd.DataFrame, list[tuple[Any, ...]]]:
        """The voxels of a cohort, NAME, NAME_p and NAME_q of each measure; rows of other scores."""
        modules = (worlds.__file__, candidates.__file__)
        about = {
            "source": case.source.model_dump(mode="json"),
            "settings": plain_settings(case.config),
            "code": [file_digest(Path(module)) for module in modules],
        }
        key = (case.world, case.noise, case.setting)

        def stage(names: Mapping[str, Measure], more: dict[str, Any], earlier: Path | None) -> Path:
            def write(folder: Path) -> None:
                seconds = {} if earlier is None else read_json(earlier / _SECONDS)["parts"]
                with without_progress():
                    self._write(folder, case, names, seconds)

            return self._stages.make("measures", about | more, write)

        folders = [stage(MEASURES, {}, None)]
        for name, measure in self._more.items():
            own = {"more": self.more[name], "own_code": code_digest([measure.func])}
            folders.append(stage({name: measure}, own, folders[0]))
        rows: list[tuple[Any, ...]] = []
        for folder in folders:
            costs = read_json(folder / _SECONDS)["measures"]
            rows += [(name, *key, "seconds", cost) for name, cost in costs.items()]
        regions = read_table(folders[0] / _REGIONS)
        if case.setting == _DEFAULT:
            rows.append(("validated_share", *key, "validated_at_most_share", at_most(regions)))
        voxels = pd.concat([read_table(folder / _VOXELS) for folder in folders], axis=1)
        return voxels.loc[:, ~voxels.columns.duplicated()], rows

    def _write(
        self, folder: Path, case: _Case, names: Mapping[str, Measure], seconds: dict[str, float]
    ) -> None:
        working = make_folder(folder / "working")
        data = EncodingData(
            prepare(case.source, working / "prepared"),
            batch_size=case.config.trainer.batch_size,
            seed=case.config.seed,
            scale_features=case.source.scaling,
        )
        fits = Stages(self.folder)  # of its own: what it uses is part of this stage
        cohort = FittedCohort(data, case.config, fits, Clock(seconds))
        table = data.prepared.voxels[["alpha", "noise_ceiling"]].iloc[data.kept]
        columns: dict[str, Any] = dict(table.reset_index(drop=True))
        costs = {}
        for name, measure in names.items():
            try:
                result = measured(name, measure, cohort)
            except ValueError as error:
                raise InputError(f"more.{name}", str(error)) from error
            costs[name] = cohort.clock.cost(f"measure {name}")
            parts = {name: result.value, f"{name}_p": result.p, f"{name}_q": result.q}
            columns |= {key: part for key, part in parts.items() if part is not None}
        write_table(folder / _VOXELS, pd.DataFrame(columns))
        if names is MEASURES:
            write_table(folder / _REGIONS, _regions(cohort))
        parts_of = {n: s for n, s in cohort.clock.seconds.items() if not n.startswith("measure ")}
        write_json(folder / _SECONDS, {"measures": costs, "parts": parts_of})
        shutil.rmtree(working)


def at_most(regions: pd.DataFrame) -> float:
    """How many of the regions have a validated share that is at most the share.

    Within intervals: their difference is above 0 by no more than its own interval, which follows
    from those of both (Zou 2008).
    """
    both = regions.dropna(subset=["validated_share", "nonlinear_share"])
    difference = both["validated_share"] - both["nonlinear_share"]
    below = both["validated_share"] - both["validated_share_low"]
    above = both["nonlinear_share_high"] - both["nonlinear_share"]
    return float((difference <= np.hypot(below, above)).mean())


def _regions(cohort: FittedCohort) -> pd.DataFrame:
    """Of each cell of voxels: share and validated share, with the ends of their intervals."""
    shares = cohort.share.regions
    validated = RegionEvidence([*shares.rois, ALL], cohort.evidence[1])
    rois = {roi: [roi] for roi in shares.rois}
    return shares.table(rois).join(validated.table(rois)).reset_index(names="roi")


def _of_measure(voxels: pd.DataFrame, name: str) -> pd.DataFrame:
    """alpha, noise_ceiling, value, p and q of one measure."""
    empty = pd.Series(np.nan, index=voxels.index)
    parts = {"value": voxels[name], "p": voxels.get(f"{name}_p"), "q": voxels.get(f"{name}_q")}
    columns = {key: empty if part is None else part for key, part in parts.items()}
    return voxels[["alpha", "noise_ceiling"]].assign(**columns)

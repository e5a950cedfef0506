"""The voxel table of each subject, and what the sections of the report share.

N test stimuli, V voxels, C clusters of stimuli.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from rich.progress import TaskID

from jne.analysis import hierarchy, prediction, reliability
from jne.analysis.selectivity import WHOLE_BRAIN, Clusters
from jne.columns import baselines
from jne.errors import InputError
from jne.evaluation.clusters import stimulus_clusters
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.external_test import ExternalTest, external_test
from jne.evaluation.missing_variants import missing_variants
from jne.evaluation.subjects import Subject
from jne.jacobian import variant_column
from jne.results import Results
from jne.results.evidence import RegionEvidence
from jne.roi import ROIS, TIERS, check_known, ordered, rois_of, tier_of
from jne.stages import Stages
from jne.utils.files import file_name
from jne.utils.progress import say, stage_progress

MAX_SHOWN = 24
"""ROIs in a figure: more names could not be read."""
MAX_REPORTED = 1000
"""ROIs in tables and tests, as many as the finest parcellations have."""


@dataclass(frozen=True)
class SubjectData:
    """One subject, as every section of the report gets it."""

    config: EvaluateConfig
    subject: Subject
    """The runs."""
    voxels: pd.DataFrame
    """One row per voxel: the voxel table of the nonlinear run, without its scores, then the
    columns of `jne.columns` from evaluate.py."""
    rois: list[str]
    """The ROIs reported, in order: at most MAX_REPORTED, unless the config names more."""
    clusters: Clusters
    """Clusters of the test stimuli."""
    external: ExternalTest | None = None
    """How the encoder does on an external test set, where there is one."""

    @property
    def name(self) -> str:
        return self.subject.name

    @property
    def file_name(self) -> str:
        """What the subject is called in the names of files."""
        return file_name(self.subject.name)

    @cached_property
    def analysed(self) -> pd.DataFrame:
        """The rows of `voxels` that enter the tests."""
        return self.voxels[self.voxels["analysed"]]

    @property
    def evidence(self) -> RegionEvidence | None:
        """What unseen responses say of regions; None where the voxels have no such columns."""
        measured = {"nonlinear_p", "nonlinear_p_fdr", "r2_linear_part", "jne_calibrated"}
        return self.subject.nonlinear.region_evidence if measured <= set(self.voxels) else None

    @property
    def may_have_positions(self) -> bool:
        """Whether the voxel table has columns of positions; jne.plots.meshes says more."""
        return bool({"vertex", "k"} & set(self.voxels))

    @cached_property
    def shown_rois(self) -> list[str]:
        """The ROIs that figures show: all in the order of `rois`, or the most nonlinear of many.

        These come first, by the median of JNE over the analysed voxels.
        """
        if len(self.rois) <= MAX_SHOWN:
            return self.rois
        rows = self.analysed[self.analysed["roi"].isin(self.rois)]
        reported = rows.groupby("roi", observed=True)["jne"]
        median, enough = reported.median(), reported.count() >= hierarchy.MIN_VOXELS
        chosen = median[enough] if enough.any() else median
        return [str(roi) for roi in chosen.nlargest(MAX_SHOWN).index]

    @property
    def reported_note(self) -> str:
        """What the page says where not all ROIs are reported though none was named."""
        n_rois = len(ordered(self.voxels["roi"]))
        if self.config.rois is not None or len(self.rois) == n_rois:
            return ""
        return (
            f"Of {n_rois} ROIs of {self.name}, the {len(self.rois)} with the highest median JNE "
            f"are reported; rois=[...] names others."
        )

    def shown_note(self, most: int = MAX_SHOWN) -> str:
        """What is said of a figure of at most so many ROIs; empty where it shows all."""
        n = min(len(self.shown_rois), most)
        if n == len(self.rois):
            return ""
        which = f"the first {n} of {len(self.rois)} regions"
        if len(self.rois) > MAX_SHOWN:
            which = f"the {n} of {len(self.rois)} regions with the highest median JNE"
        return f"{which}; the tables have all"

    @property
    def rate(self) -> str:
        """The false discovery rate, for a sentence."""
        return f"{100 * self.config.inference.q:g} %"

    @property
    def encoders(self) -> list[str]:
        """The encoders with scores: nonlinear, and linear where there is a linear run."""
        return ["nonlinear"] if self.subject.linear is None else ["nonlinear", "linear"]

    @property
    def baselines(self) -> list[str]:
        """The baselines of the nonlinear run, such as ridge, that have a column r2_BASELINE."""
        return [name.removeprefix("r2_") for name in baselines(self.voxels)]

    @property
    def measures(self) -> list[str]:
        """The measures of nonlinearity that are reported: columns of `voxels`."""
        columns = [variant_column("jne", variant) for variant in self.config.variants]
        return list(dict.fromkeys(["jne", "mean_deviation", *columns]))


def voxel_tables(
    subjects: Sequence[Subject], config: EvaluateConfig, stages: Stages | None = None
) -> list[SubjectData]:
    """The voxel table of every subject, with a progress bar.

    stages: the store of what is computed; by default that of the output folder.

    Raises InputError where the data have no such ROI, no categories, or no voxel to analyse, and
    where missing variants cannot be computed within the memory bound.
    """
    stages = stages or Stages(config.stages)
    tables: list[SubjectData] = []
    with stage_progress() as progress:
        for subject in subjects:
            task = progress.add_task(f"voxels of {subject.name}", total=100, unit="")
            run = subject.nonlinear
            rois = _chosen_rois(run, config)
            clusters = stimulus_clusters(run, config, stages)
            progress.update(task, completed=20)

            def advance(done: float, task: TaskID = task) -> None:
                progress.update(task, completed=round(20 + 70 * done))

            voxels = _voxel_table(subject, config, stages, advance)
            external = external_test(run, config, advance, stages)
            if external is not None:
                voxels = voxels.assign(**external.columns)
            progress.update(task, completed=100)
            tables.append(SubjectData(config, subject, voxels, rois, clusters, external))
    return tables


def _chosen_rois(run: Results, config: EvaluateConfig) -> list[str]:
    present = ordered(run.voxels["roi"])
    if WHOLE_BRAIN in present:
        raise InputError(
            "runs",
            f"{run.path} has an ROI called {WHOLE_BRAIN!r}, which stands for all voxels in "
            f"the tables; rename it in the data and train again",
        )
    if config.rois is None:
        return _strongest(run, present)
    chosen = {roi for name in config.rois for roi in rois_of(name, "HCP_MMP1" in run.voxels)}
    check_known([name for name in config.rois if name not in TIERS], present, "rois")
    return [roi for roi in present if roi in chosen]


def _strongest(run: Results, rois: list[str]) -> list[str]:
    """All ROIs; of too many, after saying so, those of the paper and those with the highest JNE."""
    if len(rois) <= MAX_REPORTED:
        return rois
    say(
        f"{run.path} has {len(rois)} ROIs: the report is on the {MAX_REPORTED} with the highest "
        f"median JNE; rois=[...] names others",
        style="yellow",
        soft_wrap=True,
    )
    median = run.voxels.groupby("roi", observed=True)["jne"].median().reindex(rois)
    median[[roi in ROIS for roi in rois]] = np.inf
    return ordered(median.nlargest(MAX_REPORTED).index)


def _voxel_table(
    subject: Subject, config: EvaluateConfig, stages: Stages, progress: Callable[[float], None]
) -> pd.DataFrame:
    run = subject.nonlinear
    table = _scores(subject, config)
    table["analysed"] = _analysed(table, subject, config)
    for name, values in missing_variants(run, table, config, stages, progress).items():
        table[name] = values
    deviation = run.array("deviation")
    table["jne_low"], table["jne_high"] = reliability.jne_interval(
        deviation, config.stats.n_bootstrap, config.seed
    )
    table["jne_half1"], table["jne_half2"] = reliability.split_halves(
        deviation, config.seed, among=table["analysed"].to_numpy()
    )
    if "nonlinear_p_fdr" in table:
        table["nonlinear"] = _nonlinear(table, config.inference.q)
    return table


def _nonlinear(table: pd.DataFrame, rate: float) -> pd.Series:
    """Which voxels are nonlinear by unseen responses; NA for those without evidence.

    Where the prediction is linear, so is the voxel, for all that is known of it.
    """
    nonlinear = (table["nonlinear_p_fdr"] <= rate).astype("boolean")
    return nonlinear.mask(table["r2_linear_part"].isna())


def _scores(subject: Subject, config: EvaluateConfig) -> pd.DataFrame:
    """The run's voxel table with the scores of both encoders, computed from the predictions."""
    run = subject.nonlinear
    table = run.voxels.drop(columns=["r2", "p", "p_fdr"]).astype({"roi": str})
    areas = table["HCP_MMP1"] if "HCP_MMP1" in table else [""] * len(table)
    table.insert(2, "tier", list(map(tier_of, table["roi"], areas)))
    ceiling = table["noise_ceiling"] if "noise_ceiling" in table else np.nan
    for encoder, scored in (("nonlinear", run), ("linear", subject.linear)):
        if scored is None:
            continue
        responses, predictions = scored.array("responses"), scored.array("predictions")
        r2 = prediction.r2_score(responses, predictions)
        p = prediction.r2_p(
            responses, predictions, config.stats.p_value, config.stats.n_bootstrap, config.seed
        )
        table[f"r2_{encoder}"] = r2
        table[f"r_{encoder}"] = prediction.pearson_r(responses, predictions)
        table[f"r2_normalised_{encoder}"] = r2 / np.where(ceiling > 0, ceiling, np.nan)
        table[f"p_{encoder}"] = p
        table[f"p_fdr_{encoder}"] = prediction.fdr(p)
    for name in baselines(table):
        table[f"r2_normalised_{name.removeprefix('r2_')}"] = table[name] / np.where(
            ceiling > 0, ceiling, np.nan
        )
    return table


def _analysed(table: pd.DataFrame, subject: Subject, config: EvaluateConfig) -> pd.Series:
    """Which voxels enter the tests, (V,) bool. Raises InputError where there are none."""
    measured = table["jne"].notna()
    if not measured.any():
        raise InputError(
            "runs",
            f"{subject.nonlinear.path} has JNE of no voxel, and the report is about JNE; train it "
            f"with jacobian.voxels=all",
        )
    if config.voxels == "all":
        return measured
    analysed = measured & (table["p_fdr_nonlinear"] < config.stats.alpha)
    if not analysed.any():
        raise InputError(
            "voxels",
            f"no voxel of {subject.name} that has a JNE is significant "
            f"(p_fdr < {config.stats.alpha}) in {subject.nonlinear.path}; set voxels=all to "
            f"analyse them all",
            value="significant",
        )
    return analysed

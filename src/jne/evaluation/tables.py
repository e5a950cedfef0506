"""From finished runs to tables: performance, hierarchy, selectivity and reliability.

Every table has a column `subject`, so that a report on several subjects has one file a table.
N test stimuli, V voxels. The analysed voxels are the significant ones of the nonlinear run, or all
that have a JNE, by the key `voxels`.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from jne.analysis import hierarchy, nonlinearity, prediction, reliability, selectivity
from jne.analysis.selectivity import WHOLE_BRAIN, Clusters
from jne.errors import InputError
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.subjects import Subject
from jne.jacobian import jacobian_deviation
from jne.results import Results
from jne.roi import TIERS, check_known, ordered, tier_of
from jne.utils.progress import stage_progress

N_SPLITS = 20  # of the test stimuli into halves
_N_RESAMPLES = 1000  # for the intervals of ROI means and medians

Progress = Callable[[float], None]


@dataclass
class SubjectTables:
    """What was found for one subject."""

    name: str
    voxels: pd.DataFrame
    """One row a voxel, `analysed` True for those that entered the tests."""
    rois: list[str]
    """The ROIs reported, in order."""
    tables: dict[str, pd.DataFrame]
    clusters: Clusters
    moj: NDArray
    """(C, V) MoJ, NaN for voxels without JNE-SS."""
    stimuli: pd.DataFrame
    """The test stimuli with their cluster and place in the embedding."""


def evaluate_subjects(subjects: list[Subject], config: EvaluateConfig) -> list[SubjectTables]:
    """Every subject's tables, with a progress bar. One test set has one set of clusters."""
    found: list[SubjectTables] = []
    shared: dict[str, Clusters] = {}
    with stage_progress() as progress:
        for subject in subjects:
            task = progress.add_task(subject.name, total=100, unit="%")
            features = subject.nonlinear.array("features")
            test_set = hashlib.sha256(np.ascontiguousarray(features)).hexdigest()
            if test_set not in shared:
                shared[test_set] = clusters_of(subject.nonlinear, config)
            progress.update(task, completed=20)
            tables = evaluate_subject(
                subject,
                config,
                shared[test_set],
                lambda done, task=task: progress.update(task, completed=round(20 + 60 * done)),
            )
            progress.update(task, completed=100)
            found.append(tables)
    return found


def evaluate_subject(
    subject: Subject, config: EvaluateConfig, clusters: Clusters, progress: Progress
) -> SubjectTables:
    """All tables of a subject. Raises InputError where no voxel can be analysed."""
    run = subject.nonlinear
    voxels = _voxel_table(subject, config)
    rois = _chosen_rois(voxels, config)
    voxels["analysed"] = voxels["jne"].notna()
    if config.voxels == "significant":
        voxels["analysed"] &= voxels["p_fdr_nonlinear"] < config.stats.alpha
        if not voxels["analysed"].any():
            raise InputError(
                f"voxels=significant: no voxel of {subject.name} that has a JNE is significant "
                f"(p_fdr < {config.stats.alpha}) in {run.path}; set voxels=all to analyse them all"
            )
    for name, values in _missing_variants(run, voxels, config, progress).items():
        voxels[name] = values
    low, high = reliability.jne_interval(
        run.array("deviation"), config.stats.n_bootstrap, config.seed
    )
    voxels["jne_low"], voxels["jne_high"] = low, high
    first, second = reliability.split_halves(run.array("deviation"), config.seed)
    voxels["jne_half1"], voxels["jne_half2"] = first, second

    analysed = voxels[voxels["analysed"]]
    measures = _measures(config)
    tables = {
        "performance": _performance(voxels, rois, subject),
        "hierarchy": _hierarchy(analysed, rois, measures, config),
        "pairwise": _pairwise(analysed, rois, measures, config),
        "trend": _trend(analysed, rois, measures),
        "variants": _correlations(analysed, measures),
        "reliability": _reliability(subject, voxels, config),
    }
    if subject.linear is not None:
        tables["comparison"] = _comparison(voxels, rois)
    jne_ss, columns = run.array("jne_ss"), np.flatnonzero(voxels["analysed"])
    moj = selectivity.mean_over_cluster(jne_ss, clusters)
    roi = analysed["roi"].to_numpy()
    tables["mom"] = _mom(selectivity.mean_over_regions(moj[:, columns], roi, rois), clusters)
    by_stimulus = selectivity.mean_over_regions(jne_ss[:, columns], roi, rois)
    tables["preferences"] = selectivity.preferences(
        by_stimulus.dropna(axis="columns"),
        clusters,
        config.selectivity.n_permutations,
        config.seed,
        config.stats.alpha,
    )
    stimuli = run.stimuli.assign(
        cluster=np.asarray(clusters.names)[clusters.label],
        x=clusters.embedding[:, 0],
        y=clusters.embedding[:, 1],
    )
    tables = {name: _first(subject.name, table) for name, table in tables.items()}
    return SubjectTables(subject.name, voxels, rois, tables, clusters, moj, stimuli)


def clusters_of(run: Results, config: EvaluateConfig) -> Clusters:
    """The stimuli's categories where they are wanted and there, else K-means on the t-SNE."""
    settings = config.selectivity
    categories = run.stimuli.get("category")
    if settings.clusters == "categories" and categories is None:
        raise InputError(
            f"selectivity.clusters=categories: the stimuli of {run.path} have no column "
            f"`category`; choose tsne"
        )
    features = run.array("features")
    if categories is not None and settings.clusters != "tsne" and categories.nunique() > 1:
        return selectivity.cluster_categories(features, categories, config.seed)
    return selectivity.cluster_features(features, settings.max_clusters, config.seed)


def joined(subjects: list[SubjectTables]) -> dict[str, pd.DataFrame]:
    """One table of each kind for all subjects, and the trend across them."""
    names = list(dict.fromkeys(name for subject in subjects for name in subject.tables))
    tables = {
        name: pd.concat(
            [subject.tables[name] for subject in subjects if name in subject.tables],
            ignore_index=True,
        )
        for name in names
    }
    tables["voxels"] = pd.concat([_first(s.name, s.voxels) for s in subjects], ignore_index=True)
    tables["stimuli"] = pd.concat([_first(s.name, s.stimuli) for s in subjects], ignore_index=True)
    if len(subjects) > 1:
        rows = []
        for measure, group in tables["trend"].groupby("measure", sort=False):
            tau, p = hierarchy.combined_trend(group["tau"].to_numpy(), group["p"].to_numpy())
            n = int(group["n_voxels"].sum())
            rows.append({"subject": "all", "measure": measure, "n_voxels": n, "tau": tau, "p": p})
        tables["trend"] = pd.concat([tables["trend"], pd.DataFrame(rows)], ignore_index=True)
    return tables


def _first(name: str, table: pd.DataFrame) -> pd.DataFrame:
    table = table.drop(columns="subject", errors="ignore")
    table.insert(0, "subject", name)
    return table


def _voxel_table(subject: Subject, config: EvaluateConfig) -> pd.DataFrame:
    """The run's own voxel table with its scores computed again, for both encoders."""
    run = subject.nonlinear
    table = run.voxels.drop(columns=["r2", "p", "p_fdr"], errors="ignore").copy()
    table.insert(2, "tier", [tier_of(roi) for roi in table["roi"]])
    ceiling = table["noise_ceiling"] if "noise_ceiling" in table else np.nan
    for label, scored in (("nonlinear", run), ("linear", subject.linear)):
        if scored is None:
            continue
        responses, predictions = scored.array("responses"), scored.array("predictions")
        r2 = prediction.r2_score(responses, predictions)
        resampled = prediction.bootstrap_r2(
            responses, predictions, config.stats.n_bootstrap, config.seed
        )
        p = prediction.bootstrap_p(resampled, config.stats.p_value)
        table[f"r2_{label}"] = r2
        table[f"r_{label}"] = prediction.pearson_r(responses, predictions)
        table[f"r2_normalised_{label}"] = r2 / np.where(ceiling > 0, ceiling, np.nan)
        table[f"p_{label}"] = p
        table[f"p_fdr_{label}"] = prediction.fdr(p)
    return table


def _chosen_rois(voxels: pd.DataFrame, config: EvaluateConfig) -> list[str]:
    present = ordered(voxels["roi"])
    if config.rois is None:
        return present
    chosen = [roi for name in config.rois for roi in TIERS.get(name, (name,))]
    unknown = [name for name in config.rois if name not in TIERS and name not in present]
    check_known(unknown, present, "rois")
    return [roi for roi in present if roi in chosen]


def _measures(config: EvaluateConfig) -> list[str]:
    """The columns of the voxel table that are compared between regions."""
    others = [f"jne_{variant}" for variant in config.variants if variant != "l1"]
    return ["jne", "mean_deviation", *others]


def _missing_variants(
    run: Results, voxels: pd.DataFrame, config: EvaluateConfig, progress: Progress
) -> dict[str, NDArray]:
    """JNE of the variants that the run did not store, of the analysed voxels."""
    missing = [v for v in config.variants if v != "l1" and f"jne_{v}" not in voxels]
    if not missing:
        return {}
    trained = np.flatnonzero(voxels["status"] == "ok")
    outputs = np.flatnonzero(voxels["analysed"].to_numpy()[trained])
    deviations = jacobian_deviation(
        run.encoder(),
        np.array(run.array("features")),
        variant=missing,
        voxels=outputs,
        progress=progress,
    )
    found = {}
    for variant in missing:
        column = np.full(len(voxels), np.nan)
        column[trained[outputs]] = nonlinearity.jne(deviations[variant])
        found[f"jne_{variant}"] = column
    return found


def _groups(table: pd.DataFrame, rois: list[str]):
    """Name and rows of the whole brain and of each ROI."""
    yield WHOLE_BRAIN, table
    for roi in rois:
        yield roi, table[table["roi"] == roi]


def _performance(voxels: pd.DataFrame, rois: list[str], subject: Subject) -> pd.DataFrame:
    labels = ["nonlinear"] + (["linear"] if subject.linear is not None else [])
    rows = []
    for label in labels:
        for roi, chosen in _groups(voxels, rois):
            normalised = chosen[f"r2_normalised_{label}"]
            rows.append(
                {
                    "encoder": label,
                    "roi": roi,
                    "n_voxels": len(chosen),
                    "n_without_p": int(chosen[f"p_{label}"].isna().sum()),
                    "n_analysed": int(chosen["analysed"].sum()),
                    "r2_mean": chosen[f"r2_{label}"].mean(),
                    "r2_median": chosen[f"r2_{label}"].median(),
                    "r2_max": chosen[f"r2_{label}"].max(),
                    "r_mean": chosen[f"r_{label}"].mean(),
                    "noise_ceiling_mean": chosen.get("noise_ceiling", pd.Series()).mean(),
                    "r2_normalised_median": normalised.median(),
                }
            )
    return pd.DataFrame(rows)


def _comparison(voxels: pd.DataFrame, rois: list[str]) -> pd.DataFrame:
    """The two maps of R2 over all scored voxels: choosing those that one model predicts well
    would favour that model.
    """
    scored = voxels.dropna(subset=["r2_linear", "r2_nonlinear"])
    rows = []
    for roi, chosen in _groups(scored, rois):
        linear, nonlinear = chosen["r2_linear"].to_numpy(), chosen["r2_nonlinear"].to_numpy()
        difference, p = hierarchy.paired_difference(linear, nonlinear)
        rows.append(
            {
                "roi": roi,
                "n_voxels": len(chosen),
                "r": reliability.correlation(linear, nonlinear),
                "r2_linear": linear.mean() if len(chosen) else np.nan,
                "r2_nonlinear": nonlinear.mean() if len(chosen) else np.nan,
                "difference": difference,
                "p": p,
            }
        )
    table = pd.DataFrame(rows)
    tested = table["p"].notna()
    table["p_holm"] = np.nan
    if tested.any():
        table.loc[tested, "p_holm"] = multipletests(table.loc[tested, "p"], method="holm")[1]
    return table


def _levels(analysed: pd.DataFrame, rois: list[str]) -> list[tuple[str, NDArray, list[str]]]:
    """ROI and tier: their names at every voxel, and their order."""
    roi = analysed["roi"].to_numpy()
    tier = np.where(np.isin(roi, rois), analysed["tier"].to_numpy(), "")
    return [("roi", roi, rois), ("tier", tier, [name for name in TIERS if name in tier])]


def _hierarchy(
    analysed: pd.DataFrame, rois: list[str], measures: list[str], config: EvaluateConfig
) -> pd.DataFrame:
    return _stacked(
        hierarchy.summary(
            analysed[measure].to_numpy(), groups, order, _N_RESAMPLES, config.seed
        ).assign(level=level, measure=measure)
        for level, groups, order in _levels(analysed, rois)
        for measure in measures
    )


def _pairwise(
    analysed: pd.DataFrame, rois: list[str], measures: list[str], config: EvaluateConfig
) -> pd.DataFrame:
    return _stacked(
        hierarchy.pairwise(analysed[measure].to_numpy(), groups, order, config.stats.alpha).assign(
            level=level, measure=measure
        )
        for level, groups, order in _levels(analysed, rois)
        for measure in measures
    )


def _trend(analysed: pd.DataFrame, rois: list[str], measures: list[str]) -> pd.DataFrame:
    _, tiers, order = _levels(analysed, rois)[1]
    rows = []
    for measure in measures:
        tau, p = hierarchy.trend(analysed[measure].to_numpy(), tiers, order)
        n = int(np.isin(tiers, order).sum())
        rows.append({"measure": measure, "n_voxels": n, "tau": tau, "p": p})
    return pd.DataFrame(rows)


def _correlations(analysed: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    """Pearson's r over voxels of every two measures (the paper's Table 4)."""
    rows = [
        {
            "first": first,
            "second": second,
            "n_voxels": len(analysed),
            "r": reliability.correlation(analysed[first].to_numpy(), analysed[second].to_numpy()),
        }
        for i, first in enumerate(measures)
        for second in measures[i + 1 :]
    ]
    return pd.DataFrame(rows, columns=["first", "second", "n_voxels", "r"])


def _reliability(subject: Subject, voxels: pd.DataFrame, config: EvaluateConfig) -> pd.DataFrame:
    columns = np.flatnonzero(voxels["analysed"])
    deviation = subject.nonlinear.array("deviation")[:, columns]
    jne, width = voxels["jne"].iloc[columns], (voxels["jne_high"] - voxels["jne_low"])
    row = {
        "n_voxels": len(columns),
        "n_stimuli": len(deviation),
        "split_half_r": reliability.split_half_r(deviation, N_SPLITS, config.seed),
        "median_interval_width": width.iloc[columns].median(),
        "median_jne": jne.median(),
        "n_seeds": 1 + len(subject.seeds),
    }
    row["r_across_seeds"] = row["median_sd_across_seeds"] = np.nan
    if subject.seeds:
        maps = [jne.to_numpy()]
        maps += [run.voxels["jne"].to_numpy()[columns] for run in subject.seeds]
        r, spread = reliability.across_seeds(maps)
        row |= {"r_across_seeds": r, "median_sd_across_seeds": float(np.median(spread))}
    return pd.DataFrame([row])


def _mom(mom: pd.DataFrame, clusters: Clusters) -> pd.DataFrame:
    """MoM in long form: a row a cluster and group, raw and min-max normalised."""
    normalised = selectivity.min_max(mom)
    sizes = np.bincount(clusters.label, minlength=len(clusters.names))
    return pd.DataFrame(
        {
            "cluster": np.repeat(clusters.names, mom.shape[1]),
            "n_stimuli": np.repeat(sizes, mom.shape[1]),
            "roi": np.tile(mom.columns, len(mom)),
            "mom": mom.to_numpy().ravel(),
            "mom_normalised": normalised.to_numpy().ravel(),
        }
    )


def _stacked(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table of those of every level and measure, these two first."""
    tables = list(tables)
    table = pd.concat([one for one in tables if len(one)] or tables[:1], ignore_index=True)
    first = ["level", "measure"]
    return table[[*first, *table.columns.difference(first, sort=False)]]

"""Several data sets in one space: do JNE and the hierarchy agree, also where one is left out?

The space is that of the areas of HCP_MMP1, which voxel tables have in the column of that name. For
data on fs_LR, single vertices are compared, too. Data sets without areas have tiers, and ROIs of
the same names.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jne.analysis import agreement, hierarchy
from jne.analysis.inference import partial_rank_correlation
from jne.analysis.random_effects import random_effects_mean
from jne.data.source import source_class
from jne.evaluation.claims import unclaimed_across
from jne.evaluation.sections.base import Section, Tables
from jne.evaluation.sections.data_set_figures import consensus_map, left_out, matrices, tiers
from jne.evaluation.sections.regions import (
    Measured,
    ends,
    measured_table,
    regions_of,
    subjects_mean,
)
from jne.evaluation.voxels import SubjectData
from jne.roi import HCP_MMP1_TIERS, ordered, tier_of
from jne.utils.fslr import MESH

ATLAS = "HCP_MMP1"
MEASURES = {"jne": "JNE", "r2": "R²"}
"""Columns of the profiles; R² is beside them because where an encoder predicts little, it is also
little nonlinear."""
_COLUMNS = {"jne": "jne", "r2": "r2_nonlinear"}
_SHARES = ("validated_share", "nonlinear_share")
_TIERS = list(HCP_MMP1_TIERS)


class DataSets(Section):
    title = "Across data sets"
    captions: Mapping[str, str] = {
        "agreement": "Spearman's correlation over areas of HCP_MMP1 between the profiles of two "
        "subjects. Lines separate data sets.",
        "left_out": "Each area's mean rank in one data set against that in all others, from 0 "
        "(lowest JNE) to 1 (highest). Colours are tiers.",
        "tiers": "Mean JNE of each tier relative to the subject's mean over tiers: thin lines are "
        "subjects, thick ones data sets.",
        "consensus": "Mean rank of JNE over data sets, painted on the areas of HCP_MMP1.",
    }
    headings: Mapping[str, str] = {
        "data_set": "data set",
        "group": "region",
        "n_areas": "areas",
        "rho": "Spearman",
        "n_vertices": "vertices",
        "rho_vertices": "Spearman, vertices",
        "rho_given_r2": "Spearman given R²",
        "tau": "Kendall's tau with tier",
        "tau_others": "tau of the others",
        "n_subjects": "subjects",
        "left_out": "left out",
    }

    def tables(self, data: SubjectData) -> Tables:
        return {"areas": _areas(data)} if ATLAS in data.voxels else {}

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        return {}

    def tables_across(self, subjects: Sequence[SubjectData], tables: Tables) -> Tables:
        regions = _regions(subjects)
        by_data_set = {"regions_by_data_set": regions} if len(regions) else {}
        compared = _compared(subjects)
        if not compared:
            return by_data_set
        return by_data_set | {
            "agreement": _agreement(compared, tables["areas"]),
            "left_out": _left_out(compared, tables["areas"]),
        }

    def text_across(self, subjects: Sequence[SubjectData], tables: Tables) -> str:
        by_data_set = ""
        if "regions_by_data_set" in tables:
            by_data_set = (
                "Regions by data set: a subject's mean over its analysed voxels, where there are "
                f"at least {hierarchy.MIN_VOXELS}, then the mean over the subjects of a data set, "
                "with its 95 % interval for the population that they come from (random effects; "
                "of a single subject there is none). Shares are those of the whole region, and "
                "subjects weigh by their errors. "
            )
        if "left_out" not in tables:
            return by_data_set
        return by_data_set + (
            "Means over the analysed voxels of each area of HCP_MMP1, both hemispheres together, "
            f"where a subject has at least {hierarchy.MIN_VOXELS} of them; compared by ranks. Left "
            "out: the mean ranks of one data set against those of all others; given R²: with the "
            "R² of both held constant. Tiers are V1 (PVC), V2 to V4 (IVC), and the areas that "
            "faces, scenes and bodies activate in Rolls, Feng & Zhang 2024 (HVC: "
            f"{', '.join(HCP_MMP1_TIERS['HVC'])})."
        )

    def figures_across(self, subjects: Sequence[SubjectData], tables: Tables) -> dict[str, Figure]:
        compared = _compared(subjects)
        if not compared:
            return _tier_figure(_by_own_tier(subjects), [d.subject.data_set for d in subjects])
        areas = tables["areas"]
        names = [data.name for data in compared]
        groups = [data.subject.data_set for data in compared]
        profiles = {name: _profiles(areas, names, name) for name in _shared(areas)}
        jne = agreement.leave_one_out(profiles["jne"].to_numpy(), groups)
        drawn = {
            "agreement": matrices(tables["agreement"], names, groups, MEASURES),
            "left_out": left_out(jne, profiles["jne"].columns.tolist()),
        }
        drawn |= _tier_figure(_by_tier(areas, names), groups)
        picture = consensus_map(
            pd.Series(
                agreement.mean_rank(np.stack([own for own, _ in jne.values()])),
                index=profiles["jne"].columns,
            )
        )
        return drawn | ({} if picture is None else {"consensus": picture})

    def findings_across(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if "left_out" not in tables:
            return []
        if sentence := unclaimed_across(_compared(subjects), _of_areas):
            return sentence
        pairs = tables["agreement"].query("measure == 'jne'")
        same = pairs["data_set_1"] == pairs["data_set_2"]
        lines = []
        between = pairs.loc[~same, "rho"].mean()
        if np.isfinite(between):
            within = pairs.loc[same, "rho"].mean()
            beside = f" (within a data set {within:.2f})" if np.isfinite(within) else ""
            lines.append(
                f"Between subjects of different data sets, JNE by area of HCP_MMP1 correlates at "
                f"{between:.2f} on average{beside} (Spearman)."
            )
        out = tables["left_out"].query("measure == 'jne'").dropna(subset="rho")
        if len(out):
            tau = out["tau"].dropna()
            rises = f"; it rises from tier to tier in {(tau > 0).sum()} of {len(tau)}"
            lines.append(
                f"Left out one by one, data sets correlate with the others at "
                f"{out['rho'].min():.2f} to {out['rho'].max():.2f}, above 0 in "
                f"{(out['rho'] > 0).sum()} of {len(out)}{rises if len(tau) else ''}."
            )
        return lines

    def scalars(self, tables: Tables) -> dict[str, float]:
        if "left_out" not in tables:
            return {}
        out = tables["left_out"].query("measure == 'jne'")
        return dict(zip("left_out_rho/" + out["left_out"], out["rho"], strict=True))

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        by_data_set = []
        if "regions_by_data_set" in tables:
            by_data_set = [
                "Regions of one name may be drawn otherwise in another data set: the HVC is "
                "functional regions of each person in some (NSD, LAION-fMRI), and areas of "
                f"{ATLAS} in others (MOSAIC)."
            ]
        compared = _compared(subjects)
        if not compared:
            return by_data_set
        lines = [
            *by_data_set,
            "Areas are few and neighbours are alike, so a correlation over areas has no honest p. "
            "Agreement of many data sets is the evidence.",
            "Data sets differ in stimuli, scanners, designs, repeats and so in noise. Where R² "
            "differs between areas in the same way everywhere, JNE may agree for that reason "
            "alone: read the correlation given R².",
        ]
        sources = {
            data.subject.data_set: data.subject.nonlinear.config["data"] for data in compared
        }
        caveats = Counter(source_class(s["_target_"]).comparison_caveat for s in sources.values())
        lines += [caveat for caveat, n_data_sets in caveats.items() if caveat and n_data_sets > 1]
        excluded = [data.name for data in subjects if data not in compared]
        if excluded:
            lines.append(f"Without areas of {ATLAS}, and so not compared: {', '.join(excluded)}.")
        return lines


def _compared(subjects: Sequence[SubjectData]) -> list[SubjectData]:
    """The subjects in the common space, data set by data set; none if of a single data set."""
    comparable = [data for data in subjects if ATLAS in data.voxels]
    names = list(dict.fromkeys(data.subject.data_set for data in comparable))
    if len(names) < 2:
        return []
    return sorted(comparable, key=lambda data: names.index(data.subject.data_set))


def _regions(subjects: Sequence[SubjectData]) -> pd.DataFrame:
    """Of the tiers and ROIs that several data sets have: one row per region and data set."""
    rows = []
    for data in subjects:
        shares = _shares(data)
        for level in ("tier", "roi"):
            for group, voxels in data.analysed.groupby(level):
                if group and len(voxels) >= hierarchy.MIN_VOXELS:
                    means = {k: voxels[v].mean() for k, v in _COLUMNS.items() if v in voxels}
                    of_subject = {"data_set": data.subject.data_set, "level": level, "group": group}
                    rows.append({**of_subject, **means, **shares.get((level, str(group)), {})})
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(
        {"level": level, "group": group, "data_set": data_set, **_over_people(each)}
        for (level, group, data_set), each in pd.DataFrame(rows).groupby(
            ["level", "group", "data_set"], sort=False
        )
    )
    shared = table.groupby(["level", "group"])["data_set"].transform("nunique") > 1
    rois = ordered(table.loc[table["level"] == "roi", "group"])
    order = {name: k for k, name in enumerate(dict.fromkeys([*_TIERS, *rois]))}
    return table[shared].sort_values("group", key=lambda g: g.map(order), kind="stable")


def _shares(data: SubjectData) -> dict[tuple[str, str], dict[str, float]]:
    """The shares of a subject's regions, with their intervals, by level and name of the region."""
    measured: tuple[Measured | None, ...]
    measured = data.evidence, data.subject.nonlinear.region_shares
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for name, of_rois in zip(_SHARES, measured, strict=True):
        if of_rois is not None:
            regions = {k: rois for k, rois in regions_of(data, []).items() if k[0] != "brain"}
            table = measured_table(of_rois, regions)
            for region, row in zip(regions, table[list(ends(name))].to_numpy(), strict=True):
                rows.setdefault(region, {}).update(zip(ends(name), row, strict=True))
    return rows


def _over_people(each: pd.DataFrame) -> dict[str, float]:
    """The means of a data set's subjects, a row each, with intervals for those that are not there.

    A share has an error over stimuli, by which subjects weigh. Means over voxels have none beside
    what differs between subjects, who then weigh the same.
    """
    numbers: dict[str, float] = {"n_subjects": len(each)}
    for name in [name for name in _COLUMNS if name in each]:
        values = each[name].dropna().to_numpy(dtype=np.float64)
        mean = random_effects_mean(values, np.zeros_like(values))
        numbers |= dict(zip(ends(name), mean, strict=True))
    for name in [name for name in _SHARES if name in each]:
        numbers |= subjects_mean(each, name)
    return numbers


def _by_own_tier(subjects: Sequence[SubjectData]) -> pd.DataFrame:
    """(S, 3): mean JNE of each subject's tiers, relative to its mean over tiers; none of one data
    set alone."""
    means = pd.DataFrame(index=[data.name for data in subjects], columns=_TIERS, dtype=np.float64)
    if len({data.subject.data_set for data in subjects}) > 1:
        for data in subjects:
            of_tier = data.analysed.groupby("tier")["jne"].agg(["mean", "size"])
            enough = of_tier.loc[of_tier["size"] >= hierarchy.MIN_VOXELS, "mean"]
            means.loc[data.name] = enough.reindex(_TIERS).to_numpy()
    return means.div(means.mean(axis=1), axis=0)


def _tier_figure(by_tier: pd.DataFrame, groups: Sequence[str]) -> dict[str, Figure]:
    """by_tier: as of `_by_tier`. groups: the data set of each subject."""
    return {"tiers": tiers(by_tier, groups)} if by_tier.notna().to_numpy().any() else {}


def _of_areas(data: SubjectData) -> pd.DataFrame:
    return data.voxels[data.voxels[ATLAS] != ""]


def _areas(data: SubjectData) -> pd.DataFrame:
    """The profile of a subject: one row per area."""
    analysed = data.analysed[data.analysed[ATLAS] != ""]
    columns = {name: column for name, column in _COLUMNS.items() if column in analysed}
    grouped = analysed.groupby(ATLAS)
    table = grouped[list(columns.values())].mean()
    table.columns = pd.Index(columns)
    table.insert(0, "n_voxels", grouped.size())
    table.insert(0, "tier", [tier_of(area, area) for area in table.index])
    table = table.rename_axis("area").reset_index()
    table.insert(0, "data_set", data.subject.data_set)
    return table


def _shared(areas: pd.DataFrame) -> list[str]:
    """The measures that every subject has."""
    return [
        name
        for name in MEASURES
        if name in areas and areas.groupby("subject")[name].apply(lambda v: v.notna().any()).all()
    ]


def _profiles(areas: pd.DataFrame, names: Sequence[str], measure: str) -> pd.DataFrame:
    """(S, R): the subjects `names` by the areas that any of them has enough voxels of."""
    enough = areas[areas["n_voxels"] >= hierarchy.MIN_VOXELS]
    return enough.pivot(index="subject", columns="area", values=measure).reindex(list(names))


def _agreement(compared: Sequence[SubjectData], areas: pd.DataFrame) -> pd.DataFrame:
    names = [data.name for data in compared]
    rows = []
    for measure in _shared(areas):
        profiles = _profiles(areas, names, measure).to_numpy()
        vertices = [_at_vertices(data, _COLUMNS[measure]) for data in compared]
        for i, j in combinations(range(len(names)), 2):
            first, second = compared[i], compared[j]
            x, y = vertices[i].align(vertices[j], join="inner")
            rows.append(
                {
                    "measure": measure,
                    "subject_1": first.name,
                    "subject_2": second.name,
                    "data_set_1": first.subject.data_set,
                    "data_set_2": second.subject.data_set,
                    "n_areas": int(np.isfinite(profiles[[i, j]]).all(axis=0).sum()),
                    "rho": agreement.rank_correlation(profiles[i], profiles[j]),
                    "n_vertices": len(x),
                    "rho_vertices": agreement.rank_correlation(x.to_numpy(), y.to_numpy()),
                }
            )
    return pd.DataFrame(rows)


def _at_vertices(data: SubjectData, column: str) -> pd.Series:
    """A column at the vertices of fs_LR that the subject has analysed voxels at."""
    voxels = data.analysed
    if "mesh" not in voxels:
        return pd.Series(dtype=np.float64)
    on_mesh = voxels[voxels["mesh"] == MESH]
    return on_mesh.set_index(["hemisphere", "vertex"])[column].dropna()


def _left_out(compared: Sequence[SubjectData], areas: pd.DataFrame) -> pd.DataFrame:
    names = [data.name for data in compared]
    groups = [data.subject.data_set for data in compared]
    ranks = {
        measure: agreement.leave_one_out(_profiles(areas, names, measure).to_numpy(), groups)
        for measure in _shared(areas)
    }
    rows = []
    for measure, by_group in ranks.items():
        taus = {data.name: _tau(data, _COLUMNS[measure]) for data in compared}
        for group, (own, others) in by_group.items():
            inside = [
                name for name, data_set in zip(names, groups, strict=True) if data_set == group
            ]
            outside = [name for name in names if name not in inside]
            given = np.nan
            if measure != "r2" and "r2" in ranks:
                given = partial_rank_correlation(own, others, ranks["r2"][group])[0]
            rows.append(
                {
                    "measure": measure,
                    "left_out": group,
                    "n_subjects": len(inside),
                    "n_areas": int((np.isfinite(own) & np.isfinite(others)).sum()),
                    "rho": agreement.rank_correlation(own, others),
                    "rho_given_r2": given,
                    "tau": _mean([taus[name] for name in inside]),
                    "tau_others": _mean([taus[name] for name in outside]),
                }
            )
    return pd.DataFrame(rows)


def _tau(data: SubjectData, column: str) -> float:
    """Kendall's tau of a column with the tier of the voxel's area."""
    values = data.analysed[column].to_numpy(dtype=np.float64)
    tier = np.array([tier_of(area, area) for area in data.analysed[ATLAS]])
    finite = np.isfinite(values)
    return hierarchy.trend(values[finite], tier[finite], _TIERS)[0]


def _by_tier(areas: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """(S, 3): mean JNE over the voxels of each tier, relative to the mean over tiers."""
    weighted = areas[areas["tier"] != ""].copy()
    weighted["total"] = weighted["jne"] * weighted["n_voxels"]
    sums = weighted.groupby(["subject", "tier"])[["total", "n_voxels"]].sum()
    enough = sums[sums["n_voxels"] >= hierarchy.MIN_VOXELS]
    means = (enough["total"] / enough["n_voxels"]).unstack("tier")
    means = means.reindex(index=list(names), columns=_TIERS)
    return means.div(means.mean(axis=1), axis=0)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else np.nan

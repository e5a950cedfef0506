"""The paper's ten regions of interest, their three tiers, and areas of HCP_MMP1 in these tiers."""

from collections.abc import Iterable
from functools import cache

from jne.errors import InputError

# Gao et al. 2025, 3.4
TIERS: dict[str, tuple[str, ...]] = {
    "PVC": ("V1",),
    "IVC": ("V2", "V3", "V4"),
    "HVC": ("EBA", "PPA", "RSC", "OPA", "FFA-1", "FFA-2"),
}
ROIS: tuple[str, ...] = tuple(roi for rois in TIERS.values() for roi in rois)

# V1 to V4 are areas of Glasser et al. (2016, Nature 536:171) by the same names. In that
# parcellation, faces activate FFC (the FFA), scenes VMV and PHA (the PPA), and bodies MT, MST and
# FST (with which the EBA overlaps): Rolls, Feng & Zhang (2024, Brain Structure and Function
# 229:1471), 956 people. They name no area for the OPA or the RSC, so none is in a tier.
HCP_MMP1_TIERS: dict[str, tuple[str, ...]] = {
    "PVC": ("V1",),
    "IVC": ("V2", "V3", "V4"),
    "HVC": ("FFC", "VMV1", "VMV2", "VMV3", "PHA1", "PHA2", "PHA3", "MT", "MST", "FST"),
}
"""Areas of HCP_MMP1 by tier."""
HCP_MMP1_VISUAL: dict[str, tuple[str, ...]] = {
    "primary": ("V1",),
    "early": ("V2", "V3", "V4"),
    "dorsal": ("V3A", "V3B", "V6", "V6A", "V7", "IPS1"),
    "ventral": ("V8", "VVC", "VMV1", "VMV2", "VMV3", "PIT", "FFC"),
    "MT+": ("MT", "MST", "V4t", "FST", "LO1", "LO2", "LO3", "V3CD", "PH"),
}
"""The visual ones of the 22 groups of areas of Glasser et al. (2016, Supplementary Information)."""


@cache  # asked for each voxel
def tier_of(roi: str, area: str = "") -> str:
    """The tier of one of the paper's ROIs; empty for any other name.

    area: the voxel's area in HCP_MMP1, where that is known. An ROI that is this area has its tier.
    """
    tiers = HCP_MMP1_TIERS if area and roi == area else TIERS
    return next((tier for tier, rois in tiers.items() if roi in rois), "")


def rois_of(name: str, areas: bool) -> tuple[str, ...]:
    """The ROIs of a tier, and with `areas` those of HCP_MMP1; of any other name, itself."""
    return TIERS.get(name, (name,)) + (HCP_MMP1_TIERS.get(name, ()) if areas else ())


def ordered(names: Iterable[str]) -> list[str]:
    """The distinct names, without the empty one: the paper's ROIs first, in the paper's order."""
    if hasattr(names, "unique"):  # a column of a table: far faster than one voxel at a time
        names = names.unique()
    present = {str(name) for name in names if str(name)}
    return [roi for roi in ROIS if roi in present] + sorted(present.difference(ROIS))


def check_known(chosen: Iterable[str], names: Iterable[str], key: str) -> None:
    """Raise InputError, naming the config key, if a chosen ROI is not among the names."""
    available = ordered(names)
    unknown = [roi for roi in chosen if roi not in available]
    if unknown:
        raise InputError(
            key, f"unknown ROI {unknown[0]!r}; this data has {', '.join(available) or 'no ROIs'}"
        )

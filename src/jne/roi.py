"""The paper's ten regions of interest and their three tiers (Gao et al. 2025, 3.4)."""

from collections.abc import Iterable

from jne.errors import InputError

TIERS: dict[str, tuple[str, ...]] = {
    "PVC": ("V1",),
    "IVC": ("V2", "V3", "V4"),
    "HVC": ("EBA", "PPA", "RSC", "OPA", "FFA-1", "FFA-2"),
}
ROIS: tuple[str, ...] = tuple(roi for rois in TIERS.values() for roi in rois)


def tier_of(roi: str) -> str:
    """The tier of one of the paper's ROIs; empty for any other name."""
    return next((tier for tier, rois in TIERS.items() if roi in rois), "")


def ordered(names: Iterable[str]) -> list[str]:
    """The distinct names, without the empty one: the paper's ROIs first, in the paper's order."""
    present = {str(name) for name in names if str(name)}
    return [roi for roi in ROIS if roi in present] + sorted(present.difference(ROIS))


def check_known(chosen: Iterable[str], names: Iterable[str], key: str) -> None:
    """Raise InputError, naming the config key, if a chosen ROI is not among the names."""
    known = ordered(names)
    unknown = [roi for roi in chosen if roi not in known]
    if unknown:
        raise InputError(
            f"{key}: unknown ROI {unknown[0]!r}; this data has {', '.join(known) or 'no ROIs'}"
        )

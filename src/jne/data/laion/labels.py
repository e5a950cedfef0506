"""People, sessions and images of LAION-fMRI by their names."""

import re
from dataclasses import dataclass

from jne.errors import InputError

# The suffix _pNN of an image is an internal number of the person who alone saw it.
PEOPLE = {"sub-01": "p01", "sub-03": "p04", "sub-05": "p03", "sub-06": "p02", "sub-07": "p05"}
N_SESSIONS = 30
"""Of the release. Later ones have other images and tasks."""

LAYOUT = "this is not the layout that data=laion reads (docs/data.md)"
_SHARED = re.compile(r"shared_\d+rep_(LAION|THINGS\+|NSD|OOD)_(.+)\.(?:jpg|png)")
_UNIQUE = re.compile(r"unique_(LAION|THINGS\+?)_.+_(p\d\d)\.(?:jpg|png)")


@dataclass(frozen=True)
class Label:
    """What the name of an image says of it."""

    category: str
    """LAION, THINGS, THINGS+ or NSD, where it is from; of an image out of distribution its kind."""
    is_ood: bool
    owner: str
    """The internal number of the person who alone saw it; empty where all did."""

    @classmethod
    def parse(cls, name: str) -> "Label | None":
        """None for a name of another form."""
        if match := _SHARED.fullmatch(name):
            is_ood = match[1] == "OOD"
            return cls(match[2].partition("_")[0] if is_ood else match[1], is_ood, "")
        if match := _UNIQUE.fullmatch(name):
            return cls(match[1], False, match[2])
        return None


def parse(name: str, where: str) -> Label:
    """What the name of an image says. where: what names it, for the error of another form."""
    label = Label.parse(name)
    if label is None:
        raise InputError(
            "data.root", f"{where} names the image {name!r}, in another form than all; {LAYOUT}"
        )
    return label


def person_of(subject: str) -> str:
    """sub-01 of subj01. Raises InputError where there is no such person."""
    number = subject.removeprefix("subj").removeprefix("sub-")
    person = f"sub-{number.zfill(2)}"
    if person not in PEOPLE:
        people = ", ".join(f"s{int(name.removeprefix('sub-'))}" for name in PEOPLE)
        raise InputError("subject", f"LAION-fMRI has the subjects {people}", value=subject)
    return person

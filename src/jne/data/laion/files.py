"""Where LAION-fMRI's files are below `data.root`, whose tree is that of the bucket.

The keys of people, the sessions of the release and the names of images are in `labels`.
"""

from pathlib import Path

from jne.errors import InputError

_DERIVATIVES = Path("derivatives")
_OLD = ("derivatives/glmsingle", "derivatives/atlases", "stimuli/images", "stimuli/stimuli.tsv")
"""Of the layout before the release."""


class Tree:
    """The files of a person, such as sub-01."""

    def __init__(self, root: Path, person: str) -> None:
        self.root, self.person = root, person
        self._betas = root / _DERIVATIVES / "glmsingle-tedana" / person
        self._anatomy = root / _DERIVATIVES / "anatomical" / person / "ses-PrismaAnat" / "anat"
        self._rois = root / _DERIVATIVES / "rois" / person

    def sessions(self) -> dict[int, tuple[Path, Path]]:
        """Betas and trials of each session that was downloaded, also of those after the release.

        Raises InputError where there are betas and no trials, or none at all.
        """
        files = {}
        for folder in sorted(self._betas.glob("ses-*")):
            number = folder.name.removeprefix("ses-")
            if not number.isdecimal():
                continue
            stem = f"{self.person}_{folder.name}_task-images"
            betas = folder / "func" / (
                f"{stem}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
            )  # fmt: skip
            trials = folder / "func" / f"{stem}_desc-SingletrialBetas_trials.tsv"
            if betas.exists() and not trials.exists():
                raise InputError("data.root", f"{betas} is there, but its trials are not: {trials}")
            if betas.exists():
                files[int(number)] = betas, trials
        if not files:
            old = [name for name in _OLD if (self.root / name).exists()]
            hint = f"; {old[0]} in it is of an older layout, which is not read" if old else ""
            raise InputError(
                "data.root",
                f"no single-trial betas of {self.person} in {self._betas}{hint}",
                value=self.root,
            )
        return files

    def mask(self, rule: str) -> Path:
        """The map that is above 0 in the brain, by the rule `anatomical` or `rsquare`."""
        if rule == "rsquare":
            return self._statmap("stat-rsquare_desc-R2mean")
        return self._anatomical("desc-brain_mask")

    def ceiling(self, images: str) -> Path:
        """The map of noise ceilings of `12rep` or `4rep`."""
        return self._statmap(f"desc-Noiseceiling{images}")

    @property
    def t1w(self) -> Path:
        """The T1w image on the grid of the betas."""
        return self._anatomical("T1w")

    def rois(self) -> list[Path]:
        """The masks on the grid of the betas; the finer ones (res-1pt5) are left out."""
        name = f"{self.person}_space-T1w_res-1pt8_label-*_mask.nii.gz"
        return sorted(self._rois.glob(f"*/{name}"))

    @property
    def images(self) -> Path:
        return self.root / "stimuli" / "task-images_stimuli.h5"

    @property
    def metadata(self) -> Path:
        return self.root / "stimuli" / "task-images_metadata.csv"

    def _statmap(self, name: str) -> Path:
        return self._betas / f"{self.person}_task-images_space-T1w_{name}_statmap.nii.gz"

    def _anatomical(self, name: str) -> Path:
        return self._anatomy / f"{self.person}_ses-PrismaAnat_space-T1w_res-1pt8_{name}.nii.gz"

"""NSD-synthetic: a session in which NSD's subjects saw 284 artificial images (Gifford et al. 2026).

It is an external test set for encoders that were trained on NSD: evaluate.py test=nsd_synthetic.
Betas are single trials in the order of presentation, in the spaces and units of NSD's own.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from jne.analysis.noise_ceiling import noise_ceiling
from jne.data.averaging.by_session import Averaging, average_repeats
from jne.data.checks import check_stimuli
from jne.data.nsd.spaces import HEMISPHERES, N_FSAVERAGE, Surface, Volume
from jne.data.prepared import write_prepared
from jne.data.source import Source
from jne.errors import InputError
from jne.features.base import Features, ImageFeatures
from jne.features.images import Hdf5Images, Images
from jne.features.precomputed import Precomputed
from jne.utils.files import write_json
from jne.utils.paths import File, Folder
from jne.utils.reading import reading
from jne.utils.tables import read_table

N_IMAGES, N_SHARED, N_TRIALS, N_PER_RUN = 284, 220, 744, 93
_DESIGN = Path("nsddata", "experiments", "nsdsynthetic")
_STIMULI = Path("nsddata_stimuli", "stimuli", "nsdsynthetic")


class NSDSynthetic(Source):
    """`test=nsd_synthetic`: `root` is the tree that holds nsddata and nsddata_betas."""

    splits: ClassVar[tuple[str, ...]] = ("test",)
    test_caveat: ClassVar[str] = (
        "Its responses are standardised in their own session, so R² out also counts a shift or a "
        "scale between sessions as error, and r does not."
    )
    citation: ClassVar[str] = (
        "Gifford, Cichy, Naselaris & Kay (2026), Nature Communications, "
        "doi 10.1038/s41467-026-69345-9; Allen et al. (2022), A massive 7T fMRI dataset to bridge "
        "cognitive neuroscience and artificial intelligence, Nature Neuroscience 25, "
        "doi 10.1038/s41593-021-00962-x"
    )
    licence: ClassVar[str] = "NSD data access agreement: no part may be passed on"
    links: ClassVar[tuple[str, ...]] = ("https://naturalscenesdataset.org",)

    root: Folder
    space: Literal["func1pt8mm", "func1mm", "fsaverage"]
    betas: Literal["nsdsyntheticbetas_fithrf", "nsdsyntheticbetas_fithrf_GLMdenoise_RR"]
    voxel_table: File
    """A voxels.csv, whose voxels are read, in its order."""
    zscore: Literal["run", "session", "none"]
    """As in the data that the encoder was trained on."""
    pixels: Literal["sqrt", "stored"]
    """sqrt: pixels are sqrt(x / 255) 255 of those in the file, as the authors of the session have
    them enter a model. stored: as in the file. Either way, the square in the middle."""
    image_features: ImageFeatures

    # --- files ---

    @property
    def _order(self) -> Path:
        return self.root / _DESIGN / "nsdsynthetic_expdesign.mat"

    @property
    def _classes(self) -> Path:
        return self.root / _DESIGN / "nsdsyntheticimageinformation.csv"

    @property
    def _image_files(self) -> list[Path]:
        """Of the images that all subjects saw, and of the subject's own, which are in colour."""
        names = ("nsdsynthetic_stimuli", f"nsdsynthetic_colorstimuli_{self.subject}")
        return [self.root / _STIMULI / f"{name}.hdf5" for name in names]

    @cached_property
    def _space(self) -> Volume | Surface:
        if self.space == "fsaverage":
            return Surface(self.root)
        return Volume(self.root, self.subject, self.space)

    @property
    def _betas(self) -> list[Path]:
        folder = self.root.joinpath("nsddata_betas", "ppdata", self.subject, self.space, self.betas)
        if self.space == "fsaverage":
            return [folder / f"{h}.betas_nsdsynthetic.mgh" for h in HEMISPHERES.values()]
        names = [folder / f"betas_nsdsynthetic.{suffix}" for suffix in ("hdf5", "nii.gz")]
        return [next((path for path in names if path.exists()), names[0])]

    def input_files(self) -> list[Path]:
        files = [self._order, *self._betas, *self._space.mask_files()]
        own = self.image_features.are(Precomputed)
        with reading(self.root, "data.root"):
            for path in files if own else (*files, *self._image_files):
                if not path.exists():
                    raise InputError(
                        "data.root",
                        f"no NSD-synthetic of {self.subject} in it: no {path}",
                        value=self.root,
                    )
            files += [] if own else self._image_files
            files += [self._classes] if self._classes.exists() else []
        return [*files, self.voxel_table, *self.image_features.input_files()]

    def images(self) -> Images:
        return SyntheticImages(*self._image_files, gamma=self.pixels == "sqrt")

    # --- writing ---

    def write(self, folder: Path) -> None:
        order = read_order(self._order)
        stimuli = pd.DataFrame({"stimulus": np.arange(N_IMAGES) + 1, "split": "test"})
        stimuli["n_repeats"] = np.bincount(order, minlength=N_IMAGES)
        if self._classes.exists():
            stimuli["category"] = read_classes(self._classes)
        features = self.image_features.each(self._features)
        check_stimuli(self, features, stimuli)
        voxels, kept = self._voxels()
        trials = pd.DataFrame({"session": 1, "run": np.arange(N_TRIALS) // N_PER_RUN, "row": order})
        test = np.ones(N_IMAGES, dtype=bool)
        averaging = Averaging(trials, self.zscore, "repeats", test, np.float64)
        in_file = self._space.order(kept)
        session = self._space.open_session(self._betas, N_TRIALS, kept[in_file], None)
        noise = average_repeats(folder, averaging, in_file, lambda _: session)
        voxels["n_invalid_trials"] = noise.n_invalid
        voxels["n_saturated_trials"] = noise.saturated
        voxels["ncsnr"] = noise.ncsnr
        voxels["noise_ceiling"] = noise_ceiling(noise.ncsnr, noise.inverse)
        geometry = self._space.geometry()
        if geometry is not None:
            write_json(folder / "space.json", geometry)
        write_prepared(self, folder, features, None, stimuli, voxels)

    def _features(self, space: Features) -> NDArray[np.floating[Any]]:
        numbers = np.arange(N_IMAGES)
        if isinstance(space, Precomputed):
            return space.of_stimuli(numbers, n_numbered=N_IMAGES)
        return space.extract(self.images(), numbers, N_IMAGES)

    def _voxels(self) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        """The voxels of the table, with their places alone, and their numbers in the space."""
        table = read_table(self.voxel_table)
        names = ["hemisphere", "vertex"] if self.space == "fsaverage" else ["i", "j", "k"]
        absent = [name for name in names if name not in table]
        if absent:
            raise InputError(
                "data.space", f"{self.voxel_table} has no column {absent[0]}", value=self.space
            )
        voxels = table[["voxel", "roi", *names]].copy()
        if self.space == "fsaverage":
            side = table["hemisphere"].map({name: k for k, name in enumerate(HEMISPHERES)})
            kept = side.to_numpy() * N_FSAVERAGE + table["vertex"].to_numpy()
            return voxels.assign(mesh="fsaverage"), kept.astype(np.int64)
        assert isinstance(self._space, Volume)
        shape = self._space.shape
        places = table[names].to_numpy().T
        if (places >= np.array(shape)[:, None]).any():
            raise InputError(
                "data.space",
                f"voxels of {self.voxel_table} are outside the volume {shape}",
                value=self.space,
            )
        return voxels, np.ravel_multi_index(tuple(places), shape)


class SyntheticImages(Images):
    """The 284 images by their numbers, from 1: those of all subjects, then the subject's own."""

    def __init__(self, shared: Path, own: Path, *, gamma: bool) -> None:
        self.path, self._gamma = shared.parent, gamma
        self._parts = Hdf5Images(shared), Hdf5Images(own)
        sizes = (N_SHARED, N_IMAGES - N_SHARED)
        for part, expected in zip(self._parts, sizes, strict=True):
            if len(part) != expected:
                raise InputError(
                    "data.root", f"{part.path} has {len(part)} images, expected {expected}"
                )
        self.names = [f"nsdsynthetic{number:03d}" for number in range(1, N_IMAGES + 1)]

    def _open(self, i: int) -> Image.Image:
        shared, own = self._parts
        image = own.read(i - N_SHARED) if i >= N_SHARED else shared.read(i)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        if self._gamma:
            image = image.point([round((x / 255) ** 0.5 * 255) for x in range(256)] * 3)
        return image

    def fingerprint(self) -> list[Any]:
        return [*(part.fingerprint() for part in self._parts), self._gamma]


def read_order(path: Path) -> NDArray[np.int64]:
    """Which image, from 0, each trial (744,) showed. Raises InputError for any other layout."""
    with reading(path, "data.root"):
        try:
            ordering = loadmat(path, variable_names=["masterordering"])["masterordering"]
        except (MatReadError, TypeError, NotImplementedError) as error:
            raise OSError(error) from error
    order = np.asarray(ordering).ravel()
    numbers = order.dtype.kind in "iuf" and len(order) == N_TRIALS
    if not numbers or set(order.tolist()) != set(range(1, N_IMAGES + 1)):
        raise InputError(
            "data.root",
            f"masterordering in {path} must hold {N_TRIALS} numbers of images, each "
            f"from 1 to {N_IMAGES} at least once; found shape {np.shape(ordering)}",
        )
    return order.astype(np.int64) - 1


def read_classes(path: Path) -> NDArray[np.str_]:
    """The class of each image (284,), such as noise or scenes."""
    with reading(path, "data.root"):
        table = pd.read_csv(path)
    if "Image class" not in table or len(table) != N_IMAGES:
        raise InputError(
            "data.root", f"{path} must have {N_IMAGES} rows and a column `Image class`"
        )
    return table["Image class"].to_numpy(dtype=str)

"""The sessions of a subject averaged over repeats, one block of voxels at a time.

N distinct images, V voxels. A block is averaged over all sessions in memory, and then never touched
again. So every beta is read once and every mean written once (twice, where there are several
blocks), and an interrupted preparation continues with the block that it was at. Blocks follow the
order of the files, which for volumes is not that of the voxels. Below the folder of the data, while
it is prepared:

    averaging/means_A_B.npy   (N, v) float32, the means of voxels A to B; not where that is all
    averaging/noise_A_B.npz   what else is known of its voxels
    averaging/session_S.npy   (V, n_trials) int16, what was a compressed file
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from jne.analysis.noise_ceiling import mean_inverse
from jne.data.averaging.as_nsd import ncsnr_as_nsd
from jne.data.averaging.means import VOXELS_AT_ONCE, Means, Repeats, standardise, units_of
from jne.data.averaging.sums import TrialSums, VoxelNoise
from jne.utils.blocks import even_blocks
from jne.utils.files import atomic_file
from jne.utils.progress import stage_progress

AVERAGING = "averaging"
"""The folder of what is needed only while a subject is prepared."""
_MEANS_BYTES = 5 * 10**8  # of the means of a block; one is computed while another is written
_ROWS_BYTES = 2**26  # of the responses that are written at once
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Betas = tuple[NDArray[np.float32], NDArray[np.int64]]
"""(n_trials, V) in the units of the data, and how many trials of each voxel are saturated."""


class OpenSession(Protocol):
    """A session from which V voxels are read. Reading is apart from computing: both take long."""

    def read(self, chosen: slice) -> NDArray[Any]:
        """The raw values (v, n_trials) of some of the V voxels.

        Raises InputError where a file cannot be read.
        """
        ...

    def betas(self, raw: NDArray[Any]) -> Betas:
        """The betas of raw values."""
        ...


@dataclass(frozen=True)
class SessionNoise(VoxelNoise):
    """`between_repeats` is NaN for voxels with invalid units."""

    valid: NDArray[np.bool_]
    """(U, V): whether a voxel was finite and not constant in a unit."""
    saturated: NDArray[np.int64]
    """(V,): the number of trials at an end of the range of the file's integers."""


class Averaging:
    """How the trials of a subject are averaged.

    trials: as of `Repeats`. zscore: run, session or none. noise_ceiling: as of
    `NSD`. test: (N,), the test images. dtype: of the means while they are computed.
    """

    def __init__(
        self,
        trials: pd.DataFrame,
        zscore: str,
        noise_ceiling: str,
        test: NDArray[np.bool_],
        dtype: type[np.floating] = np.float32,
    ) -> None:
        self.unit = units_of(trials, zscore)
        """(n_trials,), of each trial."""
        self.repeats = Repeats(trials, self.unit)
        self.by_session = Repeats(trials, units_of(trials, "session"))
        self.zscore, self.noise_ceiling, self.test = zscore != "none", noise_ceiling, test
        self.dtype = dtype

    def blocks(self, n_voxels: int) -> list[slice]:
        """Blocks of voxels that are averaged in memory."""
        n_arrays = 3 if self.noise_ceiling == "repeats_as_nsd" else 1
        at_once = _MEANS_BYTES // (4 * n_arrays * len(self.test))
        return list(even_blocks(n_voxels, max(at_once, VOXELS_AT_ONCE)))


class _Part:
    """V voxels of a block, few enough for the cache."""

    def __init__(self, averaging: Averaging, n_voxels: int) -> None:
        self._how = averaging
        squares = averaging.noise_ceiling == "repeats"
        self.means = Means(
            averaging.repeats, n_voxels, averaging.dtype, squares=squares, noise=True
        )
        self._saturated = np.zeros(n_voxels, dtype=np.int64)
        self._as_nsd: tuple[Means, Means] | None = None
        if averaging.noise_ceiling == "repeats_as_nsd":
            self._as_nsd = (
                Means(averaging.by_session, n_voxels),
                Means(averaging.by_session, n_voxels),
            )

    def add(self, number: int, betas: NDArray[np.float32], saturated: NDArray[np.int64]) -> None:
        """Add the next session. betas: (n_trials, V), overwritten. saturated: (V,)."""
        self._saturated += saturated
        if self._as_nsd is not None:
            z, squared = self._as_nsd
            values = betas.copy()
            valid = standardise(values, self._how.by_session.sessions[number].unit, ddof=1)
            z.add(number, values, valid)
            squared.add(number, np.square(values), valid)
        unit = self._how.repeats.sessions[number].unit
        self.means.add(number, betas, standardise(betas, unit, zscore=self._how.zscore))

    def finish(self) -> SessionNoise:
        """Set the means without any valid trial to NaN; measure the noise."""
        values, count = self.means.values, self.means.count
        ncsnr = np.full(values.shape[1], np.nan)
        if self._as_nsd is not None:
            ncsnr = ncsnr_as_nsd(*self._as_nsd)
        elif self.means.squares is not None:
            sums = TrialSums.of_means(count, values.astype(np.float64), self.means.squares)
            ncsnr = sums.ncsnr()
        count = np.broadcast_to(count, values.shape)
        inverse = mean_inverse(count[self._how.test])
        repeats = self.means.kept_repeats()
        noise = np.empty((0, values.shape[1]), np.float32) if repeats is None else repeats.noise
        missing = count == 0
        if missing.any():
            values[missing] = np.nan
        valid, unit = self.means.valid, self._how.unit
        n_invalid = np.bincount(unit, minlength=len(valid)) @ ~valid
        return SessionNoise(n_invalid, ncsnr, inverse, noise, valid, self._saturated)


def fresh_scratch(folder: Path) -> Path:
    """The scratch folder of what is prepared in `folder`, with what an interrupted call completed.

    All else that it left is removed.
    """
    scratch = folder / AVERAGING
    scratch.mkdir(exist_ok=True)
    for file in (*folder.iterdir(), *scratch.glob(".*.tmp")):
        if file.is_file():
            file.unlink()
    return scratch


def average_repeats(
    folder: Path,
    averaging: Averaging,
    order: NDArray[np.int64],
    open_session: Callable[[int], OpenSession],
) -> SessionNoise:
    """Write the mean of each image's valid trials to responses.npy, NaN where there is none.

    folder: of the data. order: (V,), the voxels in the order of the files. open_session: function
    of a session's number that opens the V voxels in that order.
    """
    blocks = averaging.blocks(len(order))
    names = [f"{block.start}_{block.stop}" for block in blocks]
    opened: dict[int, OpenSession] = {}
    sessions = averaging.repeats.numbers
    written: Future[None] | None = None
    with (
        stage_progress() as progress,
        ThreadPoolExecutor(torch.get_num_threads()) as pool,
        ThreadPoolExecutor(1) as writer,
    ):
        total = len(blocks) * len(sessions)
        task = progress.add_task("betas", total=total, unit="reads")

        def read(session: int, block: slice) -> NDArray[Any]:
            if session not in opened:
                opened[session] = open_session(session)
            raw = opened[session].read(block)
            progress.update(task, advance=1)
            return raw

        for block, name in zip(blocks, names, strict=True):
            path = folder / AVERAGING / f"means_{name}.npy"
            if path.exists():
                progress.update(task, advance=len(sessions))
                continue
            columns = list(even_blocks(block.stop - block.start, VOXELS_AT_ONCE))
            parts = [_Part(averaging, v.stop - v.start) for v in columns]
            # One is read while another is averaged.
            for k, raw in enumerate(_ahead(pool, partial(read, block=block), sessions)):

                def add(part: _Part, v: slice, k: int = k, raw: NDArray[Any] = raw) -> None:
                    part.add(k, *opened[sessions[k]].betas(raw[v]))

                list(pool.map(add, parts, columns))
            noise = SessionNoise.joined(list(pool.map(_Part.finish, parts)))
            means = [part.means.values for part in parts]
            if len(blocks) == 1:
                _write_columns(folder / "responses.npy", means, order)
                return noise.reordered(order)
            if written is not None:
                written.result()
            written = writer.submit(_write_block, path.parent, name, noise, means)
            del parts, means, raw, add  # the next block takes their place in memory
        if written is not None:
            written.result()
    means = [np.load(folder / AVERAGING / f"means_{name}.npy", mmap_mode="r") for name in names]
    _write_columns(folder / "responses.npy", means, order)
    parts_noise = [SessionNoise.load(folder / AVERAGING / f"noise_{name}.npz") for name in names]
    return SessionNoise.joined(parts_noise).reordered(order)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
    """What the function makes of each item: of the next one while one is used."""
    coming: Future[_Result] | None = None
    for item in items:
        following = pool.submit(function, item)
        if coming is not None:
            yield coming.result()
        coming = following
    if coming is not None:
        yield coming.result()


def _write_block(scratch: Path, name: str, noise: SessionNoise, means: list[NDArray]) -> None:
    scratch.mkdir(exist_ok=True)
    noise.save(scratch / f"noise_{name}.npz")
    n_voxels = sum(part.shape[1] for part in means)
    _write_columns(scratch / f"means_{name}.npy", means, np.arange(n_voxels))


def _write_columns(path: Path, parts: list[NDArray], order: NDArray[np.int64]) -> None:
    """Write the columns of all parts, (N, v) each, in the order of the voxels."""
    n_images, n_voxels = len(parts[0]), len(order)
    place = np.argsort(order)
    header = {"descr": "<f4", "fortran_order": False, "shape": (n_images, n_voxels)}
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        at_once = max(_ROWS_BYTES // (4 * n_voxels), 1)

        def gather(start: int) -> NDArray[np.float32]:
            rows = np.concatenate([part[start : start + at_once] for part in parts], axis=1)
            return rows.take(place, axis=1).astype(np.float32, copy=False)

        with ThreadPoolExecutor(1) as pool:
            for rows in _ahead(pool, gather, range(0, n_images, at_once)):
                rows.tofile(file)

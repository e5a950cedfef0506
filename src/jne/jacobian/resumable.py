"""Arrays on disk from which the same computation, and no other, continues after a kill."""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.utils.files import new_memmap, reserve, write_json, writing
from jne.utils.reading import UNREADABLE

_SAVE_SECONDS = 5.0


def fingerprint(tensors: Iterable[Tensor], *settings: str) -> str:
    """A digest of the values of all tensors and of the settings."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().view(torch.uint8).reshape(-1)
        digest.update(flat.numpy().data)
    digest.update("\n".join(settings).encode())
    return digest.hexdigest()


class ResumableArrays:
    """One (N, V) array per name, filled unit by unit.

    files: the final file of each name; until it is complete, an array is in a file beside it.
        None keeps the arrays in memory.
    identity: what the same computation has in common, as of `fingerprint`.

    A context manager. If it is left by an exception or a kill, the arrays and the count of complete
    units stay on disk, and the next computation with the same `identity` starts with `done` at that
    count. If it is left normally, the arrays get their final names.
    """

    def __init__(
        self,
        names: Sequence[str],
        files: dict[str, Path] | None,
        shape: tuple[int, int],
        dtype: type,
        identity: str | None,
    ) -> None:
        self.files, self.identity, self.done = files, identity, 0
        self.arrays: dict[str, NDArray] = {}
        self._saved = time.monotonic()
        if files is None:
            self.arrays = {name: np.empty(shape, dtype) for name in names}
            return
        self._partial = {
            name: final.with_name(f"{final.name}.partial") for name, final in files.items()
        }
        first = files[names[0]]
        self._state = first.with_name(f"{first.name}.partial.json")
        with writing(first):
            self.arrays, self.done = self._interrupted(shape, dtype)
            for partial in self._partial.values():
                if self.done:  # a copy of the folder may have made holes of what is not filled yet
                    reserve(partial, partial.stat().st_size)
            if not self.done:
                self._state.unlink(missing_ok=True)
                self.arrays = {
                    name: new_memmap(partial, shape, dtype)
                    for name, partial in self._partial.items()
                }

    def advance(self, done: int) -> None:
        """Note that `done` units are complete; this is saved every few seconds."""
        self.done = done
        if self.files is not None and time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save()

    def results(self) -> dict[str, NDArray]:
        """The complete arrays; if they are on disk, memory-mapped and read only."""
        if self.files is None:
            return self.arrays
        return {name: np.load(final, mmap_mode="r") for name, final in self.files.items()}

    def __enter__(self) -> "ResumableArrays":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.files is None:
            return
        if kind is not None:
            if self.done:
                self._save()
            return
        self._flush()
        self._state.unlink(missing_ok=True)
        for name, final in self.files.items():
            self._partial[name].replace(final)

    def _save(self) -> None:
        self._flush()  # first: the count must never promise more than the arrays hold
        write_json(self._state, {"identity": self.identity, "done": self.done})
        self._saved = time.monotonic()

    def _flush(self) -> None:
        for array in self.arrays.values():
            if isinstance(array, np.memmap):
                array.flush()

    def _interrupted(self, shape: tuple[int, int], dtype: type) -> tuple[dict[str, NDArray], int]:
        """The arrays of an interrupted computation of the same identity, and its complete units.

        No arrays and 0 where there is none, or where its files are missing or damaged.
        """
        try:
            state = json.loads(self._state.read_text())
            identity, done = state["identity"], int(state["done"])
            arrays = {
                name: np.load(partial, mmap_mode="r+", allow_pickle=False)
                for name, partial in self._partial.items()
            }
        except (*UNREADABLE, TypeError):
            return {}, 0
        fits = all(array.shape == shape and array.dtype == dtype for array in arrays.values())
        return (arrays, done) if fits and identity == self.identity else ({}, 0)

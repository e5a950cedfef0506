"""Arrays on disk that a killed computation can go on with, and only that same computation."""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.files import write_json

_SAVE_SECONDS = 5.0


def fingerprint(tensors: Iterable[Tensor], *settings: str) -> str:
    """A digest of the values of all tensors and of the settings."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().view(torch.uint8).reshape(-1)
        digest.update(memoryview(flat.numpy()))
    digest.update("\n".join(settings).encode())
    return digest.hexdigest()


class PartialArrays:
    """One (N, V) array a name, to fill unit by unit; in memory, or on disk beside
    its file until complete.

    files: the final file of each name, or None to keep the arrays in memory.

    Used as a context manager. Left by an exception or a kill, the arrays and the count of
    complete units stay on disk, and the next computation with the same `identity` starts with
    `done` at that count. Left normally, the arrays get their final names.
    """

    def __init__(
        self,
        names: Sequence[str],
        files: dict[str, Path] | None,
        shape: tuple[int, int],
        dtype: type,
        identity: str,
    ) -> None:
        self.files, self.identity, self.done = files, identity, 0
        self._saved = time.monotonic()
        if files is None:
            self.arrays = {name: np.empty(shape, dtype) for name in names}
            return
        self._partial = {
            name: final.with_name(f"{final.name}.partial") for name, final in files.items()
        }
        first = files[names[0]]
        self._state = first.with_name(f"{first.name}.partial.json")
        self.done = self._units_of_the_same()
        if self.done:
            self.arrays = {
                name: np.load(partial, mmap_mode="r+") for name, partial in self._partial.items()
            }
        else:
            self._state.unlink(missing_ok=True)
            self.arrays = {
                name: np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
                for name, partial in self._partial.items()
            }

    def advance(self, done: int) -> None:
        """Say that `done` units are complete; saved every few seconds."""
        self.done = done
        if self.files is not None and time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save()

    def results(self) -> dict[str, NDArray]:
        """The complete arrays; memory-mapped, read only, where they are on disk."""
        if self.files is None:
            return self.arrays
        return {name: np.load(final, mmap_mode="r") for name, final in self.files.items()}

    def __enter__(self) -> "PartialArrays":
        return self

    def __exit__(self, kind, *_) -> None:
        if self.files is None:
            return
        if kind is not None:
            if self.done:
                self._save()
            return
        for array in self.arrays.values():
            array.flush()
        self._state.unlink(missing_ok=True)
        for name, final in self.files.items():
            self._partial[name].replace(final)

    def _save(self) -> None:
        # The values first: the count must never promise more than the arrays hold.
        for array in self.arrays.values():
            array.flush()
        write_json(self._state, {"identity": self.identity, "done": self.done})
        self._saved = time.monotonic()

    def _units_of_the_same(self) -> int:
        try:
            state = json.loads(self._state.read_text())
        except (FileNotFoundError, ValueError):
            return 0
        there = all(partial.exists() for partial in self._partial.values())
        return state["done"] if there and state["identity"] == self.identity else 0

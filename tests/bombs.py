"""A stranger's files that would keep their reader busy, or give it what is not in them."""

import os
import signal
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from attacks import OPTIONAL, Change
from damage import FILES


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this block after `seconds`: what waits for ever must end."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"it takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- a results folder -----------------------------------------------------------------------------


def bombs() -> Iterator[tuple[str, str, Change]]:
    """What, the file of a results folder, and the change that would keep its reader busy."""

    def replace(name: str, make: Change) -> Change:
        def change(folder: Path) -> None:
            (folder / name).unlink(missing_ok=True)
            make(folder / name)

        return change

    for name in (*FILES, *OPTIONAL):
        yield f"{name} is a pipe", name, replace(name, os.mkfifo)
        yield f"{name} is /dev/zero", name, replace(name, lambda path: path.symlink_to("/dev/zero"))
    for name in ("voxels.csv", "stimuli.csv", "epochs.csv"):
        yield f"{name} of zeros", name, lambda folder, n=name: os.truncate(folder / n, 2**30)
        yield f"{name} of commas", name, lambda folder, n=name: (folder / n).write_text("," * 10**7)
    yield "config.yaml: aliases", "config.yaml", _appended(_laughs("[{}]"))
    yield "config.yaml: merged aliases", "config.yaml", _appended(_laughs("{{<<: [{}]}}"))
    yield "config.yaml in itself", "config.yaml", _appended("x: &x [*x]")
    yield "config.yaml: deep", "config.yaml", _appended("x: " + "[" * 250_000)
    yield "config.yaml: long", "config.yaml", _appended("- a\n" * 200_000)
    yield "config.yaml: 1:11:11...", "config.yaml", _appended("x: 1" + ":11" * 150_000)
    for key in ("1: 2", "~: 2", "true: 2", "2020-01-01: 2", "? [1]\n: 2"):
        yield f"config.yaml: the key {key!r}", "config.yaml", _appended(key)
    for name in ("status.json", "summary.json", "data.json"):
        deep = "[" * 10**6
        yield f"{name}: deep", name, lambda folder, n=name, d=deep: (folder / n).write_text(d)
        wide = "[" + "[]," * 2_100_000 + "[]]"
        yield f"{name}: wide", name, lambda folder, n=name, w=wide: (folder / n).write_text(w)
    for settings in (
        {"n_hidden": 10**7}, {"n_hidden": 10**10}, {"n_hidden": 10**30}, {"hidden_width": 10**9},
        {"hidden_width": 9}, {"n_hidden": 100}, {"n_hidden": 1e10}, {"placement": [10**12]},
    ):  # fmt: skip
        yield (
            f"encoder.pt: {settings}",
            "encoder.pt",
            _saved(lambda s, c=settings: {"config": s["config"] | c}),
        )
    for what, change in odd_tensors():
        yield (
            f"encoder.pt: weights {what}",
            "encoder.pt",
            _saved(lambda s, c=change: {"weights": {n: c(w) for n, w in s["weights"].items()}}),
        )
        yield (
            f"encoder.pt: scaling {what}",
            "encoder.pt",
            _saved(lambda s, c=change: {"feature_mean": c(s["feature_mean"])}),
        )
    yield "encoder.pt: nested 5,000 deep", "encoder.pt", _saved(lambda s: {"config": nested(5000)})
    often = {"config": {"x": repeated()}}
    yield "encoder.pt: one list, often", "encoder.pt", _saved(lambda s: often)
    yield "encoder.pt: packed", "encoder.pt", lambda f: packed(f / "encoder.pt", bytes(2**24))


def _appended(text: str) -> Change:
    def change(folder: Path) -> None:
        with open(folder / "config.yaml", "a") as file:
            file.write(f"{text}\n")

    return change


def _laughs(form: str) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {form.format(', '.join([f'*a{i - 1}'] * 9))}" for i in range(1, 10)]
    return "\n".join(lines)


def _saved(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    def edit(folder: Path) -> None:
        saved = torch.load(folder / "encoder.pt", weights_only=True)
        write_torch(folder / "encoder.pt", saved | change(saved))

    return edit


def write_torch(path: Path, content: Any) -> None:
    """`torch.save`, also of what is nested thousands of times."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**5)
    try:
        torch.save(content, path)
    finally:
        sys.setrecursionlimit(limit)


def nested(depth: int) -> dict[str, Any]:
    """A dict in a dict, and so on."""
    outermost: dict[str, Any] = {}
    inner = outermost
    for _ in range(depth):
        inner["x"] = {}
        inner = inner["x"]
    return outermost


def repeated() -> list[Any]:
    """A list that names one list nine times, which does so with another, and so on."""
    value: list[Any] = []
    for _ in range(12):
        value = [value] * 9
    return value


def odd_tensors() -> Iterator[tuple[str, Callable[[torch.Tensor], Any]]]:
    """What a file of tensors may hold in place of real numbers."""
    yield "complex", lambda w: w.to(torch.complex64)
    yield "sparse", lambda w: w.to_sparse()
    yield "on no device", lambda w: w.to("meta")
    yield "a number for all", lambda w: torch.zeros(1).expand(10**6, 10**6)
    yield "a number for each", lambda w: torch.zeros(()).expand(w.shape)
    yield "bytes", lambda w: b"x"
    yield "a set", lambda w: {1}
    yield "a type", lambda w: torch.float32
    yield "quantised", lambda w: torch.quantize_per_tensor(w, 1.0, 0, torch.qint8)


def packed(path: Path, content: bytes) -> None:
    """An archive as torch's, whose values are packed a thousandfold."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")


# --- data -----------------------------------------------------------------------------------------


def arrays(secret: Path) -> Iterator[tuple[str, str, Change]]:
    """What, the name of a file of features, and how it is written."""
    secret_size = secret.stat().st_size

    def hdf5(write: Callable[[h5py.File], object]) -> Change:
        def make(path: Path) -> None:
            with h5py.File(path, "w") as file:
                write(file)

        return make

    def virtual(source: str | None, shape: tuple[int, int] = (5, 3)) -> Change:
        def make(path: Path) -> None:
            for name in ("a.h5", "b.h5"):
                with h5py.File(path.with_name(name), "w") as file:
                    file["x"] = np.ones((5, 3))
            layout = h5py.VirtualLayout((10, 3), "f8")
            layout[:5] = h5py.VirtualSource("a.h5", "x", (5, 3))
            if source is not None:
                layout[5 : 5 + shape[0]] = h5py.VirtualSource(source, "x", shape)
            with h5py.File(path, "w") as file:
                file.create_virtual_dataset("x", layout)

        return make

    outside = [(str(secret), 0, secret_size)]
    yield (
        "external storage",
        "x.h5",
        hdf5(lambda f: f.create_dataset("x", (secret_size,), "u1", external=outside)),
    )
    yield (
        "external storage, relative",
        "x.h5",
        hdf5(lambda f: f.create_dataset("x", (4,), "u1", external=[("/etc/hostname", 0, 4)])),
    )
    yield (
        "a link to another file",
        "x.h5",
        hdf5(lambda f: f.__setitem__("x", h5py.ExternalLink(str(secret), "x"))),
    )
    yield "a missing part", "x.h5", virtual("missing.h5")
    yield "a part of elsewhere", "x.h5", virtual(str(secret))
    yield "a part in the folder above", "x.h5", virtual("../b.h5")
    yield "a part of another shape", "x.h5", virtual("b.h5", (4, 3))
    yield "a gap", "x.h5", virtual(None)
    yield "a part without a file", "x.h5", virtual("/dev/zero")
    for name in ("x.npy", "x.npz", "x.h5"):
        yield f"{name} is a pipe", name, os.mkfifo
        yield f"{name} is /dev/zero", name, lambda path: path.symlink_to("/dev/zero")
    yield "6 GB of zeros in a zip", "x.npz", zeros_in_zip
    yield (
        "6 GB of nothing",
        "x.h5",
        hdf5(lambda f: f.create_dataset("x", (10**4, 75_000), "f8", chunks=(100, 1000))),
    )


def zeros_in_zip(path: Path, name: str = "x.npy", n_bytes: int = 6 * 10**9) -> None:
    """A zip of 6 MB whose only member has 6 GB: the same packed zeros again and again."""
    part = zlib.compressobj(9, wbits=-15)
    block = part.compress(bytes(2**24)) + part.flush(zlib.Z_FULL_FLUSH)
    n_blocks = n_bytes // 2**24
    content = block * n_blocks + zlib.compressobj(9, wbits=-15).flush()
    sizes = struct.pack("<3I", 0, len(content), n_blocks * 2**24 % 2**32)
    large = struct.pack("<HHQQ", 1, 16, n_blocks * 2**24, len(content))
    sizes = struct.pack("<3I", 0, 2**32 - 1, 2**32 - 1)
    name_ = name.encode()
    head = struct.pack("<4s5H", b"PK\3\4", 45, 0, 8, 0, 33) + sizes
    local = head + struct.pack("<2H", len(name_), len(large)) + name_ + large + content
    entry = struct.pack("<4s6H", b"PK\1\2", 45, 45, 0, 8, 0, 33) + sizes
    entry += struct.pack("<5H2I", len(name_), len(large), 0, 0, 0, 0, 0) + name_ + large
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local), 0)
    path.write_bytes(local + entry + end)


def png(width: int, height: int) -> bytes:
    """A PNG of zeros, whose head is read before anything is unpacked."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

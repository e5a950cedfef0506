"""What can be wrong with a results folder: every damage is a function of the folder."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from region_evidence import region_evidence, simulated
from region_shares import region_shares

Damage = Callable[[Path], object]

TEXT_FILES = (
    "status.json",
    "config.yaml",
    "summary.json",
    "voxels.csv",
    "stimuli.csv",
    "epochs.csv",
)
ARRAYS = ("features", "responses", "predictions", "deviation", "gain", "jne_ss")
FILES = (*TEXT_FILES, *(f"{name}.npy" for name in ARRAYS), "encoder.pt")
SHARES, EVIDENCE = "nonlinear_share.npz", "evidence.npz"
NUMBERS = ("r2", "p", "p_fdr", "jne", "mean_deviation", "jne_ss_p95")


def _write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def _cut(name: str, share: float) -> Damage:
    def cut(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return cut


def _json(name: str, change: Callable[[dict[str, Any]], Any]) -> Damage:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return edit


def _config(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def edit(folder: Path) -> None:
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(change(yaml.safe_load(path.read_text()))))

    return edit


def _table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    def edit(folder: Path) -> None:
        change(pd.read_csv(folder / name)).to_csv(folder / name, index=False)

    return edit


def _array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def edit(folder: Path) -> None:
        path = folder / f"{name}.npy"
        np.save(path, change(np.load(path)))

    return edit


def _encoder(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def edit(folder: Path) -> None:
        path = folder / "encoder.pt"
        torch.save(change(torch.load(path, weights_only=True)), path)

    return edit


def _regions(name: str, **changes: object) -> Damage:
    """A file of the right kind, but for some of its arrays; None leaves one out."""

    def write(folder: Path) -> None:
        path = folder / name
        if name == SHARES:
            region_shares({"V1": 0.0, "EBA": 0.5}).save(path)
        else:
            region_evidence(simulated(np.ones(4)), np.repeat(["V1", "EBA"], 2)).regions.save(path)
        with np.load(path) as saved:
            arrays = {**saved, **changes}
        arrays = {name: values for name, values in arrays.items() if values is not None}
        np.savez(path, **arrays)

    return write


def _with_value(array: np.ndarray, index: tuple[int, int], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def damages() -> Iterator[tuple[str, Damage, str]]:
    """What is done, the damage, and the file that must be named."""
    for name in FILES:
        yield f"{name} missing", lambda folder, name=name: (folder / name).unlink(), name
        yield f"{name} empty", _write(name, b""), name
        yield f"{name} of zeros", _write(name, bytes(200)), name
        yield f"{name} of other bytes", _write(name, bytes(range(256)) * 4), name
        yield f"{name} a folder", _folder_in_place(name), name
    for name in (
        "status.json",
        "summary.json",
        "config.yaml",
        *(f"{a}.npy" for a in ARRAYS),
        "encoder.pt",
    ):
        for share in (0.3, 0.7):
            yield f"{name} cut at {share}", _cut(name, share), name
    for name in ("status.json", "summary.json"):
        for content in (b"[]", b"null", b"3", b'"text"', b"[" * 100_000):
            yield f"{name} is {content[:6]!r}", _write(name, content), name
    yield "status.json without status", _json("status.json", lambda s: {"x": 1}), "status.json"
    yield (
        "status.json with a number",
        _json("status.json", lambda s: s | {"status": 1}),
        "status.json",
    )
    yield "summary.json without metrics", _json("summary.json", lambda s: {}), "summary.json"
    yield (
        "summary.json with text",
        _json("summary.json", lambda s: {"metrics": {"r2": "x"}}),
        "summary.json",
    )
    for content in (
        b"[1, 2]",
        b"text",
        b"a: [",
        b"a: !!python/object/apply:os.getcwd []",
        b"\xff\xfe",
    ):
        yield f"config.yaml is {content[:12]!r}", _write("config.yaml", content), "config.yaml"
    for key in ("subject", "data", "encoder", "activation", "placement", "seed", "control"):
        yield (
            f"config.yaml without {key}",
            _config(lambda c, k=key: {x: c[x] for x in c if x != k}),
            "config.yaml",
        )
        yield (
            f"config.yaml with a list as {key}",
            _config(lambda c, k=key: c | {k: [1]}),
            "config.yaml",
        )
    yield "config.yaml without control.kind", _config(lambda c: c | {"control": {}}), "config.yaml"
    yield "config.yaml without data.name", _config(lambda c: c | {"data": {}}), "config.yaml"
    yield "voxels.csv with a row less", _table("voxels.csv", lambda t: t.iloc[1:]), ".npy"
    yield (
        "voxels.csv with a row more",
        _table("voxels.csv", lambda t: pd.concat([t, t.iloc[:1]])),
        ".npy",
    )
    yield "voxels.csv without rows", _table("voxels.csv", lambda t: t.iloc[:0]), "voxels.csv"
    for column in ("voxel", "roi", "status", *NUMBERS):
        yield (
            f"voxels.csv without {column}",
            _table("voxels.csv", lambda t, c=column: t.drop(columns=c)),
            "voxels.csv",
        )
    for column in NUMBERS:
        yield (
            f"voxels.csv with text as {column}",
            _table("voxels.csv", lambda t, c=column: t.assign(**{c: "high"})),
            "voxels.csv",
        )
    yield (
        "voxels.csv with text as a ceiling",
        _table("voxels.csv", lambda t: t.assign(noise_ceiling="x")),
        "voxels.csv",
    )
    yield (
        "voxels.csv with another status",
        _table("voxels.csv", lambda t: t.assign(status="fine")),
        "voxels.csv",
    )
    yield (
        "voxels.csv with ragged rows",
        lambda f: (f / "voxels.csv").write_text("a,b\n1,2\n1,2,3,4\n"),
        "voxels.csv",
    )
    yield (
        "voxels.csv says ok of a voxel left out",
        _table("voxels.csv", lambda t: t.assign(status="ok")),
        ".npy",
    )
    yield "stimuli.csv with a row less", _table("stimuli.csv", lambda t: t.iloc[1:]), ".npy"
    yield (
        "stimuli.csv without stimulus",
        _table("stimuli.csv", lambda t: t.drop(columns="stimulus")),
        "stimuli.csv",
    )
    yield (
        "epochs.csv with text",
        _table("epochs.csv", lambda t: t.assign(**{"val/loss": "x"})),
        "epochs.csv",
    )
    yield "trajectory.csv empty", _write("trajectory.csv", b""), "trajectory.csv"
    yield "trajectory.csv a folder", _folder_in_place("trajectory.csv"), "trajectory.csv"
    for column in ("epoch", "stage", "voxel", "roi", "r2", "jne"):
        yield (
            f"trajectory.csv without {column}",
            _table("trajectory.csv", lambda t, c=column: t.drop(columns=c)),
            "trajectory.csv",
        )
    for column in ("epoch", "stage", "r2", "jne"):
        yield (
            f"trajectory.csv with text as {column}",
            _table("trajectory.csv", lambda t, c=column: t.assign(**{c: "high"})),
            "trajectory.csv",
        )
    for name in ARRAYS:
        file = f"{name}.npy"
        yield f"{file} transposed", _array(name, lambda a: np.ascontiguousarray(a.T)), file
        yield f"{file} flat", _array(name, lambda a: a.ravel()), file
        yield f"{file} of whole numbers", _array(name, lambda a: np.zeros(a.shape, int)), file
        yield f"{file} of doubles", _array(name, lambda a: a.astype(float)), file
        yield f"{file} of complex numbers", _array(name, lambda a: a.astype(complex)), file
        yield f"{file} of text", _array(name, lambda a: a.astype("U8")), file
        yield f"{file} with a stimulus less", _array(name, lambda a: a[1:]), file
        yield f"{file} with NaN", _array(name, lambda a: _with_value(a, (0, 0), np.nan)), file
        yield f"{file} with infinity", _array(name, lambda a: _with_value(a, (0, 1), np.inf)), file
    for name in ARRAYS[1:]:
        yield f"{name}.npy with a voxel less", _array(name, lambda a: a[:, 1:]), f"{name}.npy"
    yield "features.npy of another width", _array("features", lambda a: a[:, 1:]), "encoder.pt"
    for key in (
        "config",
        "weights",
        "feature_mean",
        "feature_scale",
        "response_mean",
        "response_scale",
    ):
        yield (
            f"encoder.pt without {key}",
            _encoder(lambda e, k=key: {x: e[x] for x in e if x != k}),
            "encoder.pt",
        )
        yield (
            f"encoder.pt with text as {key}",
            _encoder(lambda e, k=key: e | {k: "x"}),
            "encoder.pt",
        )
    yield (
        "encoder.pt of another size",
        _encoder(lambda e: e | {"response_mean": torch.zeros(3)}),
        "encoder.pt",
    )
    yield "encoder.pt is a list", _encoder(lambda e: [1]), "encoder.pt"
    for content in (
        b"{}",
        b'{"shape": [2], "affine": []}',
        b'{"shape": ["a", 1, 1], "affine": [[1]]}',
        b"[]",
        b"x",
    ):
        yield f"space.json is {content!r}", _write("space.json", content), "space.json"
    for content in (b"{}", b'{"path": 3}', b"[]", b"x"):
        yield f"images.json is {content!r}", _write("images.json", content), "images.json"
    for name in (SHARES, EVIDENCE):
        for content in (b"", bytes(200), b"PK\x03\x04", b"x"):
            yield f"{name} is {content[:6]!r}", _write(name, content), name
        yield f"{name} a folder", lambda folder, name=name: (folder / name).mkdir(), name
    for what, changes in {
        "without linear": {"linear": None},
        "without names": {"roi": None},
        "with a region that no voxel has": {"roi": np.array(["V1", "FFA-9"])},
        "with a name less": {"roi": np.array(["V1"])},
        "with NaN": {"signal": np.full((20, 2), np.nan)},
        "with text": {"linear": np.array(["a", "b"])},
        "with complex numbers": {"linear": np.array([1j, 1])},
        "with several numbers of stimuli": {"n_stimuli": np.array([50, 50])},
        "of another number of stimuli": {"n_stimuli": 7},
        "with an infinite weight": {"pair_weight": np.inf},
        "with one block": {"block_size": np.array(100)},
        "with blocks without stimuli": {"block_size": np.array([100, *[0] * 19])},
        "with pairs of two regions": {"pairs": np.zeros((2, 8, 7))},
        "with an object": {"linear": np.array([{}, {}])},
    }.items():
        yield f"{SHARES} {what}", _regions(SHARES, **changes), SHARES
    for what, changes in {
        "without product": {"product": None},
        "without names": {"roi": None},
        "with a region that no voxel has": {"roi": np.array(["V1", "FFA-9", "all"])},
        "whose last region is not all": {"roi": np.array(["all", "EBA", "V1"])},
        "with a name less": {"roi": np.array(["V1", "all"])},
        "with NaN": {"linear": np.full(3, np.nan)},
        "with text": {"pairs": np.array(["a", "b", "c"])},
        "with complex numbers": {"linear": np.array([1j, 1, 1])},
        "with as many stimuli as regressors": {
            name: np.ones((4, 3)) for name in ("product", "spread", "nonlinear_pull", "linear_pull")
        },
        "with other stimuli than the table": {
            name: np.ones((23, 3))
            for name in ("product", "spread", "nonlinear_pull", "linear_pull")
        },
        "with a stimulus less in one array": {"spread": np.ones((23, 3))},
        "with an object": {"linear": np.array([{}, {}, {}])},
    }.items():
        yield f"{EVIDENCE} {what}", _regions(EVIDENCE, **changes), EVIDENCE


def _folder_in_place(name: str) -> Damage:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return replace

"""The kinds of `fuzz.py` that a user gives: configs, arrays, tables, images, weights.

Each is a generator of cases: what it is, what tries it, and whether it may be accepted.
"""

import io
import random
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from attacks import Pickled
from cases import Case, Refused, script, train
from torch import nn

from jne.results import Results

KEYS = {
    "train.py": (
        "name", "seed", "control", "checkpoint", "subject", "activation", "placement", "encoder",
        "optimizer", "output", "resume", "sweep", "trainer.max_epochs", "trainer.patience",
        "trainer.batch_size", "trainer.precision", "trainer.accelerator",
        "trainer.checkpoint_seconds", "jacobian.voxels", "jacobian.variants", "jacobian.precision",
        "jacobian.trajectory", "jacobian.device", "jacobian.max_memory_gb", "stats.n_bootstrap",
        "stats.p_value", "stats.alpha", "optimizer.lr", "optimizer.weight_decay",
        "encoder.hidden_width", "encoder.n_hidden", "encoder.bias", "data.n_train", "data.n_test",
        "data.noise_ceiling", "data.seed", "data.leaks", "tracking.uri", "tracking.on_unreachable",
        "tracking.experiment",
    ),
    "evaluate.py": (
        "runs", "filter", "voxels", "rois", "variants", "jacobian.device", "trust",
        "jacobian.max_memory_gb", "selectivity.clusters", "selectivity.max_clusters",
        "selectivity.n_permutations", "stats.alpha", "seed",
    ),
    "simulate.py": (
        "simulation", "simulation.placement_grid.n_draws", "simulation.placement_grid.activations",
        "simulation.placement_grid.inputs.scale", "simulation.placement_grid.networks",
        "simulation.placement_grid.n_stimuli", "simulation.placement_grid.seed",
    ),
}  # fmt: skip
VALUES = ("-1", "nan", "inf", "1e400", "[]", "{}", "{a: 1}", "'[/red]'", "abc", "null", "''")
# Where these values mean something.
SENSIBLE = {
    ("name", "abc"), ("checkpoint", "null"), ("trainer.batch_size", "null"), ("sweep", "abc"),
    ("subject", "abc"), ("output", "abc"), ("tracking.uri", "null"), ("tracking.experiment", "abc"),
    ("filter", "''"), ("rois", "null"), ("trust", "[]"), ("trust", "abc"), ("name", "'[/red]'"),
    ("subject", "'[/red]'"), ("tracking.experiment", "'[/red]'"), ("output", "'[/red]'"),
    ("name", "nan"), ("name", "inf"), ("name", "-1"), ("name", "1e400"), ("variants", "[]"),
    ("jacobian.voxels", "[]"), ("rois", "[]"), ("encoder", "{}"), ("optimizer", "{}"),
    ("tracking.uri", "''"), ("jacobian.trajectory", "null"), ("simulation", "{}"),
}  # fmt: skip


def configs(home: Path, rng: random.Random) -> Iterator[Case]:
    for name, keys in KEYS.items():
        for key in keys:
            for value in rng.sample(VALUES, 6):
                setting = f"{key}={value}"
                if key == "output":
                    continue
                run = train if name == "train.py" else (lambda h, s, n=name: script(h, n, s))
                yield (
                    f"{name} {setting}",
                    lambda r=run, s=setting: r(home, s),
                    ((key, value) in SENSIBLE),
                )
            typo = f"{key}x=1"
            yield f"{name} {typo}", lambda n=name, s=typo: script(home, n, s), False
    for syntax in ("jacobian.voxels=[V1", "name=a b,c", "+=3", "data.n_test=${nothing}", "a=b=c=d",
                   "name='", "trainer={", "jacobian.voxels=[V1,,V2]", "subject=7"):  # fmt: skip
        yield f"train.py {syntax}", lambda s=syntax: train(home, s), False


def _arrays(
    home: Path,
    x: object,
    y: object,
    name: str = "npy",
    *more: str,
    tables: dict[str, str] | None = None,
) -> Path:
    folder = Path(tempfile.mkdtemp(dir=home))
    for table, text in (tables or {}).items():
        (folder / table).write_text(text)
    for file, content in (("x", x), ("y", y)):
        if isinstance(content, bytes):
            (folder / f"{file}.{name}").write_bytes(content)
        elif content is not None:
            np.save(folder / f"{file}.npy", content, allow_pickle=True)
    return train(home, "data=arrays", f"data.root={folder}", f"data.features=x.{name}",
                 f"data.responses=y.{name}", *more)  # fmt: skip


def arrays(home: Path, rng: random.Random) -> Iterator[Case]:
    numbers = np.random.default_rng(rng.randrange(2**32))
    x, y = numbers.standard_normal((60, 5)), numbers.standard_normal((60, 4))
    nan = x.copy()
    nan[3, 2] = np.nan
    bad = {
        "none": None, "an empty file": b"", "text": b"hello", "a cut header": b"\x93NUMPY\x01\x00v",
        "one number": np.float32(3), "a vector": x[:, 0], "no rows": x[:0], "no columns": x[:, :0],
        "two rows": x[:2], "four axes": np.zeros((60, 2, 2, 2)), "text values": x.astype(str),
        "complex": x.astype(complex), "objects": x.astype(object), "a row less": x[1:],
        "true and false": x > 0, "dates": np.zeros((60, 5), "M8[s]"),
        "records": np.zeros(60, [("a", float)]), "all NaN": np.full_like(x, np.nan),
        "infinity": np.full_like(x, np.inf), "a pickle": np.array([{"a": 1}] * 60, dtype=object),
    }  # fmt: skip
    for what, value in {**bad, "NaN": nan}.items():
        yield f"features: {what}", lambda v=value: _arrays(home, v, y), False
    for what, value in {**bad, "constant": np.ones((60, 4))}.items():
        yield f"responses: {what}", lambda v=value: _arrays(home, x, v), False
    for suffix in ("npz", "h5", "mat", "csv", "pkl"):
        for what, content in (("empty", b""), ("text", b"hello"), ("bytes", bytes(range(256)) * 9)):
            yield f".{suffix} {what}", (lambda c=content, s=suffix: _arrays(home, c, c, s)), False
    good = io.BytesIO()
    np.savez(good, a=x)
    for share in (0.2, 0.5, 0.9):
        cut = good.getvalue()[: int(share * len(good.getvalue()))]
        yield f".npz cut at {share}", lambda c=cut: _arrays(home, c, c, "npz"), False
    for key, value in (("data.layer", "3"), ("data.n_test", "70"), ("data.n_val", "1.5"),
                       ("data.transpose_features", "true"), ("data.split", "fixed"),
                       ("data.features_key", "nothing")):  # fmt: skip
        more = f"{key}={value}"
        yield more, lambda m=more: _arrays(home, x, y, "npy", m), key == "data.features_key"


def _table(home: Path, key: str, content: str | bytes) -> None:
    folder = Path(tempfile.mkdtemp(dir=home))
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((60, 5)))
    np.save(folder / "y.npy", np.random.default_rng(1).standard_normal((60, 4)))
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    more = ("data.split=fixed",) if key == "stimuli" and "split" in str(content) else ()
    train(home, "data=arrays", f"data.root={folder}", "data.features=x.npy",
          "data.responses=y.npy", f"data.{key}=table.csv", *more)  # fmt: skip


def tables(home: Path, rng: random.Random) -> Iterator[Case]:
    rows = "".join(f"V1,{k}\n" for k in range(4))
    for what, content in {
        "empty": "", "no rows": "roi\n", "a row less": "roi\nV1\nV1\nV1\n",
        "no column roi": "area\n" + "V1\n" * 4, "bytes": bytes(range(256)),
        "ragged": "roi,x\nV1\nV1,1,2,3\nV1\nV1\n", "one of quotes": 'roi\n"V1\nV1\nV1\nV1\n',
        "text as a ceiling": "roi,noise_ceiling\n" + "V1,high\n" * 4,
        "text as ncsnr": "roi,ncsnr\n" + "V1,x\n" * 4,
        "text as vertex": "roi,hemisphere,vertex\n" + "V1,left,x\n" * 4,
        "a vertex below 0": "roi,hemisphere,vertex\n" + "V1,left,-5\n" * 4,
        "text as i": "roi,i,j,k\n" + "V1,a,1,1\n" * 4,
    }.items():  # fmt: skip
        yield f"voxels: {what}", lambda c=content: _table(home, "voxels", c), False
    for name in ("all", "V1/V2", "../up", "[/red]", "<script>", "$x$", "a" * 300, "a,b", "é", " "):
        content = "roi\n" + f'"{name}"\n' * 4
        yield f"an ROI {name[:12]!r}", lambda c=content: _table(home, "voxels", c), True
    for column in ("status", "r2", "jne", "tier", "subject", "p"):
        content = f"roi,{column}\n" + rows
        yield f"voxels: a column {column}", lambda c=content: _table(home, "voxels", c), True
    for what, content in {
        "empty": "", "no column stimulus": "id\n" + "1\n" * 60, "a row less": "stimulus\n" + "1\n",
        "twice the same": "stimulus\n" + "1\n" * 60,
        "an unknown split": "stimulus,split\n" + "".join(f"{k},exam\n" for k in range(60)),
        "no test": "stimulus,split\n" + "".join(f"{k},train\n" for k in range(60)),
    }.items():  # fmt: skip
        yield f"stimuli: {what}", lambda c=content: _table(home, "stimuli", c), False


def images(home: Path, rng: random.Random) -> Iterator[Case]:
    from PIL import Image

    y = np.random.default_rng(2).standard_normal((12, 3))

    def run(container: str, write: Callable[[Path], object]) -> None:
        folder = Path(tempfile.mkdtemp(dir=home))
        np.save(folder / "y.npy", y)
        write(folder / container)
        train(home, "data=arrays", f"data.root={folder}", f"data.images={container}",
              "data.responses=y.npy", "features=timm", "features.model=vit_tiny_patch16_224",
              "features.pretrained=false", "data.n_test=3", "data.n_val=3")  # fmt: skip

    def picture(size: tuple[int, int] = (8, 8)) -> bytes:
        content = io.BytesIO()
        Image.new("RGB", size).save(content, "png")
        return content.getvalue()

    def pack(names: dict[str, bytes]) -> Callable[[Path], object]:
        def write(path: Path) -> None:
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in names.items():
                    archive.writestr(name, content)

        return write

    named = {f"{k:02}.png": picture() for k in range(12)}
    for what, changed in {
        "text for an image": named | {"03.png": b"hello"},
        "an empty image": named | {"03.png": b""},
        "a cut image": named | {"03.png": picture((99, 99))[:60]},
        "one less": dict(list(named.items())[1:]),
        "no images": {"a.txt": b""}, "only folders": {"a/": b""},
    }.items():  # fmt: skip
        yield f"zip: {what}", lambda c=changed: run("i.zip", pack(c)), False
    for container in ("i.zip", "i.hdf5", "i.tar", "i"):
        for what, content in (("empty", b""), ("text", b"hello"), ("bytes", bytes(range(256)))):
            yield (
                f"{container}: {what}",
                (lambda n=container, c=content: run(n, lambda p: p.write_bytes(c))),
                False,
            )
    yield "a folder without images", lambda: run("i", lambda p: p.mkdir()), False
    yield "nothing there", lambda: run("i.zip", lambda p: None), False


def weights(home: Path, rng: random.Random) -> Iterator[Case]:
    trace = home / "trace"
    good = {"state_dict": nn.Linear(2, 2).state_dict()}
    contents: dict[str, object] = {
        "empty": b"", "text": b"hello", "bytes": bytes(range(256)), "a zip": b"PK\x03\x04nothing",
        "another module": good, "a tensor": torch.zeros(3), "a list": [1], "a number": 3,
        "a pickle": {"state_dict": Pickled(trace)}, "a module": nn.Linear(2, 2),
        "text in place of weights": {"state_dict": {"encoder.readout.weight": "x"}},
        "a list in place of weights": {"state_dict": [1]}, "None": {"state_dict": None},
    }  # fmt: skip
    for suffix in ("ckpt", "pt"):
        for what, content in contents.items():
            path = home / f"{what}.{suffix}"
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                torch.save(content, path)
            if suffix == "ckpt":
                yield f"checkpoint: {what}", lambda p=path: train(home, f"checkpoint={p}"), False
                continue
            yield f"features.checkpoint: {what}", (lambda p=path: _features_of(home, p)), False


def _features_of(home: Path, path: Path) -> None:
    from PIL import Image

    folder = Path(tempfile.mkdtemp(dir=home))
    np.save(folder / "y.npy", np.random.default_rng(2).standard_normal((12, 3)))
    (folder / "i").mkdir()
    for k in range(12):
        Image.new("RGB", (8, 8)).save(folder / "i" / f"{k}.png")
    train(home, "data=arrays", f"data.root={folder}", "data.images=i", "data.responses=y.npy",
          "features=clip_vit_b32", f"features.checkpoint={path}")  # fmt: skip


def rows(home: Path, rng: random.Random) -> Iterator[Case]:
    """Numbers of odd sizes, against those of ordinary ones, and rows that are not apart."""
    numbers = np.random.default_rng(rng.randrange(2**32))
    x = numbers.standard_normal((120, 6))
    y = x @ numbers.standard_normal((6, 4)) + numbers.standard_normal((120, 4))
    ridge = ("encoder=ridge", "jacobian.voxels=[]", "data.n_val=20", "data.n_test=30")

    def r2(x: np.ndarray, y: np.ndarray, *more: str) -> np.ndarray:
        made = _arrays(home, x, y, "npy", *ridge, *more)
        return Results(made).voxels["r2"].to_numpy()

    def same(x_: np.ndarray, y_: np.ndarray, *more: str) -> None:
        np.testing.assert_allclose(r2(x_, y_, *more), r2(x, y), atol=0.002)
        raise Refused("as without")

    for size in (1e4, -1e6, 1e8, -1e8, 1e9):
        yield f"features + {size:g}", lambda s=size: same(x + s, y), False
        yield f"responses + {size:g}", lambda s=size: same(x, y + s), False
        yield (
            f"one column + {size:g}",
            lambda s=size: same(x + s * np.eye(6)[2], y + s * np.eye(4)[1]),
            False,
        )
    for scale in (1e-12, 1e-6, 1e6, 1e12):
        yield f"features x {scale:g}", lambda s=scale: same(x * s, y), False
        yield f"responses x {scale:g}", lambda s=scale: same(x, y * s), False
    for offset in (5_000, 30_000, -60_000):
        # float16 rounds here to 4, 16 and 32: the noise of the truth has that step.
        repeats = (offset + 300 * y[:, :, None] + numbers.normal(0, 30, (120, 4, 3))).astype("f2")
        truth = repeats.astype(np.float64).mean(axis=2)

        def averaged(repeats: np.ndarray = repeats, truth: np.ndarray = truth) -> None:
            np.testing.assert_allclose(r2(x, repeats), r2(x, truth), atol=0.002)
            raise Refused("as averaged in float64")

        yield f"float16 repeats + {offset}", averaged, False
    for what, array in {
        "features all 1": np.ones_like(x), "features all 0": np.zeros_like(x),
        "features of 1e39": x * 1e39, "features of 1e300": x * 1e300,
    }.items():  # fmt: skip
        yield what, lambda a=array: _arrays(home, a, y, "npy", *ridge), False
    for what, array in {
        "responses of 1e39": y * 1e39, "responses all 1": np.ones_like(y),
    }.items():  # fmt: skip
        yield what, lambda a=array: _arrays(home, x, a, "npy", *ridge), False
    one_constant = x.copy()
    one_constant[:, 3] = 7
    yield "one constant feature", lambda: _arrays(home, one_constant, y, "npy", *ridge), True

    def leak(kind: str, n: int, *more: str) -> Path:
        split = np.array(["train"] * 70 + ["val"] * 20 + ["test"] * 30)
        x_, y_, ids = x.copy(), y.copy(), np.arange(120).astype(str)
        if kind in ("features", "both"):
            x_[90 : 90 + n] = x_[:n]
        if kind == "both":
            y_[90 : 90 + n] = y_[:n]
        if kind == "near":
            x_[90 : 90 + n] = x_[:n] + 1e-4
        images = ids.copy()
        if kind == "image":
            images[90 : 90 + n] = images[:n]
        table = "stimulus,image,split\n" + "".join(
            f"{i},{image},{s}\n" for i, image, s in zip(ids, images, split, strict=True)
        )
        return _arrays(home, x_, y_, "npy", *ridge, "data.stimuli=s.csv", "data.split=fixed",
                       *more, tables={"s.csv": table})  # fmt: skip

    def warned(kind: str, n: int, *more: str) -> None:
        said = " ".join(Results(leak(kind, n, *more)).summary["data_warnings"])
        assert f"{n} of 30 test stimuli" in said, said
        raise Refused(said)

    for kind in ("features", "both", "image"):
        for n in (1, 3, 30):
            yield (f"{n} leaks by {kind}", lambda k=kind, n=n: leak(k, n), False)
            yield (
                f"{n} leaks by {kind}, warn",
                lambda k=kind, n=n: warned(k, n, "data.leaks=warn"),
                False,
            )
    for n in (1, 3, 30):
        yield f"{n} near copies", lambda n=n: warned("near", n), False
    for r in (0.5, 0.8, 0.95):
        noise = numbers.standard_normal((120, 6))
        for k in range(1, 120):
            noise[k] = r * noise[k - 1] + np.sqrt(1 - r**2) * noise[k]

        def ordered(x: np.ndarray = noise) -> None:
            said = " ".join(Results(_arrays(home, x, y, "npy", *ridge)).summary["data_warnings"])
            assert "order" in said, said
            raise Refused(said)

        yield f"rows with an autocorrelation of {r}", ordered, False


def pairing(home: Path, rng: random.Random) -> Iterator[Case]:
    """Names of images; where they are accepted, row k must show image k."""
    from PIL import Image

    def run(names: list[str], column: list[str] | None, n: int = 14) -> Path:
        folder = Path(tempfile.mkdtemp(dir=home))
        (folder / "i").mkdir()
        for k, name in enumerate(names):
            Image.new("RGB", (8, 8), (k, 200 - k, 3 * k)).save(folder / "i" / name)
        np.save(folder / "y.npy", np.random.default_rng(2).standard_normal((n, 3)))
        stimuli = ()
        if column is not None:
            lines = [f'{k},"{name}"' for k, name in enumerate(column)]
            (folder / "s.csv").write_text("\n".join(["stimulus,image", *lines]) + "\n")
            stimuli = ("data.stimuli=s.csv",)
        return train(home, "data=arrays", f"data.root={folder}", "data.images=i", *stimuli,
                     "data.responses=y.npy", "features=timm",
                     "features.model=vit_tiny_patch16_224", "features.pretrained=false",
                     "jacobian.voxels=[]", "data.n_test=3", "data.n_val=3")  # fmt: skip

    def shown(names: list[str], column: list[str] | None, expected: list[str]) -> None:
        found = Results(run(names, column)).stimuli["image"].tolist()
        test = Results(run(names, column)).stimuli["stimulus"].tolist()
        assert found == [expected[int(k)] for k in test], found
        raise Refused("as named")

    plain, padded = [f"{k}.png" for k in range(14)], [f"{k:02}.png" for k in range(14)]
    yield "1, 10, 11, 2", lambda: run(plain, None), False
    yield "a1, a10, a11, a2", lambda: run([f"a{n}" for n in plain], None), False
    yield "1_a, 10_a", lambda: run([f"{k}_a.png" for k in range(14)], None), False
    yield "01, 02, 03", lambda: shown(padded, None, padded), False
    mixed = rng.sample(plain, 14)
    yield "a column image", lambda: shown(plain, mixed, mixed), False
    yield "a column image, padded", lambda: shown(padded, padded[::-1], padded[::-1]), False
    for what, column in {
        "a name that is not there": [*plain[:13], "x.png"], "an empty name": [*plain[:13], ""],
        "NA": [*plain[:13], "NA"], "a number": [*plain[:13], "13"],
        "a path": [*plain[:13], "../i/13.png"], "a row less": plain[:13],
        "a name in capitals": [*plain[:13], "13.PNG"],
    }.items():  # fmt: skip
        yield f"a column image: {what}", lambda c=column: run(plain, c), False
    yield "an image more", lambda: run([*padded, "14.png"], None), False
    yield "an image less", lambda: run(padded[:13], None), False
    yield "an image of two rows", lambda: run(plain, [*plain[:13], "0.png"]), True


KINDS = (configs, arrays, tables, images, weights, rows, pairing)

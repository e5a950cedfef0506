"""Bad input of every kind, as a user or a stranger would give it: what does the program say?

python benchmarks/fuzz.py            # all, about half an hour on two cores
python benchmarks/fuzz.py folders 3  # one kind, with seed 3

For each input it counts one outcome: one sentence (one line of `error:`, or InputError), accepted
(and it may be), traceback, silent (accepted, but it ought to be refused, or a wrong number), code
run (a trap in the input was sprung, or a secret given away), or busy (a stranger's file for more
than two seconds). It prints the inputs of the last four outcomes. The kinds:

configs    impossible values, wrong types and unknown keys of every key of train, evaluate, simulate
arrays     features and responses: shapes, dtypes, NaN, cut files, pickles
tables     voxel and stimulus tables of data=arrays
images     images and their containers
weights    checkpoints and feature weights
folders    results folders, each file of them damaged, and bytes changed at random
code       settings and pickles that try to run something
links      links and journals that try to pass on a file of the machine
busy       files that would keep their reader busy, or are not what they hold
secrets    addresses of stores with passwords in them
rows       features and responses of odd sizes, rows in two splits, rows in the order of a recording
pairing    images whose names have two orders, and the tables that say which row shows which
modules    foreign encoders of `jne.measure`
lines      command lines as people mistype them, in real processes
signals    Ctrl-C and SIGTERM at random moments of train.py, evaluate.py and simulate.py
disks      a disk that is full at a random moment of a run (RLIMIT_FSIZE)
stores     MLflow stores that are none, damaged or out of reach
numerics   jacobian_deviation against autograd, over random modules and shapes
"""

import io
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # its generators of bad input

import strangers
from attacks import Pickled
from helpers import TINY, TINY_COHORT, run_quietly
from strangers import Busy, Case, Refused, Sprung

from jne import ResidualEncoder, jacobian_deviation, measure
from jne.cli import register_resolvers
from jne.errors import InputError
from jne.results import Results


def script(home: Path, name: str, *overrides: str) -> list[Path]:
    """A script in this process; the folders it made. Raises Refused with its line, or anything."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            return run_quietly(home, f"sqlite:///{home / 'mlflow.db'}", name, *overrides)
    except SystemExit as end:
        raise Refused(str(end.code)) from end


def train(home: Path, *overrides: str) -> Path:
    cohort = () if any("data=" in o for o in overrides) else TINY_COHORT
    tiny = () if any("encoder=" in o for o in overrides) else TINY
    return script(home, "train.py", *cohort, *tiny, *overrides)[0]


# --- kinds ----------------------------------------------------------------------------------------

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


class _Calls(nn.Module):
    """A module that does what it is given."""

    def __init__(self, function: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.function, self.layer = function, nn.Linear(5, 3).double()

    def forward(self, x: torch.Tensor) -> object:
        return self.function(self, x)


def modules(home: Path, rng: random.Random) -> Iterator[Case]:
    """Foreign encoders; what is accepted must have the JNE of a plain one."""
    from torch.utils.checkpoint import checkpoint

    x = torch.randn(7, 5, dtype=torch.double)

    def compare(module: nn.Module, plain: nn.Module, mode: Callable[[], object]) -> None:
        before = x.clone()
        with mode():
            found = measure(module, x).deviation
        assert torch.equal(x, before), "the features were changed"
        np.testing.assert_allclose(found, measure(plain, x).deviation, rtol=1e-9, atol=1e-12)
        raise Refused("as a plain one")

    modes = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}
    tanh = _Calls(lambda m, x: torch.tanh(m.layer(x)))
    for what, function, plain in (
        ("in place", lambda m, x: torch.tanh(m.layer(x.mul_(2))),
         lambda m, x: torch.tanh(m.layer(2 * x))),
        ("relu_", lambda m, x: m.layer(x.relu_()), lambda m, x: m.layer(x.relu())),
        ("checkpointed", lambda m, x: checkpoint(lambda r: torch.tanh(m.layer(r)), x,
                                                 use_reentrant=False), tanh.function),
        ("a view", lambda m, x: torch.tanh(m.layer(x.view(-1, 5)))[:, None],
         lambda m, x: torch.tanh(m.layer(x))),
        ("clamped in place", lambda m, x: m.layer(x.clamp_(-1, 1) ** 2),
         lambda m, x: m.layer(x.clamp(-1, 1) ** 2)),
    ):  # fmt: skip
        for name, mode in modes.items():
            module, other = _Calls(function), _Calls(plain)
            other.load_state_dict(module.state_dict())
            yield (
                f"{what}, {name}",
                (lambda m=module, o=other, w=mode: compare(m, o, w)),
                False,
            )

    def fails(error: BaseException) -> Callable[[nn.Module, torch.Tensor], object]:
        def function(module: nn.Module, x: torch.Tensor) -> object:
            raise error

        return function

    for what, function in {
        "reentrant": lambda m, x: checkpoint(m.layer, x, use_reentrant=True),
        "detached": lambda m, x: m.layer(x).detach(), "a step": lambda m, x: (x > 0).double(),
        "a tuple": lambda m, x: (x, x), "None": lambda m, x: None, "text": lambda m, x: "x",
        "one number": lambda m, x: x.sum(), "a row less": lambda m, x: x[:-1],
        "complex": lambda m, x: x + 0j, "NumPy": lambda m, x: torch.tensor(x.numpy()),
        "batch statistics": lambda m, x: x - x.mean(dim=0), "item": lambda m, x: x * x.sum().item(),
        "another shape": lambda m, x: x @ torch.zeros(4, 2).double(),
        "float32 weights": lambda m, x: nn.Linear(5, 3)(x),
        "KeyError": fails(KeyError("gone")), "RuntimeError": fails(RuntimeError("a\nb\nc")),
        "StopIteration": fails(StopIteration()), "MemoryError": fails(MemoryError()),
        "OSError": fails(OSError("no file")), "recursion": lambda m, x: m(x),
        "integers": lambda m, x: x.long(), "sparse": lambda m, x: m.layer(x).to_sparse(),
        "assertion": fails(AssertionError("no")), "warning": fails(UserWarning("no")),
    }.items():  # fmt: skip
        yield what, lambda f=function: measure(_Calls(f), x), False
    for what, features in {
        "text": "x", "text values": np.array([["a"]]), "complex": np.ones((7, 5), complex),
        "a vector": np.ones(7), "no features": np.ones((7, 0)), "two stimuli": np.ones((2, 5)),
        "NaN": np.full((7, 5), np.nan), "None": None, "ragged": [[1, 2], [3]],
        "infinity": np.full((7, 5), np.inf), "other widths": np.ones((7, 4)),
    }.items():  # fmt: skip
        yield f"features: {what}", lambda f=features: measure(tanh, f), False
    for settings in (
        {"device": "gpu"}, {"device": "cuda:99"}, {"voxels": [0, 3]}, {"voxels": [-4]},
        {"voxels": []}, {"max_memory_gb": 0}, {"max_memory_gb": -1},
    ):  # fmt: skip
        yield f"{settings}", lambda s=settings: measure(tanh, x, **s), False


LINES = (
    ("train.py", "seed=0 -m trainer.patience=0"),
    ("train.py", "-m seed=0,1 trainer.patience=0"),
    ("train.py", "seed=0 --multirun optimizer.lr=fast"),
    ("train.py", "optimizer.lr=fast"),
    ("train.py", "optimizer.weight_decay=[1]"),
    ("train.py", "name='a b,c"),
    ("train.py", "name=it's"),
    ("train.py", "name=a:b:c,"),
    ("train.py", "--config-dir=/no/such/folder seed=0"),
    ("train.py", "--config-dir /no/such/folder -m seed=0"),
    ("train.py", "--confg job"),
    ("train.py", "seed"),
    ("train.py", "output=/proc/x"),
    ("train.py", "output=/dev/null/x"),
    ("train.py", "encoder=transformer"),
    ("train.py", "+encoder.depth=3"),
    ("train.py", "~encoder"),
    ("train.py", "data=nsd"),
    ("train.py", "features=clip_vit_b32"),
    ("train.py", "features=timm data=synthetic"),
    ("train.py", "hydra.run.dir=."),
    ("train.py", "hydra.run.dir=/proc"),
    ("train.py", "-m hydra/launcher=slrum seed=0"),
    ("evaluate.py", "runs=[/no/such/folder]"),
    ("evaluate.py", "runs=newest"),
    ("evaluate.py", "output=/proc/x"),
    ("simulate.py", "simulation=nothing"),
    ("simulate.py", "output=/proc/x"),
)


def lines(home: Path, rng: random.Random) -> Iterator[Case]:
    def line(name: str, words: str) -> None:
        own = [] if "output=" in words else [f"output={home / 'lines'}"]
        command = [sys.executable, name, *words.split(" "), *own]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        _said(done.returncode, done.stdout + done.stderr)

    for name, words in LINES:
        yield f"{name} {words}", lambda n=name, w=words: line(n, w), False


def _said(code: int, printed: str) -> None:
    """Raise Refused with the last line of a process that ended with it."""
    if "Traceback" in printed or "usage:" in printed:
        raise RuntimeError(printed[-1000:])
    if code:
        raise Refused(printed.splitlines()[-1])


def signals(home: Path, rng: random.Random) -> Iterator[Case]:
    run = train(home, "trainer.max_epochs=1")
    settings = {
        "train.py": [*TINY_COHORT, *TINY, "trainer.max_epochs=20000", "trainer.patience=20000"],
        "evaluate.py": [f"runs=[{run}]", "voxels=all", "stats.n_bootstrap=100000"],
        "simulate.py": ["simulation=depth"],
    }

    def interrupted(name: str, number: int, after: float) -> None:
        command = [sys.executable, name, f"output={home / 'signals'}", *settings[name]]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        time.sleep(after)
        process.send_signal(number)
        printed = process.communicate(timeout=120)[0].decode()
        if process.returncode not in (0, 128 + number):
            raise RuntimeError(printed[-1000:])
        _said(process.returncode, printed)

    for k in range(30):
        number, name = (signal.SIGTERM, signal.SIGINT)[k % 2], list(settings)[k % 3]
        after = rng.uniform(1.5, 9)
        yield (
            f"{name} {number.name} after {after:.1f} s",
            lambda s=name, n=number, a=after: interrupted(s, n, a),
            True,
        )


def disks(home: Path, rng: random.Random) -> Iterator[Case]:
    def limited(kilobytes: int) -> None:
        folder = Path(tempfile.mkdtemp(dir=home))
        command = [sys.executable, "train.py", f"output={folder}", *TINY_COHORT, *TINY,
                   "data.n_features=1500"]  # fmt: skip
        limit = (kilobytes * 1000,) * 2
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        )  # fmt: skip
        assert not list(folder.rglob("*.tmp")), "a file is half written"
        for status in folder.glob("runs/*/status.json"):
            assert "RUNNING" not in status.read_text(), "the run is RUNNING for ever"
        _said(done.returncode, done.stdout + done.stderr)

    for _ in range(13):
        kilobytes = round(10 ** rng.uniform(0.5, 3.2))
        yield f"files of at most {kilobytes} kB", lambda k=kilobytes: limited(k), True


def stores(home: Path, rng: random.Random) -> Iterator[Case]:
    (home / "file").write_text("in the way")
    (home / "text.db").write_text("hello, not a database" * 100)
    (home / "empty.db").write_text("")
    places = (
        "mlruns", "./mlruns", "file:./mlruns", "ftp://host", "sqlite:///", "http://[",
        f"sqlite:///{home}/file/mlflow.db", f"sqlite:///{home}/text.db", "sqlite:/x.db",
        f"sqlite:///{home}", "postgresql://x@127.0.0.1:1/x", "mysql://x@127.0.0.1:1/x",
        "http://127.0.0.1:9", "databricks", "s3://bucket/x",
    )  # fmt: skip
    for uri in places:
        yield (
            f"tracking.uri={uri.replace(str(home), '...')}",
            lambda u=uri: train(home, f"tracking.uri='{u}'"),
            False,
        )


def numerics(home: Path, rng: random.Random) -> Iterator[Case]:
    """Wrong numbers count as silent."""

    def compare(module: nn.Module, n: int, d: int, variant: str) -> None:
        module = module.double().eval()
        x = torch.randn(n, d, dtype=torch.double)
        found = jacobian_deviation(module, x, variant=variant)
        one = torch.autograd.functional.jacobian
        jacobians = torch.stack([one(lambda r: module(r[None])[0], row) for row in x])
        if variant.startswith("zscore"):
            jacobians = jacobians - jacobians.mean(dim=2, keepdim=True)
            spread = jacobians.std(dim=2, keepdim=True, unbiased=False)
            jacobians = jacobians / torch.where(spread > 0, spread, 1)
        centred = jacobians - jacobians.mean(dim=0)
        order = 2 if variant.endswith("l2") else 1
        expected = torch.linalg.vector_norm(centred, ord=order, dim=2)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
        raise Refused("as autograd")

    class Attention(nn.Module):
        def __init__(self, d: int, v: int) -> None:
            super().__init__()
            self.inner, self.out = (
                nn.MultiheadAttention(4, 2, batch_first=True),
                nn.Linear(4 * d, v),
            )
            self.up = nn.Linear(1, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.up(x[:, :, None])
            return self.out(self.inner(tokens, tokens, tokens, need_weights=False)[0].flatten(1))

    def foreign(kind: str, d: int, v: int) -> nn.Module:
        return {
            "dropout": nn.Sequential(nn.Linear(d, 7), nn.Dropout(), nn.Tanh(), nn.Linear(7, v)),
            "layer norm": nn.Sequential(nn.LayerNorm(d), nn.Linear(d, v)),
            "batch norm": nn.Sequential(nn.Linear(d, 7), nn.BatchNorm1d(7), nn.Linear(7, v)),
            "in place": nn.Sequential(nn.Linear(d, 7), nn.ReLU(inplace=True), nn.Linear(7, v)),
            "attention": Attention(d, v),
            "softmax": nn.Sequential(nn.Linear(d, v), nn.Softmax(dim=1)),
        }[kind]  # fmt: skip

    variants = ("l1", "l2", "zscore_l1", "zscore_l2")
    for k in range(60):
        n, d, v, h = (rng.randint(2, 9) for _ in range(4))
        settings = {"n_hidden": rng.randint(1, 5), "bias": rng.random() < 0.5}
        settings["activation"] = rng.choice(("relu", "leaky_relu", "gelu", "swish", "tanh"))
        settings["placement"] = rng.choice(("loc1", "both", "none"))
        settings["skip_first"] = rng.random() < 0.3
        width = d if settings["skip_first"] else h
        encoder = ResidualEncoder(d, v, hidden_width=width, **settings)
        variant = rng.choice(variants)
        yield (
            f"residual {k}: {settings} {variant}",
            (lambda e=encoder, n=n, d=d, w=variant: compare(e, n, d, w)),
            False,
        )
    for kind in ("dropout", "layer norm", "batch norm", "in place", "attention", "softmax"):
        for variant in variants:
            n, d, v = rng.randint(2, 6), rng.randint(2, 6), rng.randint(1, 6)
            module = foreign(kind, d, v)
            yield (
                f"{kind} {variant}",
                (lambda m=module, n=n, d=d, w=variant: compare(m, n, d, w)),
                False,
            )


KINDS = (
    configs, arrays, tables, images, weights, *strangers.KINDS, rows, pairing, modules, lines,
    signals, disks, stores, numerics,
)  # fmt: skip
BAD = ("traceback", "silent", "code run", "busy")


def outcome(attempt: Callable[[], object], may_pass: bool, trace: Path) -> tuple[str, str]:
    try:
        attempt()
        result = ("accepted" if may_pass else "silent", "")
    except (Refused, InputError) as refused:
        text = str(refused)
        one = "\n" not in text and "Traceback" not in text and 0 < len(text) < 1000
        result = ("one sentence" if one else "traceback", text)
    except AssertionError as wrong:
        result = ("silent", str(wrong))
    except (Sprung, Busy) as caught:
        result = ("busy" if isinstance(caught, Busy) else "code run", str(caught))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        result = ("traceback", f"{type(error).__name__}: {error}")
    if trace.exists() or "evil" in sys.modules:
        shutil.rmtree(trace, ignore_errors=True)
        sys.modules.pop("evil", None)
        result = ("code run", result[1])
    return result


def main(chosen: list[str], seed: int) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.chdir(ROOT)
    register_resolvers()
    totals: Counter[str] = Counter()
    for kind in KINDS:
        if chosen and kind.__name__ not in chosen:
            continue
        home = Path(tempfile.mkdtemp(prefix="jne-fuzz-"))
        counts: Counter[str] = Counter()
        for what, attempt, may_pass in kind(home, random.Random(seed)):
            result, text = outcome(attempt, may_pass, home / "trace")
            counts[result] += 1
            if result in BAD:
                print(f"    {result}: {what}: {' '.join(text.split())[:160]}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        totals += counts
        print(f"{kind.__name__:<10} {_line(counts)}", flush=True)
    print(f"{'all':<10} {_line(totals)}")
    sys.exit(any(totals[bad] for bad in BAD))


def _line(counts: Counter[str]) -> str:
    names = ("one sentence", "accepted", *BAD)
    return f"{sum(counts.values())} tried: " + ", ".join(f"{counts[name]} {name}" for name in names)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    numbers = [int(a) for a in arguments if a.isdigit()]
    main([a for a in arguments if not a.isdigit()], numbers[0] if numbers else 0)

"""Bad input of every kind, as a user or a stranger would give it: what does the program say?

python benchmarks/fuzz.py            # all, about ten minutes on two cores
python benchmarks/fuzz.py folders 3  # one kind, with seed 3

For each input it counts one outcome: one sentence (one line of `error:`, or InputError), accepted
(and it may be), traceback, silent (accepted, but it ought to be refused), or code run (a trap in
the input was sprung). It prints the inputs of the last three outcomes. The kinds:

configs    impossible values, wrong types and unknown keys of every key of train, evaluate, simulate
arrays     features and responses: shapes, dtypes, NaN, cut files, pickles
tables     voxel and stimulus tables of data=arrays
images     images and their containers
weights    checkpoints and feature weights
folders    results folders, each file of them damaged, and bytes changed at random
code       settings and pickles that try to run something
signals    Ctrl-C and SIGTERM at random moments of a run
stores     MLflow stores that are none, damaged or out of reach
numerics   jacobian_deviation against autograd, over random modules and shapes
"""

import io
import logging
import os
import random
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

from attacks import Pickled, encoder_configs, lay_traps, pickles, read_all, write_encoder_config
from damage import FILES, damages
from finished_run import write_run
from helpers import TINY, TINY_COHORT, run_quietly

from jne import ResidualEncoder, jacobian_deviation
from jne.cli import register_resolvers
from jne.errors import InputError

Case = tuple[str, Callable[[], object], bool]
"""What it is, what tries it, and whether it may be accepted."""


class Refused(Exception):
    """The program ended with one line."""


def script(home: Path, name: str, *overrides: str) -> None:
    """A script in this process. Raises Refused with its line, or whatever it raises."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            run_quietly(home, f"sqlite:///{home / 'mlflow.db'}", name, *overrides)
    except SystemExit as end:
        raise Refused(str(end.code)) from end


def train(home: Path, *overrides: str) -> None:
    cohort = () if any("data=" in o for o in overrides) else TINY_COHORT
    script(home, "train.py", *cohort, *TINY, *overrides)


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
        "data.noise_ceiling", "data.seed", "tracking.uri", "tracking.on_unreachable",
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
    ("tracking.uri", "''"), ("jacobian.trajectory", "null"),
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


def _arrays(home: Path, x: object, y: object, name: str = "npy", *more: str) -> None:
    folder = Path(tempfile.mkdtemp(dir=home))
    for file, content in (("x", x), ("y", y)):
        if isinstance(content, bytes):
            (folder / f"{file}.{name}").write_bytes(content)
        elif content is not None:
            np.save(folder / f"{file}.npy", content, allow_pickle=True)
    train(home, "data=arrays", f"data.root={folder}", f"data.features=x.{name}",
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


def folders(home: Path, rng: random.Random) -> Iterator[Case]:
    good = write_run(home / "good").path

    def damaged(damage: Callable[[Path], object]) -> None:
        folder = home / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        damage(folder)
        read_all(folder)

    for what, damage, _ in damages():
        yield what, lambda d=damage: damaged(d), False
    for number in range(150):
        name = rng.choice(FILES)
        size = (good / name).stat().st_size
        places = [
            (rng.randrange(min(size, 2000)), rng.randrange(256))
            for _ in range(rng.choice((1, 4, 40)))
        ]

        def flip(folder: Path, name: str = name, places: list = places) -> None:
            content = bytearray((folder / name).read_bytes())
            for place, value in places:
                content[place] = value
            (folder / name).write_bytes(bytes(content))

        # A changed digit is another number, which nothing but a checksum could tell.
        yield f"{len(places)} bytes of {name} ({number})", lambda f=flip: damaged(f), True


def code(home: Path, rng: random.Random) -> Iterator[Case]:
    good = write_run(home / "good").path
    traps, trace = home / "traps", home / "trace"
    traps.mkdir()
    lay_traps(traps, trace)
    sys.path.insert(0, str(traps))

    def read(change: Callable[[Path], object]) -> None:
        folder = home / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        change(folder)
        read_all(folder)

    for what, settings in encoder_configs(traps, trace):
        yield (
            f"an encoder: {what}",
            (lambda s=settings: read(lambda f: write_encoder_config(f, s))),
            False,
        )
    for what, file, write in pickles(trace):
        yield f"a pickle: {what}", lambda n=file, w=write: read(lambda f: w(f / n)), False


def signals(home: Path, rng: random.Random) -> Iterator[Case]:
    def interrupted(number: int, after: float) -> None:
        command = [sys.executable, "train.py", f"output={home / 'signals'}", *TINY_COHORT, *TINY,
                   "trainer.max_epochs=2000", "trainer.patience=2000"]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        time.sleep(after)
        process.send_signal(number)
        printed = process.communicate(timeout=120)[0].decode()
        if process.returncode == 0:
            return
        if "Traceback" in printed and number != signal.SIGINT:
            raise RuntimeError(printed)
        raise Refused("ended by a signal")

    for k in range(8):
        number = (signal.SIGTERM, signal.SIGINT)[k % 2]
        after = rng.uniform(8, 14)
        yield (
            f"{number.name} after {after:.1f} s",
            lambda n=number, a=after: interrupted(n, a),
            True,
        )


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


KINDS = (configs, arrays, tables, images, weights, folders, code, signals, stores, numerics)


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
            if result in ("traceback", "silent", "code run"):
                print(f"    {result}: {what}: {' '.join(text.split())[:160]}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        totals += counts
        print(f"{kind.__name__:<10} {_line(counts)}", flush=True)
    print(f"{'all':<10} {_line(totals)}")
    sys.exit(bool(totals["traceback"] + totals["silent"] + totals["code run"]))


def _line(counts: Counter[str]) -> str:
    names = ("one sentence", "accepted", "traceback", "silent", "code run")
    return f"{sum(counts.values())} tried: " + ", ".join(f"{counts[name]} {name}" for name in names)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    numbers = [int(a) for a in arguments if a.isdigit()]
    main([a for a in arguments if not a.isdigit()], numbers[0] if numbers else 0)

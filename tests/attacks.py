"""What a stranger's files try: to run something, to pass on files of the machine, or a password.

A generator yields what is tried, and how: a function of the folder or the file that it changes.
What runs would make the folder `trace`.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from damage import FILES

from jne.results import Results

Change = Callable[[Path], object]

EVIL = "import os\nos.makedirs({trace!r}, exist_ok=True)\n"
HUB = "import os\ndef load(**_):\n    os.makedirs({trace!r}, exist_ok=True)\n"


class Pickled:
    """Makes the folder `trace` when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,)


def lay_traps(folder: Path, trace: Path) -> None:
    """A module `evil` and a torch hub repository in `folder`, which is on sys.path."""
    (folder / "evil.py").write_text(EVIL.format(trace=str(trace)) + "class Encoder: pass\n")
    (folder / "hubconf.py").write_text(HUB.format(trace=str(trace)))


def encoder_configs(traps: Path, trace: Path) -> Iterator[tuple[str, Any]]:
    """Configs that an encoder.pt may hold, by what they try."""
    hub = {"repo_or_dir": str(traps), "model": "load", "source": "local", "trust_repo": True}
    for target in (
        "torch.hub.load",
        "torch.nn.modules.module.torch.hub.load",
        "torch.optim.optimizer.torch.hub.load",
        "torch.nn.Module.torch.hub.load",
    ):
        yield target, {"_target_": target, **hub}
    residual = {"_target_": "jne.encoders.ResidualEncoder", "hidden_width": 8}
    nested = {"_target_": "torch.hub.load", **hub}
    yield "nested in the activation", residual | {"activation": nested}
    yield "nested in a list", residual | {"placement": [1, [nested]]}
    yield "nested in the arguments", residual | {"_args_": [nested]}
    yield "nested in a dict", residual | {"more": {"and": {"more": nested}}}
    for target in (
        "jne.utils.instantiate.instantiate",
        "jne.encoders.instantiate",
        "hydra.utils.instantiate",
        "hydra.utils.call",
        "jne.encoders.build_encoder",
    ):
        yield target, {"_target_": target, "settings": nested, "config": nested, "section": "x"}
    yield (
        "a Lightning module",
        {
            "_target_": "jne.fitting.module.EncodingModule",
            "encoder": nested,
        },
    )
    command = f"__import__('os').mkdir({str(trace)!r})"
    for target in ("builtins.eval", "builtins.exec"):
        yield target, {"_target_": target, "_args_": [command]}
    for target in (
        "os.mkdir", "os.makedirs", "posix.mkdir", "jne.results.folder.make_folder",
        "jne.utils.files.make_folder", "torch.nn.parallel.os.mkdir", "pathlib.Path.mkdir",
    ):  # fmt: skip
        yield target, {"_target_": target, "_args_": [str(trace)]}
    for target in ("os.system", "os.popen", "subprocess.run", "subprocess.Popen"):
        yield target, {"_target_": target, "_args_": [f"mkdir {trace}"], "shell": True}
    for target in ("runpy.run_path", "torch.utils.cpp_extension.load", "torch.jit.load"):
        yield target, {"_target_": target, "_args_": [str(traps / "evil.py")]}
    for target in ("importlib.import_module", "hydra.utils.get_object", "pydoc.locate"):
        yield target, {"_target_": target, "_args_": ["evil"]}
    yield "a class in the working directory", {"_target_": "evil.Encoder"}
    yield "a file that logging would write", {
        "_target_": "logging.FileHandler", "filename": str(trace),
    }  # fmt: skip
    yield (
        "a run's folder",
        {
            "_target_": "jne.results.folder.RunFolder",
            "path": str(trace),
            "config": {},
            "identity": "",
        },
    )
    odd: list[Any] = ["", "torch.nn.", "jne.encoders.", "jne.encoders..x", "torch.nn.Linear.x", 7]
    odd += [None, ["os.mkdir"], "torch.nn.functional.relu", "torch.optim.lr_scheduler.StepLR"]
    for target in odd:
        yield f"the target {target!r}", {"_target_": target, "_args_": [str(trace)]}
    yield "an interpolation", residual | {"activation": "${oc.env:HOME}"}
    yield "no target", {"hidden_width": 8}


def pickles(trace: Path) -> Iterator[tuple[str, str, Callable[[Path], None]]]:
    """Name, file in a results folder, and how it is written with something pickled in it."""

    def array(path: Path) -> None:
        np.save(path, np.array([[Pickled(trace)]], dtype=object), allow_pickle=True)

    def tensors(path: Path) -> None:
        torch.save({"config": Pickled(trace), "weights": {}}, path)

    for name in ("features", "responses", "predictions", "deviation", "jne_ss"):
        yield f"{name}.npy", f"{name}.npy", array
    yield "encoder.pt", "encoder.pt", tensors
    tag = f"!!python/object/apply:os.mkdir [{str(trace)!r}]"
    for what, content in (("a tag", tag), ("a tagged key", f"subject: {tag}")):
        yield (
            f"config.yaml with {what}",
            "config.yaml",
            lambda p, c=content: p.write_text(c) and None,
        )


def write_config(folder: Path, section: str, settings: Any) -> None:
    """Put `settings` into config.yaml as `section`."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | {section: settings}))


def write_encoder_config(folder: Path, settings: Any) -> None:
    """Put `settings` into encoder.pt."""
    saved = torch.load(folder / "encoder.pt", weights_only=True)
    torch.save(saved | {"config": settings}, folder / "encoder.pt")


def read_all(folder: Path) -> None:
    """Everything that evaluate.py reads of a folder."""
    run = Results(folder)
    for name in ("features", "responses", "predictions", "deviation", "jne_ss"):
        run.array(name)
    run.encoder()
    json.dumps(run.status)


# --- files of the machine -------------------------------------------------------------------------

OPTIONAL = ("trajectory.csv", "space.json", "images.json", "data.json")


def links(secret: Path) -> Iterator[tuple[str, str, Change]]:
    """What, the file of a results folder, and the change: a link to `secret`, outside of it."""

    def link(name: str, target: Path, to_folder: bool = False) -> Change:
        def change(folder: Path) -> None:
            (folder / name).unlink(missing_ok=True)
            if to_folder:
                (folder / "inner").symlink_to(target.parent)
                target_ = Path("inner", target.name)
            else:
                target_ = target
            (folder / name).symlink_to(target_)

        return change

    for name in (*FILES, *OPTIONAL):
        yield f"{name} is a link to a file", name, link(name, secret)
    yield "voxels.csv below a link", "voxels.csv", link("voxels.csv", secret, to_folder=True)
    relative = Path("..") / secret.parent.name / secret.name
    yield "status.json is a relative link", "status.json", link("status.json", relative)


def journals(secret: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What, and the entries of unrecorded.json by which a folder tries to pass on `secret`.

    The folder has links: `inner` to the folder of `secret`, `link` to itself.
    """
    for file in (
        "../outside/secret.txt", str(secret), "figures/../../outside/secret.txt", "link",
        "inner/secret.txt", "inner", ".", "figures", "..", "", "figures/inner", "figures/link",
    ):  # fmt: skip
        yield f"the file {file!r}", {"files": [[file, None]]}
    yield "a pipe", {"files": [["pipe", None]]}
    yield "a file that is not there", {"files": [["nothing", None]]}
    for key, value in (
        ("files", [3]), ("files", ["x"]), ("files", [[1, 2, 3]]), ("tags", {"a": {}}), ("tags", []),
        ("params", {"a": [1]}), ("metrics", [["a", "x", 0, 0]]), ("metrics", [[]]),
        ("status", "UP"), ("inputs", [{"name": "x"}]), ("inputs", [3]), ("model", "yes please"),
        ("run_id", 5), ("store", {"uri": "x", "experiment": "y", "artifacts": []}),
        ("name", None), ("metrics", [["a", 1, 10**18 * 9, 0]]), ("metrics", [["a", 1, 0, -1]]),
        ("name", "\ud800"), ("params", {"\ud800": "x"}), ("tags", {"a": float("nan")}),
    ):  # fmt: skip
        yield f"{key} is {value!r}", {key: value}


def foreign_configs(traps: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What, and keys of the section `data` of config.yaml that try to be made or resolved."""
    hub = {"_target_": "torch.hub.load", "repo_or_dir": str(traps), "model": "load"}
    nested = hub | {"source": "local", "trust_repo": True}
    for key in ("space", "zscore"):
        yield f"{key} is made", {key: nested}
        yield f"{key} is made, in a list", {key: [nested]}
        yield f"{key} reads the environment", {key: "${oc.env:JNE_TEST_SECRET}"}
        yield f"{key} refers to the config", {key: "${subject}"}
        yield f"{key} is a number", {key: 7}
    yield "space is a path", {"space": "../../elsewhere"}


# --- passwords ------------------------------------------------------------------------------------

PASSWORD = "s3cr3t-Pa55"


def addresses(place: str) -> Iterator[tuple[str, str]]:
    """An address of a store with a password, and the same without it. place: HOST:PORT/PATH."""
    for scheme in ("http", "https", "postgresql", "postgresql+psycopg", "mysql+pymysql"):
        yield f"{scheme}://joe:{PASSWORD}@{place}", f"{scheme}://{place}"
    yield f"http://:{PASSWORD}@{place}", f"http://{place}"
    yield f"http://joe:{PASSWORD}%40x@{place}", f"http://{place}"
    yield f"postgresql://joe:a/{PASSWORD}@{place}", f"postgresql://{place}"
    yield f"postgresql://joe:a@{PASSWORD}@{place}", f"postgresql://{place}"
    yield f"postgresql://{place}?user=joe&password={PASSWORD}", f"postgresql://{place}"
    yield f"postgresql://{PASSWORD}@{place}", f"postgresql://{place}"  # a user is hidden, too

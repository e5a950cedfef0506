"""The kinds of `fuzz.py` that come from a stranger: a results folder, a journal, a file of data.

Each is a generator of cases: what it is, what tries it, and whether it may be accepted. What a case
gives away, or what keeps it busy for more than two seconds, it raises as `Sprung` or `Busy`.
"""

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attacks
import bombs
import h5py
import numpy as np
from cases import Busy, Case, Refused, Sprung
from damage import FILES, damages
from finished_run import evaluate_config, write_run

from jne.config import TrackingConfig
from jne.credentials import hide_credentials, without_credentials
from jne.errors import InputError
from jne.evaluation.external_test import external_test
from jne.results import Results
from jne.tracking import record
from jne.utils.arrays import read_array

SECRET = "the secret of this machine"
_SECONDS = 2.0


def folders(home: Path, rng: random.Random) -> Iterator[Case]:
    good = write_run(home / "good").path
    for what, damage, _ in damages():
        yield what, lambda d=damage: _read_changed(home, d), False
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
        yield (
            f"{len(places)} bytes of {name} ({number})",
            lambda f=flip: _read_changed(home, f),
            True,
        )


def code(home: Path, rng: random.Random) -> Iterator[Case]:
    write_run(home / "good")
    traps, trace = home / "traps", home / "trace"
    traps.mkdir()
    attacks.lay_traps(traps, trace)
    sys.path.insert(0, str(traps))
    for what, settings in attacks.encoder_configs(traps, trace):

        def write(folder: Path, settings: object = settings) -> None:
            attacks.write_encoder_config(folder, settings)

        yield f"an encoder: {what}", lambda w=write: _read_changed(home, w), False
    for what, file, write_file in attacks.pickles(trace):
        yield (
            f"a pickle: {what}",
            lambda n=file, w=write_file: _read_changed(home, lambda folder: w(folder / n)),
            False,
        )
    os.environ["JNE_TEST_SECRET"] = SECRET
    for what, keys in attacks.foreign_configs(traps):
        yield f"a config: {what}", lambda k=keys: _external_test(home, k), False


def _external_test(home: Path, keys: dict[str, object]) -> None:
    """What evaluate.py makes of the section `data` of a run's config.yaml."""
    folder = _copy(home)
    data = {"_target_": "jne.data.nsd.NSD", "name": "nsd", "space": "func1pt8mm", "zscore": "run"}
    config = evaluate_config(home, "test=nsd_synthetic", f"test.root={home}")
    for section, settings in (
        ("subject", "subj01"),
        ("features", dict(config.features)),
        ("data", data | keys),
    ):
        attacks.write_config(folder, section, settings)
    _keeping_secrets(lambda: external_test(Results(folder), config, lambda _: None))


def links(home: Path, rng: random.Random) -> Iterator[Case]:
    """Files of the machine: links in a results folder, entries of a journal."""
    good = write_run(home / "good").path
    secret = home / "outside" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text(f"subject,{SECRET}\n1,2\n")
    for what, _, change in attacks.links(secret):
        yield what, lambda c=change: _keeping_secrets(lambda: _read_changed(home, c)), False
    folder, artifacts = home / "journal", home / "artifacts"
    shutil.copytree(good, folder)
    (folder / "figures").mkdir()
    for place in (folder, folder / "figures"):
        (place / "inner").symlink_to(secret.parent)
        (place / "link").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    uri = f"sqlite:///{home / 'journals.db'}"
    store = {"uri": uri, "experiment": "journals", "artifacts": str(artifacts)}
    journal = {
        "store": store, "name": "x", "run_id": None, "tags": {}, "params": {}, "inputs": [],
        "metrics": [], "files": [], "model": False, "status": "FINISHED",
    }  # fmt: skip

    def send(entries: dict[str, object]) -> None:
        (folder / "unrecorded.json").write_text(json.dumps(journal | entries))
        try:
            _keeping_secrets(lambda: record(folder))
        finally:
            if artifacts.exists():
                raise Sprung("files were sent")

    for what, entries in attacks.journals(secret):
        yield f"a journal: {what}", lambda e=entries: send(e), False


def busy(home: Path, rng: random.Random) -> Iterator[Case]:
    """What would keep a reader busy, in a results folder and in a file of data."""
    write_run(home / "good")
    for what, _, change in bombs.bombs():
        yield what, lambda c=change: _soon(lambda: _read(home)) if _changed(home, c) else 0, False
    secret = home / "outside" / "secret.h5"
    secret.parent.mkdir()
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((5, 3))
    for number, (what, name, make) in enumerate(bombs.arrays(secret)):
        folder = home / f"data {number}"
        folder.mkdir()
        make(folder / name)
        path = folder / name
        yield what, lambda p=path: _soon(lambda: read_array(p, None, "key", "key_key")), False


def secrets(home: Path, rng: random.Random) -> Iterator[Case]:
    """Passwords in the address of a store."""
    settings = {
        "uri": None, "experiment": "jne", "on_unreachable": "continue", "nested": False,
    }  # fmt: skip

    def bare(uri: str, expected: str) -> None:
        for found in (
            without_credentials(uri),
            TrackingConfig.model_validate(settings | {"uri": uri}).uri,
        ):
            if found != expected:
                raise Sprung(found)
        raise Refused("as expected")

    def hidden(text: str) -> None:
        if attacks.PASSWORD in hide_credentials(text):
            raise Sprung(text)
        raise Refused("as expected")

    before = dict(os.environ)
    for uri, expected in attacks.addresses("host:5432/db"):
        yield uri, lambda u=uri, e=expected: bare(u, e), False
        for text in (f"cannot open {uri} (no)", f"'{uri}'", f"a={uri}, b", f"{uri}\n{uri}"):
            yield text, lambda t=text: hidden(t), False
    os.environ.clear()
    os.environ.update(before)


# --- how they are tried ---------------------------------------------------------------------------


def _copy(home: Path) -> Path:
    folder = home / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(home / "good", folder)
    return folder


def _changed(home: Path, change: Callable[[Path], object]) -> bool:
    change(_copy(home))
    return True


def _read(home: Path) -> None:
    attacks.read_all(home / "run")


def _read_changed(home: Path, change: Callable[[Path], object]) -> None:
    change(_copy(home))
    _read(home)


def _soon(attempt: Callable[[], object]) -> None:
    start = time.process_time()
    try:
        with bombs.within(60):
            attempt()
    finally:
        seconds = time.process_time() - start
        if seconds > _SECONDS:
            raise Busy(f"{seconds:.1f} s")


def _keeping_secrets(attempt: Callable[[], object]) -> None:
    try:
        with bombs.within(60):
            attempt()
    except InputError as refused:
        if SECRET in str(refused):
            raise Sprung(str(refused)) from refused
        raise


KINDS = (folders, code, links, busy, secrets)

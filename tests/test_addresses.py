"""Addresses of sqlite files: there and back, as SQLAlchemy reads them."""

import random
import shlex
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sqlalchemy import make_url

from jne.addresses import sqlite_address, sqlite_file
from jne.tracking import open_store, ui_hint

NAMES = ("My%20Data", "a?b", "c#d", "e%", "f g", "é&=+", "x;y", "%3F", "q?r=s%41", "sqlite:///")


def odd_names(n: int) -> list[str]:
    draw = random.Random(0)
    characters = "aé %?#&=+;:@'\"()[]~\\"
    return ["".join(draw.choices(characters, k=draw.randint(1, 8))) + "x" for _ in range(n)]


@pytest.mark.parametrize("name", [*NAMES, *odd_names(200)])
def test_the_address_leads_to_the_file(name):
    file = Path("/tmp", name, "mlflow.db").absolute()
    address = sqlite_address(file)
    assert sqlite_file(address) == file
    assert make_url(address).database == str(file)
    assert make_url(address).get_backend_name() == "sqlite"
    assert not make_url(address).query


def test_plain_names_have_the_addresses_that_they_had():
    assert sqlite_address(Path("/data/out puts/mlflow.db")) == "sqlite:////data/out puts/mlflow.db"


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("sqlite:////x/My%20Data/m.db", "/x/My Data/m.db"),
        ("sqlite:///m.db", "m.db"),
        ("sqlite:////x/m.db?timeout=3", "/x/m.db"),
        ("sqlite+pysqlite:////x/a%3Fb", "/x/a?b"),
        ("http://x/y", None),
        ("postgresql://x/y", None),
        ("sqlite:/x.db", None),
    ],
)
def test_addresses_that_users_write(address, file):
    assert sqlite_file(address) == (None if file is None else Path(file))


@pytest.mark.parametrize("name", ["My%20Data", "a?b#c"])
def test_a_store_in_a_folder_with_an_odd_name(tmp_path, store, name):
    """Nothing is written beside it, artifacts are found, and it may be moved to another such."""
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(sqlite_file(store), folder / "mlflow.db")
    address = sqlite_address(folder / "mlflow.db")
    client, experiment_id = open_store(address, "odd", folder / "mlartifacts")
    tags = {"results": str(folder / "runs" / "first")}
    run_id = client.create_run(experiment_id, tags=tags).info.run_id
    client.log_text(run_id, "text", "a%20b.txt")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    moved = folder.rename(tmp_path / "x%3Fy?z")
    address = sqlite_address(moved / "mlflow.db")
    open_store(address, "odd", moved / "mlartifacts")
    client = MlflowClient(address)
    run = client.get_run(run_id)
    assert run.data.tags["results"] == str(moved / "runs" / "first")
    assert run.info.artifact_uri.startswith((moved / "mlartifacts").as_uri())
    assert [file.path for file in client.list_artifacts(run_id)] == ["a%20b.txt"]
    assert [path.name for path in tmp_path.iterdir()] == [moved.name]
    command, _ = ui_hint(address, experiment_id)
    assert shlex.split(command) == ["jne", "ui", address]

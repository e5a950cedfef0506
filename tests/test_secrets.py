"""A password in the address of a store is used, and never printed, logged or recorded."""

import base64
import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from attacks import PASSWORD, addresses
from finished_run import write_run
from helpers import ROOT, TINY, TINY_COHORT, no_figures, only_run, run_quietly, status
from hydra.core.global_hydra import GlobalHydra
from mlflow import MlflowClient

from jne.config import TrackingConfig
from jne.credentials import hide_credentials, with_credentials, without_credentials
from jne.errors import InputError
from jne.tracking import __main__ as commands
from jne.tracking import record

LOGIN = f"Basic {base64.b64encode(f'joe:{PASSWORD}'.encode()).decode()}"
VARIABLES = {
    "http": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    "postgresql": ("PGUSER", "PGPASSWORD"),
}
SETTINGS = {
    "uri": None, "experiment": "jne", "on_unreachable": "continue", "nested": False,
}  # fmt: skip
SHORT = ("jacobian.voxels=[]", "baseline=[]", "stats.n_bootstrap=1")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What a test adds to the environment is gone after it, and the hook for tracebacks."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


class Server(ThreadingHTTPServer):
    """Keeps what it is asked with, and passes it on to the port `to`, or refuses it."""

    to: int | None = None

    def __init__(self) -> None:
        self.seen: list[str | None] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"http://joe:{PASSWORD}@127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        login = self.headers.get("Authorization")
        if self.path != "/health":  # whether it answers at all is asked without a name
            self.server.seen.append(login)
        code, content, kind = 401, b'{"error_code": "UNAUTHENTICATED"}', "application/json"
        if self.server.to is not None and login == LOGIN:
            kept = {n: v for n, v in self.headers.items() if n in ("Content-Type", "Accept")}
            url = f"http://127.0.0.1:{self.server.to}{self.path}"
            request = Request(url, body or None, kept, method=self.command)
            try:
                with urlopen(request) as answer:
                    code, content = answer.status, answer.read()
                    kind = answer.headers.get("Content-Type", kind)
            except HTTPError as error:
                code, content = error.code, error.read()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    with Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def assert_not_in(folder: Path, *texts: str) -> None:
    secrets = [PASSWORD, LOGIN.removeprefix("Basic ")]
    for secret in secrets:
        assert not any(secret in text for text in texts)
        holders = [path for path in folder.rglob("*") if path.is_file()]
        assert not [path for path in holders if secret.encode() in path.read_bytes()]


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("uri", "bare"), list(addresses("host:5432/db")))
def test_an_address_has_no_password_but_its_driver_does(uri, bare):
    assert without_credentials(uri) == bare
    assert TrackingConfig.model_validate(SETTINGS | {"uri": uri}).uri == bare
    for text in (f"cannot open {uri} (no)", f"'{uri}'", f"a={uri}", str(InputError("a", uri))):
        assert PASSWORD not in hide_credentials(text)
    if uri.startswith("mysql"):  # whose drivers look nowhere else
        assert with_credentials(bare) == uri
        return
    names = VARIABLES["http" if uri.startswith("http") else "postgresql"]
    assert PASSWORD in " ".join(os.environ.get(name, "") for name in names)
    assert with_credentials(bare) == bare
    assert with_credentials("http://elsewhere") == "http://elsewhere"
    assert not any(name in os.environ for name in names)  # they are for that store alone
    without_credentials(uri)
    without_credentials(f"mysql://joe:{PASSWORD}@elsewhere/db")
    assert not any(name in os.environ for name in names)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////data/a@b/mlflow.db", "http://host:5000/#/x@y", "https://medium.com/@user/x",
        "file:///home/me@work/x", "postgresql://host/db", "mail joe@host.org about http://host/x",
        "s3://bucket/a@b", "no address: a/b@c",
    ],
)  # fmt: skip
def test_other_texts_stay_as_they_are(text):
    assert hide_credentials(text) == without_credentials(text) == with_credentials(text) == text


@pytest.mark.runs
def test_only_the_store_itself_gets_what_the_environment_has(monkeypatch, server, tmp_path):
    """MLFLOW_TRACKING_URI of another server is not sent to the one that a journal names."""
    run = write_run(tmp_path / "run").path
    bare = without_credentials(server.address)
    with_credentials("http://elsewhere")
    journal = {"uri": bare, "experiment": "jne", "artifacts": str(tmp_path / "a")}
    content = {"store": journal, "name": "x", "run_id": None, "tags": {}, "params": {},
               "inputs": [], "metrics": [], "files": [], "model": False}  # fmt: skip
    (run / "unrecorded.json").write_text(json.dumps(content | {"status": "FINISHED"}))
    for uri, login in ((f"http://joe:{PASSWORD}@127.0.0.1:9", None), (server.address, LOGIN)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(InputError, match="cannot open the MLflow store"):
            record(run)
        assert set(server.seen) == {login}
        server.seen.clear()


# --- the programs --------------------------------------------------------------------------------


@pytest.mark.runs
def test_a_run_that_cannot_reach_its_store(server, tmp_path, capfd):
    overrides = (f"tracking.uri='{server.address}'", "tracking.on_unreachable=continue")
    with no_figures():
        (folder,) = run_quietly(tmp_path, "x", "train.py", *TINY_COHORT, *TINY, *SHORT, *overrides)
    printed = "".join(capfd.readouterr())
    assert f"jne record {folder}" in printed.replace("\n", "")
    assert_not_in(tmp_path, printed)
    assert set(server.seen) == {LOGIN}
    server.seen.clear()
    bare = f"http://127.0.0.1:{server.server_port}"
    assert yaml.safe_load((folder / "config.yaml").read_text())["tracking"]["uri"] == bare
    assert f"tracking.uri='{bare}'" in status(folder)["overrides"]
    with pytest.raises(InputError, match=rf"tracking.uri={bare}") as refused:
        record(folder)
    assert_not_in(tmp_path, str(refused.value))
    assert set(server.seen) == {LOGIN}


@pytest.mark.runs
@pytest.mark.parametrize("source", ["command line", "config file", "environment"])
def test_a_sweep_that_cannot_reach_its_store(server, tmp_path, capfd, monkeypatch, source):
    """Its jobs are refused, which takes no time; Hydra writes and prints their overrides."""
    home, mine = tmp_path / "outputs", tmp_path / "conf" / "tracking" / "mine.yaml"
    given = [f"output={home}", "tracking.on_unreachable=continue"]
    if source == "command line":
        given += [f"tracking.uri={server.address}"]
    elif source == "config file":
        mine.parent.mkdir(parents=True)
        mine.write_text(yaml.safe_dump(SETTINGS | {"uri": server.address, "log_model": False}))
        given = [f"--config-dir={mine.parents[1]}", "tracking=mine", *given]
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    path = Path(ROOT) / "train.py"
    monkeypatch.setattr("sys.argv", [str(path), "-m", *given, "data.n_test=-1,-2"])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit):
        runpy.run_path(str(path), run_name="__main__")
    assert (next(home.glob("sweeps/*")) / "multirun.yaml").exists()
    assert len(list(home.rglob("status.json"))) == 2
    assert_not_in(home, "".join(capfd.readouterr()))
    assert set(server.seen) == {LOGIN}


@pytest.mark.runs
@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "simulate.py"])
def test_a_store_that_refuses(server, tmp_path, capfd, script):
    with pytest.raises(SystemExit) as stopped:
        run_quietly(tmp_path, server.address, script)
    assert f"tracking.uri=http://127.0.0.1:{server.server_port}: cannot open" in str(stopped.value)
    assert_not_in(tmp_path, str(stopped.value), *capfd.readouterr())
    assert set(server.seen) == {LOGIN}


def test_a_shown_config(server, tmp_path, capfd, monkeypatch):
    """--cfg job --resolve prints what the environment has, too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    for uri in (server.address, "${oc.env:MLFLOW_TRACKING_URI}"):
        run_quietly(tmp_path, uri, "train.py", "--cfg=job", "--resolve")
        printed = "".join(capfd.readouterr())
        assert f"uri: http://127.0.0.1:{server.server_port}" in printed
        assert_not_in(tmp_path, printed)


@pytest.mark.runs
@pytest.mark.parametrize("override", ["tracking.uri={}(", "+tracking.uri='{}", "tracking.uri=[{}]",
                                      "tracking={{uri: '{}'}}", "tracking.uri={}:x"])  # fmt: skip
def test_an_address_that_cannot_be_read(server, tmp_path, capfd, override):
    with pytest.raises(SystemExit) as stopped:
        run_quietly(tmp_path, "x", "train.py", *TINY_COHORT, override.format(server.address))
    assert_not_in(tmp_path, str(stopped.value), *capfd.readouterr())


@pytest.mark.parametrize(("uri", "bare"), list(addresses("127.0.0.1:9/db")))
@pytest.mark.parametrize("command", ["close", "ui", "record"])
def test_the_commands_of_a_store(tmp_path, capfd, monkeypatch, command, uri, bare):
    """Nobody sees the arguments of the UI's process, either."""
    started = []
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    arguments = [str(tmp_path), "--uri", uri] if command == "record" else [uri]
    monkeypatch.setattr("sys.argv", ["jne", command, *arguments])
    if command == "ui":
        commands.main("jne")
        assert_not_in(tmp_path, str(started), *capfd.readouterr())
        assert os.environ["MLFLOW_BACKEND_STORE_URI"] == with_credentials(bare)
        return
    monkeypatch.setattr(commands, "MlflowClient", _Refuses)
    with pytest.raises(SystemExit) as stopped:
        commands.main("jne")
    assert_not_in(tmp_path, str(stopped.value), *capfd.readouterr())


class _Refuses:
    """A client that says where it could not connect."""

    def __init__(self, uri: str) -> None:
        raise OSError(f"cannot connect to {uri}")


@pytest.mark.runs
def test_errors_that_name_the_address(tmp_path, store, capfd, monkeypatch):
    """As of drivers that get it whole: in the record, in the log of a job, in tracebacks."""
    uri = f"mysql+pymysql://joe:{PASSWORD}@host/db"
    error = RuntimeError(f"(pymysql.err.OperationalError) {uri}\n[SQL: ...]")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("jne.data.synthetic.Synthetic.write", fail)
    with pytest.raises(SystemExit):
        run_quietly(tmp_path, store, "train.py", *TINY_COHORT, "-m", "seed=0,1")
    with pytest.raises(RuntimeError):
        run_quietly(tmp_path, store, "train.py", *TINY_COHORT)
    sys.excepthook(type(error), error, error.__traceback__)
    folders = [path.parent for path in tmp_path.rglob("error.txt")]
    assert len(folders) == 3
    client = MlflowClient(store)
    for folder in folders:
        assert "mysql+pymysql://host/db" in (folder / "error.txt").read_text()
        assert "mysql+pymysql://host/db" in status(folder)["error"]
        run = client.get_run(status(folder)["mlflow_run_id"])
        assert "mysql+pymysql://host/db" in run.data.tags["error"]
    printed = "".join(capfd.readouterr())
    assert "mysql+pymysql://host/db" in printed
    assert_not_in(tmp_path, printed)
    assert PASSWORD.encode() not in Path(store.removeprefix("sqlite:///")).read_bytes()


@pytest.mark.slow  # real processes
@pytest.mark.parametrize("launcher", ["submitit_local", "cores"])
def test_jobs_in_other_processes(server, tmp_path, launcher):
    """The files that they are started with, and that they leave, do not hold it; they have it."""
    mine = tmp_path / "conf" / "tracking" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(yaml.safe_dump(SETTINGS | {"uri": server.address, "log_model": False}))
    jobs = [f"hydra/launcher={launcher}", "data.n_test=-1,-2"]
    for number, given in enumerate(
        (
            [f"tracking.uri={server.address}", "tracking.on_unreachable=continue"],
            [f"--config-dir={mine.parents[1]}", "tracking=mine"],
        )
    ):
        home = tmp_path / f"outputs{number}"
        command = [sys.executable, "train.py", "-m", *given, f"output={home}", *jobs]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert len(list(home.rglob("status.json"))) == 2, ended.stderr
        assert_not_in(home, ended.stdout, ended.stderr)
    assert set(server.seen) == {LOGIN}


@pytest.mark.slow  # a real server behind one that asks for the password
def test_with_the_password_everything_works(server, tmp_path, capfd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server.to = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(server.to), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}",
               "--artifacts-destination", str(tmp_path / "kept")]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    home = tmp_path / "outputs"
    uri = f"tracking.uri={server.address}"
    try:
        for _ in range(600):
            with suppress(OSError), urlopen(f"http://127.0.0.1:{server.to}/health"):
                break
            time.sleep(0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", server.address)
            from_environment = "tracking.uri=${oc.env:MLFLOW_TRACKING_URI}"
            model = "tracking.log_model=true"
            run_quietly(home, "x", "train.py", *TINY_COHORT, *TINY, from_environment, model)
        folder = only_run(home)
        assert status(folder)["status"] == "FINISHED"
        assert not run_quietly(home, "x", "train.py", *TINY_COHORT, *TINY, uri,
                               "tracking.log_model=true", "resume=true")  # fmt: skip
        assert "already finished" in capfd.readouterr().out
        quick = ("voxels=all", "stats.n_bootstrap=20", "selectivity.n_permutations=99")
        (report,) = run_quietly(home, "x", "evaluate.py", "runs=newest", uri, *quick)
        assert status(report)["status"] == "FINISHED"
        client = MlflowClient(f"http://127.0.0.1:{server.server_port}")
        run_id = status(folder)["mlflow_run_id"]
        assert client.get_run(run_id).info.status == "FINISHED"
        assert "config.yaml" in {file.path for file in client.list_artifacts(run_id)}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert set(server.seen) == {LOGIN}
    assert_not_in(tmp_path, *capfd.readouterr())

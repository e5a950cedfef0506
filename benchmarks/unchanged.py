"""Are the results of this version those of an earlier one, byte for byte?

python benchmarks/unchanged.py REVISION             # a git revision, such as 5e78223
python benchmarks/unchanged.py REVISION V4_FOLDER   # with a run on a V4 recording (experiment=v4)

Runs train.py, a sweep, evaluate.py and simulate.py with both versions and compares all files of
their results folders, logs and statuses aside. Then the new version continues a run that the old
one left unfinished, evaluates its runs, and trains on the data that it prepared. Takes about eight
minutes on two cores.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAMP = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{6}_?")
# Times, places and the words of the config; a report's page carries its date.
LEFT_OUT = re.compile(r"status\.json|\.log|config\.yaml|multirun\.yaml|provenance\.json|/\.|\.html")
COMMANDS = (
    ("demo", "train.py"),
    ("linear", "train.py encoder=linear"),
    ("seed", "train.py seed=1"),
    ("report", "evaluate.py"),
    ("curves", "simulate.py simulation=activation_curves"),
    ("grid", "simulate.py simulation.placement_grid.n_draws=20"),
    ("depth", "simulate.py simulation=depth simulation.depth.n_draws=1"),
    ("size", "simulate.py simulation=sample_size"),
    ("scale", "simulate.py simulation=input_scale simulation.input_scale.n_draws=2"),
)
V4 = "experiment=v4 data.layer=7 tracking.experiment=v4"
LONG = "train.py seed=7 trainer.max_epochs=60 trainer.patience=60 trainer.checkpoint_seconds=0.3"


def start(tree: Path, command: str, output: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    words = [sys.executable, *command.split(), f"output={output}"]
    return subprocess.Popen(
        words, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run(tree: Path, command: str, output: Path) -> None:
    process = start(tree, command, output)
    printed = process.communicate()[0].decode()
    if process.returncode:
        sys.exit(f"{command} in {tree}:\n{printed}")


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by paths that have a run's number in place of its time."""
    found = {}
    number = {path.name: str(k) for k, path in enumerate(sorted(folder.iterdir()), start=1)}
    for path in sorted(folder.rglob("*")):
        first, *rest = path.relative_to(folder).parts
        name = STAMP.sub("", "/".join([number[first], *rest]))
        if path.is_file() and not LEFT_OUT.search("/" + name):
            content = path.read_bytes()
            if path.name == "sweep.csv":  # names of folders and seconds
                content = b"\n".join(line.rsplit(b",", 2)[0] for line in content.splitlines())
            found[name] = content
    return found


def compare(what: str, old: Path, new: Path) -> bool:
    before, after = files(old), files(new)
    differing = sorted(n for n in before | after if before.get(n) != after.get(n))
    print(
        f"{what:<22} {len(before):4} files, {len(before) - len(differing):4} identical", flush=True
    )
    for name in differing:
        print(f"    differs: {name}{_same_numbers(before.get(name), after.get(name))}")
    return not differing


def _same_numbers(before: bytes | None, after: bytes | None) -> str:
    if before is None or after is None:
        return " (in one version only)"
    try:
        return " (same values, other order)" if json.loads(before) == json.loads(after) else ""
    except ValueError:
        return ""


def main(revision: str, v4: str | None) -> None:
    home = Path(tempfile.mkdtemp(prefix="jne-unchanged-"))
    old_tree = home / "old_tree"
    old_tree.mkdir()
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, check=True, capture_output=True
    )
    subprocess.run(["tar", "x"], cwd=old_tree, input=archive.stdout, check=True)
    commands = list(COMMANDS)
    if v4:
        commands.append(("v4", f"train.py {V4} data.root={v4}"))
        commands.append(
            ("v4_report", "evaluate.py tracking.experiment=v4 voxels=all "
             "selectivity.n_permutations=999")
        )  # fmt: skip
    sweep = (
        "train.py -m subject=s2 encoder=nonlinear,linear data.n_train=200 trainer.max_epochs=5 "
        "tracking.experiment=sweep"
    )
    commands.append(("sweep", sweep))
    for name, tree in (("old", old_tree), ("new", ROOT)):
        for _, command in commands:
            run(tree, command, home / name)
    same = [compare(kind, home / "old" / kind, home / "new" / kind)
            for kind in ("prepared", "runs", "reports", "simulations", "sweeps")]  # fmt: skip

    output = home / "continued"
    process = start(old_tree, LONG, output)
    while not list(output.rglob("last.ckpt")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(ROOT, f"{LONG} resume=true", output)
    run(ROOT, LONG, home / "whole")
    *other, latest = sorted(output.glob("runs/*/status.json"))  # their names begin with times
    for path in other:
        print("not continued: the versions have other words for what a run is")
        shutil.rmtree(path.parent)
    status = json.loads(latest.read_text())
    print(
        f"killed in the old, continued in the new: {status['status']}, attempt {status['attempt']}"
    )
    same.append(compare("  against a whole run", home / "whole" / "runs", output / "runs"))

    mixed = home / "mixed"
    shutil.copytree(home / "old", mixed)
    shutil.rmtree(mixed / "reports")
    prepared = set((mixed / "prepared").iterdir())
    run(ROOT, "evaluate.py", mixed)
    if v4:
        run(ROOT, f"evaluate.py {commands[-2][1].removeprefix('evaluate.py ')}", mixed)
    same.append(compare("old runs, new report", home / "old" / "reports", mixed / "reports"))
    run(ROOT, "train.py seed=2", mixed)
    print(f"prepared again: {len(set((mixed / 'prepared').iterdir()) - prepared)} folders")
    shutil.rmtree(home)
    sys.exit(not all(same))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)

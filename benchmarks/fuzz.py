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

import logging
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # its generators of bad input

import foreign
import processes
import strangers
import users
from cases import ROOT, Busy, Refused, Sprung

from jne.cli import register_resolvers
from jne.errors import InputError

KINDS = (*users.KINDS, *strangers.KINDS, *foreign.KINDS, *processes.KINDS)
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

"""Would the tests notice a wrong number? Seeded mutations of src, each against its wing's tests.

python benchmarks/mutants.py                  # 150 mutants, seed 0: under an hour on two cores
python benchmarks/mutants.py 40 1 evaluation  # 40 of one wing, with another seed

A mutant is a copy of src with one change: an operator, a flipped comparison, a constant, an index
off by one, another column, two values of a dict swapped, a mean for a median. Mutated are functions
that compute numbers, not the text, figures and progress bars beside them and how much they show,
nor sizes of blocks of memory, which must not change a number. The tests are the files named after
the module, those that end in _numbers, those that have its name in them, then the other quick ones
of the wing. Prints each survivor by file and line, and how many of how many were killed; a mutant
that runs too long counts as killed.
"""

import ast
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
N_PROCESSES = 2
PATIENCE = 3  # times the seconds of the same tests without a mutation, and half a minute

WINGS = {
    "analysis": "analysis/*.py",
    "encoders": "encoders/*.py",
    "jacobian": "jacobian/{autograd,chain,deviation,gain_shape,measurement,orders}.py "
    "jacobian/{product,shard,variants}.py",
    "data": "data/{centring,cells,datamodule,leaks,planted,responses,splits,synthetic}.py",
    "results": "results/{contents,labelled}.py columns.py",
    "fitting": "fitting/{baseline,components,module,readout}.py",
    "measuring": "measuring/{nonlinearity,scores,trajectory}.py",
    "evaluation": "evaluation/{claims,external_test,voxels}.py evaluation/sections/[!_]*.py",
}
"""Modules that compute numbers; the tests are those of the folder of the same name."""
COSTLY = re.compile(
    r"test_(browser|chosen|evaluate|page|subjects|viewer|checkpoint|shards|train|locks|full_disk|"
    r"nsd.*|mosaic.*|laion.*|folder|figures|algonauts|input_changes)\.py"
)
"""Files of tests that are about something else, and take longest."""

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
NAMES = {"mean": "median", "median": "mean", "min": "max", "max": "min", "any": "all", "all": "any",
         "argmin": "argmax", "argmax": "argmin", "std": "var", "var": "std", "minimum": "maximum",
         "maximum": "minimum", "sum": "mean", "isnan": "isfinite"}  # fmt: skip
SPOKEN = {
    "say", "print", "warn", "info", "warning", "debug", "add_task", "update", "advance", "at",
    "InputError", "ValueError", "KeyError", "TypeError", "stage_progress", "join", "replace",
}  # fmt: skip
"""Functions whose arguments are text and progress."""
NO_NUMBER = {"strict", "ignore_index", "exist_ok", "copy", "unit", "total", "repr", "init"}
"""Keyword arguments that change no number."""
BESIDE = re.compile(
    r"^_?(text|figures?|findings?|caveats|page_tables|caption|draw|.*_note)(_|$)|progress"
    r"|bytes|_(memory|operations)$"
)
"""Names of functions that make text and figures, or that count memory and operations, by which an
order of the same sums is chosen."""
UNSEEN = re.compile(
    r"BLOCK|BYTES|MEMORY|_GB|SECONDS|PER_|AT_ONCE|MAX_(SHOWN|NAMED|DRAWN|PANELS|COLUMNS|ROIS)$"
)
"""Names of sizes of blocks, and of how much a figure or a sentence shows."""


@dataclass(frozen=True)
class Mutant:
    wing: str
    path: Path
    """Below src."""
    line: int
    change: str
    text: str
    """The module with the change."""


def modules(wing: str) -> list[Path]:
    home = ROOT / "src" / "jne"
    found = []
    for pattern in WINGS[wing].split():
        braces = re.search(r"{(.*)}", pattern)
        for name in braces[1].split(",") if braces else [""]:
            found += sorted(home.glob(pattern.replace(braces[0], name) if braces else pattern))
    return [path for path in found if path.name != "__init__.py"]


def tests_of(wing: str, module: Path) -> list[str]:
    """The files of tests of a module, those most likely to fail first."""
    files = [f for f in (ROOT / "tests" / wing).glob("test_*.py") if not COSTLY.fullmatch(f.name)]
    files += (ROOT / "tests").glob("test_columns.py") if wing == "results" else []

    def rank(file: Path) -> tuple[bool, bool, bool, str]:
        is_named, has_numbers = module.stem in file.stem, file.stem.endswith("_numbers")
        return (not is_named, not has_numbers, module.stem not in file.read_text(), file.name)

    return [str(file.relative_to(ROOT)) for file in sorted(files, key=rank)]


# --- sites ---


def sites(tree: ast.Module) -> Iterator[tuple[ast.AST, Callable[[ast.AST], None]]]:
    """Each node that can be changed, and the changes of it, each made in place."""
    subscripts = [node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    constants = [part.value for part in subscripts if isinstance(part, ast.Constant)]
    columns = sorted({value for value in constants if isinstance(value, str)})
    for node in computing(tree):
        match node:
            case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op) if (
                type(op) in OPERATORS
            ):
                yield node, lambda n: setattr(n, "op", OPERATORS[type(n.op)]())
            case ast.Compare(ops=[op]) if type(op) in OPERATORS:
                yield node, lambda n: setattr(n, "ops", [OPERATORS[type(n.ops[0])]()])
            case ast.UnaryOp(op=ast.USub() | ast.Not()):
                yield node, lambda n: setattr(n, "operand", ast.UnaryOp(n.op, n.operand))
            case ast.Attribute(attr=name) if name in NAMES:
                yield node, lambda n: setattr(n, "attr", NAMES[n.attr])
            case ast.Constant(value=bool()):
                yield node, lambda n: setattr(n, "value", not n.value)
            case ast.Constant(value=int()):
                yield node, lambda n: setattr(n, "value", n.value + 1)
            case ast.Constant(value=float()):
                yield node, lambda n: setattr(n, "value", n.value * 1.5 + 0.01)
            case ast.Subscript(slice=ast.Constant(value=str(name))) if len(columns) > 1:
                other = columns[(columns.index(name) + 1) % len(columns)]
                yield node, lambda n, other=other: setattr(n.slice, "value", other)
            case ast.Dict(keys=[ast.Constant(value=str()), ast.Constant(value=str()), *_]):
                yield node, lambda n: n.values.insert(0, n.values.pop(1))


def computing(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below this one that compute numbers."""
    for child in _children(node):
        yield child
        yield from computing(child)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_beside(child, node):
                yield child


def _is_beside(node: ast.AST, parent: ast.AST) -> bool:
    """Whether a node is text, a figure, a message or a size of a block."""
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.FunctionDef(name=name, returns=returns):
            shape = ast.unparse(node.args) + (ast.unparse(returns) if returns else "")
            return (
                bool(BESIDE.search(name))
                or "Figure" in shape
                or "Axes" in shape
                or shape.endswith(")str")
            )
        case ast.Assign() | ast.AnnAssign():
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return isinstance(parent, ast.ClassDef) or any(
                isinstance(t, ast.Name) and UNSEEN.search(t.id) for t in targets
            )
        case ast.Call(func=function):
            name = getattr(function, "attr", getattr(function, "id", ""))
            return name in SPOKEN
        case ast.keyword(arg=name):
            return name in NO_NUMBER
    return False


def mutants(wing: str) -> list[tuple[Path, int]]:
    """Every change there is in a wing: the module, and the number of its site."""
    return [
        (path, k)
        for path in modules(wing)
        for k in range(len(list(sites(ast.parse(path.read_text())))))
    ]


def make(wing: str, path: Path, k: int) -> Mutant:
    tree = ast.parse(path.read_text())
    node, change = list(sites(tree))[k]
    before = ast.unparse(node)
    change(node)
    described = f"{before[:70]}  ->  {ast.unparse(node)[:70]}"
    return Mutant(wing, path.relative_to(ROOT / "src"), node.lineno, described, ast.unparse(tree))


# --- running ---


def run_tests(tree: Path, tests: list[str], limit: float) -> tuple[bool, str]:
    """Whether the tests fail with jne from this tree, and the end of what they print."""
    command = [sys.executable, "-m", "pytest", "-x", "-n0", "-p", "no:cacheprovider",
               "-m", "not slow and not slurm",
               f"--basetemp={tree / 'tests'}", *tests]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        printed = process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True, "it ran too long"
    return process.returncode != 0, printed[-1500:]


def main(n: int, seed: int, chosen: str | None) -> None:
    rng = random.Random(seed)
    wings = [chosen] if chosen else list(WINGS)
    pool = [(wing, *site) for wing in wings for site in mutants(wing)]
    print(f"{len(pool)} changes in {', '.join(wings)}; {n} of them, seed {seed}", flush=True)
    drawn = [make(*choice) for choice in sorted(rng.sample(pool, min(n, len(pool))), key=str)]
    home = Path(tempfile.mkdtemp(prefix="jne-mutants-"))
    trees: queue.Queue[Path] = queue.Queue()
    for k in range(N_PROCESSES):
        tree = home / str(k)
        shutil.copytree(ROOT / "src", tree, ignore=shutil.ignore_patterns("__pycache__"))
        trees.put(tree)
    seconds: dict[str, float] = {}

    def whole(wing: str) -> None:
        """The tests pass without a mutation, and take so long."""
        tree = trees.get()
        start = time.monotonic()
        failed, printed = run_tests(tree, tests_of(wing, Path("none")), 1800)
        seconds[wing] = time.monotonic() - start
        trees.put(tree)
        if failed:
            raise SystemExit(f"the tests of {wing} fail without a mutation:\n{printed}")
        print(f"{wing:<12} tests take {seconds[wing]:.0f} s", flush=True)

    def killed(mutant: Mutant) -> bool:
        tree = trees.get()
        file = tree / mutant.path
        original = file.read_text()
        file.write_text(mutant.text)
        tests = tests_of(mutant.wing, mutant.path)
        dead, _ = run_tests(tree, tests, PATIENCE * seconds[mutant.wing] + 30)
        file.write_text(original)
        trees.put(tree)
        if not dead:
            print(f"survives  src/{mutant.path}:{mutant.line}  {mutant.change}", flush=True)
        return dead

    try:
        with ThreadPoolExecutor(N_PROCESSES) as threads:
            list(threads.map(whole, dict.fromkeys(mutant.wing for mutant in drawn)))
            dead = list(threads.map(killed, drawn))
    finally:
        shutil.rmtree(home)
    for wing in dict.fromkeys(mutant.wing for mutant in drawn):
        of_wing = [d for d, mutant in zip(dead, drawn, strict=True) if mutant.wing == wing]
        print(f"{wing:<12} {sum(of_wing):4} of {len(of_wing):4} killed")
    print(f"{sum(dead)} of {len(dead)} killed ({sum(dead) / len(dead):.0%})")


if __name__ == "__main__":
    words = sys.argv[1:]
    main(int(words[0]) if words else 150, int(words[1]) if len(words) > 1 else 0,
         words[2] if len(words) > 2 else None)  # fmt: skip

"""Mutation testing: count how many small changes to a module are detected by its tests.

One operator, comparison or constant of a module is changed at a time, and only the tests of that
module are run: ``tests/search/optimizer/test_confirm.py`` for ``search/optimizer/confirm.py``. If
no test detects a change, the change is printed with its line. Then either the changed program is
equivalent to the original, or no test checks this arithmetic.

    python bench/mutants.py --modules optimizer/confirm,predictors/base --sample 40 --seed 1

Each change is tried in a fork of this process, which has imported numpy and scipy already. If the
tests of a change take more than ``--seconds`` of CPU time, or more than ten times ``--seconds`` of
wall time, they are stopped, and the change counts as detected. Fixtures of ``conftest.py`` are not
available, as tests of arithmetic need no shards.

Bar: at least nine of ten changes in search/optimizer and search/predictors are detected.
"""

import argparse
import ast
import copy
import importlib
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

from climbstream.loader.core.console import say

ROOT = Path(__file__).parents[1]
PRELOAD = (
    "numpy scipy.linalg scipy.optimize scipy.stats pytest hypothesis threadpoolctl torch "
    "climbstream.loader.loader climbstream.loader.cli.main"
)
"""Modules that tests import and that are never changed; they are imported before the forks."""
SWAPS: Mapping[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}


class Mutant(NamedTuple):
    """One change to a module."""

    node: int
    """Index of the changed node in the order of `ast.walk`."""
    line: int
    replace: Callable[[Any], None]
    """Function that changes the node in place."""

    def apply(self, source: ast.Module) -> tuple[ast.Module, str]:
        """Return the changed copy of ``source``, and a description of the change."""
        tree = copy.deepcopy(source)
        node = next(node for i, node in enumerate(ast.walk(tree)) if i == self.node)
        before = ast.unparse(node)
        self.replace(node)
        return tree, f"{before}  ->  {ast.unparse(node)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--modules", default="optimizer,predictors", help="under search/")
    parser.add_argument("--sample", type=int, default=0, help="changes of a module, 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="of CPU that the tests may take"
    )
    parser.add_argument("--marks", default="not slow", help="tests to run, as pytest -m")
    parser.add_argument("--only", default="", help="tests to run, as pytest -k")
    options, _ = parser.parse_known_args()
    os.chdir(ROOT)
    # Threads of linear algebra would wait for each other, and do not survive a fork.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp()
    for name in PRELOAD.split():
        importlib.import_module(name)
    noticed = tried = 0
    for module in modules(options.modules):
        found, of = try_module(module, options)
        noticed, tried = noticed + found, tried + of
    say(f"all: {noticed} of {tried} noticed, {noticed / max(tried, 1):.0%}")


def modules(names: str) -> list[Path]:
    """Return the paths of the named modules, and of all modules in the named folders."""
    paths: list[Path] = []
    for name in names.split(","):
        path = Path("search") / name
        inside = [p for p in sorted(path.glob("*.py")) if p.name != "__init__.py"]
        paths += inside if path.is_dir() else [path.with_suffix(".py")]
    return paths


def try_module(module: Path, options: argparse.Namespace) -> tuple[int, int]:
    """Try changes of ``module``; return the number of detected changes and of all changes."""
    tests = Path("tests") / module.parent / f"test_{module.name}"
    source = ast.parse(module.read_text())
    every = mutants(source)
    if options.sample and len(every) > options.sample:
        every = random.Random(options.seed).sample(every, options.sample)
    if not tests.is_file():
        say(f"{module}: there is no {tests}, so none of {len(every)} changes is noticed")
        return 0, len(every)
    begin = os.times().children_user
    if not passes(module, source, tests, options):
        sys.exit(f"{tests} fails without any change")
    seconds = os.times().children_user - begin
    survivors = 0
    for mutant in sorted(every, key=lambda mutant: mutant.line):
        tree, change = mutant.apply(source)
        if passes(module, tree, tests, options):
            survivors += 1
            say(f"survived: {module}:{mutant.line}: {change}")
    noticed = len(every) - survivors
    say(
        f"{module}: {noticed} of {len(every)} noticed, {noticed / max(len(every), 1):.0%}; its "
        f"tests take {seconds:.1f} s of CPU"
    )
    return noticed, len(every)


def passes(module: Path, tree: ast.Module, tests: Path, options: argparse.Namespace) -> bool:
    """Return whether ``tests`` pass, in a fork, with ``tree`` in place of ``module``."""
    if (pid := os.fork()) == 0:
        os._exit(run_tests(module, tree, tests, options))
    limit = time.monotonic() + 10 * options.seconds
    while time.monotonic() < limit:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    # The tests may have started processes; all of them are in the process group of the fork.
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def run_tests(module: Path, tree: ast.Module, tests: Path, options: argparse.Namespace) -> int:
    """Run ``tests`` with ``tree`` as the code of ``module``; return the exit code of pytest."""
    import pytest  # noqa: PLC0415  (it is imported before the fork)

    os.setpgid(0, 0)
    # Limit CPU time: a busy machine takes more wall time, which must not count as a detection.
    resource.setrlimit(resource.RLIMIT_CPU, (int(options.seconds), resource.RLIM_INFINITY))
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    install(module, tree)
    # pytest would warn that its plugins are imported already.
    quiet = ["-p", "no:cacheprovider", "--noconftest", "-W", "ignore:Module already imported"]
    try:
        return int(
            pytest.main([str(tests), "-xq", "-m", options.marks, "-k", options.only, *quiet])
        )
    except BaseException:
        return 1


def install(module: Path, tree: ast.Module) -> None:
    """Change the import system so that an import of ``module`` runs the code of ``tree``."""
    original = SourceFileLoader.get_code
    place = module.resolve()

    def get_code(loader: SourceFileLoader, name: str) -> Any:
        path = Path(loader.get_filename(name)).resolve()
        return compile(tree, str(path), "exec") if path == place else original(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign,assignment]


def mutants(tree: ast.Module) -> list[Mutant]:
    """Return all possible changes to ``tree``."""
    ignored = no_arithmetic(tree)
    return [
        Mutant(number, getattr(node, "lineno", 0), replace)
        for number, node in enumerate(ast.walk(tree))
        if id(node) not in ignored
        for replace in changes(node)
    ]


def no_arithmetic(tree: ast.Module) -> set[int]:
    """Return the ids of nodes that are not changed: annotations, text, assertions and the like."""
    out: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef):
            parts = [
                node.returns,
                *(a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)),
            ]
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        elif isinstance(node, ast.JoinedStr | ast.Assert | ast.Raise):
            parts = [node]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
            # A union of types: ``Floats | None``.
            parts = [node.value] if isinstance(node.value.op, ast.BitOr) else []
        elif isinstance(node, ast.ClassDef):
            parts = [*node.decorator_list]
        elif isinstance(node, ast.keyword) and node.arg == "strict":
            parts = [node.value]  # of zip, whose arguments have equal lengths
        out |= {id(inner) for part in parts if part is not None for inner in ast.walk(part)}
    return out


def changes(node: ast.AST) -> Iterator[Any]:
    """Yield functions, each of which changes a copy of ``node`` in one way."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        for other in SWAPS.get(type(node.op), ()):
            yield lambda n, other=other: setattr(n, "op", other())
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for other in SWAPS[type(node.ops[0])]:
            yield lambda n, other=other: n.ops.__setitem__(0, other())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        # Replace -x by +x, and ``not x`` by its opposite.
        minus = isinstance(node.op, ast.USub)
        yield (
            lambda n: (
                setattr(n, "op", ast.UAdd())
                if minus
                else setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))
            )
        )
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield lambda n: setattr(n, "value", not n.value)
        elif isinstance(value, int):
            yield lambda n: setattr(n, "value", n.value + 1)
        elif isinstance(value, float):
            yield lambda n: setattr(n, "value", 2 * n.value if n.value else 1.0)


if __name__ == "__main__":
    main()

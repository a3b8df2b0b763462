"""The one rule, "imports go down only", and who may know what: read from the sources, and checked in a fresh interpreter."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgeinfer"

#: units of the package by floor; a unit may import what lies on lower floors
FLOORS = (
    ("errors", "registry", "pareto", "sizes"),
    ("graph", "kernels"),
    ("quantizers", "coders", "ops"),
    ("container",),
    ("runtime",),
    ("compress", "tune", "serve"),
    ("demo",),
    ("cli",),
)
FLOOR = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}

#: imports on one floor that are meant: every unit raises errors; tuning compresses
ALLOWED = {("registry", "errors"), ("sizes", "errors"), ("pareto", "errors"), ("tune", "compress")}

#: what `import edgeinfer` defines for users without importing it: the lazy parts of its __init__
LAZY_IN_INIT = {"compress", "runtime", "sizes"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    """First part of a module's path below the package: ``runtime`` for runtime/plan.py; ``""`` for the package itself."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").replace("__init__", "")


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(absolute module name, line, whether inside a function) of every import in a file; ``if TYPE_CHECKING`` blocks left out."""
    found: list[tuple[str, int, bool]] = []
    here = ("edgeinfer", *path.relative_to(PACKAGE).with_suffix("").parts)
    package = here[:-1]

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += (node.module or "").split(".") if node.module else []
            # `from . import plan` may name modules or attributes: each is reported as if it were a module
            found.extend((".".join([*base, alias.name]), node.lineno, inside) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))

    visit(ast.parse(path.read_text()), False)
    return found


def test_every_unit_has_a_floor() -> None:
    units = {unit_of(path) for path in sources()} - {""}
    assert units <= set(FLOOR), f"give {units - set(FLOOR)} a floor in FLOORS"
    assert {"errors", "graph", "runtime", "compress", "cli"} <= units


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    unit = unit_of(path)
    for name, line, inside in imports(path):
        parts = name.split(".")
        if parts[0] != "edgeinfer" or len(parts) == 1:
            continue
        target = parts[1]
        if target not in FLOOR:
            assert target in ("__version__", "InferenceSession", "PlanError", "plan") and FLOOR.get(unit, -1) > FLOOR["runtime"], (
                f"{path}:{line} imports {name}: name the module it comes from"
            )
            continue
        if unit == "":
            assert target == "errors" or (inside and target in LAZY_IN_INIT), f"{path}:{line}: importing edgeinfer must not import {name}"
        elif unit != target:
            down = FLOOR[target] < FLOOR[unit]
            assert down or (unit, target) in ALLOWED, (
                f"{path}:{line}: {unit} must not import {name} (floors {FLOOR[unit]} and {FLOOR[target]})"
            )


def test_compiled_modules_import_only_errors() -> None:
    for path in sorted((ROOT / "cython").glob("*.pyx")):
        for match in re.finditer(r"^\s*(?:from|import)\s+(edgeinfer[\w.]*|\.+[\w.]*)", path.read_text(), re.MULTILINE):
            assert match[1] in ("edgeinfer.errors", "..errors") or match[1].startswith("edgeinfer.kernels"), f"{path}: imports {match[1]}"
    assert not (ROOT / "cython" / "__init__.py").exists(), "it would shadow the real cython package"


def test_run_trip_imports_nothing_of_the_compress_trip() -> None:
    for path in sources():
        if FLOOR.get(unit_of(path), 0) <= FLOOR["runtime"] and unit_of(path):
            for name, line, _ in imports(path):
                top = name.split(".")[0]
                assert top not in ("onnx", "torch", "sklearn", "tqdm"), f"{path}:{line} imports {name}"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import edgeinfer", "onnx yaml argparse hashlib asyncio http numpy.random psutil edgeinfer.compress edgeinfer.runtime.session"),
        (
            "import edgeinfer; edgeinfer.InferenceSession",
            "onnx yaml argparse hashlib asyncio http numpy.random zipfile tempfile logging edgeinfer.compress edgeinfer.cli edgeinfer.demo",
        ),
        ("import edgeinfer.cli", "edgeinfer.runtime edgeinfer.compress edgeinfer.cli.run edgeinfer.demo onnx tqdm"),
    ],
)
def test_importing_is_light(statement: str, absent: str, tmp_path: Path) -> None:
    """NumPy and psutil bring modules of their own (NumPy 1 even numpy.random), so only what comes on top of them counts."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
if "psutil" not in {absent.split()!r}:
    import psutil
import numpy
before = set(sys.modules)
{statement}
print("\\n".join(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    loaded = set(done.stdout.split())
    assert "edgeinfer" in loaded
    assert not loaded & set(absent.split())


#: pattern -> files (relative to edgeinfer/) that may match it
ONLY = {
    r"^\s*(?:import|from) yaml\b": {"compress/recipe.py", "serve/config.py", "runtime/ensemble.py"},
    r"^\s*(?:import|from) psutil\b": {"runtime/ceiling.py"},
    r"^\s*(?:import|from) onnx\b": {"compress/", "demo/train.py"},
    r"^\s*(?:import|from) (?:torch|sklearn)\b": {"demo/train.py"},
    r"^\s*(?:import|from) argparse\b": {"cli/"},
    r"\bprint\(": {"cli/", "demo/train.py"},
    r"\bVm(?:HWM|RSS|Data)\b|\bmemory\.(?:max|limit_in_bytes)\b|\bmemory_info\b": {"runtime/ceiling.py"},
    r"ru_maxrss": {"runtime/ceiling.py"},
    r"thermal_zone|get_throttled|energy_uj": {"runtime/board.py"},
    r"\bmmap\.mmap\(": {"runtime/arena.py", "container.py", "compress/protobuf.py", "cli/doctor.py"},
    r"\bsetrlimit\b": {"runtime/ceiling.py"},
}


@pytest.mark.parametrize("pattern", ONLY)
def test_only_they_know(pattern: str) -> None:
    for path in sources():
        name = str(path.relative_to(PACKAGE))
        if name in ONLY[pattern] or f"{name.split('/')[0]}/" in ONLY[pattern]:
            continue
        tree = ast.parse(path.read_text())
        documentation = {id(node.body[0]) for node in ast.walk(tree) if hasattr(node, "body") and isinstance(node.body, list) and node.body}
        skipped: set[int] = set()
        for node in ast.walk(tree):  # docstrings may mention what the code may not touch
            if isinstance(node, ast.Expr) and id(node) in documentation and isinstance(node.value, ast.Constant):
                skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if number not in skipped and re.search(pattern, line.partition("  # ")[0]):
                pytest.fail(f"{path}:{number}: only {', '.join(sorted(ONLY[pattern]))} may know this: {line.strip()}")


def test_names_say_what_things_are() -> None:
    vague = {"manager", "helper", "util", "utils", "handler", "context", "engine", "data", "info"}
    for path in sources():
        assert path.stem not in vague, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                name = node.name.replace("raw_data", "")  # a field of ONNX
                words = set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))
                assert not words & vague, f"{path}:{node.lineno}: {node.name}"

"""The shape of the package: which way imports point, how long files are, what `import` costs."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gru_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

# A room is a file or a folder right under gru_jax/; "gru_jax" itself is the list of public names.
# Each may import from itself and from the rooms on its right.
CORE = ["types", "checks", "files", "cells", "scans", "between", "combinators", "layers"]
ALLOWED = {room: set(CORE[:place]) for place, room in enumerate(CORE)} | {
    "gru_jax": {*CORE, "inside", "interop", "models"},
    "interop": set(CORE),
    "inside": {*CORE, "interop"},
    "data": {"types"},
    "models": set(CORE),
    "training": {*CORE, "gru_jax", "models", "data"},
    "tables": {*CORE, "gru_jax", "models", "data", "training"},
    "sweeps": {*CORE, "gru_jax", "models", "data", "training"},
    "arguments": {"gru_jax", "training"},
    "launch": {"arguments", "training"},
    "cli": {*CORE, "gru_jax", "models", "data", "training", "tables", "sweeps", "arguments", "launch"},
    "__main__": {"cli"},
}


def module_name(path: Path) -> str:
    """`gru_jax.cells.gru` for gru_jax/cells/gru.py, `gru_jax.cells` for its __init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def room(module: str) -> str:
    """The room a module is in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "gru_jax"


def imports_of(module: str, source: str, *, is_package: bool) -> set[str]:
    """The modules of this package that `source` imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = len(parts) - node.level + is_package
                base = ".".join([*parts[:kept], *([base] if base else [])])
            # `from gru_jax import checks` imports a module, `from gru_jax import GRU` a name.
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in MODULES else base)
    return {name for name in found if name.split(".")[0] == "gru_jax"}


IMPORTS = {
    module: imports_of(module, path.read_text(), is_package=path.name == "__init__.py")
    for module, path in MODULES.items()
}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    assert room(module) in ALLOWED, f"no rule for {room(module)}: add it to ALLOWED"
    allowed = ALLOWED[room(module)] | {room(module)}
    wrong = {name for name in IMPORTS[module] if room(name) not in allowed}
    assert not wrong, f"{module} may import from {sorted(allowed)}, but imports {sorted(wrong)}"


def test_no_circle_of_imports() -> None:
    order = list(graphlib.TopologicalSorter(IMPORTS).static_order())
    assert set(MODULES) <= set(order)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import gru_jax.scans", {"gru_jax.scans"}),
        ("from gru_jax import checks", {"gru_jax.checks"}),
        ("from gru_jax import __version__", {"gru_jax"}),
        ("from . import gru", {"gru_jax.cells.gru"}),
        ("from .gru import GRU", {"gru_jax.cells.gru"}),
        ("from .. import checks", {"gru_jax.checks"}),
        ("def f():\n    from gru_jax.layers import nnx", {"gru_jax.layers.nnx"}),
        ("import jax", set()),
    ],
)
def test_the_reader_of_imports(statement: str, expected: set[str]) -> None:
    assert imports_of("gru_jax.cells.base", statement, is_package=False) == expected


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_is_one_thing(path: Path) -> None:
    source = path.read_text()
    lines = source.count("\n")
    assert ast.get_docstring(ast.parse(source)), "the file does not say what it holds"
    assert lines <= 350, f"{lines} lines: two things share a room"
    assert "util" not in path.stem, "a file called utils holds anything"


def test_import_brings_in_nothing_of_the_extras() -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, jax, flax; before = set(sys.modules)\n"
            "import gru_jax; print(*sorted(set(sys.modules) - before))",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    added = {name.split(".")[0] for name in process.stdout.split()}
    assert "gru_jax" in added
    trained = {"grain", "matplotlib", "orbax", "pydantic", "sklearn", "statsmodels", "tensorboardX", "wandb", "yaml"}
    assert not added & {"equinox", "h5py", "haiku", "keras", "onnx", "torch", *trained}

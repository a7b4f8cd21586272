"""The shape of the package: which way imports point, how long files are, what `import` costs."""

import ast
import collections
import graphlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gru_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

# A room is a file or a folder right under gru_jax/, or one of the folders below; "gru_jax" is the list of public names.
# Each may import from itself and from the rooms that are named here.
WITHIN = ("config.sections", "runs.on_disk", "runs.watching", "runs.exporting")
CORE = ["types", "checks", "files", "irregular", "cells", "scans", "between", "combinators", "layers", "streams"]
CONFIG = ["data", "config.sections", "config"]
RUNS = ["training", "runs.on_disk", "runs.watching", "runs"]
BELOW_CONFIG = {*CORE, "gru_jax", "models"}
ALLOWED = (
    {room: set(CORE[:place]) for place, room in enumerate(CORE)}
    | {room: {*BELOW_CONFIG, *CONFIG[:place]} for place, room in enumerate(CONFIG)}
    | {room: {*BELOW_CONFIG, *CONFIG, *RUNS[:place]} for place, room in enumerate(RUNS)}
    | {
        "gru_jax": {*CORE, "inside", "interop", "models", "tuning"},
        "tuning": {"types", "checks", "files", "cells", "scans"},
        "interop": set(CORE),
        "inside": {*CORE, "interop"},
        "data": {"types", "irregular"},
        "models": set(CORE),
        "runs.exporting": {*BELOW_CONFIG, *CONFIG, *RUNS, "interop"},
        "tables": {*BELOW_CONFIG, *CONFIG, *RUNS},
        "sweeps": {*BELOW_CONFIG, *CONFIG, *RUNS},
        "cli": {*BELOW_CONFIG, *CONFIG, *RUNS, "runs.exporting", "tables", "sweeps", "tuning"},
        "__main__": {"cli"},
    }
)


def module_name(path: Path) -> str:
    """`gru_jax.cells.gru` for gru_jax/cells/gru.py, `gru_jax.cells` for its __init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def room(module: str) -> str:
    """The room a module is in."""
    parts = module.split(".")
    within = ".".join(parts[1:3])
    return within if within in WITHIN else parts[1] if len(parts) > 1 else "gru_jax"


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


@cache
def imports(module: str) -> set[str]:
    path = MODULES[module]
    return imports_of(module, path.read_text(), is_package=path.name == "__init__.py")


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    assert room(module) in ALLOWED, f"no rule for {room(module)}: add it to ALLOWED"
    allowed = ALLOWED[room(module)] | {room(module)}
    wrong = {name for name in imports(module) if room(name) not in allowed}
    assert not wrong, f"{module} may import from {sorted(allowed)}, but imports {sorted(wrong)}"


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("gru_jax.config")])
def test_a_config_is_read_without_jax(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    nodes = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))]
    for node in nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.split(".")[0] == "jax"], f"line {node.lineno} imports jax"


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("gru_jax.training")])
def test_training_opens_no_file(module: str) -> None:
    source = MODULES[module].read_text()
    assert not re.search(r"\bopen\(|pathlib|write_text|write_bytes|\bos\.|unlink|mkdir|\bsignal\b", source)


def test_no_circle_of_imports() -> None:
    order = list(graphlib.TopologicalSorter({module: imports(module) for module in MODULES}).static_order())
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


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("gru_jax.scans.")])
def test_scans_have_floors(module: str) -> None:
    """Cells know no time, engines no method and no form of recurrence; methods and forms ask the registry."""
    floors = ["gru_jax.scans.engines", "gru_jax.scans.linear", "gru_jax.scans.methods"]
    above = {floor: floors[place + 1 :] for place, floor in enumerate(floors)}
    mine = next((floor for floor in floors if module.startswith(f"{floor}.")), None)
    wrong = {name for name in imports(module) for floor in above.get(mine, []) if name.startswith(floor)}
    if mine is not None and mine != floors[0]:
        own = floors[0] + "."
        wrong |= {
            name for name in imports(module)
            if name.startswith(own) and name.split(".")[3] not in ("registry", "batch")
        }  # fmt: skip
    assert not wrong, f"{module} imports {sorted(wrong)}"


NAME_OF_AN_ENGINE = r"""["'](?:llvm|cudnn|pallas|chunked)["']"""
COMPARED = re.compile(rf"[=!]=\s*{NAME_OF_AN_ENGINE}|{NAME_OF_AN_ENGINE}\s*[=!]=")


def test_only_the_registry_and_the_choice_compare_names_of_engines() -> None:
    elsewhere = [path for path in FILES if "engines" not in path.parts and path.name != "select.py"]
    assert not {str(path): found for path in elsewhere if (found := COMPARED.findall(path.read_text()))}


def test_a_folder_is_seen_at_a_glance() -> None:
    count = collections.Counter(path.parent.relative_to(ROOT) for path in FILES)
    assert not {str(folder): many for folder, many in count.items() if many > 26}


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

"""A Python file of somebody's own, run as a module: its text, and that of the modules beside it that it imports."""

import ast
import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class NameTaken(ValueError):
    """A module beside a file has the name of another one; the message says which, and the fix."""


class OwnFile(NamedTuple):
    """A file as it was read.

    Attributes:
        path: where it lies, or lay.
        texts: (path from its folder, text) of the file itself and then of what it imports from there.
    """

    path: Path
    texts: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """8 hex digits that change with any of the texts."""
        (_, own), *beside = self.texts
        return hashlib.sha256("\0".join([own, *(part for text in beside for part in text)]).encode()).hexdigest()[:8]

    def names(self) -> list[str]:
        """The names of the file's own functions and classes; none where it is no Python."""
        try:
            nodes = ast.parse(self.texts[0][1]).body
        except (SyntaxError, ValueError, RecursionError):
            return []  # said when it is run
        return [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]

    def keep(self, folder: Path) -> list[tuple[Path, str]]:
        """(where, what): the files that a copy in a folder has, for `read`."""
        return [(folder / name, text) for name, text in self.texts]


def read(file: str, kept: Path | None = None) -> OwnFile:
    """The texts of a file, and of what it imports from beside it.

    Args:
        file: its path.
        kept: a folder that holds a copy, which is read in its place.

    Raises:
        NameTaken: a module that it imports from beside it has the name of another one.
        OSError, RuntimeError, ValueError: it cannot be read.
    """
    path = Path(file).expanduser().absolute()
    folder = path.parent if kept is None else kept
    texts = {path.name: (folder / path.name).read_text(encoding="utf-8-sig")}
    waiting = [path.name]
    while waiting:
        for name in sorted(_imported(texts[waiting.pop()])):
            for found in _beside(folder, path.parent, name):
                if found not in texts:
                    texts[found] = (folder / found).read_text(encoding="utf-8-sig")
                    waiting.append(found)
    own = texts.pop(path.name)
    return OwnFile(path, ((path.name, own), *sorted(texts.items())))


def _imported(text: str) -> set[str]:
    """The first parts of the names of all modules that a text imports, anywhere in it."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError):
        return set()  # said when it is run
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names} - {""}


def _beside(folder: Path, origin: Path, name: str) -> list[str]:
    """The files of a module in the folder, which may be a copy of its origin; NameTaken where another one is meant."""
    if name == __name__.partition(".")[0]:
        return []
    modules = [part for part in (f"{name}.py", f"{name}/__init__.py") if (folder / part).is_file()]
    there = sys.modules.get(name)
    if name in sys.stdlib_module_names or not (there is None or isinstance(_loader(there), _Loader)):
        taken = getattr(there, "__file__", None)
        if modules and (taken is None or Path(taken).resolve() != (origin / modules[0]).resolve()):
            of = "Python's own" if name in sys.stdlib_module_names else taken or "another package"
            raise NameTaken(f"an import of {name!r} gives {of}, and not {modules[0]} beside it; rename that file")
        if not modules:
            return []
    if modules[:1] == [f"{name}.py"]:
        return modules
    return sorted(path.relative_to(folder).as_posix() for path in (folder / name).rglob("*.py") if path.is_file())


def _loader(module: types.ModuleType) -> object:
    return getattr(getattr(module, "__spec__", None), "loader", None)


class _Loader(importlib.abc.ExecutionLoader):
    """Loads one of the texts of a file; nothing is cached beside it, as Python would by its time in seconds."""

    def __init__(self, own: OwnFile, place: str) -> None:
        self.own, self.place = own, place

    def get_filename(self, fullname: str) -> str:
        return str(self.own.path.parent / self.place)

    def get_source(self, fullname: str) -> str:
        return dict(self.own.texts)[self.place]

    def is_package(self, fullname: str) -> bool:
        return PurePosixPath(self.place).name == "__init__.py"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what the file of the moment imports from beside it, and nothing for anybody else."""

    own: OwnFile | None = None
    loaded: dict[OwnFile, dict[str, types.ModuleType]] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        if self.own is None:
            return None
        folder, place = self.own.path.parent, name.replace(".", "/")
        texts = [text for text, _ in self.own.texts[1:]]
        for file in (f"{place}/__init__.py", f"{place}.py"):
            if file in texts:
                return importlib.util.spec_from_file_location(name, folder / file, loader=_Loader(self.own, file))
        if any(text.startswith(f"{place}/") for text in texts):
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(folder / place)]
            return spec
        return None

    def turn_to(self, own: OwnFile) -> None:
        """From here on imports are those of this file: another one may have a module of the same name."""
        if self.own == own and self in sys.meta_path:
            return
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        ours = {name: module for name, module in sys.modules.items() if isinstance(_loader(module), _Loader)}
        for name, module in ours.items():
            self.loaded.setdefault(_loader(module).own, {})[name] = module  # type: ignore[attr-defined]
            del sys.modules[name]
        sys.modules.update(self.loaded.get(own, {}))
        self.own = own


_FINDER = _Finder()


def function(own: OwnFile, said: str, name: str) -> object:
    """What the file defines under a name, None where it does not; imports that it makes from now on are its own.

    Args:
        own: the file.
        said: its path as people know it.
        name: of the function.

    Raises:
        Exception, SystemExit: whatever the file raises.
    """
    _FINDER.turn_to(own)
    return getattr(_module(own, said), name, None)


@functools.lru_cache(maxsize=32)
def _module(own: OwnFile, said: str) -> types.ModuleType:
    """What the file defines; run once for each text of it."""
    whole = hashlib.sha256(f"{own.path}\0{own.digest}".encode()).hexdigest()[:16]
    module = types.ModuleType(f"{own.path.stem}_{whole}")
    module.__file__ = str(own.path.resolve())
    # Dataclasses and their like look up the module that they are defined in.
    sys.modules[module.__name__] = module
    try:
        exec(compile(own.texts[0][1], said, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module

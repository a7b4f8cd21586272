"""The section `task: {kind: python}`: a task of one's own, in a Python file that the config names."""

import functools
import hashlib
import inspect
import traceback
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gru_jax.data.dataset import DataDamaged, DataMissing, Dataset, Target, TaskShape
from gru_jax.data.fitting import misfit
from gru_jax.training.sections import Count, Expected, Section, broken_rule

Option = bool | int | float | str | None


class PythonTask(Section):
    """A task of your own: a Python `file` with functions `shape` and `load`, both called with the `options`."""

    kind: Literal["python"]
    file: Annotated[str, Field(min_length=1)]
    options: Annotated[dict[str, Option], Expected("names with values, such as {length: 20}")] = {}
    batch: Count = 32

    @model_validator(mode="after")
    def _file_is_a_task(self) -> "PythonTask":
        self.shape()
        self._function("load")
        return self

    def shape(self) -> TaskShape:
        """The sizes that the file's `shape` tells."""
        made = self._call("shape")
        if not isinstance(made, TaskShape):
            raise broken_rule("file", f"shape() of {self.file} must return a TaskShape, got {type(made).__name__}")
        for name in ("train", "valid", "test", "time", "features", "outputs"):
            size = getattr(made, name)
            if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 10**9:
                fact = f"{name} must be a plain whole number from 1 to 10**9, got {size!r}"
                raise broken_rule("file", f"shape() of {self.file}: {fact}")
        if not isinstance(made.tokens, bool) or not isinstance(made.next_step, bool):
            raise broken_rule("file", f"shape() of {self.file}: tokens and next_step must be True or False")
        if made.target not in typing.get_args(Target):
            targets = ", ".join(map(repr, typing.get_args(Target)))
            raise broken_rule("file", f"shape() of {self.file}: target must be one of {targets}, got {made.target!r}")
        return made

    @property
    def source_hash(self) -> str:
        """8 hex digits of the file: a part of the config's hash, as what is in the file decides the numbers."""
        return hashlib.sha256(_source(self.file).encode()).hexdigest()[:8]

    def load(self, data_root: str | None) -> Dataset:
        """The data that the file's `load` makes; it is given `data_root` if it has an argument of this name."""
        wants_root = "data_root" in inspect.signature(self._function("load")).parameters
        made = self._call("load", **({"data_root": data_root} if wants_root else {}))
        if not isinstance(made, Dataset):
            raise DataDamaged(f"{self.file}: load() must return a Dataset, got {type(made).__name__}")
        wrong = misfit(made, self.shape())
        if wrong is not None:
            raise DataDamaged(f"{self.file}: {wrong}; make load() and shape() agree")
        return made

    def _function(self, name: str) -> Callable[..., Any]:
        function = getattr(_module(self.file, _source(self.file)), name, None)
        if not callable(function):
            raise broken_rule("file", f"{self.file} has no function {name}(); a task has shape() and load()")
        return function

    def _call(self, name: str, **more: Any) -> Any:
        function = self._function(name)
        try:
            inspect.signature(function).bind(**self.options, **more)
        except (TypeError, ValueError) as error:
            raise broken_rule("options", f"{name}() of {self.file}: {error}") from error
        try:
            return function(**self.options, **more)
        except DataMissing:
            raise
        except (Exception, SystemExit) as error:
            said = f"{name}() of {self.file}: {_said(error, self.file)}"
            if name == "shape":
                raise broken_rule("options", said) from error
            raise DataDamaged(said) from error


def _source(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, RuntimeError, ValueError) as error:
        fact = getattr(error, "strerror", None) or str(error)
        raise broken_rule("file", f"{file!r} cannot be read: {fact} (looked for in {Path.cwd()})") from error


@functools.lru_cache(maxsize=32)
def _module(file: str, source: str) -> types.ModuleType:
    """What the file defines; run once for each text of it."""
    module = types.ModuleType(Path(file).stem)
    module.__file__ = str(Path(file).expanduser().resolve())
    try:
        exec(compile(source, file, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise broken_rule("file", f"{file} cannot be imported: {_said(error, file)}") from error
    return module


def _said(error: BaseException, file: str) -> str:
    """The error in one line, with the line of the file where it came up."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}".replace("\n", " ")

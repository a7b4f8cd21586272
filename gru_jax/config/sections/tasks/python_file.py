"""The section `task: {kind: python}`: a task of one's own, in a Python file that the config names."""

import functools
import inspect
import traceback
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gru_jax.config.sections.base import Count, Expected, Section, broken_rule
from gru_jax.config.sections.tasks import own_file
from gru_jax.config.sections.tasks.own_file import OwnFile
from gru_jax.data.dataset import DataDamaged, DataMissing, Dataset, Target, TaskShape
from gru_jax.data.fitting import misfit

KEPT = "kept"
"""Of the context of a validation: the folder that holds the file as a run has kept it."""


def _one_value(got: Any, of_a_kind: ValidatorFunctionWrapHandler) -> Any:
    """One error instead of one for each kind that an option may be of."""
    try:
        return of_a_kind(got)
    except ValidationError as error:
        raise PydanticCustomError("expected", "one value: a finite number, text, true, false or null") from error


Option = Annotated[bool | int | float | str | None, WrapValidator(_one_value)]


class PythonTask(Section):
    """A task of your own: a Python `file` with functions `shape` and `load`, both called with the `options`."""

    kind: Literal["python"]
    file: Annotated[str, Field(min_length=1)]
    options: Annotated[dict[str, Option], Expected("names with values, such as {length: 20}")] = {}
    batch: Count = 32

    # What was read when the config was: the whole run is of one text.
    _own: OwnFile = PrivateAttr()

    @model_validator(mode="after")
    def _file_is_a_task(self, info: ValidationInfo) -> "PythonTask":
        self._own = _read(self.file, (info.context or {}).get(KEPT))
        self.shape()
        self._bound("load", **self._data_root(None))
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
        if not all(isinstance(flag, bool) for flag in (made.tokens, made.next_step, made.gaps)):
            raise broken_rule("file", f"shape() of {self.file}: tokens, next_step and gaps must be True or False")
        if made.target not in typing.get_args(Target):
            targets = ", ".join(map(repr, typing.get_args(Target)))
            raise broken_rule("file", f"shape() of {self.file}: target must be one of {targets}, got {made.target!r}")
        return made

    @property
    def source_hash(self) -> str:
        """8 hex digits of the file and of what it imports from beside it: it decides the numbers."""
        return self._own.digest

    @property
    def source(self) -> OwnFile:
        """The file as it was read."""
        return self._own

    def changed(self) -> bool:
        """Whether the file is another one by now, or is gone."""
        try:
            return own_file.read(self.file) != self._own
        except (OSError, RuntimeError, ValueError):
            return True

    def load(self, data_root: str | None) -> Dataset:
        """The data that the file's `load` makes; it is given `data_root` if it has an argument of this name."""
        made = self._call("load", **self._data_root(data_root))
        if not isinstance(made, Dataset):
            raise DataDamaged(f"{self.file}: load() must return a Dataset, got {type(made).__name__}")
        wrong = misfit(made, self.shape())
        if wrong is not None:
            raise DataDamaged(f"{self.file}: {wrong}")
        return made

    def _data_root(self, data_root: str | None) -> dict[str, str | None]:
        return {"data_root": data_root} if "data_root" in _parameters(self._function("load")) else {}

    def _function(self, name: str) -> Callable[..., Any]:
        try:
            function = own_file.function(self._own, self.file, name)
        except (Exception, SystemExit) as error:
            raise broken_rule("file", f"{self.file} cannot be imported: {_said(error, self.file)}") from error
        if not callable(function):
            raise broken_rule("file", f"{self.file} has no function {name}(); a task has shape() and load()")
        return cast(Callable[..., Any], function)

    def _bound(self, name: str, **more: Any) -> Callable[[], Any]:
        """The function with its arguments, the options."""
        function = self._function(name)
        try:
            inspect.signature(function).bind(**self.options, **more)
        except (TypeError, ValueError) as error:
            fact = f"{name}() of {self.file}: {error}; shape() and load() both take the options"
            raise broken_rule("options", fact) from error
        return functools.partial(function, **self.options, **more)

    def _call(self, name: str, **more: Any) -> Any:
        function = self._bound(name, **more)
        try:
            return function()
        except (Exception, SystemExit) as error:
            if name == "load" and isinstance(error, DataMissing):
                raise
            said = f"{name}() of {self.file}: {_said(error, self.file)}"
            if name == "shape":
                raise broken_rule("options", said) from error
            raise DataDamaged(said) from error


def _read(file: str, kept: Path | None) -> OwnFile:
    try:
        return own_file.read(file, kept)
    except own_file.NameTaken as error:
        raise broken_rule("file", f"{file} cannot be imported: {error}") from error
    except (OSError, RuntimeError, ValueError) as error:
        fact = getattr(error, "strerror", None) or str(error)
        raise broken_rule("file", f"{file!r} cannot be read: {fact} (looked for in {Path.cwd()})") from error


def _parameters(function: Callable[..., Any]) -> Collection[str]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()


def _said(error: BaseException, file: str) -> str:
    """The error in one line, with the line of the file where it came up."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines = [] if error.lineno is None else [error.lineno]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}".replace("\n", " ").removesuffix(": ")

"""The section `task: {kind: python}`: a task of one's own, in a Python file that the config names."""

import functools
import inspect
import typing
from collections.abc import Callable, Collection
from typing import ClassVar, Literal

from pydantic import ValidationInfo, model_validator

from gru_jax.config.sections.base import Count, broken_rule
from gru_jax.config.sections.python_file import PythonFile, said
from gru_jax.data.dataset import DataDamaged, DataMissing, Dataset, Target, TaskShape
from gru_jax.data.fitting import misfit
from gru_jax.types import Function


class PythonTask(PythonFile):
    """A task of your own: a Python `file` with functions `shape` and `load`, both called with the `options`."""

    place: ClassVar[str] = "task"

    kind: Literal["python"]
    batch: Count = 32

    @model_validator(mode="after")
    def _file_is_a_task(self, info: ValidationInfo) -> "PythonTask":
        self.read(info)
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
        if made.quantiles is not None:
            raise broken_rule("file", f"shape() of {self.file}: quantiles are of kind 'series'; leave them out")
        if made.target not in typing.get_args(Target):
            targets = ", ".join(map(repr, typing.get_args(Target)))
            raise broken_rule("file", f"shape() of {self.file}: target must be one of {targets}, got {made.target!r}")
        return made

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

    def _function(self, name: str) -> Function:
        fact = f"{self.file} has no function {name}(); a task has shape() and load()"
        return self.defined(name, broken_rule("file", fact))

    def _bound(self, name: str, **more: object) -> Callable[[], object]:
        """The function with its arguments, the options."""
        function = self._function(name)
        self.require_options(function, f"{name}()", "shape() and load() both take the options", **more)
        return functools.partial(function, **self.options, **more)

    def _call(self, name: str, **more: object) -> object:
        function = self._bound(name, **more)
        try:
            return function()
        except (Exception, SystemExit) as error:
            if name == "load" and isinstance(error, DataMissing):
                raise
            fact = f"{name}() of {self.file}: {said(error, self.file)}"
            if name == "shape":
                raise broken_rule("options", fact) from error
            raise DataDamaged(fact) from error


def _parameters(function: Function) -> Collection[str]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()

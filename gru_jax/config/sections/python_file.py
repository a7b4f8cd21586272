"""What `task: {kind: python}` and `model: {kind: python}` share: a Python file of one's own, and options."""

import inspect
import traceback
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from gru_jax.config.sections import own_file
from gru_jax.config.sections.base import Expected, Section, broken_rule
from gru_jax.config.sections.own_file import OwnFile
from gru_jax.types import Function, Plain


def _one_value(got: Plain, of_a_kind: ValidatorFunctionWrapHandler) -> Plain:
    """One error instead of one for each kind that an option may be of."""
    try:
        return of_a_kind(got)
    except ValidationError as error:
        raise PydanticCustomError("expected", "one value: a finite number, text, true, false or null") from error


Option = Annotated[bool | int | float | str | None, WrapValidator(_one_value)]


class PythonFile(Section):
    """A Python `file` with functions or classes that are called with the `options`."""

    place: ClassVar[str]
    """The section's key in a config. A run keeps the file in a folder of this name, which is where a validation reads
    it from when its context has the folder under the same name."""

    file: Annotated[str, Field(min_length=1)]
    options: Annotated[dict[str, Option], Expected("names with values, such as {length: 20}")] = {}

    # What was read when the config was: the whole run is of one text.
    _own: OwnFile = PrivateAttr()

    def read(self, info: ValidationInfo) -> None:
        """Reads the file, or the copy that a run has kept."""
        self._own = _read(self.file, (info.context or {}).get(self.place))

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

    def defined(self, name: str, missing: PydanticCustomError) -> Function:
        """What the file defines under a name; `missing` is raised where that is nothing that can be called."""
        try:
            found = own_file.function(self._own, self.file, name)
        except (Exception, SystemExit) as error:
            raise broken_rule("file", f"{self.file} cannot be imported: {said(error, self.file)}") from error
        if not callable(found):
            raise missing
        return found

    def require_options(self, function: Function, name: str, fix: str, **more: object) -> None:
        """Raises the error of the key `options` unless a function takes them, and more arguments."""
        try:
            inspect.signature(function).bind(**self.options, **more)
        except (TypeError, ValueError) as error:
            raise broken_rule("options", f"{name} of {self.file}: {error}; {fix}") from error


def _read(file: str, kept: Path | None) -> OwnFile:
    try:
        return own_file.read(file, kept)
    except own_file.NameTaken as error:
        raise broken_rule("file", f"{file} cannot be imported: {error}") from error
    except (OSError, RuntimeError, ValueError) as error:
        fact = getattr(error, "strerror", None) or str(error)
        raise broken_rule("file", f"{file!r} cannot be read: {fact} (looked for in {Path.cwd()})") from error


def said(error: BaseException, file: str) -> str:
    """An error in one line, with the line of the file where it came up."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines = [] if error.lineno is None else [error.lineno]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}".replace("\n", " ").removesuffix(": ")

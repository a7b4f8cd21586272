"""The section `model: {kind: python}`: layers of a cell of one's own, in a Python file that the config names."""

import inspect
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, model_validator

from gru_jax.cells import Cell
from gru_jax.checks import did_you_mean
from gru_jax.config.sections.base import Expected, Fraction, broken_rule
from gru_jax.config.sections.models.recurrent import RecurrentModel
from gru_jax.config.sections.python_file import PythonFile, said
from gru_jax.scans.masking import takes_dropout


class PythonModel(PythonFile, RecurrentModel):
    """A stack of layers of your own cell: the class `name` of a Python `file`, called with the `options`.

    It is given `hidden` as `hidden_size`, if it has an argument of this name.
    """

    place: ClassVar[str] = "model"

    kind: Literal["python"]
    name: Annotated[
        str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=128), Expected("a name such as 'LiGRU'")
    ]
    recurrent_dropout: Fraction = 0.0

    @model_validator(mode="after")
    def _file_has_a_cell(self, info: ValidationInfo) -> "PythonModel":
        self.read(info)
        cell = self.cell()
        if self.recurrent_dropout and not takes_dropout(cell):
            fact = f"{self.name} has no step(params, u, h, drop), which takes a dropout mask; set 0"
            raise broken_rule("recurrent_dropout", fact)
        return self

    def cell(self) -> Cell:
        """What one step of a layer computes, as the file has it."""
        nearest = did_you_mean(self.name, self.source.names())
        make = self.defined(self.name, broken_rule("name", f"{self.file} has no class {self.name}{nearest}"))
        width = {"hidden_size": self.hidden} if "hidden_size" in _parameters(make) else {}
        self.require_options(make, self.name, "they are its arguments, beside hidden_size", **width)
        try:
            made = make(**self.options, **width)
            hash(made)
        except (Exception, SystemExit) as error:
            raise broken_rule("options", f"{self.name} of {self.file}: {said(error, self.file)}") from error
        if not isinstance(made, Cell):
            members = ("init", "project", "step", "initial_state", "output")
            missing = ", ".join(name for name in members if not hasattr(made, name))
            fact = f"{self.name} of {self.file} is no cell: {type(made).__name__} has no {missing}"
            raise broken_rule("name", fact)
        return made


def _parameters(make: Any) -> Any:
    try:
        return inspect.signature(make).parameters
    except (TypeError, ValueError):
        return ()

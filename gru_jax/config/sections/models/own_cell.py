"""The section `model: {kind: python}`: layers of a cell of one's own, in a Python file that the config names."""

import inspect
from collections.abc import Collection
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, model_validator

from gru_jax.cells import Cell
from gru_jax.checks import did_you_mean
from gru_jax.config.sections.base import Expected, Fraction, broken_rule
from gru_jax.config.sections.in_words import short
from gru_jax.config.sections.models.recurrent import RecurrentModel
from gru_jax.config.sections.python_file import PythonFile, said
from gru_jax.data.dataset import TaskShape
from gru_jax.scans.masking import takes_dropout
from gru_jax.types import Array, Function, Tree


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

    def misstep(self, task: TaskShape) -> str | None:
        """What goes wrong in a step of the cell, layer by layer, or None; only shapes are computed.

        Args:
            task: whose sequences it reads.
        """
        features = task.features if self.embedding is None else self.embedding
        for _ in range(self.layers):
            try:
                found = _widths_of_step(self.cell(), features)
            except _Misfit as wrong:
                return f"{wrong.args[0]} of {self.name} in {self.file} {wrong.args[1]}"
            except (Exception, SystemExit) as error:
                # Of jax's own errors the fact, not the tale of how the value came to be.
                fact = said(error, self.file).partition(" The error occurred while tracing")[0]
                return f"{self.name} of {self.file}: {short(fact, 400)}"
            features = found * (2 if self.bidirectional and self.merge == "concat" else 1)
        return None


class _Misfit(Exception):
    """A method of a cell, and what it returned in place of what it has to."""


_BATCH, _TIME = 3, 5


def _widths_of_step(cell: Cell, features: int) -> int:
    """How many features a cell puts out, of so many.

    Raises:
        _Misfit: what a method returns is not what the next one is given.
        Exception, SystemExit: whatever its methods raise.
    """
    import jax
    import jax.numpy as jnp

    def step() -> Array:
        params = cell.init(jax.random.key(0), features)
        # As scans do it: all of time at once, and then step by step.
        u = cell.project(params, jnp.zeros((_TIME, _BATCH, features), jnp.float32))
        for leaf in jax.tree.leaves(u):
            if jnp.shape(leaf)[:2] != (_TIME, _BATCH):
                got = f"an array of shape {list(jnp.shape(leaf))} for x of [{_TIME}, {_BATCH}, {features}]"
                fact = f"returned {got}; each of its arrays begins with time and batch"
                raise _Misfit("project", fact)
        h = cell.initial_state((_BATCH,), jnp.dtype(jnp.float32))
        after = cell.step(params, jax.tree.map(lambda a: a[0], u), h)
        got, state = (jax.tree.map(_shape, each) for each in (after, h))
        if got != state:
            raise _Misfit("step", f"returned {_words(got)} where its state is {_words(state)}")
        y = cell.output(after)
        if not hasattr(y, "shape") or y.shape[:1] != (_BATCH,) or len(y.shape) != 2:
            fact = f"returned {_words(jax.tree.map(_shape, y))} where a layer puts out [batch, features]"
            raise _Misfit("output", fact)
        return y

    return int(jax.eval_shape(step).shape[-1])


def _shape(array: Tree) -> str:
    """Such as "[batch, 8] float32"."""
    if not hasattr(array, "shape"):
        return type(array).__name__
    sizes = ["batch" if place == 0 and size == _BATCH else str(size) for place, size in enumerate(array.shape)]
    return f"[{', '.join(sizes)}] {array.dtype}"


def _words(shapes: Tree) -> str:
    return shapes if isinstance(shapes, str) else str(shapes).replace("'", "")


def _parameters(make: Function) -> Collection[str]:
    try:
        return inspect.signature(make).parameters
    except (TypeError, ValueError):
        return ()

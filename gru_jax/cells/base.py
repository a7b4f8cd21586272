"""What every cell is: the protocol that the scans, the combinators and the layers rely on, and nothing more."""

import inspect
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from gru_jax.types import Activation, Array, DType, Key, Params, Projected, State, Tree, exportable


@exportable("Gates")
class Gates(NamedTuple):
    """What a GRU decided at each step, for looking at.

    Attributes:
      r: reset gate, `[*batch, T, H]` (`[*batch, H]` for one step).
      z: update gate, of the same shape; 1 keeps the old state, 0 takes the candidate.
      n: candidate state, of the same shape.
    """

    r: Array
    z: Array
    n: Array


class Equations(NamedTuple):
    """Which equations a cell has, for what computes them by itself.

    Attributes:
      name: such as "gru"; machine code knows them by it.
      gate: the gates' activation.
      candidate: the candidate's.
    """

    name: str
    gate: Activation
    candidate: Activation


class Dense(NamedTuple):
    """Parameters of a cell with G gates side by side, the candidate last.

    Attributes:
      w_x: input matrix, `[I, G H]`.
      w_h: recurrent matrix, `[H, G H]`.
      b_x: bias of the projected input, `[G H]`, or None.
      b_h: bias of the recurrent products, `[G H]`, or of the candidate's alone, `[H]`, or None.
    """

    w_x: Array
    w_h: Array
    b_x: Array | None
    b_h: Array | None


@runtime_checkable
class Cell(Protocol):
    """One step of a recurrence: static options, pure methods, no time and no batching of its own.

    A class with these members runs under every method of `scan`; it must be hashable, which a frozen dataclass is,
    because it is a static argument under `jit`. Leading batch dimensions are arbitrary.

    A cell may offer more, each found by its name (`gifts` looks):

    - `step(params, u, h, drop)`: recurrent dropout.
    - `gates(params, u, h)`: for looking inside.
    - `affine(params, u)`, and `log_affine` in logarithms: a step that is linear in the state, as `(a, b)` of `a h + b`.
    - `coefficients(*u)` beside `affine`: the same from the `parts` of a projected input that lie side by side in it,
      element by element, which a kernel then computes where it reads them.
    - `linearize(params, u, h)`, with `tangent`, `cotangent` and `diagonal`: the step's derivative in closed form.
    - `transposed(params, dtype)` and `pullback(params, at, x, h, c)` beside them: gradients in closed form too, which
      `Sequential(kernel="chunked")` needs.
    - `products(params, h)`, where `has_products` is True: the recurrent products apart from the rest of the step, which
      then takes them as `products`, so that they can be kept for the backward pass.
    - `equations`, and `dense(params)`, what they take: for code that knows them.
    - `block_size`: units outside of whose block no unit's next state depends on; all of them where it is missing.
    - `input_size(params)`: I, where the parameters have no `w_x` that tells it.
    - `input_dropout = False`: of a cell whose input holds more than numbers that may be dropped and scaled.

    `GRU` has all of these but `affine` and the last two.
    """

    def init(self, key: Key, input_size: int) -> Params:
        """Fresh parameters; a third parameter `dtype` is used where there is one."""

    def project(self, params: Params, x: Array) -> Projected:
        """Everything that needs no state: `[*batch, I]` to whatever `step` takes."""

    def step(self, params: Params, u: Projected, h: State) -> State:
        """The state after one step, of the same shapes and dtypes as `h`."""

    def initial_state(self, batch: tuple[int, ...], dtype: DType) -> State:
        """The state before the first step when the caller gives none."""

    def output(self, h: State) -> Array:
        """What a layer puts out at a step, `[*batch, H]`, read from the state."""


class LinearCell(Cell, Protocol):
    """A cell that is linear in its state, `gifts(cell).affine`."""

    def affine(self, params: Params, u: Projected) -> tuple[State, State]:
        """(a, b) of a step `a h + b`."""


class LogLinearCell(Cell, Protocol):
    """One whose states are found by their logarithms, `gifts(cell).in_log_space`."""

    def log_affine(self, params: Params, u: Projected) -> tuple[Array, Array]:
        """The logarithms of (a, b)."""


class ShownCell(Cell, Protocol):
    """One that can be looked into, `gifts(cell).gates`."""

    def gates(self, params: Params, u: Projected, h: State) -> Gates:
        """What it decides in a step."""


class ClosedFormCell(Cell, Protocol):
    """One whose step has its derivative in closed form, `gifts(cell).linearize`; where it has no more, so `gifts` says.

    Every method takes a mask of recurrent dropout as well, where the cell's step does.
    """

    def linearize(self, params: Params, u: Projected, h: State) -> Tree:
        """The coefficients `at` that all others take; with `products` where they are known."""

    def tangent(self, params: Params, at: Tree, v: State) -> State:
        """`J v`."""

    def cotangent(self, params: Params, at: Tree, c: State) -> State:
        """`J^T c`; with `transposed` where it was made."""


class DiagonalCell(ClosedFormCell, Protocol):
    """One with the diagonal of that derivative, `gifts(cell).diagonal`."""

    def diagonal(self, params: Params, at: Tree) -> Array:
        """The diagonal of J."""


class ProductsCell(Cell, Protocol):
    """One with its recurrent products apart from the rest of its step, `gifts(cell).products`."""

    def products(self, params: Params, h: State) -> Array:
        """The recurrent products of a step."""


class GradientsCell(ClosedFormCell, Protocol):
    """One with gradients in closed form, too, `gifts(cell).gradients`."""

    def transposed(self, params: Params, dtype: DType) -> Tree:
        """The matrices of `cotangent`, transposed."""

    def pullback(self, params: Params, at: Tree, x: Array, h: State, c: State) -> tuple[Params, Array]:
        """What gradients of some states give to parameters and input."""


class KnownCell(Cell, Protocol):
    """One whose equations are known, `gifts(cell).equations`."""

    hidden_size: int

    @property
    def equations(self) -> Equations:
        """Which they are."""

    def dense(self, params: Params) -> Dense:
        """What they take."""


class Gifts(NamedTuple):
    """What a cell offers beside the protocol, as `Cell` lists it.

    Attributes:
      affine: it is linear in its state.
      coefficients: its (a, b) come from parts of a projected input, element by element.
      in_log_space: its states are to be found by their logarithms.
      linearize: its step's derivative in closed form.
      diagonal: the diagonal of that.
      gradients: gradients in closed form, too.
      products: the recurrent products apart from the rest of the step.
      gates: for looking inside.
      equations: its equations are known, and no class derived from theirs has changed the step.
      checks_params, checks_state: it says itself what is wrong with parameters or a state.
      input_dropout: features of its input may be dropped.
      block_size: of its Jacobian; None for one block.
    """

    affine: bool
    coefficients: bool
    in_log_space: bool
    linearize: bool
    diagonal: bool
    gradients: bool
    products: bool
    gates: bool
    equations: bool
    checks_params: bool
    checks_state: bool
    input_dropout: bool
    block_size: int | None


def gifts(cell: object) -> Gifts:
    """What a cell offers; the one place that looks."""
    has = lambda *names: all(hasattr(cell, name) for name in names)  # noqa: E731
    return Gifts(
        affine=has("affine"),
        coefficients=has("coefficients"),
        in_log_space=getattr(cell, "in_log_space", False),
        linearize=has("linearize"),
        diagonal=has("linearize", "diagonal"),
        gradients=has("linearize", "cotangent", "pullback", "transposed"),
        products=getattr(cell, "has_products", False),
        gates=has("gates"),
        equations=has("equations", "dense") and _first_of(cell, "equations", "dense", "step", "project"),
        checks_params=has("check_params"),
        checks_state=has("check_state"),
        input_dropout=getattr(cell, "input_dropout", True),
        block_size=getattr(cell, "block_size", None),
    )


def _first_of(cell: object, name: str, *others: str) -> bool:
    """Whether the class that says one thing is the last that has changed the others."""
    place = {each: next((k for k, kind in enumerate(type(cell).__mro__) if each in vars(kind)), -1)
             for each in (name, *others)}  # fmt: skip
    return all(place[name] <= place[each] for each in others)


def fresh(init: Callable[..., Params], key: Key, input_size: int, dtype: DType = jnp.float32) -> Params:
    """What `init` makes, in `dtype`; what one that takes none makes, as the protocol has it, is converted."""
    parameters = inspect.signature(init).parameters.values()
    if any(p.name == "dtype" or p.kind is p.VAR_KEYWORD for p in parameters):
        return init(key, input_size, dtype=dtype)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) or sum(p.default is p.empty for p in parameters) > 2:
        return init(key, input_size, dtype)

    def converted(leaf: Array) -> Array:
        return leaf.astype(dtype) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf

    return jax.tree.map(converted, init(key, input_size))


def accumulator(dtype: DType) -> DType:
    """The dtype that sums and gates are computed in: float32 for half precision, `dtype` itself otherwise."""
    return jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype


def sum_rows(rows: Array) -> Array:
    """The sum over rows, as a product: XLA's CPU code for a sum over the leading axis takes several times as long."""
    return jnp.matmul(jnp.ones((1, rows.shape[0]), rows.dtype), rows)[0]

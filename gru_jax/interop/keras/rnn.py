"""`RNN` of Keras: cells of this package over time, one or several on top of each other."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.cells import GRUParams
from gru_jax.combinators import recurrent
from gru_jax.interop.keras import identifiers
from gru_jax.interop.keras.attributes import Shape
from gru_jax.interop.keras.base import Layer, as_mask, as_state
from gru_jax.interop.keras.cell import GRUCell
from gru_jax.interop.keras.identifiers import Identifier
from gru_jax.interop.keras.stacked import StackedRNNCells
from gru_jax.layers.nnx import Carry
from gru_jax.scans import Method, Sequential
from gru_jax.types import Array, BoolArray, DType, Options, Tree

FLAGS = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll", "zero_output_for_mask")


class RNN(Layer):
    """A cell over time, `keras.layers.RNN` of Keras 3, for the cells of this package.

    Args:
      cell: a `GRUCell`, a `StackedRNNCells`, or a list of cells, which stands for the latter.
      return_sequences: return the output of every step instead of the last one.
      return_state: return the final states too.
      go_backwards: run from the end to the start; outputs come in the order in which they were computed.
      stateful: a call starts from the states in which the one before ended, until `reset_state`.
      unroll: all steps one after another in the program, without a loop; the numbers are the same.
      zero_output_for_mask: outputs at masked steps are 0 instead of the state held there.
      input_shape: `(time, features)`: makes the weights at once, where Keras waits for the model.
      name: of the layer; numbered when None.
      dtype: "float32", another dtype, or a policy such as "mixed_bfloat16"; the cells have their own.
      trainable: False makes the weights no `nnx.Param`.
      activity_regularizer: None, a name, a config, an object of `regularizers`, or a function to one number, for every
        array that a call returns; its value is divided by the batch's size.
      method: how the steps run over time, see `gru_jax.scan`.

    Raises:
      TypeError, ValueError: for an option of the wrong type or value.

    Example:
      >>> import jax.numpy as jnp
      >>> from gru_jax.interop import keras
      >>> rnn = keras.layers.RNN([keras.layers.GRUCell(4), keras.layers.GRUCell(5)], return_sequences=True)
      >>> rnn(jnp.ones((2, 7, 3))).shape, len(rnn.weights)
      ((2, 7, 5), 6)

    Source: keras.layers.RNN of Keras 3.15 on its JAX backend.
    """

    who = "RNN"
    return_sequences: bool
    return_state: bool
    go_backwards: bool
    stateful: bool
    unroll: bool
    zero_output_for_mask: bool

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        input_shape: Shape | None = None,
        name: str | None = None,
        dtype: DType = None,
        trainable: bool = True,
        activity_regularizer: Identifier = None,
        method: str | Method = "auto",
    ) -> None:
        given = dict(locals())
        for flag in FLAGS:
            checks.flag(self.who, flag, given[flag])
            setattr(self, flag, given[flag])
        if not isinstance(cell, GRUCell | StackedRNNCells):
            if not isinstance(cell, list | tuple):
                raise TypeError(
                    f"{self.who}: cell must be a GRUCell or StackedRNNCells of gru_jax.interop.keras, or a list of"
                    f" cells; got {checks.described(cell)}"
                )
            cell = StackedRNNCells(cell)
        self.method = method
        states = return_state * (len(cell.cells) if isinstance(cell, StackedRNNCells) else 1)
        super().__init__(name, dtype, trainable, activity_regularizer, 1 + states)
        self.cell = cell
        self.carry: Any = nnx.data(Carry(None) if stateful else None)
        if not trainable:
            self.trainable = False
        self._build_at_once(input_shape)

    def _cells(self) -> Iterator[GRUCell]:
        yield from self.cell._cells()

    @property
    def _stacked(self) -> bool:
        return isinstance(self.cell, StackedRNNCells)

    def _kept(self) -> tuple[Array, ...] | None:
        kept = None if self.carry is None else self.carry.get_value()
        return kept if kept is None or isinstance(kept, tuple) else (kept,)

    @property
    def state_size(self) -> list[int]:
        """The number of units of each cell."""
        return [cell.units for cell in self._cells()]

    @property
    def states(self) -> list[Array] | list[list[Array]] | None:
        """The kept states of a stateful layer, each `[B, H]`, of stacked cells each in a list; None without any."""
        kept = self._kept()
        return None if kept is None else [[h] for h in kept] if self._stacked else list(kept)

    def build(self, input_shape: Shape, initial_state_shape: Tree = None) -> None:
        """Makes the weights, and for a stateful layer the states, zeros.

        Called again it leaves the weights as they are; a stateful layer starts over, with another batch if need be.

        Args:
          input_shape: `(batch, time, features)`; batch (unless stateful) and time may be None.
          initial_state_shape: accepted as in Keras, and not needed.

        Raises:
          ValueError: when the number of features, or a stateful layer's batch, is unknown.
        """
        features = self._features(input_shape, 3)
        if self.stateful and not isinstance(input_shape[0], int):
            raise ValueError(
                f"{self.who}: stateful=True needs a known batch size; got input_shape={input_shape!r};"
                f" pass (batch, None, {features})"
            )
        self.cell.build((input_shape[0], features))
        if self.stateful:
            zeros = tuple(cell.get_initial_state(input_shape[0])[0] for cell in self._cells())  # type: ignore[arg-type]
            self.carry.set_value(zeros if self._stacked else zeros[0])
        self.built = True

    def __call__(
        self,
        sequences: ArrayLike,
        initial_state: Tree = None,
        mask: ArrayLike | Sequence[ArrayLike] | None = None,
        training: bool | None = None,
    ) -> Any:
        """Runs the layer over time.

        Args:
          sequences: `[B, T, I]`.
          initial_state: the state before the first step, `[B, H]`, or a list of it; of stacked cells a list of such;
            zeros, or a stateful layer's kept state, when None.
          mask: `[B, T]`, True or 1 = use the step; holes and padding on the left are fine.
          training: whether dropout is on; None is what `train()`, `eval()` or `nnx.view` said last, off before.

        Returns:
          output: the last output `[B, H]`, or with return_sequences all, `[B, T, H]`.
          state: with return_state only, the final state `[B, H]`; of stacked cells one for each, in a list unless
            initial_state has it outside of one.

        Raises:
          TypeError, ValueError: for input that does not fit, before anything is computed.
        """
        outputs, finals = self._run(sequences, initial_state, mask, training)
        y = outputs if self.return_sequences else finals[-1]
        self._record_activity([y, *finals] if self.return_state else [y])
        if not self.return_state:
            return y
        if not self._stacked:
            return (y, *finals)
        starts = [[]] * len(finals) if initial_state is None else initial_state
        pairs = zip(finals, starts, strict=True)
        return (y, *([h] if isinstance(start, list | tuple) else h for h, start in pairs))

    def _run(
        self, sequences: ArrayLike, initial_state: Tree, mask: object, training: bool | None
    ) -> tuple[Array, list[Array]]:
        """Every output, `[B, T, H]`, in Keras' order, and the final states; arguments as in the call."""
        training = self._training(training)
        first = next(iter(self._cells()))
        x = self._input("sequences", sequences, 3, first.kernel[...].shape[0] if self.built else None)
        mask = as_mask(self.who, mask, x)
        kept = self._kept()
        if kept is not None and kept[0].shape[0] != x.shape[0]:
            raise ValueError(
                f"{self.who}: stateful, with a state for a batch of {kept[0].shape[0]}; got a batch of {x.shape[0]};"
                f" call build({x.shape}) to start over with that batch"
            )
        starts = self._starts(initial_state, x)
        self._check_cudnn()
        self._build_for_call(x.shape)
        if initial_state is None and self.stateful:
            starts = [h.astype(x.dtype) for h in self._kept() or ()]
        finals: list[Array] = []
        for cell, h0 in zip(self._cells(), starts, strict=True):
            x, h = self._over_time(cell, x, h0, mask, training)
            finals.append(h)
        if self.stateful:
            after = tuple(h if kept is None else h.astype(k.dtype) for h, k in zip(finals, kept or finals, strict=True))
            self._keep(self.carry, after if self._stacked else after[0])
        return jnp.flip(x, 1) if self.go_backwards else x, finals

    def _starts(self, initial_state: Tree, x: Array) -> list[Array | None]:
        """A state for each cell, or None for zeros."""
        sizes = self.state_size
        if initial_state is None:
            return [None] * len(sizes)
        given = initial_state if self._stacked else [initial_state]
        if not isinstance(given, list | tuple) or len(given) != len(sizes):
            raise ValueError(
                f"{self.who}: initial_state must be a list of {len(sizes)} states, one for each cell;"
                f" got {checks.described(initial_state)}"
            )
        pairs = zip(given, sizes, strict=True)
        return [as_state(self.who, "initial_state", state, (x.shape[0], size), x.dtype) for state, size in pairs]

    def _over_time(
        self, cell: GRUCell, x: Array, h0: Array | None, mask: BoolArray | None, training: bool
    ) -> tuple[Array, Array]:
        """One cell: outputs in the order of x, and the final state."""
        runnable, params, drop_x = cell.runnable(x.shape, x.dtype, training)
        if isinstance(params, GRUParams) and cell.options.reset_after:
            params = cell.laid_out(x.dtype)
        if drop_x is not None:
            x = x * jnp.broadcast_to(drop_x[:, None], x.shape)
        layer = recurrent(runnable, method=self._method(x.shape[1]))
        padding = "zero" if self.zero_output_for_mask else "hold"
        return layer.apply(params, x, h0, mask=mask, reverse=self.go_backwards, padding=padding)

    def _check_cudnn(self) -> None:
        """For layers that can ask for it."""

    def _method(self, steps: int) -> str | Method:
        """The method, with `unroll` in it where it decides nothing else."""
        return Sequential(unroll=max(steps, 1)) if self.unroll and self.method == "auto" else self.method

    def compute_output_shape(self, sequences_shape: Shape, initial_state_shape: Tree = None) -> Any:
        """The shape of what a call returns, with return_state of all of it.

        Args:
          sequences_shape: `(batch, time, features)`, None where unknown.
          initial_state_shape: accepted as in Keras, and not needed.
        """
        self._features((*sequences_shape[:2], 1) if len(sequences_shape) == 3 else sequences_shape, 3)
        batch, time = sequences_shape[:2]
        sizes = self.state_size
        shape = (batch, time, sizes[-1]) if self.return_sequences else (batch, sizes[-1])
        return (shape, *((batch, size) for size in sizes)) if self.return_state else shape

    def compute_mask(self, inputs: object, mask: Tree) -> Tree:
        """The mask of what a call returns: the given one for all steps, None for a state.

        Args:
          inputs: not looked at.
          mask: `[B, T]`, a list of one, or None.
        """
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        mask = mask if self.return_sequences else None
        return [mask, *[None] * len(self.state_size)] if self.return_state else mask

    def get_initial_state(self, batch_size: int) -> list[Array] | list[list[Array]]:
        """Zeros, `[batch_size, H]`, in a list; of stacked cells a list of such lists.

        Args:
          batch_size: B.
        """
        return self.cell.get_initial_state(batch_size)

    def reset_state(self) -> None:
        """Sets the kept states of a stateful layer to zeros; another layer, or one not built, has none."""
        kept = self._kept()
        if kept is not None:
            zeros = tuple(map(jnp.zeros_like, kept))
            self.carry.set_value(zeros if self._stacked else zeros[0])

    def reset_states(self) -> None:
        """`reset_state`, by its older name."""
        self.reset_state()

    def get_config(self) -> Options:
        """The options as a dict, equal to what Keras' layer of the same options gives."""
        cell = identifiers.registered("keras.layers", type(self.cell).__name__, self.cell.get_config())
        return self._base_config() | {flag: getattr(self, flag) for flag in FLAGS} | {"cell": cell}

    @classmethod
    def from_config(cls, config: Options) -> Self:
        """The layer, with fresh weights, that a config describes; one of Keras works too.

        Args:
          config: what `get_config` returned.

        Raises:
          ValueError: for another cell than a GRUCell, or several.
        """
        kind, inner = config["cell"].get("class_name"), config["cell"].get("config")
        known = {each.__name__: each for each in (GRUCell, StackedRNNCells)}
        checks.choice(cls.who, "cell", kind, known)
        return cls(**(dict(config) | {"cell": known[kind].from_config(inner)}))

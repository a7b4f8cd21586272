"""`gru_jax.Stream`: a layer, a network or a cell one step a call, on NumPy arrays."""

import warnings
from pathlib import Path
from typing import Any, NoReturn, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gru_jax import checks
from gru_jax.streams import arguments
from gru_jax.streams.compiled import Compiled
from gru_jax.streams.network import NoMachineCodeError, taken_apart
from gru_jax.types import BoolArray, Params, State

_ARRAY = np.ndarray


@checks.suggesting
class Stream:
    """A recurrent network one step a call, for data that arrive frame by frame.

        y_t, h_t = net(x_t, h_{t-1})

    A call takes a NumPy array, gives one, and keeps the state for the next. Nothing of JAX runs in between: the step of
    the whole network is one function of machine code. Where there is none for a network, XLA's takes its place, which
    `engine` tells.

    The parameters are copied when a stream is made; `update` takes others. Dropout is off. Streams of one layer know
    nothing of each other. A stream may be used from any thread, but from one at a time.

    Args:
      layer: a `gj.nnx.GRU` or `gj.nnx.GRUCell`; or, with `params`, a cell, what `gj.recurrent`, `gj.stack` or
        `gj.models.readout` made (an output after each step), or a `gj.linen.GRU`.
      params: of a network or a cell, the variables of a `gj.linen.GRU`; of a layer that holds its own, others in their
        place, as its `functional` returns them.
      h0: states before the first step, such as learned ones, in the structure of the layer's states, each `[H]` or
        `[*batch, H]`; the cells' initial states, zeros, when None.
      batch: how many sequences there are, or their shape; that of the first x when None. With it code is compiled now,
        and not in the first call.

    Attributes:
      engine: "llvm" for machine code, "xla" for a function that XLA compiled.
      reason: why it is "xla"; None where it is not.

    Raises:
      TypeError, ValueError: for what takes no steps, such as a layer that reads its sequence from the end, and for
        params that do not fit.

    Example:
      >>> import numpy as np, gru_jax as gj
      >>> from flax import nnx
      >>> layer = gj.nnx.GRU(3, 4, rngs=nnx.Rngs(0))
      >>> stream = gj.Stream(layer)
      >>> x = np.ones((2, 7, 3), np.float32)
      >>> y = np.stack([stream(x[:, t]) for t in range(7)], axis=1)
      >>> bool(np.abs(y - layer(x)[0]).max() < 1e-6)
      True
    """

    def __init__(
        self, layer: object, params: Params = None, h0: State = None, *, batch: int | tuple[int, ...] | None = None
    ) -> None:
        self._given = layer
        self._layer, self._params = arguments.functional(layer, params)
        self._dtype = arguments.dtype(self._params)
        self._h0 = jax.tree.map(np.asarray, arguments.plain(h0))
        self._network, self.reason = arguments.network(self._layer, self._params)
        known = self._network
        self._features = arguments.input_size(self._layer, self._params) if known is None else known.features
        self._running: Any = None
        self._shape: tuple[int, ...] | None = None
        if batch is not None:
            shape = batch if isinstance(batch, tuple) else (batch,)
            for size in shape:
                checks.positive("Stream", "batch", size)
            if self._features is None:
                raise ValueError("Stream: batch needs the input size, which these params do not tell; leave it out")
            self._begin(np.zeros((*shape, self._features), self._dtype))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """One step.

        Args:
          x: `[*batch, I]`, in the dtype of the parameters.

        Returns:
          y, `[*batch, F]`, an array of its own.

        Raises:
          TypeError: for another dtype.
          ValueError: for another number of features, or of sequences than the state is of.
        """
        if type(x) is not _ARRAY or x.dtype is not self._dtype or x.shape != self._shape:
            x = self._fitting(x)
        self._x[...] = x
        self._run(self._job)
        return self._copy()

    @property
    def engine(self) -> str:
        """What takes the steps: "llvm" or "xla"."""
        return "llvm" if self._network is not None else "xla"

    @property
    def state(self) -> State:
        """A copy of the states, each `[*batch, H]`, in the layer's structure; None where no batch is known yet."""
        return None if self._running is None else jax.tree.map(np.copy, self._running.state)

    @state.setter
    def state(self, state: State) -> None:
        if self._running is None:
            raise ValueError("Stream: no batch is known yet that states could be of; make it with Stream(..., batch=B)")
        self._set(arguments.fitted("state", state, self._running.state))
        self._shape = self._running.x.shape

    def reset(self, mask: BoolArray | None = None) -> None:
        """Lets sequences begin anew, from h0 or the cells' initial states.

        Args:
          mask: `[*batch]`, True for those that do; all of them when None, and then the next x may be of another batch.

        Raises:
          TypeError, ValueError: for a mask of another dtype or shape.
        """
        if mask is None:
            self._shape = None
            if self._running is not None:
                self._set(self._initial)
            return
        which = np.asarray(mask)
        if which.dtype != np.bool_:
            raise TypeError(f"Stream: mask must be boolean; got {which.dtype}; pass mask.astype(bool) if 1 means yes")
        if self._running is None:
            raise ValueError("Stream: there are no sequences yet; call reset() without a mask, or take a step")
        batch = self._running.x.shape[:-1]
        checks.shape("Stream", "mask", which.shape, batch, "one flag for each sequence")
        self._set(self._initial, which[..., None])

    def update(self, params: Params) -> None:
        """Takes other parameters and leaves the states as they are.

        Args:
          params: as the stream takes them, of the same shapes and dtypes; or the layer itself, if it holds its own.

        Raises:
          ValueError: for others.
        """
        given = (params, None) if hasattr(params, "functional") else (self._given, params)
        new = arguments.functional(*given)[1]
        kind = lambda a: (jnp.shape(a), str(getattr(a, "dtype", type(a))))  # noqa: E731
        had, got = (jax.tree.map(kind, p) for p in (self._params, new))
        if had != got:
            raise ValueError(
                "Stream: update takes parameters of the shapes and dtypes that the stream was made with; got others;"
                " make a new Stream"
            )
        self._params = new
        if self._network is not None:
            self._network = taken_apart(self._layer, new)
        if self._running is not None:
            self._running.take(self._params, self._network)

    def export(self, path: str | Path) -> tuple[Path, Path]:
        """Writes the step for programs in C: an object file for this kind of processor, and its header.

        With `path="gru"` these are `gru.o`, which holds the weights and needs nothing but C's library, and `gru.h`:

            gru_state state;
            gru_init(&state);                   every sequence at its beginning
            gru_step(&state, x, y);             x [B][I], y [B][F]

        Args:
          path: without an ending; its last part, which has to be a name in C, stands before those of the functions.

        Returns:
          The paths of both files.

        Raises:
          ValueError: where there is no machine code for the network, or for a path whose end is no name in C.
        """
        if self._network is None:
            raise ValueError(f"Stream: export writes machine code, and there is none for {self.reason}")
        from gru_jax.streams import c_files

        if self._running is None or not self._running.x.size:
            self._begin(np.zeros((1, self._network.features), self._dtype))
        return c_files.write(Path(path), self._running, self._initial)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        # A shallow copy would go on in the same memory, and pointers into it cannot be kept.
        raise TypeError(
            "Stream: it can be neither copied nor pickled, for its memory is machine code's; make another gj.Stream of"
            " the layer and set its state"
        )

    def __repr__(self) -> str:
        batch = None if self._running is None else self._running.x.shape[:-1]
        return f"Stream(engine={self.engine!r}{self.reason and f' for {self.reason}' or ''}, batch={batch})"

    def _fitting(self, x: ArrayLike) -> np.ndarray:
        """x as a step takes it; where there are no states, or they may be thrown away, those of its batch."""
        x = np.asarray(x)
        if x.dtype != self._dtype:
            raise TypeError(
                f"Stream: x must be {self._dtype.name}, as the parameters are; got {x.dtype.name};"
                f" pass x.astype(np.{self._dtype.name})"
            )
        if x.ndim == 0 or self._features not in (None, x.shape[-1]):
            raise ValueError(
                f"Stream: x must be the input of one step, [*batch, {self._features or 'I'}]; got shape"
                f" {list(x.shape)}; pass the frames one by one, x[:, t]"
            )
        if self._running is None or (self._shape is None and x.shape != self._running.x.shape):
            self._begin(x)
        had = self._running.x.shape
        if x.shape != had:
            raise ValueError(
                f"Stream: the states are those of batch {list(had[:-1])}; got x of shape {list(x.shape)};"
                f" call reset() to begin with other sequences, or make a stream for each"
            )
        self._shape = had
        return x

    def _begin(self, x: np.ndarray) -> None:
        """Sets out with the batch of x."""
        if self._network is not None and x.size:
            try:
                from gru_jax.streams.machine_code import MachineCode

                running: Any = MachineCode(self._network, x.shape[:-1])
            except NoMachineCodeError as error:
                self._network, self.reason = None, str(error)
                warnings.warn(f"Stream: {error}; XLA's step runs in its place", RuntimeWarning, stacklevel=4)
        if self._network is None or not x.size:
            running = Compiled(self._layer, self._params, x)
        self._initial = running.initial if self._h0 is None else arguments.fitted("h0", self._h0, running.state)
        self._features = x.shape[-1]
        self._running, self._x, self._run, self._job = running, running.x, running.run, running.job
        self._copy = running.y.copy
        self._set(self._initial)

    def _set(self, state: State, where: ArrayLike = True) -> None:
        for mine, new in zip(jax.tree.leaves(self._running.state), jax.tree.leaves(state), strict=True):
            np.copyto(mine, new, where=where)

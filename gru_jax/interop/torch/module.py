"""What `GRU` and `GRUCell` share: parameters under torch's names, state dicts, modes, dtypes."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gru_jax import checks
from gru_jax.cells import GRUParams
from gru_jax.cells.base import accumulator
from gru_jax.cells.gru_layout import LaidOut, Layout, Original
from gru_jax.cells.initializers import UniformByHidden
from gru_jax.interop.torch import names, streams, tensors
from gru_jax.types import Array, DType, Tree


class LoadResult(NamedTuple):
    """What `load_state_dict` returns.

    Attributes:
      missing_keys: the module's names that were not in the state dict.
      unexpected_keys: names in the state dict that the module does not have.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


class Parameter(nnx.Param[Array]):
    """An `nnx.Param` that answers to what torch's scripts ask of parameters besides shape and dtype."""

    def numel(self) -> int:
        """How many numbers there are."""
        return int(np.prod(self.shape))

    def dim(self) -> int:
        """How many axes there are."""
        return len(self.shape)


class TorchModule(nnx.Module):
    """An NNX module that holds its parameters as torch does; `_layout` says under which names."""

    input_size: int
    hidden_size: int
    bias: bool
    deterministic: bool

    @property
    def dtype(self) -> DType:
        """The dtype of the parameters."""
        return self._held(next(iter(self._layout.shapes()))).dtype

    @property
    def training(self) -> bool:
        """Whether dropout is on: `train()` and `eval()` set it, for this module and those around it alike."""
        return not self.deterministic

    def train(self, mode: bool = True, **attributes: Any) -> Self:
        """Training mode, as torch's and as `flax.nnx.Module.train`; returns the module itself."""
        checks.flag(self._who, "mode", mode)
        (super().train if mode else super().eval)(**attributes)
        return self

    def eval(self, **attributes: Any) -> Self:
        """Evaluation mode, without dropout; returns the module itself."""
        return self.train(False, **attributes)

    def set_view(self, deterministic: bool | None = None) -> None:
        """What `nnx.view` calls, on a copy of the module that shares its arrays.

        Args:
          deterministic: evaluation mode, without dropout; None leaves the mode as it is.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def to(self, dtype: DType) -> Self:
        """Converts the parameters to another floating-point dtype, in place; returns the module itself.

        Args:
          dtype: torch's, NumPy's or JAX's.
        """
        tensors.place(self._who, dtype)
        found = tensors.dtype(self._who, dtype)
        for _, param in self.named_parameters():
            param.set_value(param[...].astype(found))
        return self

    def half(self) -> Self:
        """Converts the parameters to float16, in place; returns the module itself."""
        return self.to(jnp.float16)

    def bfloat16(self) -> Self:
        """Converts the parameters to bfloat16, in place; returns the module itself."""
        return self.to(jnp.bfloat16)

    def float(self) -> Self:
        """Converts the parameters to float32, in place; returns the module itself."""
        return self.to(jnp.float32)

    def double(self) -> Self:
        """Converts the parameters to float64, which needs JAX's 64-bit floats; returns the module itself."""
        return self.to(jnp.float64)

    def cpu(self) -> Self:
        """Itself: JAX places arrays."""
        return self

    def cuda(self, device: object = None) -> Self:
        """Refused: where arrays live is JAX's affair."""
        tensors.device(self._who, "cuda" if device is None else device)
        return self

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, nnx.Param[Array]]]:
        """The names and `nnx.Param`s in torch's order; the prefix, with a point, before each name."""
        for name in self._layout.shapes():
            yield f"{prefix}.{name}" if prefix else name, getattr(self, name)

    def parameters(self) -> Iterator[nnx.Param[Array]]:
        """The `nnx.Param`s in torch's order."""
        for _, param in self.named_parameters():
            yield param

    def reset_parameters(self, rngs: nnx.Rngs | None = None) -> None:
        """Draws all parameters anew from U(-1/sqrt(H), 1/sqrt(H)).

        Args:
          rngs: whose stream "params" to draw from; the process's stream when None, see `manual_seed`.
        """
        self._draw(streams.checked(self._who, rngs, ("params",)), self.dtype)

    def flatten_parameters(self) -> None:
        """Nothing: there is no cuDNN buffer to fill. Here so that torch's code runs."""

    def state_dict(self, grads: Tree = None, *, prefix: str = "") -> OrderedDict[str, np.ndarray]:
        """The parameters under torch's names, or their gradients.

        Args:
          grads: what `nnx.grad` gave for this module, read instead of the module itself.
          prefix: put before each name, such as "encoder.rnn.".

        Returns:
          NumPy arrays, copies in torch's layout and order.
        """
        source = self if grads is None else grads
        found = OrderedDict()
        for name in self._layout.shapes():
            value = source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
            value = value.get_value() if isinstance(value, nnx.Variable) else value
            if isinstance(value, jax.ShapeDtypeStruct):
                raise TypeError(f"{self._who}: {name} is a shape without numbers; call load_state_dict first")
            if value is None:
                raise ValueError(
                    f"{self._who}: grads have no {name}; pass what nnx.grad gives for this module, such as"
                    f" grads['encoder'] where it stands in a larger one"
                )
            if isinstance(value, jax.core.Tracer):
                raise TypeError(f"{self._who}: state_dict gives NumPy arrays and cannot be called while JAX traces")
            found[prefix + name] = np.array(value)
        return found

    def load_state_dict(self, state_dict: Mapping[str, object], strict: bool = True, *, prefix: str = "") -> LoadResult:
        """Takes parameters over from a state dict: all of them, or none when anything is wrong.

        Args:
          state_dict: torch, NumPy or JAX arrays under torch's names, cast to the module's dtype.
          strict: demand the module's names, no more and no fewer.
          prefix: take only entries whose names begin so, without it.

        Returns:
          Lists `missing_keys` and `unexpected_keys`, empty when strict.

        Raises:
          TypeError: when the state dict is no mapping.
          ValueError: naming everything that is missing, unexpected or of another shape.
        """
        who = f"{self._who}.load_state_dict"
        checks.flag(who, "strict", strict)
        given = names.mapping(who, state_dict, prefix)
        found = names.compare(who, names.under(given, prefix), self._layout.shapes())
        counted = found if strict else found._replace(missing=[], unexpected=[])
        text = names.problems(who, counted, given, self._layout, prefix, self._layout.described())
        if text:
            raise ValueError(text)
        if not found.arrays and not strict and (advice := names.prefix_advice(given, prefix)):
            raise ValueError(f"{who}: nothing in the state dict has a name of this module's; {advice}")
        for name, array in found.arrays.items():
            self._take(name, array)
        return LoadResult(found.missing, found.unexpected)

    def extra_repr(self) -> str:
        """The options, as torch writes them."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{self._who}({self.extra_repr()})"

    __str__ = __repr__

    @property
    def _layout(self) -> names.Layout:
        raise NotImplementedError

    @property
    def _who(self) -> str:
        return type(self).__name__

    def _draw(self, rngs: nnx.Rngs, dtype: DType) -> None:
        uniform = UniformByHidden(max(1, self.hidden_size))
        for name, shape in self._layout.shapes().items():
            # In full precision: half precision has few numbers to draw from.
            value = uniform(rngs.params(), shape, accumulator(dtype)).astype(dtype)
            if isinstance(getattr(self, name, None), nnx.Variable):
                getattr(self, name).set_value(value)
            else:
                setattr(self, name, Parameter(value))

    def _take(self, name: str, array: np.ndarray) -> None:
        old = self._held(name)  # of a module that nnx.eval_shape made, a shape and a dtype
        with np.errstate(over="ignore"):  # too large for half precision is infinite, as in torch
            value = array.astype(old.dtype)
        # Parameters that were placed on purpose stay where they are.
        sharding = old.sharding if getattr(old, "committed", False) else None
        new = jnp.asarray(value) if sharding is None else jax.device_put(value, sharding)
        getattr(self, name).set_value(new)

    def _held(self, name: str) -> Array | jax.ShapeDtypeStruct:
        held = getattr(self, name)
        return held.get_value() if isinstance(held, nnx.Variable) else held

    def _value(self, name: str) -> Array:
        held = self._held(name)
        if isinstance(held, jax.ShapeDtypeStruct):
            raise TypeError(
                f"{self._who}: {name} is a shape without numbers, as nnx.eval_shape makes it; call load_state_dict"
                f" first"
            )
        return held

    def _neutral(self, suffix: str) -> GRUParams:
        """One layer and direction in the neutral layout."""
        return self._laid_out(suffix).params

    def _laid_out(self, suffix: str) -> LaidOut:
        """The same with the arrays as torch has them."""
        w_x, w_h, *biases = (self._value(kind + suffix) for kind in self._layout.kinds())
        b_x, b_h = biases or (None, None)
        original = Original(GRUParams(w_x, w_h, b_x, b_h), Layout(transposed=True))
        return LaidOut(GRUParams(w_x.T, w_h.T, b_x, b_h), original)

    def _tensor(self, name: str, given: object) -> Array:
        return tensors.floating(self._who, name, given, self.dtype)

    def _features(self, shape: tuple[int, ...]) -> None:
        if shape[-1] != self.input_size:
            raise ValueError(
                f"{self._who}: input has {shape[-1]} features but input_size is {self.input_size}; got shape"
                f" {list(shape)}; make the module with input_size={shape[-1]}, or check the order of the axes"
            )

"""A packed sequence with data of another dtype or in another place, by torch's names."""

from typing import Any, Self

import jax.numpy as jnp

from gru_jax.interop.arrays import Weight
from gru_jax.interop.torch import tensors
from gru_jax.types import DType


class Conversions:
    """What has `data` and makes the like `with_data`."""

    data: Weight
    with_data: Any

    def to(self, dtype: DType) -> Self:
        """The same sequences with data of another dtype, torch's, NumPy's or JAX's."""
        tensors.place("PackedSequence", dtype)
        return self._as(tensors.dtype("PackedSequence", dtype, floating=False))

    def float(self) -> Self:
        """The same sequences with data of float32."""
        return self.to(jnp.float32)

    def double(self) -> Self:
        """The same sequences with data of float64, which needs JAX's 64-bit mode."""
        return self.to(jnp.float64)

    def half(self) -> Self:
        """The same sequences with data of float16."""
        return self.to(jnp.float16)

    def int(self) -> Self:
        """The same sequences with data of int32."""
        return self.to(jnp.int32)

    def long(self) -> Self:
        """The same sequences with data of int64, which needs JAX's 64-bit mode."""
        return self.to(jnp.int64)

    def short(self) -> Self:
        """The same sequences with data of int16."""
        return self.to(jnp.int16)

    def char(self) -> Self:
        """The same sequences with data of int8."""
        return self.to(jnp.int8)

    def byte(self) -> Self:
        """The same sequences with data of uint8."""
        return self.to(jnp.uint8)

    def cpu(self) -> Self:
        """Itself, as pinned memory is: JAX places arrays."""
        return self

    pin_memory = cpu

    def cuda(self, device: object = None) -> Self:
        """Refused: where arrays live is JAX's affair."""
        tensors.device("PackedSequence", "cuda" if device is None else device)
        return self

    def is_pinned(self) -> bool:
        """False."""
        return False

    is_cuda = property(is_pinned)

    def _as(self, dtype: DType) -> Self:
        made: Self = self if self.data.dtype == dtype else self.with_data(self.data.astype(dtype))
        return made

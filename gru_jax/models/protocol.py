"""What every model is: the two functions that training relies on, and nothing more."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from gru_jax.types import Params, Tree


@runtime_checkable
class Model(Protocol):
    """A pair of pure functions, such as `Readout` and `SequenceModel`.

    Attributes:
      init: `(key, dtype=float32) -> params`.
      apply: `(params, x, h0=None, *, lengths=None, key=None, deterministic=False, return_state=False, ...)`, the
        outputs of whole sequences: `[*batch, O]`, one answer a sequence, or `[*batch, T, O]`, one a step.

    Example:
      >>> import gru_jax as gj
      >>> isinstance(gj.models.readout(gj.recurrent(gj.GRU(4)), 3, 2), gj.models.Model)
      True
    """

    @property
    def init(self) -> Callable[..., Params]: ...

    @property
    def apply(self) -> Callable[..., Tree]: ...

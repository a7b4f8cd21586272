"""What is to be written: a model with its parameters, and what else a format is told."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import numpy as np

from gru_jax.models import Model
from gru_jax.runs.exporting.network import Network, taken_apart
from gru_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Request:
    """A model to be written.

    Attributes:
        model: of `gru_jax.models`, in float32.
        params: of it, in float32.
        lengths: whether what is written takes the lengths of sequences.
        about: what a reader should know, text by text.
        platforms: those that `stablehlo` is written for beside the CPU.
    """

    model: Model
    params: Params
    lengths: bool
    about: Mapping[str, str]
    platforms: tuple[str, ...]

    @functools.cached_property
    def network(self) -> Network:
        """The model taken apart."""
        return taken_apart(self.model, self.params)

    def computed(self, params: Params, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """What the model itself makes of sequences with some parameters of it."""
        model = self.model
        apply = jax.jit(lambda params, x, lengths: model.apply(params, x, lengths=lengths, deterministic=True))
        return np.asarray(apply(params, x, lengths))

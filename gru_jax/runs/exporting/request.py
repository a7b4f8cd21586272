"""What is to be written: a model with its parameters, and what else a format is told."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np

from gru_jax.models import Model
from gru_jax.runs.exporting.network import ExportError, Network, taken_apart
from gru_jax.types import Params


class Scaling(NamedTuple):
    """What is done to the numbers of every step first: (x - mean) / deviation.

    Attributes:
        mean, deviation: `[I]` float32.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """x `[N, T, I]` as the model is given it, in float32, as all that is written computes it."""
        return (np.asarray(x, np.float32) - self.mean) / self.deviation

    def unscaled(self, x: np.ndarray) -> np.ndarray:
        """`scaled` undone."""
        return np.asarray(x, np.float32) * self.deviation + self.mean


@dataclasses.dataclass(frozen=True)
class Request:
    """A model to be written.

    Attributes:
        model: of `gru_jax.models`, in float32.
        params: of it, in float32.
        lengths: whether what is written takes the lengths of sequences.
        about: what a reader should know, text by text.
        platforms: those that `stablehlo` is written for beside the CPU.
        scaling: what is written begins with it; None where x is given as the model takes it.
    """

    model: Model
    params: Params
    lengths: bool
    about: Mapping[str, str]
    platforms: tuple[str, ...]
    scaling: Scaling | None = None

    @functools.cached_property
    def network(self) -> Network:
        """The model taken apart."""
        return taken_apart(self.model, self.params)

    def computed(self, params: Params, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """What the model itself makes of sequences, scaled first if they are to be, with some parameters of it."""
        model = self.model
        x = x if self.scaling is None else self.scaling.scaled(x)
        apply = jax.jit(lambda params, x, lengths: model.apply(params, x, lengths=lengths, deterministic=True))
        with on_cpu():
            return np.asarray(apply(jax.tree.map(np.asarray, params), x, lengths))


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """What is compared runs on the CPU: products of float32 are those of fewer digits on other devices."""
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError as error:
        asked = jax.config.jax_platforms  # type: ignore[attr-defined]
        raise ExportError(
            f"export: outputs are compared on the CPU, which jax was told to leave out; set JAX_PLATFORMS={asked},cpu",
            exit_code=1,
        ) from error
    with jax.default_device(cpu):
        yield

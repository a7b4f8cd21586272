"""What a file of Keras may hold: how much, and arrays of which shapes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from gru_jax.types import Plain

CONFIG_LIMIT = 2**26
"""How long a config may be, in bytes; those of real models are thousands of times shorter."""

FLOOR, EXPANSION = 2**24, 100
"""What is larger than this and than so many times its stored size is no weights but a bomb."""


class Refused(ValueError):
    """What is said here of a file, in contrast to what its readers raise."""


class Shaped(Protocol):
    """An array, or one in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""


class Source(NamedTuple):
    """The file that is read and the function that reads it, for what is said of it."""

    who: str
    path: Path

    def refused(self, fact: str, fix: str = "save the model again with Keras, or get another copy") -> Refused:
        """The error to raise."""
        return Refused(f"{self.who}: {self.path}: {fact}; {fix}")


def not_a_gru(weights: Sequence[Shaped]) -> str | None:
    """What speaks against the arrays being kernel, recurrent_kernel and bias of a GRU; None when nothing does."""
    shapes = [tuple(w.shape) for w in weights]
    if len(shapes) not in (2, 3):
        return f"there are {len(shapes)} arrays, not 2 or 3"
    if len(shapes[1]) != 2 or shapes[1][1] != 3 * shapes[1][0] or not shapes[1][0]:
        return f"the recurrent kernel has shape {list(shapes[1])}, not [units, 3 units]"
    width = shapes[1][1]
    if len(shapes[0]) != 2 or shapes[0][1] != width or not shapes[0][0]:
        return f"the kernel has shape {list(shapes[0])}, not [features, {width}]"
    if len(shapes) == 3 and shapes[2] not in ((2, width), (width,)) and not of_cudnn(weights):
        return f"the bias has shape {list(shapes[2])}, not [2, {width}] or [{width}]"
    return None


def of_cudnn(weights: Sequence[Shaped]) -> bool:
    """Whether arrays are those of Keras 2's CuDNNGRU, which alone has a bias of one row of 6 units."""
    return len(weights) == 3 and tuple(weights[2].shape) == (2 * weights[1].shape[-1],)


def from_cudnn(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The arrays of a CuDNNGRU as those of a GRU with reset_after=True; others as they are.

    cuDNN keeps each gate's matrices transposed: the kernel's numbers stand in the order of `[units, features]`.
    """
    if not of_cudnn(weights):
        return list(weights)
    kernel, recurrent, bias = weights
    features, units = kernel.shape[0], recurrent.shape[0]
    by_gate = [np.ascontiguousarray(w).reshape(units, features).T for w in np.split(kernel, 3, axis=-1)]
    turned = [w.T for w in np.split(recurrent, 3, axis=-1)]
    return [np.concatenate(by_gate, -1), np.concatenate(turned, -1), bias.reshape(2, -1)]


def parsed(source: Source, text: bytes | str) -> Plain:
    """JSON as plain data."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise source.refused(f"the model's config is no JSON: {str(error).splitlines()[0][:200]}") from error

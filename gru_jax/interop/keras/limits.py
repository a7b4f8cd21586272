"""What a file of Keras may hold: how much, and arrays of which shapes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CONFIG_LIMIT = 2**26
"""How long a config may be, in bytes; those of real models are thousands of times shorter."""

FLOOR, EXPANSION = 2**24, 100
"""What is larger than this and than so many times its stored size is no weights but a bomb."""


def not_a_gru(weights: Sequence[np.ndarray]) -> str | None:
    """What speaks against the arrays being kernel, recurrent_kernel and bias of a GRU; None when nothing does."""
    shapes = [tuple(w.shape) for w in weights]
    if len(shapes) not in (2, 3):
        return f"there are {len(shapes)} arrays, not 2 or 3"
    if len(shapes[1]) != 2 or shapes[1][1] != 3 * shapes[1][0] or not shapes[1][0]:
        return f"the recurrent kernel has shape {list(shapes[1])}, not [units, 3 units]"
    width = shapes[1][1]
    if len(shapes[0]) != 2 or shapes[0][1] != width or not shapes[0][0]:
        return f"the kernel has shape {list(shapes[0])}, not [features, {width}]"
    if len(shapes) == 3 and shapes[2] not in ((2, width), (width,)):
        return f"the bias has shape {list(shapes[2])}, not [2, {width}] or [{width}]"
    return None


def parsed(who: str, path: Path, text: bytes | str) -> Any:
    """JSON as plain data."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{who}: {path}: the model's config is no JSON: {error}") from error

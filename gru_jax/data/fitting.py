"""Whether a task's data are what its sizes say: asked of data that somebody else's code has made."""

from typing import Any

import numpy as np

from gru_jax.data.dataset import Dataset, Example, Split, TaskShape


def misfit(dataset: Dataset, shape: TaskShape) -> str | None:
    """What does not fit, in a sentence without its full stop; None when all does.

    Looks at all of the arrays, and at the first sequence of a source; of generated training data at none.

    Args:
        dataset: the task's data.
        shape: the task's sizes.

    Example:
        >>> shape = TaskShape(2, 2, 2, time=5, features=1, outputs=3)
        >>> split = Split(np.zeros((2, 5, 1), np.float32), np.array([0, 3]))
        >>> misfit(Dataset(split, split, split, "", ""), shape)
        'train.y holds 3 where outputs=3 has the numbers 0 to 2'
    """
    for name in ("train", "valid", "test"):
        part: Any = getattr(dataset, name)
        if callable(part) and not isinstance(part, Split):
            continue
        found = _of_split(part, shape) if isinstance(part, Split) else _of_source(part, shape)
        count = len(part.y) if isinstance(part, Split) else len(part)
        if found is None and count != getattr(shape, name):
            found = f" holds {count} sequences where the sizes say {getattr(shape, name)}"
        if found is not None:
            return name + found
    return None


def _of_source(source: Any, shape: TaskShape) -> str | None:
    if len(source) == 0:
        return " is empty"
    first: Example = source[0]
    if int(np.min(source.lengths)) < 1:
        return " has a sequence without a step"
    x, y = np.asarray(first.x), np.asarray(first.y)
    return _of_split(Split(x[None], y[None], np.array([len(x)])), shape)


def _of_split(split: Split, shape: TaskShape) -> str | None:
    for name in ("x", "y"):
        if not hasattr(getattr(split, name), "shape"):
            return f".{name} must be an array, got {type(getattr(split, name)).__name__}"
    x, y = np.asarray(split.x), np.asarray(split.y)
    wanted: tuple[Any, ...] = ("N", "T") if shape.tokens else ("N", "T", shape.features)
    if not _is(x.shape, wanted):
        return f".x must be {_said(wanted)}, got {list(x.shape)}"
    told = {"class": ("N",), "values": ("N", shape.outputs), "tags": ("N", "T"), "notes": ("N", "T", shape.outputs)}
    if not _is(y.shape, told[shape.target]) or y.shape[0] != x.shape[0]:
        return f".y must be {_said(told[shape.target])} for target={shape.target!r}, got {list(y.shape)}"
    if shape.target in ("tags", "notes") and y.shape[1] != x.shape[1]:
        return f".y tells {y.shape[1]} steps where .x has {x.shape[1]}"
    if shape.tokens and (said := _outside(x, shape.features, "features")):
        return ".x" + said
    if shape.target in ("class", "tags") and (said := _outside(y, shape.outputs, "outputs")):
        return ".y" + said
    return None


def _outside(numbers: np.ndarray, size: int, name: str) -> str | None:
    if numbers.dtype.kind not in "iub":
        return f" must be whole numbers, got {numbers.dtype}"
    wrong = numbers[(numbers < 0) | (numbers >= size)]
    return f" holds {wrong[0]} where {name}={size} has the numbers 0 to {size - 1}" if wrong.size else None


def _is(got: tuple[int, ...], wanted: tuple[Any, ...]) -> bool:
    return len(got) == len(wanted) and all(isinstance(w, str) or g == w for g, w in zip(got, wanted, strict=True))


def _said(wanted: tuple[Any, ...]) -> str:
    return "[" + ", ".join(map(str, wanted)) + "]"

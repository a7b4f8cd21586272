"""Whether a task's data are what its sizes say: asked of data that somebody else's code has made."""

from typing import Any

import jax
import numpy as np

from gru_jax.data.dataset import Dataset, Generator, Sequences, Split, TaskShape

_AGREE = "; make load() and shape() agree"
_FILL_IN = "; fill it in, or leave the sequence out"


def misfit(dataset: Dataset, shape: TaskShape) -> str | None:
    """What does not fit, and what would mend it, in a sentence without its full stop; None when all does.

    Looks at every number of every sequence that counts, in all splits; of generated training data at one draw.

    Args:
        dataset: the task's data.
        shape: the task's sizes.

    Example:
        >>> shape = TaskShape(2, 2, 2, time=5, features=1, outputs=3)
        >>> split = Split(np.zeros((2, 5, 1), np.float32), np.array([0, 3]))
        >>> misfit(Dataset(split, split, split, "", ""), shape)
        'train.y holds 3 where outputs=3 has the numbers 0 to 2, at sequence 1; make load() and shape() agree'
    """
    for name in ("description", "fingerprint"):
        if not isinstance(getattr(dataset, name), str):
            return f"{name} must be a text, got {type(getattr(dataset, name)).__name__}"
    parts: dict[str, Any] = {name: getattr(dataset, name) for name in ("train", "valid", "test")}
    made = {name: part for name, part in parts.items() if callable(part) and not isinstance(part, Split)}
    for name, part in parts.items():
        if name in made and name == "train":
            continue
        longest = shape.time if name == "train" else None
        found = _of_split(part, shape, longest) if isinstance(part, Split) else _of_source(part, shape, longest)
        count = 0 if found else len(part.y) if isinstance(part, Split) else len(part)
        if found is None and count != getattr(shape, name):
            found = f" holds {count} sequences where the sizes say {getattr(shape, name)}{_AGREE}"
        if found is not None:
            return name + found
    return f"train{found}" if "train" in made and (found := _of_generator(made["train"], shape)) else None


def _of_generator(generate: Generator, shape: TaskShape) -> str | None:
    try:
        # Numbers too, not shapes alone: what is wrong with all of them would else be told as divergence.
        split = jax.device_get(jax.jit(lambda: generate(jax.random.key(0), shape.valid))())
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        return f" cannot be generated under jax.jit: {type(error).__name__}: {said}; use jax.numpy on the key"
    if not isinstance(split, Split):
        return f" must be generated as a Split, got {type(split).__name__}; return Split(x, y)"
    found = _of_split(split, shape, shape.time)
    if found is None and len(split.x) != shape.valid:
        found = f" is generated as {len(split.x)} sequences where {shape.valid} are asked for; make so many"
    return found


def _of_source(source: Any, shape: TaskShape, longest: int | None) -> str | None:
    if not all(hasattr(source, name) for name in ("lengths", "__len__", "__getitem__")):
        kinds = "a Split, Sequences or another source"
        return f" must be {kinds}, got {type(source).__name__}; of the three splits only train may be generated"
    if isinstance(source, Sequences) and len(source.x) != len(source.y):
        return f" has {len(source.x)} sequences in x and {len(source.y)} in y; give each sequence its target"
    if len(source) == 0:
        return " is empty; leave no split without a sequence"
    lengths = np.asarray(source.lengths)
    if lengths.shape != (len(source),) or lengths.dtype.kind not in "iu":
        return f".lengths must be whole numbers [N], got {lengths.dtype}{list(lengths.shape)} for N={len(source)}"
    for i in range(len(source)):
        try:
            x, y = source[i].x, np.asarray(source[i].y)
        except Exception as error:
            return f"[{i}] cannot be read: {type(error).__name__}: {error}"
        found = _of_shapes(x, y, shape, ())
        if found is None and len(x) != lengths[i]:
            found = f".x has {len(x)} steps where .lengths says {lengths[i]}"
        if found is None:
            found = _of_steps(np.array([len(x)]), longest, "") or _of_values(np.asarray(x), y, shape)
        if found is not None:
            return f"[{i}]{found}"
    return None


def _of_split(split: Split, shape: TaskShape, longest: int | None) -> str | None:
    found = _of_shapes(split.x, split.y, shape, ("N",))
    if found is not None:
        return found
    x, y = np.asarray(split.x), np.asarray(split.y)
    if len(x) == 0:
        return " is empty; leave no split without a sequence"
    for name, part in (("lengths", split.lengths), ("asked", split.asked)):
        if part is not None and not _is_array(part):
            return f".{name} must be an array, got {type(part).__name__}; convert it with np.asarray"
    counts = np.ones(x.shape[:2], bool)
    lengths = np.full(len(x), x.shape[1])
    if split.lengths is not None:
        lengths = np.asarray(split.lengths)
        if lengths.shape != (len(x),) or lengths.dtype.kind not in "iu":
            return f".lengths must be whole numbers [N], got {lengths.dtype}{list(lengths.shape)} for N={len(x)}"
        wrong = np.flatnonzero((lengths < 0) | (lengths > x.shape[1]))
        if wrong.size:
            return f".lengths holds {lengths[wrong[0]]} at sequence {wrong[0]}, where .x has {x.shape[1]} steps"
        counts = np.arange(x.shape[1]) < lengths[:, None]
    found = _of_steps(lengths, longest, ".x" if split.lengths is None else "[{}]")
    if found is not None:
        return found
    told = counts
    if split.asked is not None:
        asked = np.asarray(split.asked)
        if shape.target not in ("tags", "notes"):
            return f".asked is of targets 'tags' and 'notes', and the target is {shape.target!r}; leave it out"
        if asked.shape != x.shape[:2] or asked.dtype != bool:
            return f".asked must be true or false, {list(x.shape[:2])}, got {asked.dtype}{list(asked.shape)}"
        told = counts & asked
        if not told.any():
            return ".asked asks nothing of any sequence; a metric needs a step that counts"
    return _of_values(x, y, shape, counts, told)


def _of_steps(lengths: np.ndarray, longest: int | None, where: str) -> str | None:
    if lengths.min() < 1:
        return f"{where.format(lengths.argmin())} has no step; leave the sequence out"
    if longest is not None and lengths.max() > longest:
        return f"{where.format(lengths.argmax())} has {lengths.max()} steps where the sizes say time={longest}{_AGREE}"
    return None


def _of_shapes(x: Any, y: Any, shape: TaskShape, batch: tuple[str, ...]) -> str | None:
    """What is wrong with the shapes and dtypes of sequences side by side, or, with `batch` (), of one."""
    for name, part in (("x", x), ("y", y)):
        if not _is_array(part):
            return f".{name} must be an array, got {type(part).__name__}; convert it with np.asarray"
    wanted: tuple[int | str, ...] = (*batch, "T") if shape.tokens else (*batch, "T", shape.features)
    if not _is(x.shape, wanted):
        return f".x must be {_said(wanted)}, got {list(x.shape)}{_AGREE}"
    each: dict[str, tuple[int | str, ...]]
    each = {"class": (), "values": (shape.values,), "tags": ("T",), "notes": ("T", shape.outputs)}
    told = each[shape.target]
    if not _is(y.shape, (*batch, *told)) or y.shape[: len(batch)] != x.shape[: len(batch)]:
        return f".y must be {_said((*batch, *told))} for target={shape.target!r}, got {list(y.shape)}{_AGREE}"
    steps = len(batch)
    if told[:1] == ("T",) and y.shape[steps] != x.shape[steps]:
        return f".y tells {y.shape[steps]} steps where .x has {x.shape[steps]}{_AGREE}"
    # Arrays go to the device as they are, sequences are laid side by side in float32 and int32.
    whole, numbers = ("iu", ("float32", "float64")) if batch else ("iub", None)
    for name, part, counted in (("x", x, shape.tokens), ("y", y, shape.target in ("class", "tags"))):
        kind = np.dtype(part.dtype).kind
        if counted and kind not in whole:
            return f".{name} must be whole numbers, got {part.dtype}; convert it with .astype(np.int32)"
        if not counted and (
            kind not in "fiub" or (numbers is not None and name == "x" and str(part.dtype) not in numbers)
        ):
            return f".{name} must be float32, got {part.dtype}; convert it with .astype(np.float32)"
    return None


def _of_values(
    x: np.ndarray, y: np.ndarray, shape: TaskShape, counts: np.ndarray | None = None, told: np.ndarray | None = None
) -> str | None:
    """What is wrong with the numbers at steps that count: of all of `[N, T]`, or of one sequence whole."""
    names: tuple[str, ...] = ("step",) if counts is None else ("sequence", "step")
    found = _wrong(x, shape.features if shape.tokens else None, "features", counts, names)
    if found is not None:
        return ".x" + found
    per_step = shape.target in ("tags", "notes")
    names, told = (names, told) if per_step else (names[:-1], None)
    found = _wrong(y, shape.outputs if shape.target in ("class", "tags") else None, "outputs", told, names)
    if found is None and shape.target == "notes" and (place := _first((y < 0) | (y > 1), told)) is not None:
        found = f" holds {y[place]} where a note is 0 or 1,{_at(place, names)}{_AGREE}"
    return None if found is None else ".y" + found


def _wrong(
    numbers: np.ndarray, size: int | None, name: str, counts: np.ndarray | None, names: tuple[str, ...]
) -> str | None:
    """The first number that is none of `size`, or, where that is None, that float32 does not hold."""
    if size is not None:
        place = _first((numbers < 0) | (numbers >= size), counts)
        said, fix = f" where {name}={size} has the numbers 0 to {size - 1}{',' * bool(names)}", _AGREE
    else:
        with np.errstate(over="ignore"):
            place = _first(~np.isfinite(numbers.astype(np.float32, copy=False)), counts)
        said, fix = "", _FILL_IN
    return None if place is None else f" holds {numbers[place]}{said}{_at(place, names)}{fix}"


def _first(wrong: np.ndarray, counts: np.ndarray | None) -> tuple[int, ...] | None:
    """The first place that is wrong, and counts."""
    if not wrong.any():
        return None
    if counts is not None:
        wrong = wrong & counts.reshape(*counts.shape, *(1,) * (wrong.ndim - counts.ndim))
    found = np.argwhere(wrong)
    return tuple(map(int, found[0])) if len(found) else None


def _at(place: tuple[int, ...], names: tuple[str, ...]) -> str:
    """` at sequence 3, step 17`, of as many indices as there are names."""
    return " at " + ", ".join(f"{name} {index}" for name, index in zip(names, place, strict=False)) if names else ""


def _is_array(part: Any) -> bool:
    """Whether it is like an array of NumPy's or jax's; torch's tensors have dtypes of their own."""
    try:
        np.dtype(part.dtype)
    except (AttributeError, TypeError):
        return False
    return hasattr(part, "shape")


def _is(got: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(got) == len(wanted) and all(isinstance(w, str) or g == w for g, w in zip(got, wanted, strict=True))


def _said(wanted: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(map(str, wanted)) + "]"

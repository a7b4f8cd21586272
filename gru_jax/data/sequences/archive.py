"""Labelled sequences in a NumPy archive: equal, padded, or one after the other."""

from typing import Any

import numpy as np

from gru_jax.data.files import MB, DataFile, damaged
from gru_jax.data.npz import array_names, read_arrays
from gru_jax.data.sequences.labelled import Labelled, in_order, numbered, splits_of

_LIMIT = 2048 * MB


def read_archive(file: DataFile, tags: bool, holes: bool = False) -> Labelled:
    """The sequences of an .npz file.

    It holds `x`, `[N, T, I]` or, with `lengths` `[N]`, also `[sum of lengths, I]`; `y`, classes `[N]`, or tags as x has
    steps; it may hold `split` `[N]`. Without the axis I there is one number at each step.

    Args:
        file: what `np.savez` or `np.savez_compressed` wrote.
        tags: whether y is of each step.
        holes: whether values may be missing, NaN.

    Raises:
        DataDamaged: an array is missing, or has another shape or other contents.
    """
    names = array_names(file)
    optional = tuple(name for name in ("lengths", "split") if name in names)
    arrays = read_arrays(file, ("x", "y", *optional), _LIMIT, kinds="buifU")
    x, y, lengths = arrays["x"], arrays["y"], arrays.get("lengths")
    if x.dtype.kind == "U":
        raise damaged(file.path, "'x' holds text", "save numbers; words are for y and split")
    if lengths is not None and (lengths.ndim != 1 or lengths.dtype.kind not in "iu" or lengths.min(initial=1) < 1):
        fact = f"'lengths' holds {lengths.dtype}{list(lengths.shape)}"
        raise damaged(file.path, fact, "save whole numbers from 1, one for each sequence")
    ragged = lengths is not None and x.ndim in (1, 2) and len(x) == lengths.sum()
    if x.ndim == (1 if ragged else 2):
        x = x[..., None]
    if not (x.ndim == (2 if ragged else 3) and x.size):
        form = f"{x.dtype}{list(arrays['x'].shape)}"
        form += "" if lengths is None else f", and 'lengths' add up to {lengths.sum()}"
        raise damaged(file.path, f"'x' holds {form}", "save [N, T, I], or [sum of lengths, I] with lengths [N]")
    if lengths is not None and not ragged and (len(lengths) != len(x) or lengths.max() > x.shape[1]):
        fact = f"'lengths' {list(lengths.shape)}, up to {lengths.max()}, do not fit 'x' {list(arrays['x'].shape)}"
        raise damaged(file.path, fact, "save one length for each sequence, of at most its steps")
    count = len(x) if lengths is None else len(lengths)
    lengths = np.full(count, x.shape[1]) if lengths is None else lengths
    wanted = arrays["x"].shape[: 1 if ragged else 2] if tags else (count,)
    if y.shape != wanted or y.dtype.kind == "f":
        other = "tags: false is of a class each sequence" if tags else "tags: true is of a class each step"
        fix = f"save whole numbers or words {list(wanted)}; {other}"
        raise damaged(file.path, f"'y' holds {y.dtype}{list(y.shape)}", fix)
    labels = _words(y)
    with np.errstate(over="ignore"):  # what float32 does not hold is refused below
        x = x.astype(np.float32)
    parted = [_parts(each, lengths, ragged) for each in ((x, labels) if tags else (x,))]
    for place, each in enumerate(parted[0]):
        if np.isinf(each).any() or (np.isnan(each).any() and not holes):
            fix = "fill it in" if np.isinf(each).any() else "fill it in; the key missing says what else becomes of it"
            raise damaged(file.path, f"'x' holds a number that is not finite in sequence {place}", fix)
    told: Any = parted[1] if tags else labels
    classes = in_order(np.unique(np.concatenate(told) if tags else told).tolist())
    y_numbers = [numbered(np.atleast_1d(each).tolist(), classes) for each in told]
    split = None
    if "split" in arrays:
        said = arrays["split"]
        if said.shape != (count,) or said.dtype.kind != "U":
            fact = f"'split' holds {said.dtype}{list(said.shape)}"
            raise damaged(file.path, fact, f"save a word for each of the {count} sequences: train, valid or test")
        split = splits_of(file.path, said.tolist(), [f"sequence {place}" for place in range(count)])
    return Labelled(
        parted[0],
        y_numbers if tags else [each[0] for each in y_numbers],
        classes,
        split,
        tuple(map(str, range(count))),
    )


def _words(y: np.ndarray) -> np.ndarray:
    return y if y.dtype.kind == "U" else y.astype(np.int64).astype(str)


def _parts(array: np.ndarray, lengths: np.ndarray, ragged: bool) -> list[np.ndarray]:
    """The steps of each sequence, without what pads them."""
    if ragged:
        return np.split(array, np.cumsum(lengths)[:-1])
    return [row[:length] for row, length in zip(array, lengths, strict=True)]

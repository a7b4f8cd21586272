"""The characters of a text, each to be told from those before."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru_jax.data.dataset import Dataset, Example, TaskShape
from gru_jax.data.files import MB, KnownFile, check_sizes, find, fingerprint, read
from gru_jax.data.files import text as text_of

LIMIT = 128 * MB
"""Bytes that a file may have."""


class Sizes(NamedTuple):
    """Characters in the file, and how many different ones."""

    characters: int
    vocabulary: int


KNOWN: dict[str, tuple[KnownFile, Sizes]] = {
    "tinyshakespeare.txt": (
        KnownFile(
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            "karpathy/char-rnn on GitHub, data/tinyshakespeare/input.txt",
        ),
        Sizes(1_115_394, 65),
    )
}


class Windows:
    """A `Source` of windows into a row of tokens: x are `time` tokens, y is the token after each.

    Args:
        tokens: `[n]`.
        time: T.
        stride: from the start of one window to the start of the next. The last may be shorter than T.
    """

    def __init__(self, tokens: np.ndarray, time: int, stride: int) -> None:
        self._tokens, self._time, self._stride = tokens, time, stride
        told = len(tokens) - 1
        count = told - time + 1 if stride == 1 else -(-told // stride)
        self.lengths = np.full(count, time, np.int32)
        if stride > 1:
            self.lengths[-1] = told - (count - 1) * stride

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        start = index * self._stride
        tokens = self._tokens[start : start + int(self.lengths[index]) + 1].astype(np.int32)
        return Example(tokens[:-1], tokens[1:])


def shape(file: str, time: int, sizes: Sizes | None = None, windows: int | None = None) -> TaskShape:
    """The sizes of the task, without loading it.

    Args:
        file: name of the file.
        time: T, steps of a window.
        sizes: those of a file that is not in `KNOWN`.
        windows: those that an epoch of training draws; by default as many as lie side by side in the training part.

    Raises:
        KeyError: `sizes` are not given, and the file is not known.

    Example:
        >>> shape("tinyshakespeare.txt", 256)[:4]
        (3921, 436, 436, 256)
    """
    characters, vocabulary = sizes or KNOWN[Path(file).name][1]
    train = int(characters * 0.9)
    valid = -(-(characters - train - 1) // time)
    counts = (windows or train // time, valid, valid, time, vocabulary, vocabulary)
    return TaskShape(*counts, target="tags", tokens=True, next_step=True)


def load(file: str, time: int, data_root: str | None, sizes: Sizes | None = None) -> Dataset:
    """Windows of a text: x `[T]` are characters by their numbers, y `[T]` those that follow.

    The vocabulary is the sorted characters of the file. The first 90 % are for training: a window may start at every
    one of them. The last 10 %, cut into windows side by side so that each character but the first is told once, are
    the validation split and also the test split, as there is no third part in this protocol.

    Args:
        file: name of a UTF-8 file under the folder of data files.
        time: T.
        data_root: that folder, see `files.root`.
        sizes: those of a file that is not in `KNOWN`.

    Raises:
        DataMissing: the file is not there.
        DataDamaged: it is no UTF-8 text, or has other sizes.

    Source: the split of karpathy/nanoGPT, data/shakespeare_char.
    """
    known = KNOWN[Path(file).name][0] if Path(file).name in KNOWN else None
    path = find([file], data_root, known.origin if known else "")
    content = read(path, LIMIT, known)
    tokens, vocabulary = encoded(text_of(content))
    said = sizes or KNOWN[Path(file).name][1]
    check_sizes(
        path,
        characters=(said.characters, len(tokens)),
        vocabulary=(said.vocabulary, len(vocabulary)),
    )
    cut = int(len(tokens) * 0.9)
    train, held_out = Windows(tokens[:cut], time, 1), Windows(tokens[cut:], time, time)
    description = (
        f"{path.name}: the next of {len(vocabulary)} characters, windows of {time}; {cut} characters train,"
        f" the last {len(tokens) - cut} are validation and test alike{content.note}"
    )
    return Dataset(train, held_out, held_out, description, fingerprint([content], "characters", time))


def encoded(text: str) -> tuple[np.ndarray, str]:
    """(the characters of a text as numbers, the characters that the numbers stand for).

    Example:
        >>> tokens, vocabulary = encoded("banana")
        >>> tokens.tolist(), vocabulary
        ([1, 0, 2, 0, 2, 0], 'abn')
    """
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    present = np.zeros(0x110000, bool)
    present[codes] = True
    number = np.cumsum(present) - 1
    vocabulary = "".join(map(chr, np.flatnonzero(present)))
    smallest = np.uint8 if len(vocabulary) <= 256 else np.int32
    return number.astype(smallest)[codes], vocabulary

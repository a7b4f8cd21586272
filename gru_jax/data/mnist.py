"""MNIST's handwritten digits as sequences of 784 pixels, one by one, in order or permuted."""

import struct
from pathlib import Path
from typing import Literal

import numpy as np

from gru_jax.data.dataset import Dataset, Split, TaskShape
from gru_jax.data.digits import permutation
from gru_jax.data.files import MB, DataFile, KnownFile, array_of, check_sizes, damaged, find, fingerprint, read

PIXELS, CLASSES = 784, 10
TRAIN, TEST = 60_000, 10_000
"""Images in the two halves."""

Half = Literal["all", "test"]

_ORIGIN = "the MNIST collection of LeCun, Cortes and Burges"
LIMIT = 64 * MB
"""Bytes that a file may have."""

KNOWN = {
    "train-images-idx3-ubyte.gz": KnownFile(
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", _ORIGIN
    ),
    "train-labels-idx1-ubyte.gz": KnownFile(
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", _ORIGIN
    ),
    "t10k-images-idx3-ubyte.gz": KnownFile("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", _ORIGIN),
    "t10k-labels-idx1-ubyte.gz": KnownFile("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", _ORIGIN),
}
"""The four files; each may also lie there decompressed, without `.gz`."""


def shape(half: Half = "all") -> TaskShape:
    """The sizes of the task, without loading it.

    Args:
        half: `"all"` is the usual 55,000 / 5,000 / 10,000; `"test"` is a split of the 10,000 test images alone.
    """
    sizes = (TRAIN - 5_000, 5_000, TEST) if half == "all" else (8_000, 1_000, 1_000)
    return TaskShape(*sizes, time=PIXELS, features=1, outputs=CLASSES)


def load(data_root: str | None, half: Half = "all", permuted: bool = False, permutation_seed: int = 0) -> Dataset:
    """The digits, pixels scaled to [0, 1], x `[N, 784, 1]`.

    The last 5,000 images of the training half are the validation split. Of the test half alone, of every ten images
    in the order of the file eight go to training, one to validation and one to test: the second 5,000 were written by
    other people than the first, and every split has both.

    Args:
        data_root: the folder of data files, see `files.root`.
        half: see `shape`.
        permuted: whether the pixels of every image come in another order, the same for all.
        permutation_seed: of that order, see `permutation`.

    Raises:
        DataMissing: a file is not there.
        DataDamaged: a file is not what its name says.

    Source: the task of Q. V. Le, N. Jaitly and G. Hinton, arXiv:1504.00941.
    """
    test_files, test_x, test_y = _half("t10k", TEST, data_root)
    if half == "all":
        train_files, x, y = _half("train", TRAIN, data_root)
        parts = [(x[:-5_000], y[:-5_000]), (x[-5_000:], y[-5_000:]), (test_x, test_y)]
        files, said = [*train_files, *test_files], "MNIST"
    else:
        turn = np.arange(TEST) % 10
        parts = [(test_x[chosen], test_y[chosen]) for chosen in (turn < 8, turn == 8, turn == 9)]
        files, said = test_files, "a split of MNIST's 10,000 test images alone, not comparable with published numbers:"
    decisions: tuple[object, ...] = ("mnist", half)
    if permuted:
        order = permutation(permutation_seed, PIXELS)
        parts = [(x[:, order], y) for x, y in parts]
        # The order itself: the fingerprint must tell if it ever came out otherwise.
        decisions = (*decisions, order.tolist())
    splits = [_split(x, y) for x, y in parts]
    counts = ", ".join(f"{len(s.y)} {name}" for s, name in zip(splits, ("train", "validation", "test"), strict=True))
    order_said = f"permuted pixels (seed {permutation_seed})" if permuted else "pixels one by one"
    notes = "".join(file.note for file in files)
    description = f"{said} {order_said}, {counts}{notes}"
    return Dataset(splits[0], splits[1], splits[2], description, fingerprint(files, *decisions))


def _split(x: np.ndarray, y: np.ndarray) -> Split:
    return Split((x[..., None] / np.float32(255)).astype(np.float32), y.astype(np.int32))


def _half(name: str, images: int, data_root: str | None) -> tuple[list[DataFile], np.ndarray, np.ndarray]:
    files = [_read(f"{name}-images-idx3-ubyte", data_root), _read(f"{name}-labels-idx1-ubyte", data_root)]
    x, y = read_idx(files[0], 3), read_idx(files[1], 1)
    check_sizes(files[0].path, images=(images, len(x)), pixels=(PIXELS, x.shape[1] * x.shape[2]))
    check_sizes(files[1].path, labels=(images, len(y)))
    if y.max() >= CLASSES:
        raise damaged(files[1].path, f"holds the label {y.max()}, and digits end at {CLASSES - 1}")
    return files, x.reshape(images, PIXELS), y


def _read(name: str, data_root: str | None) -> DataFile:
    path = find([f"{name}.gz", name], data_root, _ORIGIN)
    return read(path, LIMIT, KNOWN.get(Path(path).name))


def read_idx(file: DataFile, rank: int) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, bytes with their sizes in front.

    Args:
        file: content, decompressed.
        rank: how many dimensions it should have.

    Returns:
        uint8, of the shape that the header states.

    Raises:
        DataDamaged: it is no such file, or does not have the bytes that its header states.

    Source: the format's description beside Y. LeCun, C. Cortes and C. Burges, The MNIST Database.

    Example:
        >>> from pathlib import Path
        >>> content = bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1])
        >>> read_idx(DataFile(Path("labels"), content, b"", ""), 1).tolist()
        [7, 2, 1]
    """
    magic, start = bytes([0, 0, 8, rank]), 4 + 4 * rank
    if file.content[:4] != magic:
        fact = f"starts with {file.content[:4].hex() or 'nothing'}, not {magic.hex()} (unsigned bytes, {rank} sizes)"
        raise damaged(file.path, fact)
    if len(file.content) < start:
        raise damaged(file.path, f"ends within its header, after {len(file.content)} bytes")
    shape = struct.unpack(f">{rank}I", file.content[4:start])
    array = array_of(file.content[start:], np.dtype(np.uint8), shape)
    if array is None:
        claimed = " x ".join(map(str, shape))
        raise damaged(file.path, f"claims {claimed} values, and has {len(file.content) - start}")
    return array

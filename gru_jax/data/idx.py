"""IDX files: arrays of bytes with their sizes in front, as the MNIST digits come."""

import struct

import numpy as np

from gru_jax.data.files import DataFile, array_of, damaged


def read_idx(file: DataFile, rank: int) -> np.ndarray:
    """The array of unsigned bytes in an IDX file.

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

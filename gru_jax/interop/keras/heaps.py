"""The heaps in which an HDF5 file keeps its texts, looked through before HDF5 itself does.

In a damaged one HDF5 may not come to an end, and nothing in the process can end it. So the objects have to fill their
collection, one after another.
"""

import mmap
import os
import struct

from gru_jax.interop.keras import limits

START = b"GCOL\x01\0\0\0"
"""What a collection of objects begins with; its size, 8 bytes, follows, and then the objects."""

HEADER = struct.Struct("<HHIQ")
"""Of an object: its index, references, nothing, its size."""


def check(source: limits.Source, content: bytes | None = None) -> None:
    """Raises `Refused` for a collection whose objects do not fill it one after another.

    Args:
      source: the file.
      content: what is looked through in its place, such as a member of it.
    """
    if content is not None:
        _check(source, content)
    elif os.path.getsize(source.path):
        with open(source.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            _check(source, mapped)


def _check(source: limits.Source, content: bytes | mmap.mmap) -> None:
    place = content.find(START)
    while place >= 0:
        if not _walkable(content, place):
            raise source.refused(f"the texts from byte {place} on are damaged")
        place = content.find(START, place + len(START))


def _walkable(content: bytes | mmap.mmap, place: int) -> bool:
    """Whether HDF5 comes to the end of the collection there."""
    start = place + len(START) + 8
    end = place + int.from_bytes(content[place + len(START) : start], "little")
    if end > len(content):
        return True  # a file that was cut off, which HDF5 notices
    while start + HEADER.size <= end:
        index, _, _, size = HEADER.unpack(content[start : start + HEADER.size])
        # The free space, of index 0, counts its header; what else there is starts at whole eights of bytes.
        taken = HEADER.size + -(-size // 8) * 8 if index else size
        if taken < HEADER.size or start + taken > end:
            return False
        start += taken
    return True

"""MATLAB 5 files that hold cell arrays of matrices: as much of the format as such data need, and no more.

`scipy.io.loadmat` reads much more, objects and functions too, and takes memory for what a header claims before it
looks whether so much is there. Here every size is compared with the bytes that are left before anything is made.
"""

import math
import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from gru_jax.data.files import DataFile, array_of, damaged, inflated

_MATRIX, _COMPRESSED = 14, 15
_CELL_CLASS = 1
# The classes of real numbers, and how MATLAB stores them: smaller than the class, if the values allow.
_NUMBER_CLASSES = range(6, 16)
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_COMPLEX = 0x08
# An element of 8 bytes becomes objects of a few hundred.
_MOST_ELEMENTS = 100_000


class _Element(NamedTuple):
    type: int
    content: bytes


def read_cells(file: DataFile, names: tuple[str, ...], limit: int) -> dict[str, list[np.ndarray]]:
    """The cell arrays of matrices with these names; other variables are skipped unread.

    Args:
        file: content of a .mat file of version 5 to 7.
        names: of the variables.
        limit: most bytes that one variable may have, decompressed.

    Returns:
        For each name, the matrices of its cells, in MATLAB's order.

    Raises:
        DataDamaged: it is no such file, it is cut short, or a variable is missing or something else.

    Source: MAT-File Format, The MathWorks (2019), chapter 1.
    """
    reader = _Reader(file.path, file.content)
    found = {}
    for element in reader.elements(file.content[128:]):
        if element.type == _COMPRESSED:
            inside = inflated(element.content, limit, file.path)
            element = next(reader.elements(inside), None) or reader.wrong("a compressed variable is empty")
        if element.type != _MATRIX or not element.content:
            continue
        name, kind, _, shape, rest = reader.matrix(element.content)
        if name in names:
            if kind != _CELL_CLASS:
                reader.wrong(f"{name} is of MATLAB class {kind}, not a cell array (1)")
            found[name] = reader.cells(name, shape, rest)
    missing = [name for name in names if name not in found]
    if missing:
        reader.wrong(f"holds no variable {missing[0]!r}", "it should hold " + ", ".join(names))
    return found


class _Reader:
    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        if len(content) < 128:
            self.wrong(f"is {len(content)} bytes, less than the header of a MATLAB 5 file")
        mark = content[126:128]
        if mark not in (b"IM", b"MI"):
            self.wrong("is no MATLAB 5 file", "save it with -v7, not -v7.3")
        self.order = "<" if mark == b"IM" else ">"

    def wrong(self, fact: str, fix: str = "get the file again") -> NoReturn:
        raise damaged(self.path, fact, fix)

    def elements(self, content: bytes) -> Iterator[_Element]:
        """The tagged elements side by side in some bytes."""
        place = 0
        while place < len(content):
            if len(content) - place < 8:
                # What is left of a variable may be padding, never half a tag with something in it.
                if any(content[place:]):
                    self.wrong("ends in the middle of a tag")
                return
            first, size = struct.unpack_from(self.order + "II", content, place)
            if first >> 16:  # short form: size and type in one word, up to four bytes of data in the other
                kind, size, start, step = first & 0xFFFF, first >> 16, place + 4, 8
                if size > 4:
                    self.wrong(f"a short element claims {size} bytes, more than 4")
            else:
                kind, start = first, place + 8
                step = 8 + size if kind == _COMPRESSED else 8 + -(-size // 8) * 8
            if size > len(content) - start:
                self.wrong(f"an element claims {size} bytes, and {len(content) - start} are left")
            yield _Element(kind, content[start : start + size])
            place += step

    def matrix(self, content: bytes) -> tuple[str, int, int, tuple[int, ...], list[_Element]]:
        """(name, class, flags, shape, elements of data) of a variable or of a cell."""
        parts = list(islice(self.elements(content), _MOST_ELEMENTS + 1))
        if len(parts) > _MOST_ELEMENTS:
            self.wrong(f"a variable is in more than {_MOST_ELEMENTS} pieces")
        if len(parts) < 3:
            self.wrong("a variable has no flags, dimensions or name")
        flags, dimensions, name = (part.content for part in parts[:3])
        if len(flags) != 8 or len(dimensions) % 4 or not 8 <= len(dimensions) <= 32:
            self.wrong("the flags or dimensions of a variable are malformed")
        word = struct.unpack(self.order + "II", flags)[0]
        shape = struct.unpack(f"{self.order}{len(dimensions) // 4}i", dimensions)
        return name.decode("latin-1"), word & 0xFF, word >> 8 & 0xFF, shape, parts[3:]

    def cells(self, name: str, shape: tuple[int, ...], elements: list[_Element]) -> list[np.ndarray]:
        if min(shape) < 0 or math.prod(shape) != len(elements):
            self.wrong(f"{name} claims {' x '.join(map(str, shape))} cells, and has {len(elements)}")
        return [self.numbers(f"{name}[{i}]", element) for i, element in enumerate(elements)]

    def numbers(self, name: str, element: _Element) -> np.ndarray:
        if element.type != _MATRIX:
            self.wrong(f"{name} is of element type {element.type}, not a matrix (14)")
        _, kind, flags, shape, data = self.matrix(element.content)
        if kind not in _NUMBER_CLASSES or flags & _COMPLEX or len(data) != 1 or data[0].type not in _STORED:
            self.wrong(f"{name} is of MATLAB class {kind}, not a full matrix of real numbers")
        dtype = np.dtype(self.order + _STORED[data[0].type])
        array = array_of(data[0].content, dtype, shape, "F")
        if array is None:
            self.wrong(f"{name} claims {' x '.join(map(str, shape))} numbers, and has {len(data[0].content)} bytes")
        return array

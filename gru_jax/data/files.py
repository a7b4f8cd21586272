"""Data files: where they are looked for, which are known, and reading them without trusting what they claim."""

import contextlib
import hashlib
import math
import os
import stat
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru_jax.data.dataset import DataDamaged, DataMissing

VARIABLE = "GRU_JAX_DATA"
"""The environment variable that names the folder of data files."""

MB = 2**20

_TOLD = 5  # of many lines that are wrong
_MOST_STREAMS = 2**16
_FIRST_BYTES = 512  # read of a stream at first; twice as many at each further time
_MOST_LINES = 2**21
_LONGEST_LINE = 2**24


class KnownFile(NamedTuple):
    """A public file by its name.

    Attributes:
        sha256: of the whole file, in hex.
        origin: the public repository or collection that holds it, for people.
    """

    sha256: str
    origin: str


class DataFile(NamedTuple):
    """A file that was read.

    Attributes:
        path: where it was.
        content: all of it, decompressed if its name ends in .gz.
        digest: sha256 of the content.
        note: "" for a file that is known or has no known name, else what the reader of a result should know.
    """

    path: Path
    content: bytes
    digest: bytes
    note: str


def root(data_root: str | None) -> tuple[Path, str]:
    """The folder that data files are in, and who said so: `data_root`, else GRU_JAX_DATA, else `data/` here.

    Example:
        >>> root("~/music")[1], root("/tmp")[0].as_posix()
        ('data_root', '/tmp')
    """
    if data_root is not None:
        return _at_home(data_root), "data_root"
    if os.environ.get(VARIABLE):
        return _at_home(os.environ[VARIABLE]), VARIABLE
    return Path("data"), "data/ in the current directory"


def _at_home(path: str) -> Path:
    # Not Path.expanduser, which fails for the home of somebody unknown.
    return Path(os.path.expanduser(path))


def find(names: Sequence[str], data_root: str | None, origin: str = "") -> Path:
    """The first of several names of a file that is there.

    Args:
        names: relative to the folder of data files, or absolute; `~` is the home directory.
        data_root: see `root`.
        origin: where one can get the file.

    Raises:
        DataMissing: none of them is there.
    """
    folder, said_by = root(data_root)
    places = [folder / _at_home(name) for name in names]
    for place in places:
        with contextlib.suppress(OSError, ValueError):  # a name too long, or with a null character, is not there
            if place.exists():
                return place
    hint = f"; get it from {origin}, and" if origin else ";"
    raise DataMissing(
        f"{names[0]}: no such data file; looked for {' and '.join(str(place.absolute()) for place in places)}"
        f" (folder from {said_by}){hint} name its folder with data_root or {VARIABLE}"
    )


def read(path: Path, limit: int, known: KnownFile | None = None) -> DataFile:
    """A whole file, decompressed if its name ends in .gz.

    Args:
        path: of the file.
        limit: most bytes that the content may have; nothing longer is held in memory.
        known: what a file of this name should be.

    Raises:
        DataMissing: it cannot be read.
        DataDamaged: it is empty, too large, no regular file, or not what gzip writes.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise damaged(path, "is no regular file")
        if status.st_size > limit:
            raise damaged(path, f"is {status.st_size} bytes, more than the {limit} that such a file may have")
        with open(path, "rb") as file:
            # read() takes memory for all that it is asked for at once; the file may have grown since.
            stored = file.read(min(limit, status.st_size))
    except OSError as error:
        raise DataMissing(f"{path}: cannot be read: {error.strerror}; change its permissions") from error
    if not stored:
        raise damaged(path, "is empty")
    note = ""
    if known is not None:
        digest = hashlib.sha256(stored).hexdigest()
        if digest != known.sha256:
            note = f"; {path.name} is not the known file of this name (sha256 {digest[:16]}, not {known.sha256[:16]})"
    content = inflated(stored, limit, path, zlib.MAX_WBITS | 16) if path.suffix == ".gz" else stored
    return DataFile(path, content, hashlib.sha256(content).digest(), note)


def inflated(stored: bytes, limit: int, path: Path, wbits: int = zlib.MAX_WBITS) -> bytes:
    """What zlib (or, with `wbits`, gzip) compressed, if it is at most `limit` bytes.

    Raises:
        DataDamaged: it is longer, cut short, or no such stream; at most `limit + 1` bytes are ever made.
    """
    parts: list[bytes] = []
    made = place = 0
    try:
        # gzip files may be several streams, one after the other.
        for _ in range(_MOST_STREAMS):
            stream, size = zlib.decompressobj(wbits), _FIRST_BYTES
            while not stream.eof:
                if place == len(stored):
                    raise damaged(path, "ends in the middle of compressed data")
                # What a stream leaves over is copied: of all that is left, it would be once for every stream.
                parts.append(stream.decompress(stored[place : place + size], limit + 1 - made))
                made += len(parts[-1])
                if made > limit:
                    raise damaged(path, f"decompresses to more than the {limit} bytes that such data may have")
                place, size = min(place + size, len(stored)), 2 * size
            place -= len(stream.unused_data)
            if place == len(stored) or wbits <= zlib.MAX_WBITS:
                return b"".join(parts)
    except zlib.error as error:
        raise damaged(path, f"is not compressed as its name or header says ({error})") from error
    raise damaged(path, f"is more than {_MOST_STREAMS} compressed streams, one after the other", "compress it as one")


def several(facts: Sequence[str]) -> str:
    """The first of many, and how many more there are.

    Example:
        >>> several([f"line {n} is empty" for n in range(2, 9)])
        'line 2 is empty, line 3 is empty, line 4 is empty, line 5 is empty, line 6 is empty and 2 more'
    """
    more = len(facts) - _TOLD
    return ", ".join(facts[:_TOLD]) + (f" and {more} more" if more > 0 else "")


def damaged(path: Path, fact: str, fix: str = "get the file again") -> DataDamaged:
    """The error that says what is wrong with a file."""
    return DataDamaged(f"{path}: {fact}; {fix}")


def check_sizes(path: Path, **sizes: tuple[int, int]) -> None:
    """Compares what was announced with what was found: `(announced, found)` by the name of the size.

    Raises:
        DataDamaged: they differ.
    """
    wrong = [f"{name} {found}, not {said}" for name, (said, found) in sizes.items() if said != found]
    if wrong:
        raise damaged(path, f"has other sizes than announced: {', '.join(wrong)}", "correct the config or the file")


def lines(file: DataFile) -> list[str]:
    """The lines of a UTF-8 text, without their ends; a byte order mark is skipped.

    Raises:
        DataDamaged: it is not UTF-8, or has more lines than such a file may have.
    """
    # A line of nothing is one byte in a file and many in memory; so is what a line is split into.
    if file.content.count(b"\n") > _MOST_LINES:
        raise damaged(file.path, f"has more than {_MOST_LINES} lines", "take fewer")
    # Not splitlines(): form feeds and their like are no ends of lines in data files.
    parts = [line.removesuffix("\r") for line in text(file).removeprefix("\ufeff").split("\n")]
    if max(map(len, parts)) > _LONGEST_LINE:
        raise damaged(file.path, f"has a line of more than {_LONGEST_LINE} characters")
    return parts


def text(file: DataFile) -> str:
    """A UTF-8 text.

    Raises:
        DataDamaged: it is not UTF-8.
    """
    try:
        return file.content.decode()
    except UnicodeDecodeError as error:
        raise damaged(file.path, f"is no UTF-8 text: byte {error.start} does not fit", "convert it to UTF-8") from error


def fingerprint(files: Iterable[DataFile], *decisions: object) -> str:
    """16 hex digits that change with any byte of the files, or with how they are split and seen."""
    digest = hashlib.sha256(repr(decisions).encode())
    for file in files:
        digest.update(file.digest)
    return digest.hexdigest()[:16]


def array_of(content: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str = "C") -> np.ndarray | None:
    """Bytes as an array, or None if they are not exactly as many as the shape needs; allocates nothing."""
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(content):
        return None
    try:
        return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")
    except (ValueError, OverflowError):
        # Beside a size of 0 the others may be as large as they like, and there may be more of them than NumPy has.
        return None

"""NumPy archives of plain numbers: nothing is unpickled, and nothing is made before its size is known to be there."""

import io
import struct
import tokenize
import zipfile
import zlib

import numpy as np

from gru_jax.data.dataset import DataDamaged
from gru_jax.data.files import DataFile, array_of, damaged

# zipfile raises all of these on damaged archives: RuntimeError for encryption, NotImplementedError for methods.
# NumPy reads a header as Python: what that can raise.
_ARRAY_ERRORS = (
    KeyError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError, EOFError, tokenize.TokenError,
)  # fmt: skip
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, OverflowError, IndexError
)  # fmt: skip


def array_names(file: DataFile) -> set[str]:
    """The names of the arrays of an .npz file.

    Raises:
        DataDamaged: it is none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except _ZIP_ERRORS as error:
        raise _no_archive(file, error) from error


def read_arrays(
    file: DataFile, names: tuple[str, ...], limit: int, kinds: str = "buif"
) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by their names; others are skipped unread.

    Args:
        file: what `np.savez` or `np.savez_compressed` wrote.
        names: of the arrays.
        limit: most bytes that one array may have.
        kinds: what they may hold, letters of NumPy's: "U" is text.

    Raises:
        DataDamaged: an array is missing, larger, or holds anything else; or the archive is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            return {name: _array(file, archive, name, limit, kinds) for name in names}
    except KeyError as error:
        raise damaged(file.path, f"holds no array {error.args[0]!r}", "save it under that name") from error
    except _ZIP_ERRORS as error:
        raise _no_archive(file, error) from error


def _no_archive(file: DataFile, error: BaseException) -> DataDamaged:
    return damaged(file.path, f"is no whole .npz file ({error})")


def _array(file: DataFile, archive: zipfile.ZipFile, name: str, limit: int, kinds: str) -> np.ndarray:
    if f"{name}.npy" not in archive.namelist():
        raise KeyError(name)
    # Other methods decompress whole blocks, however long.
    if archive.getinfo(f"{name}.npy").compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise damaged(file.path, f"{name!r} is compressed by another method than NumPy's")
    with archive.open(f"{name}.npy") as member:
        content = member.read(limit + 1)
    if len(content) > limit:
        raise damaged(file.path, f"{name!r} is longer than the {limit} bytes that such an array may have")
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = headers[version](stream)
    # NumPy evaluates the header as a literal, and whatever that raises comes through.
    except _ARRAY_ERRORS as error:
        raise damaged(file.path, f"{name!r} has no header of a NumPy array") from error
    if dtype.hasobject or dtype.kind not in kinds:
        read = "numbers and text are" if "U" in kinds else "numbers are"
        raise damaged(file.path, f"{name!r} holds {dtype}, and only {read} read", "save it without objects")
    array = array_of(content[stream.tell() :], dtype, shape, "F" if fortran else "C")
    if array is None:
        raise damaged(file.path, f"{name!r} claims a shape of {shape} and has {len(content) - stream.tell()} bytes")
    return array

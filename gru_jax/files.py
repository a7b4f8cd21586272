"""Writing a file so that a reader, or the next start, never meets half of one, and keeping others from it."""

import os
import secrets
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no flock; what it guards works there, one process at a time
    fcntl = None  # type: ignore[assignment]


def replace(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Writes a file under another name, down to the disk, and renames it: it is the old one or the new one.

    Args:
      path: the file.
      data: all that it will hold.
      temporary: the other name, in the same folder. A new one when None, so that two writers do not meet; a fixed one
        is cleared by the next writer after a kill.
    """
    temporary = temporary or path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def lock(file: IO[str] | IO[bytes], *, wait: bool) -> None:
    """Keeps other processes from an open file; the system lets them in when it is closed, however that comes about.

    Args:
      file: the file.
      wait: until no other has it.

    Raises:
      BlockingIOError: another has it, and `wait` is False.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)

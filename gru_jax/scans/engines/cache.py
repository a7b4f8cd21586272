"""The folder of what was compiled for this user, and files of machine code in it."""

import contextlib
import hashlib
import os
from pathlib import Path

from gru_jax import files

LIMIT = 2**28
"""Bytes of kernels that are kept on the disk. The ones that were not used for longest make room for others."""
_DIGEST = hashlib.sha256().digest_size


def folder() -> Path | None:
    """GRU_JAX_CACHE, or gru_jax among the user's caches; None where nothing is to be kept, by GRU_JAX_CACHE=off.

    Raises:
      RuntimeError: where nothing says what the user's home is.
    """
    named = os.environ.get("GRU_JAX_CACHE")
    if named in ("off", "no", "0"):
        return None
    if named:
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gru_jax"


def kept(*key: str) -> bytes | None:
    """The machine code that was kept under a key.

    Args:
      key: all that it depends on.

    Returns:
      The code; None where there is none, where it is damaged, and where somebody else may have put it there.
    """
    try:
        path = _path(key)
        if path is None or not _trusted(path.parent) or not _trusted(path):
            return None
        data = path.read_bytes()
        with contextlib.suppress(OSError):  # a folder of the administrator's
            os.utime(path)
    except (OSError, RuntimeError):
        return None
    digest, code = data[:_DIGEST], data[_DIGEST:]
    return code if digest == _digest(key, code) else None


def keep(code: bytes, *key: str) -> None:
    """Keeps machine code for the next process; nothing happens where that is not possible."""
    with contextlib.suppress(OSError, RuntimeError):
        path = _path(key)
        if path is None:
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(path, _digest(key, code) + code)
        _make_room(path.parent)


def _path(key: tuple[str, ...]) -> Path | None:
    root = folder()
    return None if root is None else root / "kernels" / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:40]}.o"


def _digest(key: tuple[str, ...], code: bytes) -> bytes:
    """Half a file, or one under another's name, is not what it says."""
    return hashlib.sha256(repr(key).encode() + code).digest()


def _trusted(path: Path) -> bool:
    """Whether nobody but this user and the administrator writes there: what is read will be executed."""
    if not hasattr(os, "getuid"):
        return True
    found = path.stat()
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & 0o002


def _make_room(where: Path) -> None:
    used = []
    for entry in os.scandir(where):
        with contextlib.suppress(OSError):  # another process has made room, too
            found = entry.stat()
            used.append((found.st_mtime, found.st_size, entry.path))
    size = sum(size for _, size, _ in used)
    for _, each, path in sorted(used):
        if size <= LIMIT:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        size -= each

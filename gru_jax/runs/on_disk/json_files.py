"""Writing files so that a reader, or the next start, never meets half of one."""

import json
from pathlib import Path

from gru_jax import files
from gru_jax.types import Plain


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file under another name and renames it: it is the old one or the new one."""
    try:
        files.replace(path, data, path.with_name(f".{path.name}.tmp"))
    except OSError as error:
        # A write that fails does not say of which file.
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of text as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Plain) -> None:
    """`write_text` of a value as indented JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")

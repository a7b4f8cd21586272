"""Writing a file so that a reader, or the next start, never meets half of one."""

import os
import secrets
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Writes a file under another name in its folder, down to the disk, and renames it: it is the old or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

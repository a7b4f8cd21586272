"""Names of files without their folders, for what is sent elsewhere."""

from pathlib import PurePosixPath, PureWindowsPath

from gru_jax.types import Plain


def without_folders(said: Plain) -> Plain:
    r"""What a file of JSON or YAML says, every absolute path in it as its last part.

    Args:
        said: a text, a number, or mappings and lists of them.

    Example:
        >>> without_folders({"file": "/home/me/load.csv", "known": ["hour", "C:\\data\\t.csv"], "rate": 0.1})
        {'file': 'load.csv', 'known': ['hour', 't.csv'], 'rate': 0.1}
    """
    if isinstance(said, dict):
        return {key: without_folders(value) for key, value in said.items()}
    if isinstance(said, list):
        return [without_folders(value) for value in said]
    if isinstance(said, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(said).is_absolute():
                return kind(said).name or said
    return said

"""What may happen to a data file, and what every reader must make of it."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gru_jax.data.dataset import DataDamaged

MB = 2**20


def mutations(content: bytes, flips: int = 60, cuts: int = 25) -> Iterator[bytes]:
    """The content cut short, with bytes turned round (more often near the front), emptied, and replaced by noise."""
    random = np.random.RandomState(0)
    yield b""
    yield b"\0" * len(content)
    yield b"\xff" * len(content)
    yield random.bytes(len(content))
    yield content + b"\xff" * 9
    for place in np.unique(np.linspace(1, len(content) - 1, cuts, dtype=int)):
        yield content[:place]
    for i in range(flips):
        changed = bytearray(content)
        for _ in range(random.randint(1, 4)):
            place = random.randint(len(content) if i % 2 else min(300, len(content)))
            changed[place] = random.randint(256)
        yield bytes(changed)


def survive(load: Callable[[], object], path: Path, content: bytes, limit: int = 64 * MB) -> tuple[int, int]:
    """(refused, read) of all mutations; all but a DataDamaged that names a file there, and much memory, is an error."""
    refused, read = 0, 0
    tracemalloc.start()
    try:
        for changed in mutations(content):
            path.write_bytes(changed)
            try:
                load()
            except DataDamaged as error:
                assert str(error).startswith(str(path.parent)) and "\n" not in str(error), str(error)
                refused += 1
            else:
                read += 1
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
    return refused, read

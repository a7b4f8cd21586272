"""The host library of cuDNN's GRU on host memory, beside a cuDNN in plain loops: all of the way to it on a CPU."""

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax.ffi
import pytest

from gru_jax.scans.engines.cudnn import build, gru, library

HERE = Path(__file__).parent
_FOLDER = tempfile.TemporaryDirectory(prefix="gru-jax-fake-cudnn-")
# -O0 would be as good for the numbers, but takes longer than it saves.
OPTIONS = ("-O1", "-Wall", "-Wextra", "-Werror", "-DGRU_JAX_NO_STREAM", "-I", str(HERE))


@functools.cache
def fake() -> library.Library:
    """The library, compiled once a process."""
    path = Path(_FOLDER.name) / "fake.so"
    sources = (str(build.SOURCE), str(HERE / "cudnn.cc"))
    build.compile_into(path, [*OPTIONS, "-isystem", jax.ffi.include_dir(), *sources])
    return library.Library(path, platform="cpu")


@contextmanager
def instead_of_cudnn() -> Iterator[library.Library]:
    """`kernel="cudnn"` on the CPU; skips where there is no C++ compiler."""
    try:
        build.compiler()
    except build.PartMissing as missing:
        pytest.skip(str(missing))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gru, "BACKEND", "cpu")
        patch.setattr(library, "loaded", fake)
        yield fake()

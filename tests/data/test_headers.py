"""Headers that claim what no array has, and files of very many compressed streams."""

import gzip
import io
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gru_jax.data import files
from gru_jax.data.dataset import DataDamaged
from gru_jax.data.files import MB, DataFile
from gru_jax.data.mnist import read_idx
from gru_jax.data.npz import read_arrays


@pytest.mark.parametrize("shape", [(0, 2**70), (2**62, 0, 2**62), (0, *(1,) * 100), (1,) * 100, (-1,), (2**200,)])
def test_a_shape_that_no_array_has(shape: tuple[int, ...]) -> None:
    for content in (b"", b"x"):
        assert files.array_of(content, np.dtype(np.uint8), shape) is None
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with pytest.raises(DataDamaged, match=r"x\.npz: 'a' (claims a shape|has no header)"):
        read_arrays(DataFile(Path("x.npz"), stream.getvalue(), b"", ""), ("a",), MB)


@pytest.mark.parametrize("sizes", [(0, 2**32 - 1, 2**32 - 1), (2**32 - 1, 0, 2**32 - 1), (2**32 - 1,) * 3])
def test_an_idx_header_that_no_array_has(sizes: tuple[int, ...]) -> None:
    content = bytes([0, 0, 8, 3]) + struct.pack(">3I", *sizes)
    with pytest.raises(DataDamaged, match="images: claims .* values, and has 0"):
        read_idx(DataFile(Path("images"), content, b"", ""), 3)


def test_many_streams_take_time_in_proportion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, empty, text = tmp_path / "x.gz", gzip.compress(b""), gzip.compress(b"a" * 5000)
    # After each of them all that follows used to be copied: 18 GB.
    path.write_bytes(empty * 40_000 + text)
    began = time.process_time()
    assert files.read(path, 8 * MB).content == b"a" * 5000
    assert time.process_time() - began < 2
    monkeypatch.setattr(files, "_MOST_STREAMS", 9)
    path.write_bytes(empty * 10)
    with pytest.raises(DataDamaged, match="more than 9 compressed streams"):
        files.read(path, 8 * MB)
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 9, size, np.uint8).tobytes() for size in (0, 1, 300, 511, 512, 513, 70_000, 3)]
    path.write_bytes(b"".join(map(gzip.compress, parts)))
    assert files.read(path, 8 * MB).content == b"".join(parts)
    with pytest.raises(DataDamaged, match="decompresses to more"):
        files.inflated(path.read_bytes(), 70_000, path, 31)

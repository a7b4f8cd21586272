"""IDX files and MNIST: what was written is read, splits, permutations, damage."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from gru_jax.data import files, mnist
from gru_jax.data.dataset import DataDamaged, DataMissing
from gru_jax.data.digits import permutation
from gru_jax.data.mnist import read_idx

from .hostile import survive


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def read(path: Path, rank: int = 3) -> np.ndarray:
    return read_idx(files.read(path, 2**20), rank)


SMALL = np.random.RandomState(0).randint(0, 256, (7, 5, 4), np.uint8)


@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_reads_what_was_written(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(idx(SMALL)) if name == "x.gz" else idx(SMALL))
    assert np.array_equal(read(tmp_path / name), SMALL)


ODD = {
    "another rank": (idx(SMALL[0]), "starts with 00000802, not 00000803"),
    "other numbers": (idx(SMALL).replace(b"\x00\x00\x08", b"\x00\x00\x0d", 1), "starts with 00000d03"),
    "half a header": (idx(SMALL)[:9], "within its header, after 9 bytes"),
    "short": (idx(SMALL)[:-1], "claims 7 x 5 x 4 values, and has 139"),
    "long": (idx(SMALL) + b"1", "claims 7 x 5 x 4 values, and has 141"),
    "huge": (b"\0\0\x08\x03" + b"\xff" * 12, "claims 4294967295 x 4294967295 x 4294967295 values, and has 0"),
}


@pytest.mark.parametrize("case", ODD)
def test_other_content_is_refused(case: str, tmp_path: Path) -> None:
    content, fact = ODD[case]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataDamaged, match=fact):
        read(tmp_path / "x")


@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_damage_is_refused_or_read_within_bounds(name: str, tmp_path: Path) -> None:
    content = gzip.compress(idx(SMALL), mtime=0) if name == "x.gz" else idx(SMALL)
    refused, _ = survive(lambda: read(tmp_path / name), tmp_path / name, content, limit=8 * 2**20)
    assert refused > 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both halves, with images that tell their number: pixels 0 and 1 hold it."""
    made = tmp_path_factory.mktemp("mnist")
    for name, images in (("train", 60_000), ("t10k", 10_000)):
        numbers = np.arange(images)
        x = np.zeros((images, 784), np.uint8)
        x[:, 0], x[:, 1], x[:, 783] = numbers // 256, numbers % 256, 255
        (made / f"{name}-images-idx3-ubyte").write_bytes(idx(x.reshape(-1, 28, 28)))
        (made / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx((numbers % 10).astype(np.uint8)), 1))
    return made


def numbers(x: np.ndarray) -> np.ndarray:
    return np.rint(255 * x[:, 0, 0]).astype(int) * 256 + np.rint(255 * x[:, 1, 0]).astype(int)


def test_the_test_half_alone_is_split_and_labelled(folder: Path) -> None:
    dataset, shape = mnist.load(str(folder), "test"), mnist.shape("test")
    parts = [numbers(split.x) for split in (dataset.train, dataset.valid, dataset.test)]
    assert [len(part) for part in parts] == [shape.train, shape.valid, shape.test] == [8000, 1000, 1000]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(10_000))
    for part, split in zip(parts, (dataset.train, dataset.valid, dataset.test), strict=True):
        assert split.x.shape[1:] == (784, 1) and split.x.dtype == np.float32 and split.x.max() == 1
        assert np.array_equal(split.y, part % 10) and split.y.dtype == np.int32
        assert abs((part < 5000).mean() - 0.5) < 0.01  # both writers' halves
    assert "10,000 test images alone, not comparable" in dataset.description
    assert "not the known file" in dataset.description


def test_permuted_pixels_are_the_same_pixels_in_the_order_of_the_seed(folder: Path) -> None:
    plain = mnist.load(str(folder), "test")
    for seed in (0, 5):
        permuted = mnist.load(str(folder), "test", permuted=True, permutation_seed=seed)
        assert np.array_equal(permuted.valid.x, plain.valid.x[:, permutation(seed, 784)])
        assert np.array_equal(permuted.train.y, plain.train.y)
        assert f"permuted pixels (seed {seed})" in permuted.description
        assert permuted.fingerprint != plain.fingerprint


@pytest.mark.slow
def test_both_halves(folder: Path) -> None:
    dataset = mnist.load(str(folder))
    assert np.array_equal(numbers(dataset.train.x), np.arange(55_000))
    assert np.array_equal(numbers(dataset.valid.x), np.arange(55_000, 60_000))
    assert np.array_equal(numbers(dataset.test.x), np.arange(10_000))


def test_a_missing_half_is_said(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("t10k*"):
        (tmp_path / path.name).symlink_to(path)
    mnist.load(str(tmp_path), "test")
    with pytest.raises(DataMissing, match=r"train-images-idx3-ubyte\.gz.* and .*train-images-idx3-ubyte .*MNIST"):
        mnist.load(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "array", "fact"),
    [
        ("images-idx3", np.zeros((9_999, 28, 28), np.uint8), "images 9999, not 10000"),
        ("images-idx3", np.zeros((10_000, 28, 27), np.uint8), "pixels 756, not 784"),
        ("labels-idx1", np.zeros(9_999, np.uint8), "labels 9999, not 10000"),
        ("labels-idx1", np.full(10_000, 10, np.uint8), "the label 10"),
    ],
    ids=["images", "pixels", "labels", "classes"],
)
def test_other_sizes_are_refused(name: str, array: np.ndarray, fact: str, folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("t10k*"):
        if name not in path.name:
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / f"t10k-{name}-ubyte").write_bytes(idx(array))
    with pytest.raises(DataDamaged, match=fact):
        mnist.load(str(tmp_path), "test")


def test_the_known_test_half() -> None:
    try:
        dataset = mnist.load(None, "test")
    except DataMissing as error:
        pytest.skip(str(error))
    assert "not the known" not in dataset.description
    assert dataset.fingerprint == "307f6ccd8442950e"  # a change makes results on this split incomparable
    assert np.all(np.bincount(dataset.test.y) > 70)

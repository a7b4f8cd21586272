"""Piano rolls: both formats read back what was written, damage is refused, and the four sets are what they were."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from gru_jax.data import music
from gru_jax.data.dataset import DataDamaged, DataMissing, Dataset, Sequences

from .hostile import survive

SIZES = music.Sizes(train=4, valid=2, test=3, time=8)


def rolls(*lengths: int) -> list[np.ndarray]:
    random = np.random.RandomState(sum(lengths))
    return [(random.rand(length, 88) < 0.05).astype(np.uint8) for length in lengths]


ROLLS = {"train": rolls(5, 9, 2, 7), "valid": rolls(4, 12), "test": rolls(3, 3, 6)}


def cells(arrays: list[np.ndarray]) -> np.ndarray:
    made = np.empty((1, len(arrays)), object)
    for i, array in enumerate(arrays):
        made[0, i] = array
    return made


def mat(splits: dict[str, list[np.ndarray]] = ROLLS, compress: bool = True, **others: object) -> bytes:
    stream = io.BytesIO()
    variables = {f"{name}data": cells(arrays) for name, arrays in splits.items()}
    scipy.io.savemat(stream, {**others, **variables}, do_compression=compress)
    return stream.getvalue()


def npz(splits: dict[str, list[np.ndarray]] = ROLLS, **others: object) -> bytes:
    stream = io.BytesIO()
    arrays: dict[str, object] = {name: np.concatenate(arrays) for name, arrays in splits.items()}
    arrays |= {f"{name}_lengths": np.array([len(roll) for roll in arrays]) for name, arrays in splits.items()}
    np.savez_compressed(stream, **{**arrays, **others})
    return stream.getvalue()


def load(folder: Path, name: str, content: bytes, sizes: music.Sizes = SIZES) -> Dataset:
    (folder / name).write_bytes(content)
    return music.load(name, str(folder), sizes)


AS_FLOATS = {name: [roll.astype(np.float64) for roll in arrays] for name, arrays in ROLLS.items()}
WRITTEN = {
    "compressed": ("x.mat", mat()),
    "plain": ("x.mat", mat(compress=False)),
    "doubles": ("x.mat", mat(AS_FLOATS)),
    "with others": ("x.mat", mat(first="text", second={"a": 1}, third=np.array([1j]))),
    "npz": ("x.npz", npz()),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_reads_what_was_written(case: str, tmp_path: Path) -> None:
    dataset = load(tmp_path, *WRITTEN[case])
    for name, arrays in ROLLS.items():
        source = getattr(dataset, name)
        assert len(source) == len(arrays) and source.lengths.tolist() == [len(roll) - 1 for roll in arrays]
        for i, roll in enumerate(arrays):
            assert np.array_equal(source[i].x, roll[:-1]) and np.array_equal(source[i].y, roll[1:])
            assert source[i].x.dtype == np.uint8
    assert "4 train, 2 validation, 3 test" in dataset.description and len(dataset.fingerprint) == 16


def test_reads_big_endian_files_and_short_elements(tmp_path: Path) -> None:
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    def matrix(kind: int, shape: tuple[int, int], name: bytes, content: bytes) -> bytes:
        flags, sizes = struct.pack(">II", kind, 0), struct.pack(">ii", *shape)
        # A name of at most four letters is written in the short form.
        short = struct.pack(">HH4s", len(name), 1, name)
        return element(
            14, element(6, flags) + element(5, sizes) + (short if len(name) < 5 else element(1, name)) + content
        )

    variables = b""
    for name, arrays in ROLLS.items():
        inside = [matrix(9, roll.shape, b"", element(2, roll.tobytes("F"))) for roll in arrays]
        variables += matrix(1, (1, len(arrays)), f"{name}data".encode(), b"".join(inside))
    content = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + matrix(9, (1, 1), b"n", element(2, b"\1")) + variables
    dataset = load(tmp_path, "x.mat", content)
    assert np.array_equal(dataset.test[2].y, ROLLS["test"][2][1:])


def test_fingerprints_tell_files_apart(tmp_path: Path) -> None:
    changed = {**ROLLS, "test": [1 - roll for roll in ROLLS["test"]]}
    first, second = (load(tmp_path, "x.npz", npz(splits)).fingerprint for splits in (ROLLS, changed))
    assert first != second


ODD = {
    "other sizes": ("x.npz", npz({**ROLLS, "valid": ROLLS["valid"][:1]}), r"valid 1, not 2"),
    "another longest": ("x.mat", mat({**ROLLS, "train": rolls(5, 10, 2, 7)}), r"time 9, not 8"),
    "other numbers": ("x.mat", mat({**ROLLS, "test": [2 * roll for roll in ROLLS["test"]]}), "other numbers than 0"),
    "not a number": ("x.mat", mat({**ROLLS, "test": [np.full((3, 88), np.nan)] * 3}), "other numbers than 0"),
    "other notes": ("x.mat", mat({**ROLLS, "test": [np.zeros((3, 87))] * 3}), r"\(3, 87\), not \[2 or more, 88\]"),
    "one step": ("x.npz", npz({**ROLLS, "test": rolls(1, 3, 3)}), r"\(1, 88\), not \[2 or more, 88\]"),
    "no test": ("x.mat", mat({name: ROLLS[name] for name in ("train", "valid")}), "no variable 'testdata'"),
    "no lengths": ("x.npz", npz({name: ROLLS[name] for name in ("train", "valid")}), "no array 'test'"),
    "no sequences": ("x.mat", mat({**ROLLS, "test": []}), "test split is empty"),
    "text": ("x.mat", mat({**ROLLS, "test": ["not", "a", "roll"]}), "class 4, not a full matrix"),
    "complex": ("x.mat", mat({**ROLLS, "test": [np.full((3, 88), 1j)] * 3}), "not a full matrix of real"),
    "no cells": ("x.mat", mat({}, traindata=np.eye(3)), "not a cell array"),
    "wrong lengths": ("x.npz", npz(test_lengths=np.array([3, 3, 7])), "does not add up"),
    "negative lengths": ("x.npz", npz(test_lengths=np.array([-3, 9, 6])), "does not add up"),
    "lengths past int64": ("x.npz", npz(test_lengths=np.array([2**63 - 1, 2**63 - 1, 14])), "does not add up"),
    "a scalar": ("x.npz", npz(test=np.array(1)), "does not add up"),
    "text in npz": ("x.npz", npz(test=np.array(["a"])), "only numbers are read"),
    "matlab 7.3": ("x.mat", b"MATLAB 7.3".ljust(512), "-v7"),
    "other name": ("x.dat", b"1", "no .mat or .npz"),
}


@pytest.mark.parametrize("case", ODD)
def test_other_content_is_refused(case: str, tmp_path: Path) -> None:
    name, content, fact = ODD[case]
    with pytest.raises(DataDamaged, match=fact):
        load(tmp_path, name, content)


@pytest.mark.parametrize("case", ["compressed", "plain", "npz"])
def test_damage_is_refused_or_read_within_bounds(case: str, tmp_path: Path) -> None:
    name, content = WRITTEN[case]
    refused, _ = survive(lambda: music.load(name, str(tmp_path), SIZES), tmp_path / name, content)
    assert refused > 30


def huge_mat(claimed: int) -> bytes:
    """A cell array that claims so many sequences, each side of a roll as large."""
    inside = struct.pack("<6I2i2I", 6, 8, 1, 0, 5, 8, claimed, claimed, 1, 9) + b"traindata".ljust(16, b"\0")
    return b"".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 14, len(inside)) + inside


def bomb_mat() -> bytes:
    packed = zlib.compress(bytes(300 * 2**20), 1)
    return b"".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed


def zero_npz(size: int) -> bytes:
    return npz(train=np.zeros(size, np.uint8))


def huge_npz() -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (2**50, 88)})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("train.npy", stream.getvalue())
    return archive.getvalue()


HUGE = {
    "mat": ("x.mat", partial(huge_mat, 2**31 - 1), "claims 2147483647 x 2147483647 cells, and has 0"),
    "mat bomb": ("x.mat", bomb_mat, "decompresses to more than"),
    "npz": ("x.npz", huge_npz, r"claims a shape of \(1125899906842624, 88\)"),
    "npz bomb": ("x.npz", partial(zero_npz, 300 * 2**20), "longer than"),
}


@pytest.mark.parametrize("case", HUGE)
def test_what_a_header_claims_is_not_believed(case: str, tmp_path: Path) -> None:
    name, content, fact = HUGE[case]
    (tmp_path / name).write_bytes(content())
    tracemalloc.start()
    with pytest.raises(DataDamaged, match=fact):
        music.load(name, str(tmp_path), SIZES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20  # the limit of one variable, and a copy while it is read


class Payload:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    made = tmp_path / "made"
    content = npz(train=np.array([Payload(made)], object))
    with pytest.raises(DataDamaged, match="only numbers are read"):
        load(tmp_path, "x.npz", content)
    with pytest.raises(DataDamaged, match=r"no whole \.npz"):
        load(tmp_path, "x.npz", pickle.dumps(Payload(made)))
    assert not made.exists()


def test_floors_of_a_set_that_can_be_counted_by_hand() -> None:
    # One note that is on at every other step, the others silent: the marginal is a coin, the chain has no doubt.
    roll = np.zeros((1001, 88), np.uint8)
    roll[::2, 3] = 1
    source = Sequences([roll[:-1]], [roll[1:]])
    dataset = Dataset(source, source, source, "", "")
    assert music.marginal_floor(dataset) == pytest.approx(np.log(2), abs=0.02)
    assert music.markov_floor(dataset) == pytest.approx(0, abs=0.02)


FLOORS = {
    "JSB_Chorales.mat": (11.06, 10.49),
    "Nottingham.mat": (10.25, 5.15),
    "MuseData.mat": (11.51, 8.56),
    "Piano_midi.mat": (11.05, 8.27),
}


@pytest.mark.parametrize("name", FLOORS)
def test_the_known_sets(name: str) -> None:
    try:
        dataset = music.load(name, None)
    except DataMissing as error:
        pytest.skip(str(error))
    assert "not the known" not in dataset.description
    floors = music.marginal_floor(dataset), music.markov_floor(dataset)
    assert floors == pytest.approx(FLOORS[name], abs=0.005)

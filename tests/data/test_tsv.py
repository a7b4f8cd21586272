"""Tables of the Long Range Arena: tokens, unknown ones, classes, and lines that are not rows."""

from pathlib import Path

import numpy as np
import pytest

from gru_jax.data import tsv
from gru_jax.data.dataset import DataDamaged, DataMissing, Dataset

from .hostile import survive

TRAIN = "Source\tTarget\n( ( [MAX 2 ) 9 ]\t9\n( [MIN 2 ) 10\t2\n2\t10\n"
VALID = "Source\tTarget\r\n[MED 2 9 ]\t2\r\n"
SIZES = tsv.Sizes(train=3, valid=1, test=1, time=4, vocabulary=6, classes=3)
LISTOPS = tsv.Reading("words", drop="()")
NAMES = ("train.tsv", "valid.tsv", "test.tsv")


def load(folder: Path, train: str, valid: str, sizes: tsv.Sizes = SIZES, reading: tsv.Reading = LISTOPS) -> Dataset:
    for name, content in zip(NAMES, (train, valid, valid), strict=True):
        (folder / name).write_bytes(content.encode())
    return tsv.load(NAMES, str(folder), sizes, reading)


def test_words_in_sorted_order_and_one_number_for_the_unknown(tmp_path: Path) -> None:
    dataset, shape = load(tmp_path, TRAIN, VALID), tsv.shape(SIZES)
    words = sorted(["[MAX", "2", "9", "]", "[MIN", "10"])
    assert shape.features == 7 and shape.outputs == 3 and shape.tokens and shape.target == "class"
    for i, (source, label) in enumerate([("[MAX 2 9 ]", 1), ("[MIN 2 10", 0), ("2", 2)]):
        assert [words[token] for token in dataset.train[i].x] == source.split()
        assert dataset.train[i].y == label  # 2, 9, 10: by value, not as text
    assert dataset.valid[0].x.tolist() == [6, *(words.index(word) for word in ("2", "9", "]"))]
    assert dataset.train.lengths.tolist() == [4, 3, 1]
    assert dataset.train[0].x.dtype == np.uint16  # long tables have to fit into memory
    assert "3 train, 1 validation, 1 test" in dataset.description


def test_characters_and_a_cut(tmp_path: Path) -> None:
    sizes = tsv.Sizes(2, 1, 1, time=3, vocabulary=3, classes=2)
    content = "Source\tTarget\nab cde\tpos\nb\tneg"
    dataset = load(tmp_path, content, content.replace("\nb\tneg", ""), sizes, tsv.Reading("characters", cut=3))
    assert [x.tolist() for x, _ in (dataset.train[0], dataset.train[1])] == [[1, 2, 0], [2]]
    assert [dataset.train[i].y.tolist() for i in (0, 1)] == [1, 0]


ODD = {
    "no header": (TRAIN[14:], VALID, "does not start with the line Source<TAB>Target"),
    "only a header": (TRAIN[:14], VALID, "no rows"),
    "no tab": (TRAIN + "2 3 4\n", VALID, "line 5 is not a source, a tab and a target"),
    "no source": (TRAIN + "()\t3\n", VALID, "line 5 is not"),
    "no target": (TRAIN + "2\t\n", VALID, "line 5 is not"),
    "an empty line": (TRAIN + "\n2\t9\n", VALID, "line 5 is not"),
    "another target": (TRAIN, VALID + "2\t3\n", "valid 2, not 1"),
    "an unknown target": (
        TRAIN,
        VALID.replace("\t2\r", "\t7\r"),
        "line 2 has the target '7', which training never has",
    ),
    "more rows": (TRAIN + "2\t9\n", VALID, "train 4, not 3"),
    "longer rows": (TRAIN.replace("9 ]", "9 9 ]"), VALID, "time 5, not 4"),
    "more words": (TRAIN.replace("2\t10", "3\t10"), VALID, "vocabulary 7, not 6"),
}


@pytest.mark.parametrize("case", ODD)
def test_other_content_is_refused(case: str, tmp_path: Path) -> None:
    train, valid, fact = ODD[case]
    with pytest.raises(DataDamaged, match=fact):
        load(tmp_path, train, valid)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"train\.tsv: no such data file"):
        tsv.load(NAMES, str(tmp_path), SIZES)


def test_damage_is_refused_or_read_within_bounds(tmp_path: Path) -> None:
    load(tmp_path, TRAIN, VALID)
    path = tmp_path / "train.tsv"
    refused, _ = survive(lambda: tsv.load(NAMES, str(tmp_path), SIZES, LISTOPS), path, TRAIN.encode())
    assert refused > 30

"""Characters of a text: windows tell every character once, and no window crosses the split."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gru_jax.data import text
from gru_jax.data.dataset import DataDamaged, DataMissing

from .hostile import survive

TEXT = "In the beginning, the end was not yet known: ä€𝄞\n\r\x0c" * 9
SIZES = text.Sizes(len(TEXT), len(set(TEXT)))


def test_windows_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(TEXT.encode())
    dataset, shape = text.load("x.txt", 10, str(tmp_path), SIZES), text.shape("x.txt", 10, SIZES)
    letters = np.array(sorted(set(TEXT)))
    cut = int(len(TEXT) * 0.9)

    def said(tokens: np.ndarray) -> str:
        return "".join(letters[tokens])

    assert len(dataset.train) == cut - 10 and shape.train == cut // 10
    for place in (0, 7, cut - 11):
        example = dataset.train[place]
        assert said(example.x) == TEXT[place : place + 10] and said(example.y) == TEXT[place + 1 : place + 11]
        assert example.x.dtype == np.int32
    told = "".join(said(dataset.test[i].y) for i in range(len(dataset.test)))
    assert told == TEXT[cut + 1 :] and len(dataset.test) == len(dataset.valid) == shape.test == shape.valid
    assert shape.features == shape.outputs == len(letters) and shape.tokens and shape.target == "tags"
    assert dataset.test.lengths.tolist() == [len(dataset.test[i].x) for i in range(len(dataset.test))]
    assert "validation and test alike" in dataset.description


@given(st.integers(2, 300), st.integers(1, 40), st.booleans())
@settings(max_examples=40)
def test_windows_have_the_lengths_they_say(tokens: int, time: int, sliding: bool) -> None:
    if time >= tokens:
        time = tokens - 1
    row = np.arange(tokens)
    windows = text.Windows(row, time, 1 if sliding else time)
    assert [len(windows[i].x) for i in range(len(windows))] == windows.lengths.tolist()
    starts = [windows[i].x[0] for i in range(len(windows))]
    assert starts == list(range(0, tokens - (time if sliding else 1), 1 if sliding else time))
    for i in range(len(windows)):
        assert np.array_equal(windows[i].x + 1, windows[i].y)


def test_an_epoch_has_as_many_windows_as_asked() -> None:
    assert text.shape("tinyshakespeare.txt", 256).train == 1_003_854 // 256
    assert text.shape("tinyshakespeare.txt", 256, windows=10).train == 10
    with pytest.raises(KeyError):
        text.shape("x.txt", 256)


@pytest.mark.parametrize(
    ("sizes", "content", "fact"),
    [
        (
            text.Sizes(SIZES.characters + 1, SIZES.vocabulary),
            TEXT.encode(),
            f"characters {SIZES.characters}, not {SIZES.characters + 1}",
        ),
        (text.Sizes(SIZES.characters, 3), TEXT.encode(), f"vocabulary {SIZES.vocabulary}, not 3"),
        (SIZES, TEXT.encode("utf-16"), "no UTF-8"),
    ],
    ids=["characters", "vocabulary", "encoding"],
)
def test_other_content_is_refused(sizes: text.Sizes, content: bytes, fact: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(DataDamaged, match=fact):
        text.load("x.txt", 10, str(tmp_path), sizes)


def test_damage_is_refused_or_read_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    refused, _ = survive(lambda: text.load("x.txt", 10, str(tmp_path), SIZES), path, TEXT.encode())
    assert refused > 30


def test_tiny_shakespeare() -> None:
    try:
        dataset = text.load("tinyshakespeare.txt", 256, None)
    except DataMissing as error:
        pytest.skip(str(error))
    assert "not the known" not in dataset.description
    assert len(dataset.test) == text.shape("tinyshakespeare.txt", 256).test == 436

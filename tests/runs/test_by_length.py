"""Accuracy against length: what is right is counted at the length of its sequence, or at its step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.data.dataset import Split, TaskShape
from gru_jax.runs import by_length
from gru_jax.runs.watching import plots


def says_one_at_first(params: Any, x: jax.Array, *, lengths: jax.Array | None, deterministic: bool) -> jax.Array:
    """1 at steps before the third, or for sequences of less than three steps, else 0."""
    short = jnp.broadcast_to(jnp.arange(x.shape[1]) < 2, x.shape) if lengths is None else lengths < 3
    return jax.nn.one_hot(short.astype(jnp.int32), 2)


MODEL: Any = SimpleNamespace(apply=says_one_at_first)


def test_classes_count_at_the_length_of_their_sequence() -> None:
    lengths = np.array([1, 2, 3, 4, 4], np.int32)
    split = Split(np.zeros((5, 4), np.int32), np.array([1, 1, 0, 0, 1], np.int32), lengths)
    longer = Split(np.zeros((1, 6), np.int32), np.array([1], np.int32), np.array([6], np.int32))
    shape = TaskShape(5, 5, 5, time=4, features=2, outputs=2, tokens=True)
    places, accuracy = by_length.accuracy_by_length(MODEL, None, [split, longer, split], shape, 2)
    assert places.tolist() == [1, 2, 3, 4, 6] and accuracy.tolist() == [1, 1, 1, 0.5, 0]


def test_tags_count_at_their_step_if_asked() -> None:
    asked = np.array([[True, True, True, False], [False, True, True, False]])
    split = Split(np.zeros((2, 4), np.int32), np.ones((2, 4), np.int32), asked=asked)
    shape = TaskShape(2, 2, 2, time=4, features=2, outputs=2, target="tags", tokens=True)
    places, accuracy = by_length.accuracy_by_length(MODEL, None, [split], shape, 2)
    assert places.tolist() == [1, 2, 3] and accuracy.tolist() == [1, 1, 0]


def test_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(plots, "save", lambda figure, path: seen.update({path: figure}))
    lines = [(np.arange(3), np.array([1.0, 0.5, value])) for value in (0.1, 0.3)]
    plots.against_length({"a": {"x": lines, "y": lines[:1]}, "b": {"x": lines}}, 1, tmp_path / "lengths.png")
    left, right = seen[tmp_path / "lengths.png"].axes
    assert left.get_title() == "a" and len(left.lines) == 2 and len(right.lines) == 1
    assert left.lines[0].get_ydata().tolist() == [1, 0.5, 0.2]
    assert [text.get_text() for text in left.figure.legends[0].get_texts()] == ["lengths of training", "x", "y"]

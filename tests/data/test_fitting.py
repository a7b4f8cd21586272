"""Data of one's own are looked at whole: every split, every sequence, every number that counts."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.data.batches import first_of
from gru_jax.data.dataset import Dataset, Sequences, Split, TaskShape
from gru_jax.data.fitting import misfit

CLASS = TaskShape(3, 3, 3, time=4, features=2, outputs=3)
TAGS, NOTES, VALUES = (CLASS._replace(target=target) for target in ("tags", "notes", "values"))
TOKENS = TAGS._replace(tokens=True, features=5)
STEPS = (2, 4, 1)
X = [np.ones((steps, 2), np.float32) for steps in STEPS]
Y = [np.int32(label) for label in (0, 1, 2)]
GOOD = {
    "class": Sequences(X, Y),
    "tags": Sequences(X, [np.full(steps, 2) for steps in STEPS]),
    "notes": Sequences(X, [np.ones((steps, 3), np.uint8) for steps in STEPS]),
    "values": Sequences(X, [np.ones(3) for _ in STEPS]),
    "tokens": Sequences([np.full(steps, 4) for steps in STEPS], [np.zeros(steps, np.int64) for steps in STEPS]),
}


def wrong_of(part: Any, shape: TaskShape, name: str = "valid") -> str | None:
    """What is wrong with a dataset that is good but for one split."""
    kind = "tokens" if shape.tokens else shape.target
    splits: dict[str, Any] = dict.fromkeys(("train", "valid", "test"), GOOD[kind])
    return misfit(Dataset(**splits | {name: part}, description="", fingerprint=""), shape)


def changed(sequences: list[Any], index: int, value: Any) -> list[Any]:
    return [value if i == index else each for i, each in enumerate(sequences)]


def of(x: np.ndarray, y: Any, *more: Any) -> Split:
    return Split(np.asarray(x, np.float32), np.asarray(y), *more)


@pytest.mark.parametrize("shape", [CLASS, TAGS, NOTES, VALUES, TOKENS])
def test_good_data_of_every_target(shape: TaskShape) -> None:
    assert wrong_of(GOOD["tokens" if shape.tokens else shape.target], shape) is None


def drawn(examples: int, time: int = 4, x: float = 1, y: int = 0) -> Split:
    return Split(jnp.full((examples, time, 2), x, jnp.float32), jnp.full(examples, y))


class Tensor:
    """As torch's, whose dtypes are none of NumPy's."""

    shape, dtype = (3, 2), "torch.float32"


NAN = np.array([[1, 1], [1, np.nan]], np.float32)
LATER: list[tuple[str, Any, TaskShape, str]] = [
    ("train", Sequences(changed(X, 2, X[2][:, :1]), Y), CLASS, "train[2].x must be [T, 2], got [1, 1]"),
    ("valid", Sequences(changed(X, 2, X[2].tolist()), Y), CLASS, "valid[2].x must be an array, got list"),
    ("valid", Sequences(changed(X, 1, None), Y), CLASS, "valid[1].x must be an array, got NoneType"),
    ("valid", Sequences(changed(X, 1, [[1, 2], [3]]), Y), CLASS, "valid[1].x must be an array, got list"),
    ("valid", Sequences(iter(X), (y for y in Y)), CLASS, None),
    ("test", Sequences(X, changed(Y, 2, 3)), CLASS, "test[2].y holds 3 where outputs=3 has the numbers 0 to 2;"),
    ("test", Sequences(X, changed(Y, 1, -1)), CLASS, "test[1].y holds -1 where"),
    ("valid", Sequences(X, changed(Y, 1, 0.5)), CLASS, "valid[1].y must be whole numbers, got float64; convert"),
    ("train", Sequences(X, Y[:2]), CLASS, "train has 3 sequences in x and 2 in y; give each"),
    ("train", Sequences(changed(X, 1, np.ones((5, 2))), Y), CLASS, "train[1] has 5 steps where the sizes say time=4"),
    ("valid", Sequences(changed(X, 1, np.ones((0, 2))), Y), CLASS, "valid[1] has no step"),
    ("test", Sequences(changed(X, 0, NAN), Y), CLASS, "test[0].x holds nan at step 1; fill it in, or leave"),
    ("test", Sequences(X, [np.array([1.0, np.inf, 0])] * 3), VALUES, "test[0].y holds inf; fill it in"),
    ("valid", Sequences(X, changed(GOOD["tags"].y, 1, np.zeros(3, int))), TAGS, "valid[1].y tells 3 steps where .x"),
    ("valid", Sequences(X, changed(GOOD["tags"].y, 1, np.array([0, 1, 2, 3]))), TAGS, "valid[1].y holds 3 where out"),
    ("valid", Sequences(X, changed(GOOD["notes"].y, 1, np.full((4, 3), 2))), NOTES, "2 where a note is 0 or 1, at s"),
    ("train", Sequences(changed(GOOD["tokens"].x, 2, np.array([5])), GOOD["tokens"].y), TOKENS, "train[2].x holds 5"),
]
FLAT = np.ones((3, 4, 2), np.float32)
TAG = np.zeros((3, 4), np.int32)
HOLE = FLAT.copy()
HOLE[1, 3, 0] = np.nan
LENGTHS = np.array([4, 3, 1])
ARRAYS: list[tuple[str, Any, TaskShape, str | None]] = [
    ("train", of(HOLE, [0, 1, 2]), CLASS, "train.x holds nan at sequence 1, step 3; fill it in"),
    ("train", of(HOLE, [0, 1, 2], LENGTHS), CLASS, None),
    ("valid", of(FLAT * 1e30, np.full((3, 3), 1e39)), VALUES, "valid.y holds 1e+39 at sequence 0; fill it in"),
    ("valid", of(FLAT, [0, 1, 2], np.array([4, 5, 1])), CLASS, "valid.lengths holds 5 at sequence 1, where .x has 4"),
    ("valid", of(FLAT, [0, 1, 2], np.array([4, 0, 1])), CLASS, "valid[1] has no step"),
    ("valid", of(FLAT, [0, 1, 2], np.array([4, 1])), CLASS, "valid.lengths must be whole numbers [N], got int64[2]"),
    ("valid", of(FLAT, [0, 1, 2], LENGTHS * 1.0), CLASS, "valid.lengths must be whole numbers [N], got float64[3]"),
    ("train", of(np.ones((3, 5, 2)), [0, 1, 2]), CLASS, "train.x has 5 steps where the sizes say time=4"),
    ("test", of(np.ones((3, 9, 2)), [0, 1, 2]), CLASS, None),
    ("valid", Split(FLAT.astype(int), np.array([0, 1, 2])), CLASS, "valid.x must be float32, got int64; convert it"),
    ("valid", Split(FLAT.astype(np.float16), np.array([0, 1, 2])), CLASS, "valid.x must be float32, got float16"),
    ("valid", of(FLAT, TAG - 1, LENGTHS, np.zeros((3, 4), bool)), TAGS, "valid.asked asks nothing of any sequence"),
    ("test", Split(FLAT, TAG, [4, 3, 1]), TAGS, "test.lengths must be an array, got list; convert it with np.as"),
    ("test", Split(FLAT, TAG, LENGTHS, [[True] * 4] * 3), TAGS, "test.asked must be an array, got list"),
    ("valid", of(FLAT, TAG, None, TAG), TAGS, "valid.asked must be true or false, [3, 4], got int32[3, 4]"),
    ("valid", of(FLAT, [0, 1, 2], None, TAG > 0), CLASS, "valid.asked is of targets 'tags' and 'notes'"),
    ("valid", of(FLAT, np.where(np.arange(4) < LENGTHS[:, None], 2, -100), LENGTHS), TAGS, None),
    ("valid", (FLAT, TAG), CLASS, "valid must be a Split, Sequences or another source, got tuple"),
    ("valid", lambda key, examples: of(FLAT, [0, 1, 2]), CLASS, "of the three splits only train may be generated"),
    ("train", lambda key, examples: of(FLAT, [0, 1]), CLASS, "train.y must be [N] for target='class', got [2]"),
    ("train", lambda key, examples: (FLAT, TAG), CLASS, "train must be generated as a Split, got tuple"),
    ("train", lambda key, examples: Split(float(key), 0), CLASS, "train cannot be generated under jax.jit: "),
    ("train", lambda key, examples: Split(jnp.ones((2, 4, 2)), jnp.zeros(2, int)), CLASS, "2 sequences where 3"),
    ("train", lambda key, examples: drawn(examples, y=3), CLASS, "train.y holds 3 where outputs=3"),
    ("train", lambda key, examples: drawn(examples, x=jnp.nan), CLASS, "train.x holds nan at sequence 0, step 0"),
    ("train", lambda key, examples: drawn(examples, time=5), CLASS, "train.x has 5 steps where the sizes say time=4"),
    ("train", lambda key, examples: drawn(examples)._replace(lengths=jnp.ones(1)), CLASS, "train.lengths must be"),
    ("valid", Sequences(changed(X, 1, Tensor()), Y), CLASS, "valid[1].x must be an array, got Tensor"),
]


@pytest.mark.parametrize(("name", "part", "shape", "said"), [*LATER, *ARRAYS])
def test_what_is_wrong_is_said_with_its_place(name: str, part: Any, shape: TaskShape, said: str | None) -> None:
    wrong = wrong_of(part, shape, name)
    assert (wrong is None) == (said is None) and (said or "") in (wrong or ""), wrong


def test_a_source_that_does_not_hold_what_it_says() -> None:
    class Short(Sequences):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index + 1)

    assert "valid[0].x has 4 steps where .lengths says 2" in (wrong_of(Short(X, Y), CLASS) or "")
    short = Short([X[0], X[0], X[0]], Y)
    assert "valid[2] cannot be read: IndexError" in (wrong_of(short, CLASS) or "")


def test_a_fingerprint_is_text() -> None:
    assert "fingerprint must be a text, got int" in (misfit(Dataset(*[GOOD["class"]] * 3, "", 7), CLASS) or "")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["class", "tags", "tokens"])
def test_the_first_sequence_is_the_first(kind: str) -> None:
    shape = {"class": CLASS, "tags": TAGS, "tokens": TOKENS}[kind]
    x, y = first_of(GOOD[kind], shape)
    assert len(x) == STEPS[0] and np.array_equal(x, GOOD[kind].x[0]) and np.array_equal(y, GOOD[kind].y[0])

"""Scores against their definitions, and predictions as a table."""

import numpy as np
import pytest

from gru_jax.data.dataset import Dataset, TaskShape
from gru_jax.runs import predictions, scores
from gru_jax.runs.answers import Answers
from gru_jax.runs.on_disk.run_directory import RunError


def _auc(points: np.ndarray, of_it: np.ndarray) -> float:
    """By its definition: over all pairs of one that is and one that is not."""
    pairs = [(a > b) + (a == b) / 2 for a in points[of_it] for b in points[~of_it]]
    return float(np.mean(pairs))


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_scores_by_their_definitions(classes: int) -> None:
    rng = np.random.default_rng(classes)
    # Few different ones, so that there are ties; of the last of four classes there is none.
    logits = rng.normal(size=(15, classes)).astype(np.float32)[rng.integers(15, size=60)]
    y = rng.integers(min(classes, 3), size=60)
    said = logits.argmax(1)
    f1, recall, areas = [], [], []
    for label in range(classes):
        hits = ((said == label) & (y == label)).sum()
        if (said == label).any() or (y == label).any():
            f1.append(2 * hits / ((said == label).sum() + (y == label).sum()))
        if (y == label).any():
            recall.append(hits / (y == label).sum())
            odds = np.exp(logits[:, label]) / (np.exp(logits).sum(1) - np.exp(logits[:, label]))
            areas.append(_auc(odds, y == label))
    found = scores.of_classes(logits, y)
    expected = {"macro_f1": np.mean(f1), "balanced_accuracy": np.mean(recall), "auc": np.mean(areas)}
    assert found == pytest.approx(expected)
    counts = scores.confusion(logits, y)
    assert counts.sum() == 60 and counts[0, 1] == ((y == 0) & (said == 1)).sum()


AREAS = [
    ([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1], 1.0),
    ([0.0, 1.0, 2.0, 3.0], [1, 1, 0, 0], 0.0),
    ([0.0, 1.0, 2.0, 3.0], [0, 1, 0, 1], 0.75),
    ([5.0, 5.0, 5.0, 5.0], [0, 1, 0, 1], 0.5),
    # Both of a probability that is 1 in double precision.
    ([0.0, 100.0, 50.0, 200.0], [0, 0, 0, 1], 1.0),
    ([0.0, 1.0, 2.0, 3.0], [1, 1, 1, 1], None),
]


@pytest.mark.parametrize(("points", "y", "area"), AREAS)
def test_areas_in_closed_form(points: list[float], y: list[int], area: float | None) -> None:
    logits = np.stack([np.zeros(4), points], 1).astype(np.float32)
    assert scores.auc(logits, np.array(y)) == area
    three = np.concatenate([logits, np.full((4, 1), -1e4)], 1)
    assert scores.auc(three, np.array(y)) == area


SHAPE = TaskShape(9, 4, 2, time=5, features=1, outputs=2)


def _data(**more) -> Dataset:
    return Dataset(None, None, None, "", "", **more)  # type: ignore[arg-type]


def test_which_tasks_have_scores() -> None:
    assert scores.has_scores(SHAPE, 2) and scores.has_scores(SHAPE._replace(target="values"), 2)
    for change in ({"target": "notes"}, {"outputs": 101}, {"next_step": True}, {"target": "tags", "time": 2**25}):
        assert not scores.has_scores(SHAPE._replace(**change), 2)
    assert scores.scores(None, _data(), SHAPE, "test") == {}


def test_predictions_of_tags_and_values(tmp_path) -> None:
    outputs, place = np.array([[1, 1], [-50, 50]], np.float32), np.array([0, 3])
    tags = Answers(outputs, np.array([1, 0]), place, np.array([2, 4]), "valid")
    named = _data(classes=("no, never", "yes"), ids={"valid": tuple("abcd")})
    predictions.write(tmp_path / "tags.csv", tags, named, SHAPE._replace(target="tags"))
    assert (tmp_path / "tags.csv").read_text().splitlines() == [
        'sequence,id,step,true,predicted,"p_no, never",p_yes',
        '0,a,2,yes,"no, never",0.5,0.5',
        '3,d,4,"no, never",yes,3.720076e-44,1',
    ]
    values = Answers(outputs, outputs + 1, place, None)
    rows = list(predictions.rows(values, _data(), SHAPE._replace(target="values")))
    assert rows == [
        ["sequence", "true_0", "true_1", "predicted_0", "predicted_1"],
        [0, "2", "2", "1", "1"],
        [3, "-49", "51", "-50", "50"],
    ]
    with pytest.raises(RunError, match="no predictions of notes"):
        predictions.write(tmp_path / "notes.csv", None, _data(), SHAPE._replace(target="notes"))
    for wrong in (tmp_path, tmp_path / "nowhere" / "a.csv"):
        with pytest.raises(RunError):
            predictions.require_place(wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["tags.csv"]

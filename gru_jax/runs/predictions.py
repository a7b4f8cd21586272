"""What a model answered on a split as a table: a row an answer, for a file of comma-separated values."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gru_jax.data.dataset import Dataset, TaskShape
from gru_jax.runs.answers import Answers
from gru_jax.runs.forecasting import forecasts
from gru_jax.runs.on_disk.json_files import write_text
from gru_jax.runs.on_disk.run_directory import RunError


def require_place(path: Path) -> None:
    """Raises RunError unless a file may be written there."""
    if path.is_dir():
        raise RunError(f"{path} is a directory; --predictions names a file")
    if not path.parent.is_dir():
        raise RunError(f"{path.parent} is no directory; make it first, or name a file elsewhere")


def class_names(dataset: Dataset, shape: TaskShape) -> list[str]:
    """The names of the classes or tags, their numbers where they have none."""
    return list(dataset.classes) or list(map(str, range(shape.outputs)))


def write(path: Path, found: Answers | None, dataset: Dataset, shape: TaskShape) -> None:
    """Writes answers, whole or not at all.

    Raises:
        RunError: there are none.
    """
    if found is None:
        what = "notes" if shape.target == "notes" else f"{shape.outputs} outputs at each of so many answers"
        raise RunError(f"no predictions of {what}; they are written of classes, tags and values, up to 100 of them")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows(found, dataset, shape))
    write_text(path, text.getvalue())


def rows(found: Answers, dataset: Dataset, shape: TaskShape) -> Iterator[Sequence[object]]:
    """The header and a row for every answer.

    A row begins with the number of the sequence in the split, from 0, its name if it has one, and, of tags, the step.
    Of classes and tags the true and the predicted one follow, and the probability of each; of values the true and the
    predicted ones.

    Args:
        found: the answers.
        dataset: that they belong to.
        shape: of the task.

    Example:
        >>> found = Answers(np.zeros((1, 2), np.float32), np.array([1]), np.array([0]), None)
        >>> data = Dataset(None, None, None, "", "", classes=("down", "up"))
        >>> for row in rows(found, data, TaskShape(2, 1, 1, time=5, features=1, outputs=2)):
        ...     print(*row)
        sequence true predicted p_down p_up
        0 up down 0.5 0.5
    """
    if dataset.series is not None:
        yield from forecasts.rows(forecasts.of(found, dataset, shape))
        return
    header, columns = (_values if shape.target == "values" else _classes)(found, dataset, shape)
    places: dict[str, Iterable[object]] = {"sequence": found.sequence}
    if dataset.ids is not None:
        ids = dataset.ids[found.split]
        places["id"] = [ids[row] for row in found.sequence]
    if found.step is not None:
        places["step"] = found.step
    yield [*places, *header]
    yield from (list(row) for row in zip(*places.values(), *columns, strict=True))


def _classes(found: Answers, dataset: Dataset, shape: TaskShape) -> tuple[list[str], list[Iterable[object]]]:
    names = class_names(dataset, shape)
    shifted = found.outputs.astype(np.float64) - found.outputs.max(-1, keepdims=True)
    odds = np.exp(shifted)
    told = [[names[label] for label in labels] for labels in (found.y, found.outputs.argmax(-1))]
    header = ["true", "predicted", *(f"p_{name}" for name in names)]
    return header, [*told, *map(_short, (odds / odds.sum(-1, keepdims=True)).T)]


def _values(found: Answers, dataset: Dataset, shape: TaskShape) -> tuple[list[str], list[Iterable[object]]]:
    ends = [""] if shape.outputs == 1 else [f"_{place}" for place in range(shape.outputs)]
    header = [f"{name}{end}" for name in ("true", "predicted") for end in ends]
    return header, list(map(_short, [*found.y.T, *found.outputs.T]))


def _short(numbers: np.ndarray) -> list[str]:
    return [f"{number:.7g}" for number in numbers]

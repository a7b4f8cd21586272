"""The picture of which classes were taken for which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gru_jax.runs.watching.plots import _figure, _save

MOST_CLASSES = 50
_MOST_WRITTEN = 20
_LONGEST_NAME = 20


def draw(counts: np.ndarray, names: Sequence[str], path: Path, title: str) -> None:
    """A confusion matrix: rows true, columns predicted, the colour the share of the row.

    Up to 20 classes have their counts written into the cells.

    Args:
        counts: `[O, O]`, of `gru_jax.runs.scores.confusion`.
        names: of the O classes.
        path: picture to write.
        title: over it.
    """
    size, total = len(names), counts.sum(1, keepdims=True)
    shares = counts / np.maximum(total, 1)
    side = 3.2 + 0.42 * min(size, _MOST_WRITTEN)
    figure = _figure(side + 1.0, side)
    axis = figure.subplots()
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    said = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..." for name in names]
    small = "medium" if size <= _MOST_WRITTEN else "xx-small"
    upright = max(map(len, said)) > 3 and size > 4
    axis.set_xticks(range(size), said, fontsize=small, rotation=90 if upright else 0)
    axis.set_yticks(range(size), said, fontsize=small)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    if size <= _MOST_WRITTEN:
        for (row, column), count in np.ndenumerate(counts):
            ink = "white" if shares[row, column] > 0.5 else "0.6" if count == 0 else "black"
            cell = axis.text(column, row, str(count), ha="center", va="center", color=ink, fontsize="small")
            # All of them lie within the axis: measuring each would take most of the time.
            cell.set_in_layout(False)
    figure.colorbar(image, ax=axis, label="share of the true class")
    _save(figure, path)

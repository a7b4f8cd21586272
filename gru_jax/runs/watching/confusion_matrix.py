"""The picture of which classes were taken for which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gru_jax.runs.watching.style import Style, look, new_figure, save

MOST_CLASSES = 50
_MOST_WRITTEN = 20
_LONGEST_NAME = 18


def draw(counts: np.ndarray, names: Sequence[str], path: Path, title: str, style: Style = "talk") -> None:
    """A confusion matrix: rows true, columns predicted, the colour the share of the row.

    Up to 20 classes have their counts written into the cells.

    Args:
        counts: `[O, O]`, of `gru_jax.runs.scores.confusion`.
        names: of the O classes.
        path: picture to write.
        title: over it.
        style: for what.
    """
    size = len(names)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    said = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..." for name in names]
    with look(style):
        figure, axes = new_figure(1, 1, style, height=1.4)
        axis = axes[0, 0]
        image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        # Points: the matrix is a good half of the picture wide.
        cell, usual = 72 * 0.55 * figure.get_figwidth() / size, axis.yaxis.label.get_size()
        labels = min(0.85 * usual, 0.8 * cell)
        upright = max(map(len, said)) * 0.6 * labels > cell
        axis.set_xticks(range(size), said, fontsize=labels, rotation=90 if upright else 0)
        axis.set_yticks(range(size), said, fontsize=labels)
        axis.set(xlabel="predicted", ylabel="true", title=title)
        axis.grid(False)
        axis.tick_params(length=0)
        if size <= _MOST_WRITTEN:
            fits = min(usual, 0.8 * cell / (0.6 * len(str(counts.max()))))
            for (row, column), count in np.ndenumerate(counts):
                ink = "white" if shares[row, column] > 0.5 else "0.6" if count == 0 else "black"
                text = axis.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=fits)
                # All of them lie within the axis: measuring each would take most of the time.
                text.set_in_layout(False)
        figure.colorbar(image, ax=axis, shrink=0.8, label="share of the true class")
        save(figure, path)

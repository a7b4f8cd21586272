"""Pictures of the gates over one sequence."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gru_jax.cells import Gates
from gru_jax.runs.watching.style import COLOURS, Style, log_scale, look, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 2
"""Of one picture: what a slide has room for, the two directions of a layer."""


def draw(layers: Sequence[tuple[str, Gates]], path: Path, title: str, style: Style = "talk") -> list[Path]:
    """Reset and update gates over one sequence as heat maps, and beside them how long each unit remembers.

    A unit has the same row in all three: they are sorted by how long they remember.

    Args:
        layers: (name, gates) of each layer and direction; `gates.r` and `gates.z` are `[T, H]`.
        path: picture to write; of more than `MOST_ROWS` layers and directions, the first of several.
        title: over the picture.
        style: for what.

    Returns:
        The pictures: `gates.png`, `gates_2.png`, ...
    """
    paths = []
    for number, first in enumerate(range(0, len(layers), MOST_ROWS), start=1):
        paths.append(path if number == 1 else path.with_stem(f"{path.stem}_{number}"))
        _draw(layers[first : first + MOST_ROWS], paths[-1], title, style)
    return paths


def _draw(layers: Sequence[tuple[str, Gates]], path: Path, title: str, style: Style) -> None:
    with look(style):
        figure, axes = new_figure(len(layers), 3, style, height=1.0 if len(layers) == 1 else 0.65)
        for row, (name, layer) in zip(axes, layers, strict=True):
            mean_z = np.asarray(layer.z).mean(axis=0)
            order = np.argsort(mean_z)
            for axis, gate in zip(row, (layer.r, layer.z), strict=False):
                image = axis.imshow(
                    np.asarray(gate).T[order], aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest"
                )
                axis.grid(visible=False)
            figure.colorbar(image, ax=list(row[:2]), pad=0.02)
            _draw_memories(row[2], -1 / np.log(mean_z[order].clip(1e-6, 1 - 1e-6)))
            for axis in row[1:]:
                axis.sharey(row[0])
                axis.tick_params(labelleft=False)
            row[0].yaxis.get_major_locator().set_params(integer=True)
            row[0].set_ylabel(f"{name}\nunit, fast to slow")
        for axis, said, along in zip(axes[0], _SAID, axes[-1], strict=True):
            axis.set_title(said)
            along.set_xlabel("time step")
        axes[-1, 2].set_xlabel("steps until 1/e is left")
        figure.suptitle(title)
        save(figure, path)


_SAID = (
    "reset gate r\n0 ignores the past, 1 reads it",
    "update gate z\n0 takes new, 1 keeps old",
    "memory\nof each unit",
)


def _draw_memories(axis: "Axes", steps: np.ndarray) -> None:
    """A dot a unit, in the row of the maps."""
    axis.plot(steps, np.arange(len(steps)), "o", color=COLOURS[0], clip_on=False)
    if steps.max() > 5 * steps.min():
        log_scale(axis, "x")

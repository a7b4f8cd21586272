"""One look for all pictures: sizes, fonts, and colours that the colour-blind tell apart.

    with look("talk"):
        figure, axes = new_figure(rows=1, columns=2)
        (curve,) = axes[0, 0].plot(x, y, **line(0))
        legend_below(figure, {"loss": curve})
        save(figure, path)

All of it stands within `look`, since matplotlib asks for fonts and widths when it makes an axis, a line or a file.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from gru_jax.runs.on_disk.json_files import write_bytes
from gru_jax.types import Options

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The first import ever on a machine announces that it builds a font cache.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

Style = Literal["talk", "paper"]
"""For a slide, read from the back row; for a column of print."""

STYLES: tuple[Style, ...] = get_args(Style)

FORMATS = (".png", ".pdf", ".svg")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito (2008), in an order in which neighbours differ in lightness too; without their yellow, which
is not seen on white."""

# None is a dot: that is where a curve is at its best.
_MARKS = (None, "s", "^", "D", "v")


class _Sizes(NamedTuple):
    """Inches of a figure with one column of panels, and with more; of a panel, at least; points of text and lines."""

    one: float
    wide: float
    panel: tuple[float, float]
    text: float
    line: float


_SIZES = {
    # A slide is 13.3 inches wide.
    "talk": _Sizes(one=9.0, wide=13.3, panel=(4.2, 5.0), text=17, line=2.6),
    # A column of two is 3.3 inches wide, the page 6.9.
    "paper": _Sizes(one=3.3, wide=6.9, panel=(2.1, 2.2), text=8, line=1.1),
}


def _settings(sizes: _Sizes) -> Options:
    return {
        "font.size": sizes.text,
        "axes.titlesize": sizes.text,
        "axes.labelsize": sizes.text,
        "figure.titlesize": sizes.text * 1.1,
        "xtick.labelsize": sizes.text * 0.85,
        "ytick.labelsize": sizes.text * 0.85,
        "legend.fontsize": sizes.text * 0.9,
        "legend.frameon": False,
        "lines.linewidth": sizes.line,
        "lines.markersize": sizes.text * 0.42,
        "axes.linewidth": sizes.line * 0.4,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "grid.linewidth": sizes.line * 0.3,
        # Names are a user's: a dollar in them begins no formula. See `log_scale`.
        "text.parse_math": False,
        # White behind all of it, so that dark pages show the same picture.
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        # Text stays text, which can be searched and edited; the same numbers give the same file.
        "svg.fonttype": "none",
        "svg.hashsalt": "gru_jax",
        "pdf.fonttype": 42,
    }


@contextlib.contextmanager
def look(style: Style = "talk") -> Iterator[None]:
    """What is drawn and saved within looks like this, whatever a user's matplotlibrc says; his settings come back."""
    import matplotlib

    # The backend is none of the look: to set it would import it.
    plain: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    with matplotlib.rc_context(plain | _settings(_SIZES[style])):
        yield


def new_figure(rows: int, columns: int, style: Style = "talk", height: float = 1.0) -> tuple["Figure", "np.ndarray"]:
    """A figure and its axes.

    Args:
        rows, columns: of panels.
        style: that of `look`.
        height: of a panel, as a multiple of the usual one.

    Returns:
        (figure, array of axes `[rows, columns]`).
    """
    # Not pyplot: no global state, no display, nothing to close.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = _SIZES[style]
    width = sizes.one if columns == 1 else max(sizes.wide, sizes.panel[0] * columns)
    figure = Figure(figsize=(width, sizes.panel[1] * height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def line(number: int) -> Options:
    """How the curve of that number looks, from 0: its colour, and a mark where the colours have begun again."""
    mark = _MARKS[number // len(COLOURS) % len(_MARKS)]
    return {"color": COLOURS[number % len(COLOURS)], "marker": mark, "markevery": 0.1}


def log_scale(axis: "Axes", which: Literal["x", "y"]) -> None:
    """Gives an axis a logarithmic scale; matplotlib's own labels would be formulas, which a look does not know."""
    from matplotlib.ticker import FuncFormatter

    axis.set(**{f"{which}scale": "log"})
    of = getattr(axis, f"{which}axis")

    def between(value: float, _: object) -> str:
        low, high = sorted(of.get_view_interval())
        # Over less than two powers of ten their labels alone would be one or two.
        return f"{value:g}" if high < 100 * low and f"{value:e}"[0] in "25" else ""

    of.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    of.set_minor_formatter(FuncFormatter(between))


def legend_below(figure: "Figure", handles: Mapping[str, "Artist"]) -> None:
    """A legend under the panels, for which the figure grows, in as many columns as there is room for.

    Args:
        figure: of `new_figure`.
        handles: label -> what was drawn.
    """
    import matplotlib

    if not handles:
        return
    size = matplotlib.rcParams["legend.fontsize"]
    # A letter is about 0.55 as wide as high; a sample of the line and the room between take some seven.
    room = 72 * figure.get_figwidth() / (0.55 * size)
    columns = max(1, min(len(handles), int(room / (max(map(len, handles)) + 7))))
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + rows * 1.5 * size / 72)
    # A label that begins with an underscore would be left out.
    labels = [f" {label}" if label.startswith("_") else label for label in handles]
    figure.legend(list(handles.values()), labels, loc="outside lower center", ncols=columns)


def save(figure: "Figure", path: Path) -> None:
    """Writes a picture, whole or not at all; its suffix, one of `FORMATS`, says as what."""
    form = path.suffix[1:].lower()
    # Without the time, so that the same numbers give the same file.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=150, metadata=undated)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())

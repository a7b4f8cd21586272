"""The plot of `benchmarks.crossover`: docs/images/<name>_<platform>.svg."""

import math
from pathlib import Path
from typing import Any

from benchmarks.crossover_report import Line, lines
from benchmarks.parallel_plots import STYLE, hardware

KINDS = ("forward", "training")
FAINT, STRONG = 1.0, 100.0
"""The ratios between which colours deepen."""


def draw(record: dict[str, Any], folder: Path) -> None:
    """Draws the map of a results file into `folder`: T against H, a panel for each batch, kind and set of weights."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed; pip install '.[experiments]', then --draw the file")
        return
    found = lines(record["rows"])
    if not found:
        print("no plot: nothing was measured")
        return
    folder.mkdir(parents=True, exist_ok=True)
    batches = sorted({line.sizes.B for line in found})
    rows = list(dict.fromkeys((line.weights, line.subject) for line in found))
    rows.sort(key=lambda row: (row[0], KINDS.index(row[1])))
    T, H = (sorted({getattr(line.sizes, name) for line in found}) for name in "TH")
    name = f"{record['name']}_{record['platform']}.svg"
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        size = (1.6 + (0.8 + 0.55 * len(T)) * len(batches), 1.2 + (0.7 + 0.32 * len(H)) * len(rows))
        figure = Figure(figsize=size)
        grid = figure.subplots(len(rows), len(batches), squeeze=False)
        for panels, (weights, subject) in zip(grid, rows, strict=True):
            for axes, B in zip(panels, batches, strict=True):
                part = [line for line in found if (line.weights, line.subject, line.sizes.B) == (weights, subject, B)]
                panel(axes, part, T, H)
                axes.set_title(f"B = {B}, {weights} weights, {subject}", fontsize=7)
        figure.suptitle(f"fastest sequential / fastest Newton (blue: Newton is faster)\n{hardware(record)}", fontsize=9)
        figure.savefig(folder / name, metadata={"Date": None})
    print(f"drawn: {name}")


def panel(axes: Any, part: list[Line], T: list[int], H: list[int]) -> None:
    """A square for each shape with the ratio in it; what was not measured stays empty."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    for line in part:
        x, y = T.index(line.sizes.T), H.index(line.sizes.H)
        # Where one side was left out there is no ratio; the other's name says which remains.
        gain, left = line.gain, "N" if line.best(newton=True) else "S"
        colour = (0.93, 0.93, 0.93)
        if gain is not None:
            deep = min(1.0, abs(math.log(max(gain, 1e-9))) / math.log(STRONG / FAINT)) ** 0.5
            colour = tuple(1 - deep * (1 - part) for part in to_rgb("#1f5fa8" if gain > 1 else "#b3541e"))
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white"))
        dark = sum(colour) < 1.6
        shown = left if gain is None else f"{gain:.2g}" if gain < 100 else f"{gain:.0f}"
        axes.text(x, y, shown, ha="center", va="center", fontsize=6, color="white" if dark else "black")
    axes.set(xlim=(-0.5, len(T) - 0.5), ylim=(-0.5, len(H) - 0.5))
    axes.set_xticks(range(len(T)), labels=[_short(each) for each in T], fontsize=6)
    axes.set_yticks(range(len(H)), labels=list(map(str, H)), fontsize=6)
    axes.set_xlabel("T", fontsize=7)
    axes.set_ylabel("H", fontsize=7)


def _short(size: int) -> str:
    for unit, name in ((10**6, "M"), (1000, "k")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)

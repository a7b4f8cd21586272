"""The plots of `benchmarks.layers`: docs/images/<name>_<platform>_{ratio_<dtype>,scaling}.svg."""

from pathlib import Path
from typing import Any

from benchmarks.layer_shapes import KINDS
from benchmarks.layers_report import Line, lines
from benchmarks.parallel_plots import STYLE, hardware

COLOURS = {
    "ours": "#1f5fa8", "torch": "#b3541e", "nnx": "#3c8d5a", "linen": "#8a6fb0", "keras": "#b08d1e",
    "equinox": "#7a7a7a", "floor": "#222222",
}
MARKS = {"ours": "o", "torch": "^", "nnx": "s", "linen": "D", "keras": "v", "equinox": "P", "floor": ""}
FASTER, SLOWER = "#1f5fa8", "#b3541e"

ALONG = {"T": {"B": 1, "I": 16, "H": 32}, "H": {"T": 64, "B": 16}, "B": {"T": 64, "I": 128, "H": 128}}
"""What is varied, and what is kept: the groups `time`, `hidden` (with I = H) and `batch`."""


def draw(record: dict[str, Any], folder: Path) -> None:
    """Draws the plots of a results file, as far as it has rows for them, into `folder`."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        print("no plots: matplotlib is not installed; pip install '.[experiments]', then --draw the file")
        return

    folder.mkdir(parents=True, exist_ok=True)
    found = lines(record["rows"])
    begin, drawn = f"{record['name']}_{record['platform']}", []
    with matplotlib.rc_context(STYLE):
        for dtype in dict.fromkeys(line.dtype for line in found if line.best):
            chosen = [line for line in found if line.dtype == dtype and line.best]
            most = max(sum(line.subject == kind for line in chosen) for kind in KINDS)
            figure = Figure(figsize=(8, 1.4 + 0.17 * most))
            ratios(figure, chosen, f"{dtype}, {hardware(record)}")
            drawn.append((figure, f"{begin}_ratio_{dtype}.svg"))
        first = found[0].dtype if found else ""
        chosen = [line for line in found if line.dtype == first]
        panels = [along for along in ALONG if any(len(series(chosen, along, "ours", kind)) > 1 for kind in KINDS)]
        if panels:
            figure = Figure(figsize=(2.2 + 2.4 * len(panels), 5))
            scaling(figure, chosen, panels, f"{first}, {hardware(record)}")
            drawn.append((figure, f"{begin}_scaling.svg"))
        for figure, name in drawn:
            figure.savefig(folder / name, metadata={"Date": None})
    print(f"drawn: {', '.join(name for _, name in drawn) or 'nothing, no peer ran'}")


def ratios(figure: Any, found: list[Line], title: str) -> None:
    """The best peer's time over ours, a bar for each shape, to the left of 1 where we are slower."""
    for axes, kind in zip(figure.subplots(1, 2), KINDS, strict=True):
        part = sorted((line for line in found if line.subject == kind), key=lambda line: line.gain or 0)
        gains = [line.gain or 0 for line in part]
        colours = [FASTER if gain >= 1 else SLOWER for gain in gains]
        axes.barh(range(len(part)), [gain - 1 for gain in gains], left=1, color=colours, height=0.7)
        axes.set_yticks(range(len(part)), labels=[f"{line.shape} ({line.best})" for line in part], fontsize=6)
        axes.axvline(1, color="#444444", linewidth=0.8)
        axes.set(title=kind, xlabel="best peer / ours")
        axes.grid(visible=False, axis="y")
        axes.set_axisbelow(True)
    figure.suptitle(f"T,B,I,H (best peer); {title}", fontsize=9)


def scaling(figure: Any, found: list[Line], panels: list[str], title: str) -> None:
    """Time against T, H and B, all candidates and the floor."""
    grid = figure.subplots(2, len(panels), squeeze=False)
    shown: dict[str, Any] = {}
    for row, kind in zip(grid, KINDS, strict=True):
        for axes, along in zip(row, panels, strict=True):
            for name, colour in COLOURS.items():
                points = series(found, along, name, kind)
                if points:
                    style = "--" if name == "floor" else "-"
                    (drawn,) = axes.plot(*zip(*points, strict=True), style, marker=MARKS[name], color=colour)
                    shown.setdefault(name, drawn)
            kept = ", ".join(f"{name} = {size}" for name, size in ALONG[along].items())
            kept += ", I = H" if along == "H" else ""
            axes.set(xscale="log", yscale="log", xlabel=along, title=kept if kind == "forward" else "")
        row[0].set_ylabel(f"{kind}, ms")
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=7)
    figure.suptitle(title, fontsize=9)


def series(found: list[Line], along: str, name: str, kind: str) -> list[tuple[int, float]]:
    """(size, ms) of a candidate, where the other sizes are those of the panel."""
    points = {}
    for line in found:
        shape = line.shape._asdict()
        fits = all(shape[kept] == size for kept, size in ALONG[along].items())
        if line.subject == kind and fits and (along != "H" or line.shape.I == line.shape.H):
            points[shape[along]] = {"ours": line.ours_ms, "floor": line.floor_ms, **line.peers}.get(name)
    return sorted((size, ms) for size, ms in points.items() if ms)

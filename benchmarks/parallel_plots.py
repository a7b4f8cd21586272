"""The plots of `benchmarks.parallel`: docs/images/newton_{iterations,memory}.svg."""

from pathlib import Path
from typing import Any

COLOURS = {"newton dense": "#b3541e", "newton diagonal": "#1f5fa8"}
MARKS = {"newton dense": "^", "newton diagonal": "o"}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    # White behind all of it, so that dark pages show the same picture.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    # The same numbers give the same file.
    "svg.hashsalt": "gru_jax",
    "svg.fonttype": "none",
}


def draw(record: dict[str, Any], folder: Path) -> None:
    """Draws the plots of a results file, as far as it has rows for them, into `folder`."""
    import matplotlib
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, plot in {"iterations": iterations, "memory": memory_over_sizes}.items():
            figure = Figure(figsize=(7, 3.2))
            plot(figure, record)
            figure.savefig(folder / f"newton_{name}.svg", metadata={"Date": None})
    print(f"drawn: {', '.join(sorted(path.name for path in folder.glob('newton_*.svg')))}")


def iterations(figure: Any, record: dict[str, Any]) -> None:
    """Rounds against the scale of the parameters, and against the Lyapunov exponent."""
    for measured in (row for row in record["rows"] if row["measure"] == "scales"):
        left, right = figure.subplots(1, 2, sharey=True)
        for kind in ("dense", "diagonal"):
            name = f"newton {kind}"
            for axes, key in ((left, "scale"), (right, "lyapunov")):
                at = [row[key] for row in measured["rows"]]
                rounds = [row[kind]["rounds"] for row in measured["rows"]]
                axes.plot(at, rounds, color=COLOURS[name], label=kind)
                for good in (True, False):
                    chosen = [k for k, row in enumerate(measured["rows"]) if (row[kind]["fell_back"] == 0) == good]
                    axes.plot(
                        [at[k] for k in chosen],
                        [rounds[k] for k in chosen],
                        MARKS[name],
                        color=COLOURS[name],
                        markerfacecolor=COLOURS[name] if good else "white",
                    )
        left.set(xlabel="parameters times", ylabel="rounds", xscale="log")
        left.set_xticks([0.5, 1, 2, 5, 10, 20], labels=["0.5", "1", "2", "5", "10", "20"])
        left.minorticks_off()
        left.plot([], [], "o", color="#777777", markerfacecolor="white", label="fell back to the steps")
        right.axvline(0, color="#777777", linewidth=0.8)
        right.set(xlabel="largest Lyapunov exponent, per step")
        figure.suptitle(f"GRU, H = {measured['H']}, T = {measured['T']}, torch's initial values, scaled", fontsize=9)
        legend(figure, left)


def memory_over_sizes(figure: Any, record: dict[str, Any]) -> None:
    """What a training step allocates, against T and against H, for B = 1."""
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, along, fixed in ((left, "T", {"H": 128}), (right, "H", {"T": 16384})):
        for name in ("newton dense", "newton diagonal"):
            points = memory(record["rows"], name, along, B=1, **fixed)
            if points:
                axes.plot(*zip(*points, strict=True), marker=MARKS[name], color=COLOURS[name], label=name)
        scaled(axes, along, ", ".join(f"{name} = {size}" for name, size in fixed.items()))
    left.set_ylabel("MiB in a training step")
    legend(figure, left)
    figure.suptitle("GRU, B = 1", fontsize=9)


def scaled(axes: Any, along: str, title: str) -> None:
    """Logarithmic axes with a tick at every size that was measured."""
    sizes = sorted({int(size) for line in axes.lines for size in line.get_xdata()})
    axes.set(xscale="log", yscale="log", xlabel=along, title=title)
    axes.set_xticks(sizes, labels=[f"{size // 1024}k" if size % 1024 == 0 else str(size) for size in sizes])
    axes.minorticks_off()


def legend(figure: Any, axes: Any) -> None:
    """One legend under all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


def memory(rows: list[dict[str, Any]], method: str, along: str, **fixed: int) -> list[tuple[int, float]]:
    """(size, MiB that the compiled training step allocates), sorted, where the other sizes are as given."""
    found = {
        row[along]: row["temporary_MiB"]
        for row in rows
        if row["measure"] in ("run", "compiled_memory")
        and row.get("cell", "GRU") == "GRU"
        and row["method"] == method
        and row["temporary_MiB"]
        and all(row[name] == size for name, size in fixed.items())
    }
    return sorted(found.items())


def hardware(record: dict[str, Any]) -> str:
    """Where the numbers come from."""
    device = record["device"]
    return f"{record['cores']} CPU cores" if "cpu" in device.lower() else device

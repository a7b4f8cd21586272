"""The tables of `benchmarks.layers`: ratios of a shape, their means, losses as plainly as wins."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.layer_shapes import Shape

NEAR_FLOOR = 0.8
"""Where the floor takes more than this part of the best peer's time, hardly anything is left to gain."""


class Line(NamedTuple):
    """All candidates at one shape, milliseconds."""

    subject: str
    dtype: str
    shape: Shape
    ours_ms: float
    floor_ms: float
    peers: dict[str, float]

    @property
    def best(self) -> str | None:
        """The fastest peer; None where none runs."""
        return min(self.peers, key=self.peers.__getitem__, default=None)

    @property
    def gain(self) -> float | None:
        """The best peer's time over ours: above 1 we are faster."""
        return None if self.best is None else self.peers[self.best] / self.ours_ms

    @property
    def floor_of_best(self) -> float | None:
        """The floor over the best peer."""
        return None if self.best is None else self.floor_ms / self.peers[self.best]

    @property
    def ours_of_floor(self) -> float:
        """Ours over the floor."""
        return self.ours_ms / self.floor_ms


def lines(rows: Iterable[dict[str, Any]]) -> list[Line]:
    """Rows of layers, one line for each subject, dtype and shape; rows of extras are passed over."""
    found: dict[tuple[Any, ...], Line] = {}
    for row in rows:
        if "aim" in row:
            continue
        shape = Shape(**row["shape"])
        line = Line(row["subject"], row["dtype"], shape, row["ours_ms"], row["floor_ms"], {})
        line = found.setdefault((line.subject, line.dtype, shape), line)
        if row["peer"] is not None:
            line.peers[row["peer"]] = row["peer_ms"]
    return list(found.values())


def parts(found: list[Line]) -> dict[tuple[str, str], list[Line]]:
    """Lines by subject and dtype."""
    parted: dict[tuple[str, str], list[Line]] = {}
    for line in found:
        parted.setdefault((line.subject, line.dtype), []).append(line)
    return parted


def geometric_mean(ratios: Sequence[float]) -> float:
    """The mean of ratios: of a half and a double it is 1."""
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


def slopes(found: list[Line], name: str) -> list[tuple[int, float]]:
    """(T, k) where from the length before to T the time of `name` grew as T to the power k."""
    times = {line.shape.T: {"ours": line.ours_ms, "floor": line.floor_ms, **line.peers}.get(name) for line in found}
    points = sorted((T, ms) for T, ms in times.items() if ms)
    pairs = zip(points, points[1:], strict=False)
    return [(T, math.log(ms / before) / math.log(T / shorter)) for (shorter, before), (T, ms) in pairs]


def printed(line: Line) -> str:
    """The line as text."""
    each = "  ".join(f"{name} {ms:.4g}" for name, ms in line.peers.items())
    gain = "no peer" if line.gain is None else f"{line.best} / ours {line.gain:.2f}"
    return (
        f"{line.subject:<9}{line.dtype:<9}{str(line.shape):>18}  ours {line.ours_ms:.4g}  {each}"
        f"  floor {line.floor_ms:.4g} ms | {gain}, ours / floor {line.ours_of_floor:.2f}"
    )


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """What it comes to: means, losses, shapes near the floor, growth with T, and the extras beside their aims."""
    text = []
    for (subject, dtype), part in parts(lines(rows)).items():
        compared = [line for line in part if line.gain is not None]
        if compared:
            worst = min(compared, key=lambda line: line.gain)
            text.append(
                f"{subject}, {dtype}: best peer / ours over {len(compared)} shapes: geometric mean"
                f" {geometric_mean([line.gain for line in compared]):.2f}, least {worst.gain:.2f} at {worst.shape}"
            )
        lost = sorted((line for line in compared if line.gain < 1), key=lambda line: line.gain)
        text += [f"  slower than {line.best}: {line.shape}, {line.best} / ours {line.gain:.2f}" for line in lost]
        text += [
            f"  near the floor: {line.shape}, floor / {line.best} {line.floor_of_best:.2f},"
            f" ours / floor {line.ours_of_floor:.2f}"
            for line in compared
            if line.floor_of_best > NEAR_FLOOR
        ]
        long = [line for line in part if line.shape[1:] == over_time(rows)]
        for name in ("ours", "floor", *dict.fromkeys(name for line in long for name in line.peers)):
            grown = ", ".join(f"{power:.2f} to {T}" for T, power in slopes(long, name))
            text += [f"  {name} grows as T to the power {grown}"] if grown else []
    for row in rows:
        if "aim" in row:
            text.append(extra(row))
    return text


def over_time(rows: list[dict[str, Any]]) -> tuple[int, int, int] | None:
    """(B, I, H) of the group `time`; None where it was not measured."""
    found = [Shape(**row["shape"])[1:] for row in rows if row.get("group") == "time"]
    return found[0] if found else None


def extra(row: dict[str, Any]) -> str:
    """A row of `layers_extras` as text."""
    ratio = row["ratio"]
    size = ",".join(map(str, row["shape"].values()))
    text = f"{row['subject']}, {','.join(row['shape'])} = {size}: {row['ours_ms']:.4g} ms, {ratio:.2f} x {row['peer']}"
    if row["aim"] is None:
        return text
    return f"{text} (aim {row['aim']:g}: {'reached' if ratio <= row['aim'] else 'MISSED'})"


def told(left_out: list[str]) -> list[str]:
    """The peers that could not run."""
    return [f"left out: {reason}" for reason in left_out]


def markdown(record: dict[str, Any]) -> str:
    """The record as a page: a table for each subject and dtype, then the summary."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    text = [
        f"# Layers: {record['device']}, {record['date']}",
        f"`{record['command']}`: {record['cpu']}, {record['cores']} cores; {versions}."
        " Milliseconds, medians; \"gain\" is the best peer's time over ours.",
    ]
    for (subject, dtype), part in parts(lines(record["rows"])).items():
        names = list(dict.fromkeys(name for line in part for name in line.peers))
        head = ["T, B, I, H", "ours", *names, "floor", "best peer", "gain", "floor / best peer", "ours / floor"]
        text += [f"## {subject}, {dtype}", "\n".join([_table_row(head), _table_row(["---"] * len(head))])]
        for line in part:
            ratios = (line.gain, line.floor_of_best, line.ours_of_floor)
            times = (line.ours_ms, *map(line.peers.get, names), line.floor_ms)
            cells = [str(line.shape), *(_cell(ms, ".4g") for ms in times), line.best or "-"]
            text[-1] += "\n" + _table_row([*cells, *(_cell(ratio, ".2f") for ratio in ratios)])
    points = [*summary(record["rows"]), *told(record.get("left_out", []))]
    listed = (f"  - {point.strip()}" if point.startswith(" ") else f"- {point}" for point in points)
    return "\n\n".join([*text, "## In all", "\n".join(listed)]) + "\n"


def _table_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(number: float | None, form: str) -> str:
    return "-" if number is None else format(number, form)

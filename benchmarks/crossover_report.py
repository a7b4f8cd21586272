"""The tables of `benchmarks.crossover`: every method beside the fastest sequential one, DEER's figures beside ours."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from gru_jax.scans.choices import Sizes

DEERS = {
    "forward": {1000: "18", 3000: "44", 10**4: "138", 30_000: "382", 10**5: "1122", 300_000: "2029", 10**6: "failed"},
    "training": {1000: "42", 10**4: "299", 30_000: "648 to 752", 10**5: "816 to 961", 300_000: "800 to 1045"},
}
"""How many times as fast as a `lax.scan` DEER was for a GRU of one unit, B = 16: machine-discovery/deer, its logs of a
V100 (forward) and of a GPU that is not named (outputs and gradient)."""

HEADER = (
    f"{'T':>8} {'B':>3} {'H':>5}  {'weights':<8}{'what':<9}{'method':<24}{'ms':>10}{'rounds':>7}"
    f"{'fell back':>10}{'temp MiB':>10}{'compile s':>10}"
)


class Line(NamedTuple):
    """All methods at one shape, by name."""

    sizes: Sizes
    group: str
    weights: str
    subject: str
    methods: dict[str, dict[str, Any]]

    def best(self, newton: bool) -> str | None:
        """The fastest form of Newton's method, or of one step after another; None where none was measured."""
        names = [name for name in self.methods if name.startswith("newton") == newton]
        return min(names, key=lambda name: self.methods[name]["ms"], default=None)

    @property
    def gain(self) -> float | None:
        """The time of the fastest sequential form over that of the fastest Newton: above 1 Newton is faster."""
        steps, newton = self.best(newton=False), self.best(newton=True)
        return None if steps is None or newton is None else self.methods[steps]["ms"] / self.methods[newton]["ms"]


def lines(rows: Iterable[dict[str, Any]]) -> list[Line]:
    """One line for each shape, set of weights and kind."""
    found: dict[Any, Line] = {}
    for row in rows:
        sizes = Sizes(**row["shape"])
        key = (sizes, row["group"], row["weights"], row["subject"])
        found.setdefault(key, Line(*key, {})).methods[row["method"]] = row
    return list(found.values())


def printed(row: dict[str, Any]) -> str:
    """The row as text."""
    T, B, H = Sizes(**row["shape"])
    rounds, fell = row.get("rounds", ""), row.get("fell_back")
    told = "" if fell is None else f"{fell:.0%}"
    temp = "-" if row["temp_MiB"] is None else row["temp_MiB"]
    return (
        f"{T:8} {B:3} {H:5}  {row['weights']:<8}{row['subject']:<9}{row['method']:<24}{row['ms']:10.4g}"
        f"{rounds:>7}{told:>10}{temp:>10}{row['compile_s']:>10}"
    )


def choices(rows: Iterable[dict[str, Any]], subject: str = "training") -> list[dict[str, Any]]:
    """What is the fastest at each shape, as `method="auto"` could be told: Newton where it is so with all weights.

    Args:
      rows: of a results file.
      subject: what has to be fastest.

    Returns:
      For each shape at which both were measured `{"T", "B", "H", "method", "gain"}`, gain the least of any weights;
      with method "newton" also its `jacobian` and `kernel`.
    """
    by_sizes: dict[Sizes, list[Line]] = {}
    for line in lines(rows):
        if line.subject == subject and line.gain is not None:
            by_sizes.setdefault(line.sizes, []).append(line)
    found = []
    for sizes, each in by_sizes.items():
        worst = min(each, key=lambda line: line.gain)
        chosen = {"method": "sequential", "gain": round(worst.gain, 2)}
        if worst.gain > 1:
            _, jacobian, *kernel = worst.best(newton=True).split()
            chosen |= {"method": "newton", "jacobian": jacobian, "kernel": "pallas" if kernel else "xla"}
        found.append({**sizes._asdict(), **chosen})
    return found


def summary(rows: list[dict[str, Any]], known: list[dict[str, Any]]) -> list[str]:
    """Where Newton was faster and where not, by weights and kind; DEER's shapes beside DEER's own figures."""
    text = []
    compared = [line for line in lines(rows) if line.gain is not None]
    for weights, subject in dict.fromkeys((line.weights, line.subject) for line in compared):
        part = [line for line in compared if (line.weights, line.subject) == (weights, subject)]
        faster = sorted((line for line in part if line.gain > 1), key=lambda line: -line.gain)
        least, most = (function(line.gain for line in part) for function in (min, max))
        text.append(
            f"{weights} weights, {subject}: Newton faster at {len(faster)} of {len(part)} shapes,"
            f" sequential / Newton {least:.2g} to {most:.2g}"
        )
        text += [
            f"  faster: T,B,H = {','.join(map(str, line.sizes))}, {line.best(newton=True)},"
            f" {line.best(newton=False)} / it {line.gain:.2f}"
            for line in faster
        ]
    for each in known:
        loss = f", mean squared error {each['loss']:.2g}" if "loss" in each else ""
        text.append(f"H = {each['H']}, {each['weights']} weights: Lyapunov exponent {each['lyapunov']:.4f}{loss}")
    return text + deer(rows)


def deer(rows: list[dict[str, Any]]) -> list[str]:
    """Times faster than a plain loop, as DEER's authors count, beside what they published."""
    text = []
    for line in lines(rows):
        newton, loop = line.best(newton=True), line.methods.get("loop", line.methods.get("sequential"))
        if line.group != "deer" or newton is None or line.weights != "torch":
            continue
        ours = line.methods[newton]["ms"]
        times = f"{loop['ms'] / ours:.3g} x {loop['method']}" if loop else "the loop takes too long"
        gain = f", {line.gain:.3g} x {line.best(newton=False)}" if line.gain is not None else ""
        theirs = DEERS[line.subject].get(line.sizes.T) if line.sizes.H == 1 else None
        own = "not published" if theirs is None else theirs if theirs == "failed" else f"{theirs} x loop"
        text.append(
            f"DEER's shape T,B,H = {','.join(map(str, line.sizes))}, {line.subject}: {newton} {ours:.4g} ms,"
            f" {times}{gain}; DEER's own: {own}"
        )
    return text


def markdown(record: dict[str, Any]) -> str:
    """The record as a page: a table for each set of weights and kind, the summary, what was left out."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if name.startswith("jax"))
    text = [
        f"# Crossover: {record['device']}, {record['date']}",
        f"`{record['command']}`: {record['cpu']}, {record['cores']} cores; {versions}. Milliseconds, medians; in"
        " brackets the rounds of Newton's method, * where sequences fell back to the steps; \"gain\" is the fastest"
        " sequential form's time over the fastest Newton's, above 1 where Newton is faster. \"MiB\" is what the"
        " programs allocate besides arguments and results, in the same order.",
    ]
    found = lines(record["rows"])
    rounds = {(line.sizes, line.weights): line for line in found if line.subject == "forward"}
    for weights, subject in dict.fromkeys((line.weights, line.subject) for line in found):
        part = [line for line in found if (line.weights, line.subject) == (weights, subject)]
        names = list(dict.fromkeys(name for line in part for name in line.methods))
        head = ["T, B, H", *names, "gain", "MiB"]
        text += [f"## {weights} weights, {subject}", "\n".join([_table_row(head), _table_row(["---"] * len(head))])]
        for line in part:
            forward = rounds.get((line.sizes, weights), line).methods
            cells = [_cell(line.methods.get(name), forward.get(name)) for name in names]
            MiB = ", ".join(str(line.methods[name]["temp_MiB"]) if name in line.methods else "-" for name in names)
            gain = "-" if line.gain is None else f"{line.gain:.2f}"
            text[-1] += "\n" + _table_row([", ".join(map(str, line.sizes)), *cells, gain, MiB])
    points = [*summary(record["rows"], record["weights"]), *(f"left out: {each}" for each in record["left_out"])]
    listed = (f"  - {point.strip()}" if point.startswith(" ") else f"- {point}" for point in points)
    return "\n\n".join([*text, "## In all", "\n".join(listed)]) + "\n"


def _cell(row: dict[str, Any] | None, forward: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    if forward is None or not row["method"].startswith("newton"):
        return f"{row['ms']:.4g}"
    return f"{row['ms']:.4g} ({forward['rounds']}{'*' if forward['fell_back'] else ''})"


def _table_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"

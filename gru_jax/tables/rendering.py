"""A table's results as Markdown, as LaTeX (booktabs) and as CSV."""

import csv
import io
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from gru_jax.tables.results import WITHOUT_RUNS, needed, shown
from gru_jax.tables.spec import EXPERIMENTS, SCALES, ScaleName, Table
from gru_jax.types import Plain

Format = Literal["md", "tex", "csv"]
Entry = Mapping[str, Plain]

PAGE = "table.md"
_SMOKE = "a small run that shows the path works; the published numbers belong to the full scale"


def render(table: Table, scales: Sequence[ScaleName], form: Format) -> str:
    """The table at one or both scales, as text that ends with a newline.

    Args:
        table: the table; its results are read from results.json.
        scales: which of them.
        form: "md", "tex" or "csv".
    """
    if form == "csv":
        return _csv(table, scales)
    one = _md if form == "md" else _tex
    return "\n".join(one(table, scale, shown(table, scale)) for scale in scales)


def page(table: Table) -> str:
    """What table.md holds: both scales, as far as they were run."""
    made = [scale for scale in SCALES if any(entry["status"] not in WITHOUT_RUNS for entry in shown(table, scale))]
    return render(table, made or ["full"], "md")


def number(value: float) -> str:
    """Four digits that say something.

    Example:
        >>> number(8.5432), number(0.98123), number(5.3e-5), number(12345.0), number(0)
        ('8.543', '0.9812', '5.3e-05', '12345', '0')
    """
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.3g}"
    return f"{value:.{max(0, 3 - _exponent(value))}f}" if value else "0"


def mean_and_sd(mean: float, sd: float | None) -> str:
    """The mean to the place where the standard deviation's second digit stands.

    Example:
        >>> mean_and_sd(8.54321, 0.0213), mean_and_sd(8.54321, None), mean_and_sd(5.31e-5, 2.2e-6)
        ('8.543 ± 0.021', '8.543', '5.31e-05 ± 2.2e-06')
    """
    if sd is None:
        return number(mean)
    if sd == 0 or max(abs(mean), sd) < 1e-3:
        return f"{number(mean)} ± {sd:.2g}"
    places = min(6, max(0, 1 - _exponent(sd)))
    return f"{mean:.{places}f} ± {sd:.{places}f}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value)))


def _seeds(entry: Entry) -> str:
    values = entry["values"]
    diverged = sum(value is None for value in values)
    return f"{len(values) - diverged} of {len(values)}, {diverged} diverged" if diverged else str(len(values))


_HEADS = ("row", "published", "ours", "best", "seeds", "steps", "seconds", "hardware", "status")
_NONE = "-"


def _cells(table: Table, entry: Entry) -> list[str]:
    """One row as text: a smoke row's published number stands in brackets."""
    label = entry["label"]
    if entry["metric"] != table.spec.metric:
        label += f" ({entry['metric']})"
    published = _NONE if entry["published"] is None else as_printed(table, entry)
    if entry["scale"] != "full" and entry["published"] is not None:
        published = f"({published})"
    mean, best, steps, seconds = (entry[key] for key in ("mean", "best", "steps", "seconds"))
    return [
        label,
        published,
        _NONE if mean is None else mean_and_sd(mean, entry["sd"]),
        _NONE if best is None else number(best),
        _seeds(entry) if entry["values"] else _NONE,
        _NONE if steps is None else str(steps),
        _NONE if seconds is None else number(seconds) if seconds < 10 else f"{seconds:.0f}",
        entry["hardware"] or _NONE,
        entry["status"],
    ]


def as_printed(table: Table, entry: Entry) -> str:
    """A published number with the trailing zeros that papers print and YAML drops: 9.10 beside 8.54."""
    return _as_printed(table, entry["published"], entry.get("published_sd"))


def _as_printed(table: Table, published: float, sd: float | None) -> str:
    numbers = [f"{row.published:.6g}" for row in table.spec.rows if row.published is not None]
    if any("e" in number for number in numbers):
        return f"{published:.6g}" if sd is None else f"{published:.6g} ± {sd:.6g}"
    places = max(len(number.partition(".")[2]) for number in numbers)
    return f"{published:.{places}f}" if sd is None else f"{published:.{places}f} ± {sd:.{places}f}"


def _heads(scale: str) -> list[str]:
    heads = dict.fromkeys(_HEADS, "") | {head: head for head in _HEADS}
    heads["published"] = "published" if scale == "full" else "(published, full scale)"
    heads["ours"] = "ours, mean ± sd" if scale == "full" else "ours at smoke scale, mean ± sd"
    return list(heads.values())


def _title(table: Table, scale: str) -> str:
    return table.spec.title if scale == "full" else f"{table.spec.title}: smoke scale"


def below(table: Table, scale: ScaleName, entries: Sequence[Entry]) -> list[str]:
    """The sentences under the table: metric, source, each row's own source and note."""
    head = "Published" if any(row.published is not None for row in table.spec.rows) else "Nothing was published. After"
    lines = [f"{table.spec.metric}, {table.spec.better} is better. {head}: {table.spec.source}."]
    if table.spec.compared == "best":
        lines.append("What was published is of the best seed, and is compared with ours.")
    if scale != "full":
        lines.append(f"Smoke scale: {_SMOKE}.")
    for entry in entries:
        said = []
        if entry["metric"] != table.spec.metric or entry["better"] != table.spec.better:
            said.append(f"{entry['metric']}, {entry['better']} is better")
        if entry["source"] != table.spec.source:
            said.append(f"published: {entry['source']}")
        if entry["note"]:
            said.append(" ".join(entry["note"].split()))
        if said:
            lines.append(f"{entry['label']}: {'; '.join(said)}.".replace("..", "."))
    return lines


def not_here(table: Table, scale: ScaleName, entries: Sequence[Entry]) -> list[str]:
    """A sentence for each thing that rows need to be run, with the rows that do."""
    wanting: dict[str, list[str]] = {}
    for row in needed(table, scale, entries):
        printed = "" if row.published is None else _as_printed(table, row.published, row.published_sd)
        label = row.label + (f" (published {printed})" if printed else "")
        wanting.setdefault(" ".join(str(row.needs).split()), []).append(label)
    return [f"Not run, for want of {needs}: {'; '.join(labels)}." for needs, labels in wanting.items()]


def _md(table: Table, scale: ScaleName, entries: Sequence[Entry]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rows = [line([escaped(cell) for cell in _cells(table, entry)]) for entry in entries]
    rule = ["---" if head in ("row", "hardware", "status") else "---:" for head in _HEADS]
    first, *rest = below(table, scale, entries) + not_here(table, scale, entries)
    lines = [f"**{escaped(_title(table, scale))}**", "", line(_heads(scale)), line(rule), *rows, "", escaped(first)]
    if rest:
        lines += ["", *(f"- {escaped(each)}" for each in rest)]
    return "\n".join([*lines, "", *(f"{said} `{call}`." for said, call in _made_by(table, scale, entries))]) + "\n"


def _made_by(table: Table, scale: ScaleName, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """(words, command) for all rows, and for each that was made of other seeds than the table asks for."""
    name = table.name if EXPERIMENTS in table.file.parents else table.file.as_posix()
    call = ["gru-jax", "table", name, "--scale", scale]
    rows = {row.label: row for row in table.spec.rows}
    made = [("Made by", shlex.join(call))]
    for entry in entries:
        own = getattr(rows[entry["label"]].scales, scale).seeds or getattr(table.spec.scales, scale).seeds
        if entry["seeds"] and entry["seeds"] != own:
            of_row = ["--rows", f"^{re.escape(entry['label'])}$", "--seeds", ",".join(map(str, entry["seeds"]))]
            made.append((f"{escaped(entry['label'])} is of other seeds, by", shlex.join([*call, *of_row])))
    return made


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_|<>\[\]$~])", r"\\\1", " ".join(text.split()))


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", '"': r"\textquotedbl{}",
}  # fmt: skip


def _tex_text(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))


def _tex(table: Table, scale: ScaleName, entries: Sequence[Entry]) -> str:
    def line(cells: Sequence[str]) -> str:
        # A bracket after \\ would be read as its argument.
        return "{}" * cells[0].startswith("[") + " & ".join(cells) + r" \\"

    columns = "".join("l" if head in ("row", "hardware", "status") else "r" for head in _HEADS)
    rows = [line([_tex_text(cell) for cell in _cells(table, entry)]) for entry in entries]
    notes = [_tex_text(each) + r"\par" for each in below(table, scale, entries) + not_here(table, scale, entries)]
    return "\n".join(
        [
            *(f"% {said} {call}" for said, call in _made_by(table, scale, entries)),
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex_text(_title(table, scale))}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            line([_tex_text(head) for head in _heads(scale)]),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}\par",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _csv(table: Table, scales: Sequence[ScaleName]) -> str:
    columns: dict[str, Callable[[Entry], Plain]] = {
        "scale": lambda entry: entry["scale"],
        "row": lambda entry: entry["label"],
        "metric": lambda entry: entry["metric"],
        "published": lambda entry: entry["published"],
        "published_sd": lambda entry: entry.get("published_sd"),
        "tolerance": lambda entry: entry["tolerance"],
        "mean": lambda entry: entry["mean"],
        "sd": lambda entry: entry["sd"],
        "best": lambda entry: entry["best"],
        "seeds": lambda entry: len(entry["values"]),
        "diverged": lambda entry: sum(value is None for value in entry["values"]),
        "steps": lambda entry: entry["steps"],
        "seconds": lambda entry: entry["seconds"],
        "hardware": lambda entry: entry["hardware"],
        "status": lambda entry: entry["status"],
        "source": lambda entry: entry["source"],
        "note": lambda entry: entry["note"],
        "command": lambda entry: entry["command"],
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for scale in scales:
        writer.writerows([get(entry) for get in columns.values()] for entry in shown(table, scale))
    return text.getvalue()

"""Pieces of a page. Text is a user's and is escaped here; what is `Markup` is a page's already."""

import base64
import html
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple, NewType

Markup = NewType("Markup", str)
"""HTML in which every text is escaped."""

_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
PICTURES = tuple(_TYPES)


class Number(NamedTuple):
    """A cell with a number: what is shown, and what rows are sorted by; None sorts last."""

    shown: str
    value: float | None


Cell = str | Number


def text(value: object) -> Markup:
    """A text as it is.

    Example:
        >>> text("<b> & 'c'")
        '&lt;b&gt; &amp; &#x27;c&#x27;'
    """
    # Half of a pair, as in the name of a file that is no UTF-8, cannot be written.
    return Markup(html.escape(str(value).encode("utf-8", "replace").decode()))


def element(name: str, *inner: Markup, **attributes: str) -> Markup:
    """`<name key="value">inner</name>`; `class_` is written `class`.

    Example:
        >>> element("p", text("a < b"), class_="soft")
        '<p class="soft">a &lt; b</p>'
    """
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{said}>{''.join(inner)}</{name}>")


def heading(level: int, words: str) -> Markup:
    """`<h1>` to `<h6>`."""
    return element(f"h{level}", text(words))


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], best: int | None = None) -> Markup:
    """A table that a click on its head sorts.

    Args:
        head: its columns.
        rows: their cells.
        best: number of the row that is marked.
    """
    cells = [list(row) for row in rows]
    numbers = {column for row in cells for column, cell in enumerate(row) if isinstance(cell, Number)}
    looks = [_class("number" if place in numbers else "") for place in range(len(head))]
    top = [element("th", _breakable(name), **look) for name, look in zip(head, looks, strict=True)]
    body = [
        element("tr", *map(_cell, row), **_class("best" if number == best else "")) for number, row in enumerate(cells)
    ]
    inner = element("thead", element("tr", *top)), element("tbody", *body)
    return element("div", element("table", *inner, class_="sortable"), class_="wide full")


def _breakable(name: str) -> Markup:
    """A name that a narrow column may break after its dots, slashes and underscores."""
    return Markup(re.sub(r"([./_])(?=.)", r"\1<wbr>", text(name)))


def facts(values: Mapping[str, object]) -> Markup:
    """A table of two columns: what, and its value."""
    rows = [element("tr", element("th", text(key)), element("td", text(value))) for key, value in values.items()]
    return element("div", element("table", element("tbody", *rows)), class_="wide")


def _cell(cell: Cell) -> Markup:
    if isinstance(cell, Number):
        value = "" if cell.value is None else repr(cell.value)
        # A narrow column has the spread on a line of its own.
        mean, between, spread = cell.shown.partition(" ± ")
        whole = [text(f"{mean} "), element("span", text(f"± {spread}"))] if between else [text(mean)]
        return element("td", *whole, class_="number", data_value=value)
    return element("td", text(cell))


def _class(name: str) -> dict[str, str]:
    return {"class_": name} if name else {}


def code(words: str) -> Markup:
    """A text with its lines, such as a config."""
    return element("pre", text(words))


def picture(path: Path, caption: str) -> Markup:
    """A picture, inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    # A picture has no end tag.
    image = Markup(f'<img src="data:{_TYPES[path.suffix]};base64,{data}" alt="{text(caption)}">')
    return element("figure", image, element("figcaption", text(caption)))


def folded(summary: str, *inner: Markup) -> Markup:
    """What is shown after a click."""
    return element("details", element("summary", text(summary)), *inner)


def page(title: str, *body: Markup) -> str:
    """A whole file."""
    template = string.Template(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=text(title), body="\n".join(body))

"""The tables of docs/guide/optimizers.md are those that the sections make."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gru_jax.config.sections.base import Section
from gru_jax.config.sections.optim import OPTIMIZERS, Optimizer
from gru_jax.config.sections.schedules import SCHEDULES, Schedule

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "optimizers.md"


def rows(sections: tuple[type[Section], ...], base: type[Section]) -> Iterator[str]:
    """A row for each kind: the keys that the others do not have, or have with another default."""
    yield "| kind | keys |"
    yield "|---|---|"
    for section in sections:
        keys = []
        for name, field in section.model_fields.items():
            shared = base.model_fields.get(name)
            if name == "weight_decay" and getattr(section, "decays", "") == "inside":
                shared = None
            if name != "kind" and (shared is None or shared.default != field.default):
                keys.append(f"`{name}`" + (" (required)" if field.is_required() else f" {shown(field.default)}"))
        yield f"| `{section.model_fields['kind'].annotation.__args__[0]}` | {', '.join(keys)} |"


def shown(default: object) -> str:
    text = default if isinstance(default, str) else json.dumps(default)
    return re.sub(r"e-0*", "e-", text)


@pytest.mark.parametrize(("name", "sections", "base"), [
    ("optimizers", OPTIMIZERS, Optimizer), ("schedules", SCHEDULES, Schedule),
])  # fmt: skip
def test_the_tables_are_made_from_the_sections(name: str, sections: tuple[type[Section], ...], base: type) -> None:
    found = re.search(rf"<!-- {name} -->\n(.*?)\n?<!-- end -->", PAGE.read_text(), flags=re.DOTALL)
    wanted = "\n".join(rows(sections, base))
    assert found is not None and found[1] == wanted, f"put this between its marks in {PAGE.name}:\n{wanted}"

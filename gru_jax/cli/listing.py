"""What a config can say: every kind of task, model, optimizer, schedule; and the configs here."""

import json
import typing
from collections.abc import Sequence
from pathlib import Path

from pydantic.fields import FieldInfo

from gru_jax.config import yaml_document
from gru_jax.config.sections.base import Section
from gru_jax.config.sections.methods import METHODS
from gru_jax.config.sections.models import MODELS
from gru_jax.config.sections.optim import OPTIMIZERS, SCHEDULES
from gru_jax.config.sections.tasks import TASKS


def listing(configs: Path, tables: Sequence[str] = ()) -> str:
    """The list as text.

    Args:
        configs: folder to look for YAML files in.
        tables: a line for each table.
    """
    files = sorted(configs.rglob("*.yaml"))
    lines = ["configs:", *(f"  {file}  {_about(file)}".rstrip() for file in files)] if files else []
    if tables:
        lines += ["tables:", *(f"  {line}" for line in tables)]
    for title, sections in (
        ("tasks", TASKS),
        ("models", MODELS),
        ("methods", METHODS),
        ("optimizers", OPTIMIZERS),
        ("schedules", SCHEDULES),
    ):
        lines += [f"{title}:", *_kinds(sections)]
    if not files:
        lines.append(f"configs: none under {configs}/ here; a clone has some")
    return "\n".join(lines)


def _kinds(sections: Sequence[type[Section]]) -> list[str]:
    lines = []
    for section in sections:
        summary = (section.__doc__ or "").strip().splitlines()[0]
        fields = {name: field for name, field in section.model_fields.items() if name != "kind"}
        kind = typing.get_args(section.model_fields["kind"].annotation)[0]
        keys = ", ".join(f"{name}{_default(field)}" for name, field in fields.items())
        lines += [f"  {kind}: {summary}"] + ([f"      {keys}"] if keys else [])
    return lines


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    return f"={_show(field.get_default(call_default_factory=True))}"


def _show(default: object) -> str:
    if isinstance(default, Section):
        return str(default.model_dump().get("kind"))
    return default if isinstance(default, str) else json.dumps(default)


def _about(file: Path) -> str:
    """The comment on the first line of a config, which says what it trains, and what it is laid over."""
    document = yaml_document.read_file(file)
    first = document.text.partition("\n")[0]
    base = document.value.get("base") if isinstance(document.value, dict) else None
    said = [first.lstrip("# ").rstrip()] if first.startswith("#") else []
    return " ".join(said + ([f"(base: {base})"] if isinstance(base, str) else []))

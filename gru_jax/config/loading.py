"""From a YAML file and overrides to a `Config`, or to the list of all that is wrong with them."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from gru_jax.config import error_messages, overrides, yaml_document
from gru_jax.config.base_file import Base, lay_over, read_base
from gru_jax.config.config import Config, broken_rules
from gru_jax.config.error_messages import Problem
from gru_jax.config.overrides import Overrides
from gru_jax.config.sections.base import Section
from gru_jax.config.sections.in_words import short, show
from gru_jax.config.sections.tasks.task import Task
from gru_jax.config.yaml_document import Document, KeyPath
from gru_jax.types import Plain

AnySection = TypeVar("AnySection", bound=Section)

PYTHON_FILES = ("task", "model")
"""The sections that may name a Python file. A run keeps it, and what it imports from beside it, as they were at its
start, in a folder of the section's name."""


class ConfigError(Exception):
    """A config that cannot be run; `lines` are for people, one for each thing that is wrong."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


class LoadedConfig(NamedTuple):
    """A valid config and where its values came from."""

    config: Config
    file: str
    arguments: tuple[str, ...]
    document: Document
    base: Base | None
    overrides: Overrides

    def notes(self) -> list[str]:
        """Values of the file that a new `kind` has kept, keys that do nothing, and what is to know of the data."""
        kept = [(path, keys, "the file") for path, keys in self.overrides.kept.items()]
        if self.base is not None:
            of_base = self.base.kept.items()
            kept += [(path, keys, self.base.file) for path, keys in of_base if path not in self.overrides.kept]
        notes = [note for path, keys, source in kept for note in self._kept(path, keys, source)]
        model, task = self.config.model, self.config.task
        notes += [f"model.{key}={getattr(model, key)} does nothing: it {fact}" for key, fact in model.idle]
        return notes + (task.notes(self.config.data_root) if isinstance(task, Task) else [])

    def _kept(self, path: KeyPath, keys: Sequence[str], source: str) -> list[str]:
        notes = []
        section: Any = functools.reduce(getattr, map(str, path), self.config)
        for key in keys:
            field = type(section).model_fields.get(key)
            if field is None or _origin((*path, key), self.overrides) or getattr(section, key) == field.default:
                continue
            name, kept = _dotted((*path, key)), self.config.resolved()
            for part in (*path, key):
                kept = kept[str(part)]
            default = field.get_default(call_default_factory=True)
            said = f"; the default of {section.kind} is {default}" if isinstance(default, int | float) else ""
            notes.append(f"{_dotted(path)}.kind={section.kind} keeps {name}={_short(kept)} from {source}{said}")
        return notes

    def source(self) -> str:
        """The file as it was given, what it was laid over, and the overrides, as one YAML text."""
        text = self.document.text
        parts = [text if text.endswith("\n") else text + "\n"]
        if self.base is not None:
            parts.append(f"# base: {self.base.file}\n")
            parts += [f"# | {line}\n" for line in self.base.document.text.splitlines()]
        parts += [f"# override: {argument!r}\n" for argument in self.arguments]
        return "".join(parts)

    def place(self, path: KeyPath) -> str | None:
        """`file:line:column` of a key, in the config or its base; None where neither has it."""
        for file, document in _sources(self.file, self.document, self.base):
            if path in document.key_marks:
                return ":".join(map(str, (file, *document.key_marks[path])))
        return None

    def error(self, found: Iterable[tuple[KeyPath, str]]) -> ConfigError:
        """The error for problems found after validation, such as too few devices."""
        problems = [Problem(path, fact) for path, fact in found]
        return ConfigError(_lines(_sources(self.file, self.document, self.base), self.overrides, problems))


def load_config(file: str | Path, arguments: Sequence[str] = ()) -> LoadedConfig:
    """Reads a config file, lays it over its base, and `key.sub=value` arguments over both.

    Raises:
        ConfigError: with one line `file:line:column: path: fact` for each thing that is wrong.
    """
    path = Path(file)
    document, values = _read(path, "a config needs at least the keys schema, name, task and model")
    base = None
    if values is not None:
        base = read_base(path, document, values)
        bases = [document] if base is None else [document, base.document]
        if any(("base",) in _said(each) for each in bases) or not isinstance(bases[-1].value, dict):
            values = None
        elif base is not None:
            values = lay_over(base, values, Config)
    keys_of_kind = functools.partial(error_messages.keys_of_kind, Config)
    default_kind = functools.partial(error_messages.default_kind, Config)
    kind_alone = functools.partial(error_messages.kind_alone, Config)
    alone_here = functools.partial(error_messages.kind_alone, Config, in_file=False)
    below = {} if values is None else values
    laid = overrides.apply(below, arguments, keys_of_kind, default_kind, kind_alone, alone_here)
    sources = _sources(str(file), document, base)
    _beside(values, sources, laid)
    config, problems = _validate(values, Config, _kept(path, values, laid) | _data_files(path, values))
    if config is not None:
        problems = [Problem(path, fact) for path, fact in broken_rules(config)]
    problems = _unsaid(problems, sources)
    if problems or laid.complaints or any(document.complaints for _, document in sources):
        raise ConfigError(_lines(sources, laid, problems))
    assert config is not None
    return LoadedConfig(config, str(file), tuple(arguments), document, base, laid)


Sources = Sequence[tuple[str, Document]]
"""The files that a config's values come from with what was read, the one that wins first."""


def _sources(file: str, document: Document, base: Base | None) -> Sources:
    return [(file, document)] + ([] if base is None else [(base.file, base.document)])


def _beside(values: dict[str, Plain] | None, sources: Sources, laid: Overrides) -> None:
    """A Python file is looked for beside the file that names it first, then from the current directory."""
    for key in PYTHON_FILES:
        section = (values or {}).get(key)
        if not isinstance(section, dict) or section.get("kind") != "python" or _origin((key, "file"), laid):
            continue
        file = section.get("file")
        folder = next((Path(name).parent for name, document in sources if (key, "file") in document.marks), Path())
        if isinstance(file, str) and file and not Path(file).is_absolute() and (folder / file).is_file():
            section["file"] = str(folder / file)


def _data_files(path: Path, values: dict[str, Plain] | None) -> dict[str, str | None]:
    """Where a task looks for its file: beside the config, then below the folder of data files."""
    data_root = (values or {}).get("data_root")
    return {"beside": str(path.parent.absolute()), "data_root": data_root if isinstance(data_root, str) else None}


def _kept(path: Path, values: dict[str, Plain] | None, laid: Overrides) -> dict[str, Path]:
    """Where the config of a run is read again: for each section the folder with its Python file as it was then."""
    # Whatever else is called so has no environment of a run beside it.
    if path.name != "config.yaml" or not (path.parent / "env.json").is_file():
        return {}
    kept = {}
    for key in PYTHON_FILES:
        section, folder = (values or {}).get(key), path.parent / key
        file = section.get("file") if isinstance(section, dict) and not _origin((key, "file"), laid) else None
        if isinstance(file, str) and (folder / Path(file).name).is_file():
            kept[key] = folder
    return kept


def load_section(file: str | Path, root: type[AnySection], needs: str) -> tuple[AnySection, Document]:
    """Reads a file of another kind than a config by the same rules.

    Args:
        file: a YAML file.
        root: what the file holds.
        needs: said of an empty file: what it has to hold.

    Returns:
        The values, and the document with their places.

    Raises:
        ConfigError: as `load_config`.
    """
    document, values = _read(Path(file), needs)
    section, problems = _validate(values, root)
    sources = [(str(file), document)]
    problems = _unsaid(problems, sources)
    if section is None or problems or document.complaints:
        raise ConfigError(_lines(sources, Overrides(), problems))
    return section, document


def error_at(file: str | Path, document: Document, found: Iterable[tuple[KeyPath, str]]) -> ConfigError:
    """The error for problems that were found in a file after it was read."""
    return ConfigError(_lines([(str(file), document)], Overrides(), [Problem(path, fact) for path, fact in found]))


def _read(path: Path, needs: str) -> tuple[Document, dict[str, Plain] | None]:
    """The document and its values; None where there are none to validate: the file is what is wrong."""
    document = yaml_document.read_file(path)
    if document.value is None:
        if not document.complaints:
            document.complaints.append(yaml_document.Complaint(f"is empty; {needs}"))
        return document, None
    if not isinstance(document.value, dict):
        fact = f"expected keys with values, got {show(document.value)}"
        document.complaints.append(yaml_document.Complaint(fact, (), *document.marks[()]))
        return document, None
    return document, document.value


def _validate(
    values: dict[str, Plain] | None, root: type[AnySection], context: Mapping[str, Any] | None = None
) -> tuple[AnySection | None, list[Problem]]:
    if values is None:
        return None, []
    try:
        return root.model_validate(values, context=context), []
    except ValidationError as error:
        return None, error_messages.problems(error, root)


def _said(document: Document) -> set[KeyPath]:
    return {complaint.path for complaint in document.complaints}


def _unsaid(problems: Iterable[Problem], sources: Sources) -> list[Problem]:
    """The problems at places that reading the files has not complained about yet."""
    said = {path for _, document in sources for path in _said(document)}
    return [problem for problem in problems if problem.path not in said]


def _lines(sources: Sources, laid: Overrides, problems: Iterable[Problem]) -> list[str]:
    """Everything wrong as lines: each file's from its top to its end, then the overrides'."""
    of_files: list[tuple[int, int, int, str]] = []
    of_overrides: list[str] = []
    for place, (_, document) in enumerate(sources):
        for complaint in document.complaints:
            said = ": ".join(part for part in (_dotted(complaint.path), complaint.fact) if part)
            of_files.append((place, complaint.line, complaint.column, said))
    for argument, complaint in laid.complaints:
        of_overrides.append(named_override(argument) + short(complaint.fact, 400))
    for problem in problems:
        said = f"{_dotted(problem.path)}: {problem.fact}"
        origin = _origin(problem.path, laid)
        if origin is not None:
            of_overrides.append(named_override(origin) + short(said, 400))
        else:
            of_files.append((*_mark(problem, [document for _, document in sources]), said))
    return [
        ":".join([sources[place][0], *(str(n) for n in (line, column) if n)]) + f": {said}"
        for place, line, column, said in sorted(of_files)
    ] + of_overrides


def named_override(argument: str) -> str:
    """What the error of an override begins with."""
    return f"override {short(argument)!r}: "


def _short(value: Plain) -> str:
    """A value of a resolved config in one word: a section by its kind."""
    return str(value["kind"] if isinstance(value, dict) and "kind" in value else value)


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def _origin(path: KeyPath, laid: Overrides) -> str | None:
    """The override that set the value at a path, or the section around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in laid.origin:
            return laid.origin[path[:length]]
    return None


def _mark(problem: Problem, documents: Sequence[Document]) -> tuple[int, int, int]:
    """In which document and where the value stands; for an absent one, where the section around it stands."""
    exact = [(document.marks, problem.path) for document in documents]
    if problem.at_key:
        exact = [(document.key_marks, problem.path) for document in documents] + exact
    around = problem.path[:-1]
    if problem.path[-1:] == ("kind",) and error_messages.kind_alone(Config, around):
        # Where a kind's name stands for the section, the section's place is the kind's.
        exact += [(document.marks, around) for document in documents]
    for length in range(len(problem.path) - 1, 0, -1):
        exact += [(document.key_marks, problem.path[:length]) for document in documents]
    for index, (marks, path) in enumerate(exact):
        if path in marks:
            return (index % len(documents), *marks[path])
    return 0, 1, 1

"""Completion of the command line by the shell's Tab key, where argcomplete is installed."""

import argparse
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from gru_jax.types import Plain

Completer = Callable[..., Iterable[str]]


def answer_the_shell(parser: argparse.ArgumentParser, verbs: Mapping[str, argparse.ArgumentParser]) -> None:
    """Says what may come next, and ends the process, when it was started by the shell's Tab; else does nothing.

    Args:
        parser: that of the command.
        verbs: those of its verbs.
    """
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        return
    folders = argcomplete.DirectoriesCompleter()
    by_word: dict[str, Completer] = {
        "config": argcomplete.FilesCompleter(("yaml", "yml")),
        "overrides": overrides,
        "run": folders,
        "runs": folders,
        "kind": task_kinds,
    }
    for name, verb in verbs.items():
        words = {**by_word, "name": table_names} if name == "table" else by_word
        for action in verb._actions:
            if action.dest in words and not action.option_strings:
                setattr(action, "completer", words[action.dest])  # noqa: B010 - argcomplete's own way
    argcomplete.autocomplete(parser)


def overrides(prefix: str, parsed_args: argparse.Namespace | None = None, **_: object) -> list[str]:
    """`key.sub=` of every key, or `key.sub=value` of every value where a key has a choice of them.

    Of a section that has kinds, the keys are those of the kind in the words before, or else in the config.

    Example:
        >>> overrides("optim.clip_n"), overrides("task.kind=mn"), overrides("model.method=a")
        (['optim.clip_norm='], ['task.kind=mnist'], ['model.method=auto'])
    """
    from gru_jax.config.config import Config
    from gru_jax.config.error_messages import dotted_keys, keys_of_kind, kind_alone, kinds_at, options_at

    key, equals, _begun = prefix.partition("=")
    path = tuple(key.split("."))
    if equals:
        values = options_at(Config, path) or (kinds_at(Config, path) if kind_alone(Config, path, in_file=False) else [])
        return [word for value in values if (word := f"{key}={value}").startswith(prefix)]

    kind_of = _kinds(parsed_args)

    @functools.cache
    def known(section: tuple[str, ...]) -> frozenset[str] | None:
        kind = kind_of(section)
        return None if kind is None else keys_of_kind(Config, section, kind)

    def fits(parts: Sequence[str]) -> bool:
        return all((keys := known(tuple(parts[:at]))) is None or parts[at] in keys for at in range(1, len(parts)))

    keys = [each for each in dict.fromkeys(dotted_keys(Config)) if each.startswith(prefix)]
    return [f"{each}=" for each in keys if fits(each.split("."))]


def _kinds(parsed_args: argparse.Namespace | None) -> Callable[[tuple[str, ...]], str | None]:
    """Path of a section -> its kind as far as the command line and its config tell; None where they do not."""
    from gru_jax.config.config import Config
    from gru_jax.config.error_messages import default_kind, kind_alone

    values = _values(getattr(parsed_args, "config", None))
    told: dict[tuple[str, ...], str] = {}
    for word in getattr(parsed_args, "overrides", None) or ():
        key, _, value = word.partition("=")
        path = tuple(key.split("."))
        if path[-1] == "kind":
            told[path[:-1]] = value
        elif kind_alone(Config, path, in_file=False):
            told[path] = value

    def kind_of(path: tuple[str, ...]) -> str | None:
        if path in told or values is None:
            return told.get(path)
        found: Plain = values
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        found = found.get("kind") if isinstance(found, dict) else found
        return found if isinstance(found, str) else default_kind(Config, path)

    return kind_of


def _values(file: object) -> dict[str, Plain] | None:
    """What a config and its base say; None where they cannot be read."""
    from gru_jax.config import yaml_document
    from gru_jax.config.base_file import lay_over, read_base
    from gru_jax.config.config import Config

    if not isinstance(file, str | Path) or not Path(file).is_file():
        return None
    document = yaml_document.read_file(Path(file))
    if not isinstance(document.value, dict):
        return None
    base = read_base(Path(file), document, document.value)
    under = base is not None and isinstance(base.document.value, dict)
    return lay_over(base, document.value, Config) if base is not None and under else document.value


def task_kinds(**_: object) -> list[str]:
    """The kinds of all tasks."""
    from gru_jax.cli.data_files import kinds

    return kinds()


def table_names(**_: object) -> list[str]:
    """The tables here, and files that may be one."""
    from gru_jax.tables.spec import known

    return [*known(), *map(str, Path().glob("*.yaml"))]

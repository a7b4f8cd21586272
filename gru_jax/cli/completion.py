"""Completion of the command line by the shell's Tab key, where argcomplete is installed."""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

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


def overrides(prefix: str, **_: Any) -> list[str]:
    """`key.sub=` of every key, or `key.sub=value` of every value where a key has a choice of them.

    Example:
        >>> overrides("optim.clip_n"), overrides("task.kind=mn"), overrides("model.bidirectional=")
        (['optim.clip_norm='], ['task.kind=mnist'], ['model.bidirectional=true', 'model.bidirectional=false'])
    """
    from gru_jax.config.config import Config
    from gru_jax.config.error_messages import dotted_keys, options_at

    key, equals, _begun = prefix.partition("=")
    if not equals:
        return [f"{each}=" for each in dict.fromkeys(dotted_keys(Config)) if each.startswith(prefix)]
    words = (f"{key}={value}" for value in options_at(Config, tuple(key.split("."))))
    return [word for word in words if word.startswith(prefix)]


def task_kinds(**_: Any) -> list[str]:
    """The kinds of all tasks."""
    from gru_jax.cli.data_files import kinds

    return kinds()


def table_names(**_: Any) -> list[str]:
    """The tables here, and files that may be one."""
    from gru_jax.tables.spec import known

    return [*known(), *map(str, Path().glob("*.yaml"))]

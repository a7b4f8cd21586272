"""Runs side by side: those that differ in the seed alone are one group, called by what differs between the groups."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gru_jax.config import yaml_document
from gru_jax.config.config import Config, compared
from gru_jax.config.sections.in_words import short
from gru_jax.runs.on_disk.run_directory import RunDirectory
from gru_jax.types import Plain

# What says how often something is told, or where it lies, makes no other run.
_OUTSIDE = ("name", "seed", "data_root", "checkpoint", "log", "distributed", "sweep")
_LONGEST = 60

Values = Mapping[str, Plain]
"""Of a config: dotted key -> value."""


class Group(NamedTuple):
    """Runs of one config.

    Attributes:
        label: what it is called among the others.
        values: what differs between the groups: dotted key -> value as text, in the order of the config.
        runs: one for each seed.
        config: of the first.
    """

    label: str
    values: dict[str, str]
    runs: list[RunDirectory]
    config: Config


def groups_of(runs: Iterable[RunDirectory]) -> list[Group]:
    """The groups of runs, in the order of their first ones.

    Raises:
        RunError: a config cannot be read.
    """
    together: dict[str, list[tuple[RunDirectory, Config]]] = {}
    for run in runs:
        config = run.config()
        together.setdefault(json.dumps([config.name, _deciding(config)]), []).append((run, config))
    firsts = [members[0] for members in together.values()]
    named = [config.name for _, config in firsts]
    values = differing([_deciding(config) for _, config in firsts])
    labels = called(named, values, [str(run.path) for run, _ in firsts])
    return [
        Group(label, each, [run for run, _ in members], members[0][1])
        for label, each, members in zip(labels, values, together.values(), strict=True)
    ]


def _deciding(config: Config) -> dict[str, Plain]:
    return {key: value for key, value in compared(config).items() if key.partition(".")[0] not in _OUTSIDE}


def differing(configs: Sequence[Values]) -> list[dict[str, str]]:
    """What differs between configs, as text; a key that one of them lacks has its default there.

    Keys that come and go with the `kind` of their section are left out, unless two configs would look the same.

    Args:
        configs: dotted key -> value, of each.

    Returns:
        The keys that differ with their values, of each.

    Example:
        >>> differing([{"optim.lr": 0.1, "train.epochs": 2}, {"optim.lr": 0.01, "train.epochs": 2}])
        [{'optim.lr': '0.1'}, {'optim.lr': '0.01'}]
        >>> differing([{"model.kind": "gru", "model.reset": "after"}, {"model.kind": "lstm"}])
        [{'model.kind': 'gru'}, {'model.kind': 'lstm'}]
    """
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differ = [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]
    own = [key for key in differ if not _comes_with_a_kind(key, differ, configs)]
    told = own if len({json.dumps(_told(config, own)) for config in configs}) == len(configs) else differ
    return [_told(config, told) for config in configs]


def _comes_with_a_kind(key: str, differ: Sequence[str], configs: Sequence[Values]) -> bool:
    parts = key.split(".")
    kinds = [".".join([*parts[:end], "kind"]) for end in range(1, len(parts))]
    return any(kind in differ and kind != key for kind in kinds) and not all(key in config for config in configs)


def _told(config: Values, keys: Sequence[str]) -> dict[str, str]:
    return {key: yaml_document.one_line(config[key]) if key in config else "default" for key in keys}


def called(names: Sequence[str], values: Sequence[Mapping[str, str]], paths: Sequence[str]) -> list[str]:
    """What groups are called: by what differs, after their names where these differ too; else by where they lie.

    Example:
        >>> adam, sgd = ({"optim.lr": "0.1", "optim.kind": kind} for kind in ("adam", "sgd"))
        >>> called(["digits", "digits"], [adam, sgd], ["a", "b"])
        ['optim=adam', 'optim=sgd']
        >>> called(["digits", "digits", "music"], [adam, sgd, adam], ["a", "b", "c"])
        ['digits, optim=adam', 'digits, optim=sgd', 'music']
    """
    labels = []
    for name, own in zip(names, values, strict=True):
        # Of another name the name says enough.
        same = [each for other, each in zip(names, values, strict=True) if other == name]
        told = in_short(key for key in own if len({each.get(key) for each in same}) > 1)
        words = [f"{word}={own[key]}" for key, word in told.items()]
        labels.append(short(", ".join([name, *words] if len(set(names)) > 1 or not words else words), _LONGEST))
    return labels if len(set(labels)) == len(labels) else list(paths)


def in_short(keys: Iterable[str]) -> dict[str, str]:
    """Dotted keys by their last words, where no two would be the same; a kind by the section that it is of.

    Example:
        >>> in_short(["optim.lr", "model.kind", "model.embedding.size", "task.size"])
        {'optim.lr': 'lr', 'model.kind': 'model', 'model.embedding.size': 'embedding.size', 'task.size': 'task.size'}
    """
    bare = {key: (key.removesuffix(".kind") if key.endswith(".kind") else key).split(".") for key in keys}
    shown: dict[str, str] = {}
    for key, parts in bare.items():
        for words in range(1, len(parts) + 1):
            shown[key] = ".".join(parts[-words:])
            if Counter(".".join(other[-words:]) for other in bare.values())[shown[key]] == 1:
                break
    return shown

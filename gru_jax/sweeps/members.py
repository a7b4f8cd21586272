"""From a config with a section `sweep` to its runs: every combination of values, read and checked before any starts."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax.config import yaml_document
from gru_jax.config.loading import ConfigError, LoadedConfig, load_config, named_override
from gru_jax.config.yaml_document import KeyPath
from gru_jax.runs.many_runs import Task
from gru_jax.runs.on_disk.run_directory import default_path
from gru_jax.types import Plain

MOST_RUNS = 10_000


class Member(NamedTuple):
    """One run of a sweep.

    Attributes:
        values: the keys that differ between the runs, with its values.
        task: the run.
    """

    values: dict[str, Plain]
    task: Task


class Sweep(NamedTuple):
    """A sweep that can be started.

    Attributes:
        loaded: the config that holds it.
        members: its runs.
        pick: the validation metric by which they are compared.
        at_once: how many runs may be trained at once; None for any number.
    """

    loaded: LoadedConfig
    members: list[Member]
    pick: str
    at_once: int | None


def load_sweep(file: str | Path, arguments: Sequence[str] = ()) -> Sweep:
    """Reads a config with a section `sweep`.

    Args:
        file: the config.
        arguments: `key.sub=value` laid over it, also over the sweep: `sweep.optim.lr=[1e-3, 1e-2]`.

    Raises:
        ConfigError: the config or one of the combinations is wrong, or two of them would be the same run.
    """
    loaded = load_config(file, arguments)
    sweep = loaded.config.sweep
    if sweep is None or not sweep.over:
        lines = [f"{file}: has no section sweep to say which keys take which values"]
        raise ConfigError([*lines, "such as sweep: {optim.lr: [1e-3, 1e-2], seed: 0-3}; gru-jax run makes one run"])
    combinations = 1
    for values in sweep.over.values():
        combinations *= len(values)
    if combinations > MOST_RUNS:
        raise loaded.error([(("sweep",), f"its {combinations} combinations are more than {MOST_RUNS} runs")])
    members: list[Member] = []
    wrong: list[str] = []
    for chosen in itertools.product(*sweep.over.values()):
        own = dict(zip(sweep.over, chosen, strict=True))
        words = [f"{key}={yaml_document.one_line(value)}" for key, value in own.items()]
        try:
            one = load_config(file, [*arguments, "sweep=null", *words])
        except ConfigError as error:
            wrong += [_placed(line, loaded, dict(zip(words, own, strict=True))) for line in error.lines]
            continue
        name = " ".join(words)
        members.append(Member(own, Task(name, one, default_path(one.config))))
    if wrong:
        raise ConfigError(list(dict.fromkeys(wrong)))
    first: dict[Path, Member] = {}
    for member in members:
        other = first.setdefault(member.task.path, member)
        if other is not member:
            fact = f"{other.task.name} and {member.task.name} are one run: the numbers are the same"
            raise loaded.error([(("sweep",), fact)])
    at_once = sweep.vmap if not isinstance(sweep.vmap, bool) else None if sweep.vmap else 1
    return Sweep(loaded, members, sweep.pick or loaded.config.train.best_by, at_once)


def _placed(line: str, loaded: LoadedConfig, keys: dict[str, str]) -> str:
    """An error of a combination, at the place in the file that gave the value to blame."""
    for word, key in keys.items():
        said = line.removeprefix(named_override(word))
        if said == line:
            continue
        for path in _places(key):
            place = loaded.place(path)
            if place is not None:
                return f"{place}: sweep: {word}: {said}"
        return f"sweep: {word}: {said}"
    return line


def _places(key: str) -> list[KeyPath]:
    """Where a key of the sweep may stand in the file: `optim.lr`, or `lr` under `optim`."""
    parts = key.split(".")
    return [("sweep", ".".join(parts[:place]), *parts[place:]) for place in range(len(parts), 0, -1)]

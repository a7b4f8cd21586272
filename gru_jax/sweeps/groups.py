"""Which runs of a sweep may be trained at once: those that differ in the seed and the learning rate alone."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax.config.config import Config
from gru_jax.data.dataset import Split
from gru_jax.runs.on_disk.json_files import write_json
from gru_jax.sweeps.members import Member

_MEMBERS = "members.json"


class Group(NamedTuple):
    """Runs whose states are stacked.

    Attributes:
        members: the runs, in the order of the stack.
        path: where the stacked states are saved: `runs/<name>/stack-<hash>`.
    """

    members: list[Member]
    path: Path


def groups(members: Sequence[Member], at_once: int | None, one_seed: bool) -> tuple[list[Group], list[Member]]:
    """Sorts runs that no group has yet.

    Args:
        members: the runs.
        at_once: the most that may be in a group; None for any number.
        one_seed: whether those of a group need the same seed.

    Returns:
        (groups of two and more, runs that are to be made one by one).
    """
    kinds: dict[str, list[Member]] = {}
    alone: list[Member] = []
    for member in members:
        config = member.task.loaded.config
        if _may_be_stacked(config):
            kinds.setdefault(_kind(config, one_seed), []).append(member)
        else:
            alone.append(member)
    found = []
    for same in kinds.values():
        size = at_once or len(same)
        for part in (same[first : first + size] for first in range(0, len(same), size)):
            if len(part) > 1:
                found.append(Group(part, stack_path(part)))
            else:
                alone += part
    return found, alone


def begun(members: Sequence[Member]) -> list[Group]:
    """The groups of these runs that an earlier command has begun and not finished.

    Each goes on with the runs that it was begun with: the numbers depend, by rounding, on how many are in a stack.
    """
    by_path = {str(member.task.path): member for member in members}
    folders = {member.task.path.parent for member in members}
    found = []
    for file in sorted(path for folder in folders for path in folder.glob(f"stack-*/{_MEMBERS}")):
        try:
            paths = json.loads(file.read_text(encoding="utf-8"))["members"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # as good as none: its checkpoints are not found, and a group of the same runs replaces it
        if isinstance(paths, list) and paths and all(path in by_path for path in map(str, paths)):
            found.append(Group([by_path[str(path)] for path in paths], file.parent))
    return found


def begin(group: Group) -> None:
    """Notes which runs a group has."""
    write_json(group.path / _MEMBERS, {"members": [str(member.task.path) for member in group.members]})


def end(group: Group) -> None:
    """Removes what is left of a group whose runs have all come to their ends; its lock is still held."""
    (group.path / _MEMBERS).unlink(missing_ok=True)
    (group.path / ".lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        group.path.rmdir()


def stack_path(members: Sequence[Member]) -> Path:
    """Where the stacked states of these runs are saved."""
    paths = [str(member.task.path) for member in members]
    digest = hashlib.sha256(json.dumps(paths).encode()).hexdigest()[:8]
    return members[0].task.path.parent / f"stack-{digest}"


def _may_be_stacked(config: Config) -> bool:
    # Newton's method under vmap would compute its fallback for every run, at every step; a trace is one run's.
    return config.parallel.strategy == "single" and config.newton is None and config.log.profile is None


def _kind(config: Config, one_seed: bool) -> str:
    values = config.resolved()
    if not one_seed:
        del values["seed"]
    del values["optim"]["lr"]
    return json.dumps(values, sort_keys=True)


def shares_batches(members: Sequence[Member]) -> bool:
    """Whether every step of these runs sees the same batch."""
    return len({member.task.loaded.config.seed for member in members}) == 1


def needs_one_seed(train: object) -> bool:
    """Whether batches are made on the host, where those of different seeds have different lengths."""
    return not isinstance(train, Split) and not callable(train)

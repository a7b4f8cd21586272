"""Which data files the tasks want, where they are looked for, and what is there: `gru-jax data`."""

import importlib.util
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from gru_jax.checks import did_you_mean
from gru_jax.config.sections.tasks import TASKS
from gru_jax.data import mnist, music, text
from gru_jax.data.dataset import DataDamaged, DataMissing
from gru_jax.data.files import DataFile, KnownFile, find, read, root
from gru_jax.data.files import text as text_of
from gru_jax.data.mnist import read_idx


class Wanted(NamedTuple):
    """A public file that a task reads.

    Attributes:
        name: of the file.
        known: what it should be.
        limit: bytes it may have.
        sizes: what is in it, for people.
    """

    name: str
    known: KnownFile
    limit: int
    sizes: Callable[[DataFile], str]


class Report(NamedTuple):
    """What `gru-jax data` prints, and whether a file is missing or damaged."""

    lines: list[str]
    missing: bool
    damaged: bool


def _rolls(file: DataFile) -> str:
    splits = music.read_rolls(file)
    counts = "/".join(str(len(rolls)) for rolls in splits)
    longest = max(len(roll) for rolls in splits for roll in rolls)
    return f"{counts} sequences of up to {longest} x {music.NOTES}"


def _array(file: DataFile) -> str:
    return " x ".join(map(str, read_idx(file, 3 if "images" in file.path.name else 1).shape))


def _characters(file: DataFile) -> str:
    tokens, vocabulary = text.encoded(text_of(file))
    return f"{len(tokens)} characters, {len(vocabulary)} different"


_WANTED: dict[str, list[Wanted]] = {
    "polyphonic": [Wanted(name, known, music.LIMIT, _rolls) for name, (known, _) in music.KNOWN.items()],
    "mnist": [Wanted(name, known, mnist.LIMIT, _array) for name, known in mnist.KNOWN.items()],
    "characters": [Wanted(name, known, text.LIMIT, _characters) for name, (known, _) in text.KNOWN.items()],
}
# Tasks whose files only a config names.
_OF_A_CONFIG = {
    "polyphonic": "another .mat or .npz file: task.file, with task.sizes",
    "characters": "another text: task.file, with task.sizes",
    "tsv": "Source<TAB>Target tables: task.train, task.valid, task.test",
    "uea": "files of the UEA or UCR archive (.ts): task.train, task.test",
    "forecast": "a CSV file: task.file; without it weekly CO2, which statsmodels carries along",
    "series": "a CSV file: task.file, beside the config or here",
    "sequences": "a file .npz or .csv, or a folder: task.file, beside the config or here",
}


def missing(task: Any, data_root: str | None) -> list[str]:
    """What is said of each data file of a task that is not there; nothing is read.

    Args:
        task: the section of a config.
        data_root: as in the config.
    """
    names: dict[str, list[str]] = {
        "polyphonic": ["file"], "characters": ["file"], "tsv": ["train", "valid", "test"], "uea": ["train", "test"],
        "forecast": ["file"], "series": ["file"], "sequences": ["file"],
    }  # fmt: skip
    files = [getattr(task, key) for key in names.get(task.kind, [])]
    if task.kind == "mnist":
        files = [name for name in mnist.KNOWN if task.half == "all" or name.startswith("t10k")]
    known = {wanted.name: wanted.known.origin for wanted in _WANTED.get(task.kind, [])}
    said = []
    for name in filter(None, files):
        try:
            find([name, *([name.removesuffix(".gz")] if task.kind == "mnist" else [])], data_root, known.get(name, ""))
        except DataMissing as error:
            said.append(str(error))
    return said


def kinds() -> list[str]:
    """The kinds of all tasks."""
    return [str(typing.get_args(section.model_fields["kind"].annotation)[0]) for section in TASKS]


def report(kind: str | None, data_root: str | None) -> Report:
    """What is wanted and what is there.

    Args:
        kind: of a task; None is all that read files.
        data_root: the folder of data files, see `gru_jax.data.files.root`.

    Raises:
        ValueError: there is no such kind.
    """
    if kind is not None and kind not in kinds():
        raise ValueError(f"no task of kind {kind!r}{did_you_mean(kind, kinds())}")
    reading = [*dict.fromkeys([*_WANTED, *_OF_A_CONFIG])]
    if kind is not None and kind not in reading:
        return Report([f"{kind}: reads no file"], missing=False, damaged=False)
    folder, said_by = root(data_root)
    lines = [f"folder: {folder.absolute()} ({said_by}){'' if folder.is_dir() else ', which is not there'}"]
    facts = [fact for each in reading if kind in (None, each) for fact in _of_kind(each, data_root)]
    return Report(
        [*lines, *(fact.line for fact in facts)],
        missing=any(fact.missing for fact in facts),
        damaged=any(fact.damaged for fact in facts),
    )


class _Fact(NamedTuple):
    line: str
    missing: bool = False
    damaged: bool = False


def _of_kind(kind: str, data_root: str | None) -> Iterable[_Fact]:
    yield _Fact(f"{kind}:")
    for wanted in _WANTED.get(kind, []):
        yield _of_file(wanted, data_root)
    if kind in _OF_A_CONFIG:
        yield _Fact(f"  {_OF_A_CONFIG[kind]}")
    if kind == "forecast" and importlib.util.find_spec("statsmodels") is None:
        yield _Fact("  statsmodels is not installed; gru-jax[experiments] brings it", missing=True)


def _of_file(wanted: Wanted, data_root: str | None) -> _Fact:
    names = [wanted.name, *([wanted.name.removesuffix(".gz")] if wanted.name.endswith(".gz") else [])]
    try:
        path = find(names, data_root)
    except DataMissing:
        return _Fact(f"  {' or '.join(names)}: missing; get it from {wanted.known.origin}", missing=True)
    known = wanted.known if path.name == wanted.name else None
    try:
        file = read(path, wanted.limit, known)
        sizes = wanted.sizes(file)
    except DataMissing as error:
        return _Fact(f"  {error}", missing=True)
    except DataDamaged as error:
        return _Fact(f"  {error}", damaged=True)
    digest = file.note.removeprefix("; ") or ("sha256 as known" if known else "sha256 not known of this name")
    return _Fact(f"  {path.name}: {sizes}; {digest}")

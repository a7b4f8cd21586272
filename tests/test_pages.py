"""README and docs: the code on the pages runs, the commands, files and links on them exist."""

import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import jax
import pytest

from gru_jax.cli import main
from tests.interop.keras_oracle import QUIETLY

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, languages: set[str]) -> list[tuple[int, str]]:
    """The first line's number and the text of every block of code in one of `languages`."""
    text = page.read_text()
    return [
        (text.count("\n", 0, match.start(2)) + 1, match[2])
        for match in FENCE.finditer(text)
        if match[1] in languages
    ]


def commands(page: Path) -> list[list[str]]:
    """The words of every shell command on the page, without its comment."""
    lines = [line for _, block in blocks(page, {"bash", "sh"}) for line in block.splitlines()]
    words = [line.split(" #")[0].split() for line in lines]
    return [line for line in words if line and not line[0].startswith("#")]


WITH_PYTHON = [page for page in PAGES if blocks(page, {"python"})]


# What is shown with many programs takes long to compile.
LONG = (
    "newton.md", "time-sharding.md", "models.md", "from-torch.md", "layers.md", "cell.md", "converting.md", "inside.md",
    "tuning.md", "own-cells.md", "world-models.md", "kernels.md", "combinators.md",
    "irregular.md",
)  # fmt: skip
SLOW = {ROOT / "docs" / "guide" / name for name in LONG}
RUN = [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page in WITH_PYTHON]


@QUIETLY
@pytest.mark.parametrize("page", RUN, ids=[str(page.relative_to(ROOT)) for page in WITH_PYTHON])
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is read from top to bottom, so its blocks share one namespace."""
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"^import (keras|torch)$", page.read_text(), flags=re.MULTILINE):
        if find_spec(name) is None:
            pytest.skip(f"shows code of {name}, which is not installed")
    namespace = {"__name__": page.stem}
    # Readers have JAX's own settings, and optax does not run under our strict ones.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for line, code in blocks(page, {"python"}):
            # The empty lines make a failure point at its line on the page.
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)


def test_the_readme_has_an_example() -> None:
    """Without one, the test above would pass on an empty page."""
    assert ROOT / "README.md" in WITH_PYTHON
    assert commands(ROOT / "README.md")


@cache
def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@cache
def is_verb(word: str) -> bool:
    """Whether `gru-jax WORD` is a command, asked of the program itself."""
    with pytest.raises(SystemExit) as ended, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        main([word, "--help"])
    return ended.value.code == 0


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_exist(page: Path) -> None:
    for words in commands(page):
        line = " ".join(words)
        match words[0]:
            case "make":
                targets = {word for word in words[1:] if "=" not in word}
                assert targets <= make_targets(), line
            case "gru-jax":
                assert is_verb(words[1]), line
            case "python":
                assert words[1] != "-m" or find_spec(words[2]), line
            case first:
                assert first in {"bash", "cd", "git", "pip", "rm"}, f"{line}: who checks this?"
        for word in words:
            if word.endswith(".yaml") or word.startswith(".ci/"):
                assert (ROOT / word).is_file(), f"{line}: there is no {word}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?://|#", target):
            file = target.partition("#")[0]
            assert (page.parent / file).exists(), f"no {file} beside {page.name}"


def test_the_training_page_names_every_config_key() -> None:
    config = pytest.importorskip("gru_jax.config.config")
    training, tasks = ((ROOT / "docs" / "guide" / name).read_text() for name in ("training.md", "tasks.md"))
    named = set(re.findall(r"`([a-z_.0-9]+)`", training))
    # The page of tasks has a section for each kind, where the keys stand without the word before them.
    named |= {prefix + name for name in re.findall(r"`([a-z_.0-9]+)`", tasks) for prefix in ("task.", "task.sizes.")}
    # As that of optimizers has.
    optimizers = re.findall(r"`([a-z_0-9]+)`", (ROOT / "docs" / "guide" / "optimizers.md").read_text())
    named |= {prefix + name for name in optimizers for prefix in ("optim.", "optim.schedule.")}
    keys = set(keys_of(config.Config))
    assert "optim.schedule.warmup" in keys
    assert not keys - named, f"not on the page: {sorted(keys - named)}"


def keys_of(section: Any, prefix: str = "") -> Iterator[str]:
    """`task.batch`, ...: every key with a value, of whatever kind the sections are."""
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        inside = sections_in(field.annotation)
        if name != "kind" and not inside:
            yield key
        for inner in inside:
            yield from keys_of(inner, f"{key}.")


def sections_in(annotation: Any) -> list[Any]:
    """The section classes that an annotation admits."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [found for part in get_args(annotation) for found in sections_in(part)]

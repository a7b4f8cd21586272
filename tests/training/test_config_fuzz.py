"""Whatever is done to a config, the loader answers with a config or with a list of errors, never otherwise."""

import re
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gru_jax.training.config import Config
from gru_jax.training.loading import ConfigError, load_config

from .config_files import GOOD

SCALARS = st.one_of(
    st.sampled_from(
        ["1e-3", "no", ".nan", "-.inf", "~", "''", "[]", "{}", "[1, {a: b}]", "&a [*a]", "*a", "!x y"]
        + ["newton", "{kind: newton}", "{kind: adam}", "1 epoch"]
        + ["-1", "0", "1e999", "9" * 5000, "0x", "? ", "- ", "|", ">", "%", "@"]
        + ["!!python/name:os.system", "<<: *a", "{<<: {a: 1}}", "\t", "\u2028", "\x85", "{kind: [a]}"]
    ),
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(repr),
)
KEYS = st.sampled_from(
    ["schema", "name", "seed", "task", "task.kind", "task.batch", "model", "model.kind", "model.hidden"]
    + ["model.method", "model.method.kind", "model.method.tol"]
    + ["model.heads", "optim", "optim.kind", "optim.lr", "optim.schedule", "optim.schedule.kind"]
    + ["train.early_stop", "train.early_stop.patience", "train.eval_every", "parallel", "x.y.z", "", "."]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """GOOD with lines replaced, repeated, cut or shuffled, or with characters changed."""
    lines = GOOD.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        action = draw(st.sampled_from(["value", "repeat", "delete", "indent", "cut", "text", "swap"]))
        key, colon, _ = lines[at].partition(":")
        if action == "value":
            lines[at] = f"{key}{colon} {draw(SCALARS)}"
        elif action == "repeat":
            lines.insert(draw(st.integers(0, len(lines))), lines[at])
        elif action == "delete" and len(lines) > 1:
            del lines[at]
        elif action == "indent":
            lines[at] = " " * draw(st.integers(0, 4)) + lines[at]
        elif action == "cut":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
        elif action == "text":
            lines[at] += draw(st.text(max_size=8))
        else:
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines)


def check_answer(content: bytes, overrides: list[str]) -> None:
    """The loader's answer is a config that reads back, or lines that each say place and fact."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_bytes(content)
        try:
            config = load_config(path, overrides).config
        except ConfigError as error:
            assert error.lines
            for line in error.lines:
                place = rf"{re.escape(str(path))}(:\d+(:\d+)?)?: |override (?s:.)+: "
                assert re.match(place, line), line
                assert "pydantic" not in line and "Input should" not in line and "Traceback" not in line
            return
        assert Config.model_validate(config.resolved()) == config
        assert [file.name for file in Path(folder).iterdir()] == ["config.yaml"]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(mutated(), st.lists(st.builds("{}={}".format, KEYS, SCALARS), max_size=3))
@example("a: &a [*a]", [])
@example(GOOD, ["optim={<<: {kind: adam}}"])
def test_mutated_text_and_overrides(text: str, overrides: list[str]) -> None:
    check_answer(text.encode("utf-8", "surrogatepass"), overrides)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_arbitrary_bytes(content: bytes) -> None:
    check_answer(content, [])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.text(max_size=20), max_size=3))
def test_arbitrary_overrides(overrides: list[str]) -> None:
    check_answer(GOOD.encode(), overrides)

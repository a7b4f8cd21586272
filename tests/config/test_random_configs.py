"""Whatever is done to a config, the answer is a config or a list of errors, never otherwise, and nothing is written."""

import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gru_jax.config import yaml_document
from gru_jax.config.config import Config
from gru_jax.config.error_messages import dotted_keys
from gru_jax.config.loading import ConfigError, load_config
from gru_jax.runs.on_disk.run_directory import RunError, default_path
from gru_jax.runs.plan import prepare
from gru_jax.training.experiment import abstract_state, parameter_count

from .config_files import GOOD

ROOT = Path(__file__).parents[2]
# Sections that the shipped configs leave out.
EXTRA = """\
log: {every: 5, tensorboard: true, wandb: {project: p, mode: offline}, profile: {start_step: 3, num_steps: 2}}
parallel: {strategy: data, devices: 2, accumulate: 2}
distributed: {mode: manual, coordinator: localhost:1234, processes: 2, process_id: 0}
precision: {params: float32, compute: bfloat16}
sweep: {optim.lr: {log_uniform: [1e-4, 1e-2], n: 4, seed: 1}, model: {hidden: [3, 4]}, over: {seed: 0-3}, vmap: 2}
base: gru.yaml
data_root: data
train: {epochs: 2, eval_every: 3 steps, early_stop: {metric: valid/loss, patience: 2, reached: 0.1}}
model: {kind: min_blocks, cell: min_lstm, expansion: 1.5, conv: 4, feed_forward: null, forget_bias: 1.0}
model: {kind: mgu, method: {kind: newton, jacobian: diagonal, damping: 0.1, tol: 1e-3, max_iters: 9, window: 4}}
model: {kind: lstm, hidden: 3, embedding: 4, tied: true, method: {kind: sequential, unroll: 2, keep: states}}
optim: {kind: rmsprop, lr: 1e-3, decay: 0.9, eps: 1e-8, schedule: {kind: warmup_cosine, warmup: 2 epochs}}
optim: {kind: muon, ns_coeffs: [3, -4.7, 2], rates: {net.*: 0.5}, ema: 0.9, schedule: {kind: sgdr, cycles: [3 steps]}}
optim: {kind: schedule_free_sgd, schedule: {kind: piecewise_constant, boundaries_and_scales: {1 epoch: 0.1}}}
optim: {kind: prodigy, betas: [0.9, 0.99], schedule: {kind: exponential_decay, decay_rate: 0.1, end_value: 0.5}}
model: {kind: python, file: cell.py, name: Own, options: {gain: 0.5}, hidden: 3}
task: {kind: mqar, time: 8, pairs: 2, vocab: 16, power: 0.1, batch: 4}
task: {kind: listops, min_length: 5, max_length: 20, max_depth: 3, max_args: 3, train: 8, valid: 4, test: 4}
task: {kind: forecast, window: 10, horizon: 2, stride: 3}
task: {kind: forecast, missing: gaps, sizes: {train: 9, valid: 9, test: 9}}
task: {kind: series, file: a.csv, target: [a, b], known: [hour], time: t, split: [0.5, 0.2, 0.3], quantiles: [0.5]}
task: {kind: series, file: a.csv, target: a, separator: ;, decimal: ".", sizes: {train: 9, valid: 9, test: 9}}
task: {kind: tsv, sizes: {train: 9, valid: 9, test: 9, time: 9, vocabulary: 9, classes: 2}, cut: 3}
task: {kind: uea, train: a.ts, test: b.ts, sizes: {train: 9, valid: 9, test: 9, time: 9, channels: 2, classes: 2}}
task: {kind: python, file: task.py, options: {length: 3}}
""".splitlines()
WORDS = [
    *["1e-3", "no", ".nan", "-.inf", "~", "''", "[]", "{}", "[1, {a: b}]", "&a [*a]", "*a", "!x y", "newton", "null"],
    *["{kind: newton}", "{kind: adam}", "{kind: min_blocks}", "1 epoch", "0 steps", "5 minutes", "true", "0-7", "7-0"],
    *["-1", "0", "1", "2", "7", "1.0", "1e999", "9" * 5000, "0x" + "f" * 5000, "0x", "? ", "- ", "|", ">", "%", "@"],
    *["!!python/name:os.system", "<<: *a", "{<<: {a: 1}}", "\t", "\u2028", "\x85", "\0", '"\\0"'],
    *['"\\ud800"', "{kind: [a]}", "/dev/zero", "{n: 3}", "[1, 1]"],
    *["256", "65536", "10000000", "4294967295", "1e38", "1e-45", "gru.yaml", "newton.yaml", ".", "mutated.yaml"],
    *["{uniform: [0, 1], n: 3}", "{log_uniform: [0, 1], n: 3}", "{uniform: [-1e308, 1e308], n: 1000}"],
    *["[[1], [2]]", "[.nan]", "{a: {b: {c: [1]}}}", "'x': y", "bfloat16", "time", "pmap", "localhost:99999", "\ud800"],
]  # fmt: skip
SCALARS = st.one_of(
    st.sampled_from(WORDS),
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(repr),
)
STRANGE = ["base", "x.y.z", "", ".", "optim.", "sweep.optim.lr", "sweep.over.seed", "task.options.a", "\ud800"]
KEYS = sorted({*dotted_keys(Config), *STRANGE})


def changed(
    lines: list[str], choose: Callable[[list], object], below: Callable[[int], int], more: list[str]
) -> list[str]:
    """The lines with a value replaced, or one repeated, cut, shifted, swapped, deleted, or put in from elsewhere."""
    lines = [*lines]
    at = below(len(lines))
    action = choose(["value", "inner", "inner", "repeat", "delete", "indent", "cut", "character", "swap", "put"])
    key, colon, _ = lines[at].partition(":")
    if action == "value":
        lines[at] = f"{key}{colon} {choose(WORDS)}"
    elif action == "inner":
        # A value inside of a section on one line.
        parts = re.split(r"([\[{,:] ?)", lines[at])
        parts[below(len(parts))] = str(choose(WORDS))
        lines[at] = "".join(parts)
    elif action == "repeat":
        lines.insert(below(len(lines) + 1), lines[at])
    elif action == "delete" and len(lines) > 1:
        del lines[at]
    elif action == "indent":
        lines[at] = " " * below(5) + lines[at]
    elif action == "cut":
        lines[at] = lines[at][: below(len(lines[at]) + 1)]
    elif action == "character":
        place = below(len(lines[at]) + 1)
        lines[at] = lines[at][:place] + str(choose([*"{}[],:#&*!|>'\"%@`-? 0", "\t", "é", "\x07"])) + lines[at][place:]
    elif action == "put":
        new = str(choose(more))
        name = new.partition(":")[0]
        lines = [line for line in lines if not line.startswith(f"{name}:")] + [new]
    else:
        other = below(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    return lines


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below the folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """GOOD with lines replaced, repeated, cut or shuffled, or with characters changed."""
    lines = GOOD.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        choose = lambda options: draw(st.sampled_from(options))  # noqa: E731
        lines = changed(lines, choose, lambda end: draw(st.integers(0, max(end - 1, 0))), EXTRA)
    return "\n".join(lines)


def check_answer(path: Path, overrides: list[str]) -> bool:
    """The loader's answer is a config that reads back (True), or lines that each say place and fact."""
    try:
        config = load_config(path, overrides).config
    except ConfigError as error:
        assert error.lines
        for line in error.lines:
            place = rf"{re.escape(str(path.parent))}/[\w.]+(:\d+(:\d+)?)?: |override (?s:.)+: "
            assert re.match(place, line), line
            assert "pydantic" not in line and "Input should" not in line and "Traceback" not in line
        return False
    assert Config.model_validate(config.resolved()) == config
    return True


def check_bytes(content: bytes, overrides: list[str]) -> None:
    """The answer to a file alone in its folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_bytes(content)
        check_answer(path, overrides)
        assert [file.name for file in Path(folder).iterdir()] == ["config.yaml"]


@settings(max_examples=200 if os.environ.get("GRU_JAX_ONLY_QUICK") else 400)
@given(mutated(), st.lists(st.builds("{}={}".format, st.sampled_from(KEYS), SCALARS), max_size=3))
@example("a: &a [*a]", [])
@example(GOOD, ["optim={<<: {kind: adam}}"])
def test_mutated_text_and_overrides(text: str, overrides: list[str]) -> None:
    check_bytes(text.encode("utf-8", "surrogatepass"), overrides)


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_arbitrary_bytes(content: bytes) -> None:
    check_bytes(content, [])


@settings(max_examples=100)
@given(st.lists(st.text(max_size=20), max_size=3))
def test_arbitrary_overrides(overrides: list[str]) -> None:
    check_bytes(GOOD.encode(), overrides)


def mutations(count: int, seed: int) -> Iterator[tuple[Path, str, list[str]]]:
    """(a shipped config, the text to put in its place, overrides), the same ones for the same seed."""
    shipped = sorted((ROOT / "configs").rglob("*.yaml"))
    texts = {file: file.read_text().splitlines() for file in shipped}
    more = [line for lines in texts.values() for line in lines if re.match(r"\w+: ", line)] + EXTRA
    draw = random.Random(seed)
    for _ in range(count):
        file = draw.choice(shipped)
        lines = texts[file]
        # Often one thing alone is wrong, or nothing is.
        for _ in range(draw.choice([0, 1, 1, 1, 2, 4])):
            lines = changed(lines, draw.choice, lambda end: draw.randrange(max(end, 1)), more)
        overrides = [f"{draw.choice(KEYS)}={draw.choice(WORDS)}" for _ in range(draw.choice([0, 0, 1, 1, 2]))]
        yield file.relative_to(ROOT / "configs"), "\n".join(lines), overrides


def built(path: Path, overrides: list[str]) -> bool:
    """Whether the model of a config can be built, here and without computing anything; if not, it is said why."""
    try:
        loaded = load_config(path, overrides)
        params = abstract_state(prepare(loaded)).params
    except (ConfigError, RunError) as error:
        assert str(error) and "Traceback" not in str(error)
        return False
    assert parameter_count(params) > 0
    assert yaml_document.parse(yaml_document.dump(loaded.config.resolved())).complaints == []
    assert default_path(loaded.config).parts[0] == "runs" and all(
        " keeps " in note or " does nothing: " in note for note in loaded.notes()
    )
    return True


def check_mutations(folder: Path, count: int, every: int, seed: int) -> tuple[int, int]:
    """How many of the mutated configs are good, and how many models were built of them, one of every so many.

    They stand where the shipped ones do, so that a `base` is found.
    """
    shutil.copytree(ROOT / "configs", folder / "configs")
    before = contents(folder)
    good = checked = 0
    for index, (file, text, overrides) in enumerate(mutations(count, seed)):
        path = folder / "configs" / file.with_name("mutated.yaml")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            is_good = check_answer(path, overrides)
            good += is_good
            if is_good and good % every == 0 or index % (20 * every) == 0:
                checked += 1
                built(path, overrides)
        except Exception as error:
            error.add_note(f"{file}, {overrides}:\n{text}")
            raise
        path.unlink()
    assert contents(folder) == before
    return good, checked


def test_mutations_of_the_shipped_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good, checked = check_mutations(tmp_path, 400, every=10, seed=0)
    assert good > 40 and checked > 4


@pytest.mark.slow
def test_ten_thousand_mutations_of_the_shipped_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good, checked = check_mutations(tmp_path, 10_000, every=10, seed=1)
    assert good > 1000 and checked > 100


# Sizes at the ends of their ranges, and why they are refused: what takes no memory yet is only counted.
HUGE = [
    (["model.hidden=65536"], ""),
    (["task={kind: adding, time: 10000000, valid: 1, test: 1}"], ""),
    (["task={kind: adding, valid: 10000000, test: 10000000}"], "splits have 2.4e+10 numbers"),
    (["task={kind: selective_copying, vocab: 65536, length: 10000000, valid: 1, test: 1}", "model.hidden=65536"], ""),
    (["task={kind: copying, blank: 10000000, symbols: 10000000, valid: 1, test: 1}"], ""),
    (["task={kind: formal, language: parity, train_length: 10000000}"], "splits have 3.2e+11 numbers"),
    (["task={kind: forecast, file: a.csv, values: 10000000, window: 1000000}"], "take a larger stride"),
    (["task={kind: listops, train: 10000000, max_length: 100000}"], ""),
    (["train.epochs=10000000"], ""),
    (["train.epochs=10000000", "task={kind: adding, epoch: 10000000}"], "more than can be counted"),
    (["model.method={kind: newton, max_iters: 10000000, window: 10000000}"], ""),
    (["model.method={kind: sequential, unroll: 1024}"], ""),
    (["sweep={seed: 0-999, optim.lr: {uniform: [0, 1], n: 1000}, model.hidden: [1, 2, 3]}"], ""),
    pytest.param(["model.layers=256", "model.hidden=1"], "", marks=pytest.mark.slow),
    pytest.param(["model={kind: min_blocks, layers: 256, width: 65536}"], "", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("overrides", "refused"), HUGE, ids=lambda each: str(each)[:40])
def test_huge_sizes_are_counted_not_made(
    overrides: list[str], refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = ROOT / "configs" / "digits" / "rows.yaml"
    if refused:
        with pytest.raises(ConfigError, match=re.escape(refused)):
            load_config(file, overrides)
    else:
        assert built(file, overrides)
    assert list(tmp_path.iterdir()) == []

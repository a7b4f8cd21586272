"""What is said of a run before it is started: true sizes, in time, whatever the config asks for."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from gru_jax.config.config import Config
from gru_jax.config.loading import ConfigError, load_config
from gru_jax.runs import estimate
from gru_jax.training.experiment import train_batches

from ..config.config_files import GOOD, write
from ..training.experiments import config

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
# GOOD: a GRU of 16 units with an output layer on digits of 8 numbers a step, trained with momentum.
PARAMETERS = 3 * (8 * 16 + 16 * 16 + 2 * 16) + 16 * 10 + 10


def said(folder: Path, *overrides: str, text: str = GOOD) -> dict[str, str]:
    """The lines of a config's estimates, by what they are of."""
    lines = list(estimate.estimates(load_config(write(folder, text), overrides)))
    return dict(line.split(": ", 1) for line in lines)


def sizes(line: str) -> list[float]:
    """The bytes that a line speaks of."""
    return [float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+) ([KMGT]?i?B)\b", line)]


def test_sizes_and_times(tmp_path: Path) -> None:
    lines = said(tmp_path)
    assert list(lines) == ["parameters", "state", "training data", "training step", "compilation", "time"]
    assert lines["parameters"] == str(PARAMETERS)
    assert sizes(lines["state"]) == pytest.approx([4 * PARAMETERS, 4 * PARAMETERS], rel=0.02)
    assert sizes(lines["training data"]) == pytest.approx([1266 * (64 + 1) * 4], rel=0.01)
    needed, arguments, temporaries, results = sizes(lines["training step"])
    # The state, a batch, its labels, weights and positions; the arithmetic of so small a network fits with them.
    assert arguments == pytest.approx(8 * PARAMETERS + 32 * (64 + 3) * 4, rel=0.05)
    assert needed == pytest.approx(arguments + temporaries + results, rel=0.05) and needed < 2**20
    assert re.fullmatch(r"about [\d.]+ (ms|s|min), 78 steps of [\d.]+ ms as measured on zeros; .*", lines["time"])


WAYS = [
    ("parallel={strategy: pmap, devices: 2, accumulate: 2}", 2),
    pytest.param("parallel={strategy: data, devices: 4}", 4, marks=pytest.mark.slow),
    pytest.param("parallel={strategy: time, devices: 4, parts: 2}", 4, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("parallel", "devices"), WAYS)
def test_every_way_to_use_the_devices(parallel: str, devices: int, tmp_path: Path) -> None:
    lines = said(tmp_path, parallel)
    assert f" on each of {devices} devices: " in lines["training step"]
    assert "78 steps of" in lines["time"] and lines["time"].startswith("at least" if "time" in parallel else "about")


def test_half_precision_is_half_the_size(tmp_path: Path) -> None:
    lines = said(tmp_path, "precision.params=bfloat16", "precision.compute=bfloat16")
    assert sizes(lines["state"]) == pytest.approx([2 * PARAMETERS, 4 * PARAMETERS], rel=0.02)


def test_what_does_not_fit_is_not_run(tmp_path: Path) -> None:
    lines = said(tmp_path, "model.hidden=65536")
    assert sizes(lines["training step"])[0] > 2 * sizes(lines["state"])[0] > 2**36
    assert re.fullmatch(r"not estimated, a step needs [\d.]+ [GT]iB and [\d.]+ [KMGT]iB is free", lines["time"])


def test_a_config_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path), ["parallel={strategy: data, devices: 9}"])
    with pytest.raises(ConfigError, match="9 devices are asked for, and jax has 8"):
        list(estimate.within(60, estimate.estimates(loaded)))


def test_the_time_is_kept() -> None:
    def slow() -> Iterator[str]:
        yield "at once"
        time.sleep(2)
        yield "too late"

    begin, lines = time.monotonic(), estimate.within(0.2, slow())
    assert next(lines) == "at once"
    with pytest.raises(TimeoutError, match="not estimated within 0 s"):
        next(lines)
    assert time.monotonic() - begin < 1.5
    assert list(estimate.within(5, iter(["a", "b"]))) == ["a", "b"]


TASKS: list[dict[str, Any]] = [
    {"kind": "digits", "view": "rows"},
    {"kind": "adding", "time": 20, "valid": 2, "test": 2},
    {"kind": "copying", "valid": 2, "test": 2},
    {"kind": "mqar", "valid": 2, "test": 2},
    {"kind": "selective_copying", "valid": 2, "test": 2},
    {"kind": "group_words", "valid": 2, "test": 2},
    {"kind": "k_hop", "valid": 2, "test": 2},
    {"kind": "keep_nth", "valid": 2, "test": 2},
    {"kind": "formal", "language": "parity", "valid": 2},
]


@pytest.mark.parametrize(
    "task",
    [pytest.param(one, marks=() if one["kind"] in ("digits", "mqar") else pytest.mark.slow) for one in TASKS],
    ids=lambda task: task["kind"],
)
def test_the_batch_is_that_of_training(task: dict[str, Any]) -> None:
    made = Config.model_validate(config().resolved() | {"task": task | {"batch": 4}})
    like = estimate._batch_like(made, 4, made.shape.time)
    train = made.task.load(None).train
    batch = train_batches(train, made.shape, 4, 0)(0)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), batch) == jax.tree.map(lambda a: (a.shape, a.dtype), like)
    assert (made.task.kind in estimate._HELD) == (not callable(train))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**29, "1.5 GiB"), (2**53, "8192.0 TiB")]
)
def test_sizes_in_words(count: int, text: str) -> None:
    assert estimate._size(count) == text


TIMES = [(0.0123, "12.3 ms"), (1.5, "1.5 s"), (90, "90 s"), (7200, "2 h"), (10**6, "11.6 d")]


@pytest.mark.parametrize(("seconds", "text"), TIMES)
def test_times_in_words(seconds: float, text: str) -> None:
    assert estimate._time(seconds) == text

"""What a run would need, before it is started: memory of its state and of a compiled step, and time.

Nothing is loaded and nothing is written. Sizes come from shapes and from the compiler; time from a few steps on
zeros, where they fit.
"""

import contextlib
import math
import os
import queue
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled

from gru_jax.config.config import Config
from gru_jax.config.loading import LoadedConfig
from gru_jax.data.dataset import Split
from gru_jax.runs.plan import prepare
from gru_jax.training.devices import Placement, place
from gru_jax.training.experiment import Experiment, abstract_state, parameter_count
from gru_jax.training.step import Batch, TrainState, batch_of
from gru_jax.types import Tree

SECONDS = 40
"""How long the estimates may take."""

# Tasks whose training sequences are arrays on the device, and tasks that make theirs; none of them has lengths. Those
# of the others are taken to have them, and are read as they are needed.
_HELD = ("digits", "mnist", "forecast", "series")
_MADE = ("adding", "copying", "group_words", "irregular", "k_hop", "keep_nth", "mqar", "selective_copying")

# Of a step's time: enough steps for a median, no more than that of a long one.
_STEPS, _MEASURING_S = 20, 10.0
# What a step takes beside what the compiler knows of, and what others may take meanwhile.
_SHARE_OF_FREE = 0.5


def within(seconds: float, lines: Iterator[str]) -> Iterator[str]:
    """What an iterator yields, for so long.

    It runs beside, in a thread: compiling cannot be interrupted. What is not done in time goes on until the process
    ends.

    Raises:
        TimeoutError: the time is over, and the iterator is not.
    """
    made: queue.SimpleQueue[tuple[str | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            for line in lines:
                made.put((line, None))
            made.put((None, None))
        except BaseException as error:
            made.put((None, error))

    end = time.monotonic() + seconds
    threading.Thread(target=work, daemon=True).start()
    while True:
        try:
            line, error = made.get(timeout=max(end - time.monotonic(), 0))
        except queue.Empty:
            raise TimeoutError(f"not estimated within {seconds:.0f} s") from None
        if error is not None:
            raise error
        if line is None:
            return
        yield line


def estimates(loaded: LoadedConfig) -> Iterator[str]:
    """What a run would need, as lines for people: first how many parameters it has.

    Args:
        loaded: the config.

    Raises:
        ConfigError: the model cannot be built, or the batch cannot be split over the devices.
    """
    config, experiment = loaded.config, prepare(loaded)
    state = abstract_state(experiment)
    yield f"parameters: {parameter_count(state.params)}"
    optimizer = _bytes(state.opt_state)
    yield f"state: {_size(_bytes(state.params))} of parameters, {_size(optimizer)} of the optimizer"
    if config.task.kind in _HELD:
        examples = _batch_like(config, config.shape.train, config.shape.time)
        yield f"training data: {_size(_bytes((examples.x, examples.y)))} on the device"
    parallel = config.parallel
    devices = jax.devices()[: 1 if parallel.strategy == "single" else parallel.devices]
    placement = place(parallel.strategy, experiment.train_step, experiment.eval_step, devices, parallel.parts)
    step = _abstract(experiment, placement)
    begin = time.perf_counter()
    try:
        compiled = placement.train_step.lower(*step).compile()  # type: ignore[attr-defined]  # of jit and of pmap
    except jax.errors.JaxRuntimeError as error:
        yield f"training step: not estimated, it does not compile here: {str(error).splitlines()[0]}"
        return
    seconds = time.perf_counter() - begin
    needed, said = _memory(compiled, len(devices))
    yield f"training step: {said}"
    yield f"compilation: {_time(seconds)}, of the training step alone"
    free, here = _free(devices[0]), needed * (len(devices) if devices[0].platform == "cpu" else 1)
    if free is None or here > _SHARE_OF_FREE * free:
        has = "unknown how much" if free is None else _size(free)
        yield f"time: not estimated, a step needs {_size(here)} and {has} is free"
        return
    step_s = _seconds_a_step(compiled, step)
    least = "at least " if config.newton is not None else "about "
    yield (
        f"time: {least}{_time(step_s * config.total_steps)}, {config.total_steps} steps of {_time(step_s)} as measured"
        " on zeros; compilation, evaluations, checkpoints and the making of batches come on top"
    )


class Step(NamedTuple):
    """The shapes and places of what a training step takes."""

    state: TrainState
    batch: Batch


def _abstract(experiment: Experiment, placement: Placement) -> Step:
    config = experiment.config
    size, shape = config.task.batch, config.shape
    rows, time = placement.devices, (config.parallel.parts or placement.devices)
    # How the devices take a whole batch is seen from how they take a small one.
    small = placement.put_batch(_zeros(_batch_like(config, rows, time if config.parallel.strategy == "time" else 1)))
    whole = jax.eval_shape(placement.put_batch, _batch_like(config, size, shape.time))
    batch = jax.tree.map(lambda a, at: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at.sharding), whole, small)
    one = placement.put_state(np.zeros((), np.float32))
    seed, rate = jax.ShapeDtypeStruct((), jnp.uint32), jax.ShapeDtypeStruct((), jnp.float32)
    state = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((*one.shape, *a.shape), a.dtype, sharding=one.sharding),
        jax.eval_shape(experiment.init_state, seed, rate),
    )
    return Step(state, batch)


def _batch_like(config: Config, size: int, time: int) -> Batch:
    """The shapes of a batch of so many sequences and steps."""
    shape = config.shape
    x = jax.ShapeDtypeStruct((size, time), jnp.int32)
    if not shape.tokens:
        x = jax.ShapeDtypeStruct((size, time, shape.features), jnp.float32)
    y = {
        "class": jax.ShapeDtypeStruct((size,), jnp.int32),
        "values": jax.ShapeDtypeStruct((size, shape.values), jnp.float32),
        "tags": jax.ShapeDtypeStruct((size, time), jnp.int32),
        "notes": jax.ShapeDtypeStruct((size, time, shape.outputs), jnp.float32),
    }[shape.target]
    lengths = None if config.task.kind in _HELD + _MADE else jax.ShapeDtypeStruct((size,), jnp.int32)
    return jax.eval_shape(lambda *parts: batch_of(Split(*parts), shape.target), x, y, lengths)


def _zeros(tree: Tree) -> Tree:
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype, device=getattr(a, "sharding", None)), tree)


def _memory(compiled: Compiled, devices: int) -> tuple[int, str]:
    """Bytes on each device that a compiled step needs, and the same in words."""
    found: Any = compiled.memory_analysis()
    # The state goes out where it came in.
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    parts = {"arguments": found.argument_size_in_bytes, "temporaries": found.temp_size_in_bytes, "results": results}
    needed = sum(parts.values())
    where = f" on each of {devices} devices" if devices > 1 else ""
    return needed, f"{_size(needed)}{where}: {', '.join(f'{_size(size)} of {name}' for name, size in parts.items())}"


def _seconds_a_step(compiled: Compiled, step: Step) -> float:
    """The median of a few steps on zeros."""
    state, batch = _zeros(step.state), _zeros(step.batch)
    state = jax.block_until_ready(compiled(state, batch))
    taken: list[float] = []
    while len(taken) < _STEPS and sum(taken) < _MEASURING_S:
        begin = time.perf_counter()
        state = jax.block_until_ready(compiled(state, batch))
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def _free(device: jax.Device) -> int | None:
    """Bytes that are free on a device; of a CPU, those of the machine or of what it allows this process."""
    known = device.memory_stats() or {}
    if "bytes_limit" in known:
        return int(known["bytes_limit"] - known["bytes_in_use"])
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        words = dict(line.split(":", 1) for line in lines)
        found.append(1024 * int(words["MemAvailable"].split()[0]))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # Not all of what is free, but no more: some systems have nothing else.
        found += [] if found else [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return min(found, default=None)


def _bytes(tree: Tree) -> int:
    return sum(int(np.prod(leaf.shape, dtype=object)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _size(count: float) -> str:
    power = min(int(math.log(max(count, 1), 1024)), 4)
    return f"{count / 1024**power:.{min(power, 1)}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _time(seconds: float) -> str:
    for unit, length, least in (("d", 86400, 2), ("h", 3600, 2), ("min", 60, 2), ("s", 1, 1)):
        if seconds >= least * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{1000 * seconds:.3g} ms"

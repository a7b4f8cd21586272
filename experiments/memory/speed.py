"""Steps a second of the whole loop, acting and learning, beside the same loop with flax's cell under `nn.scan`."""

import functools
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

import gru_jax as gj
from experiments.memory import environments, ppo
from gru_jax.runs.environment import cpu
from gru_jax.runs.on_disk.json_files import write_text
from gru_jax.tuning.timing import interleaved

# envs, steps, hidden: that of the table, that of purejaxrl's recurrent PPO, one with many environments.
SIZES = ((64, 128, 64), (4, 128, 128), (256, 64, 128))


class Scanned(linen.Module):
    """flax's GRU over time with a reset in each step, as purejaxrl's `ScannedRNN` has it."""

    hidden: int

    @functools.partial(linen.scan, variable_broadcast="params", in_axes=0, out_axes=0, split_rngs={"params": False})
    @linen.compact
    def __call__(self, h: Any, inputs: Any) -> Any:
        x, first = inputs
        return linen.GRUCell(self.hidden)(jnp.where(first[..., None], jnp.zeros_like(h), h), x)


def with_flax(hidden: int) -> ppo.Memory:
    """That module in the place of `ppo.recurrent(gj.GRU(hidden))`; it acts as it learns, with sequences of one step."""
    module = Scanned(hidden)

    def start(batch: tuple[int, ...]) -> Any:
        return jnp.zeros((*batch, hidden))

    def init(key: Any, size: int) -> Any:
        return module.init(key, start((1,)), (jnp.zeros((1, 1, size)), jnp.zeros((1, 1), bool)))

    def step(params: Any, x: Any, h: Any, first: Any) -> Any:
        h, y = module.apply(params, h, (x[None], first[None]))
        return y[0], h

    def replay(params: Any, x: Any, h: Any, first: Any) -> Any:
        return module.apply(params, h, (x, first))[1]

    return ppo.Memory(init, start, step, replay, hidden)


def one_update(memory: ppo.Memory, options: ppo.Options) -> Callable[[], Any]:
    """A rollout and what is learned from it, compiled."""
    env = environments.repeat_previous()
    params = ppo.init(jax.random.key(0), env, memory, options.hidden)
    adam = ppo.optimizer(options).init(params)
    learner = params, adam, ppo.begin(jax.random.key(1), env, memory, options.envs)
    step = jax.jit(lambda key, learner: ppo.update(key, learner, env, memory, options))
    return lambda: step(jax.random.key(2), learner)


def make(seconds: float, folder: Path, sizes: Sequence[tuple[int, int, int]] = SIZES) -> None:
    """Measures, one size after the other, and writes speed.json."""
    rows = []
    for envs, steps, hidden in sizes:
        options = ppo.Options(envs=envs, steps=steps, hidden=hidden)
        memories = {"ours": ppo.recurrent(gj.GRU(hidden)), "flax": with_flax(hidden)}
        took = interleaved({name: one_update(memory, options) for name, memory in memories.items()}, seconds)
        row = {"envs": envs, "steps": steps, "hidden": hidden, "rounds": took["ours"].rounds}
        row |= {name: round(1e3 * envs * steps / each.ms) for name, each in took.items()}
        rows.append(row | {"ratio": round(took["flax"].ms / took["ours"].ms, 2)})
        print(rows[-1], flush=True)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax")}
    write_text(folder / "speed.json", json.dumps({"cpu": cpu(), "versions": versions, "rows": rows}, indent=1) + "\n")


def lines(record: dict[str, Any]) -> list[str]:
    """The measurements as Markdown."""
    said = ", ".join([record["cpu"], *(f"{name} {version}" for name, version in record["versions"].items())])
    heads = ("environments", "steps of a rollout", "units", "gru_jax", "flax's cell under nn.scan", "times as fast")
    table = [heads, ("---:",) * len(heads)]
    names = ("envs", "steps", "hidden", "ours", "flax", "ratio")
    table += [tuple(row[name] for name in names) for row in record["rows"]]
    return [
        f"**Steps a second of the whole loop with a GRU, acting and learning, RepeatPrevious** ({said})", "",
        *("| " + " | ".join(map(str, each)) + " |" for each in table), "",
        "Medians of updates that took turns in one process. Made by `python -m experiments.memory --speed`.",
    ]  # fmt: skip

"""The first call of a training step: tracing, writing kernels and compiling, ours beside flax's own layer.

    python -m benchmarks.first_call [--rounds 5] [--quick] [--write]

Every measurement is a process of its own, which makes a model and its parameters, and then takes the time from the call
of the jitted `value_and_grad` until its results are there. Cold: nothing is kept between processes. Again: JAX's
compilation cache and ours are on and an earlier process has filled them. Ours and flax take turns. `--write` writes
benchmarks/results/.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import timing

CASES = {"one layer": (1, False), "two layers, both directions": (2, True)}
"""Layers, and whether they run in both directions."""
SHAPE = (100, 32, 64, 64)
"""T, B, I and H."""
QUICK = (5, 2, 3, 4)
WHO = ("ours", "flax")

PROCESS = """
import os, sys, time
import jax, jax.numpy as jnp
import flax.linen as nn
import gru_jax as gj

who, layers, both, T, B, I, H = sys.argv[1], *map(int, sys.argv[2:])
if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

class Flax(nn.Module):
    @nn.compact
    def __call__(self, x):
        one = lambda: nn.RNN(nn.GRUCell(H))
        for _ in range(layers):
            x = (nn.Bidirectional(one(), one()) if both else one())(x)
        return x

class Ours(nn.Module):
    @nn.compact
    def __call__(self, x):
        return gj.linen.GRU(H, num_layers=layers, bidirectional=bool(both))(x)[0]

net, x = {"ours": Ours, "flax": Flax}[who](), jnp.ones((B, T, I))
params = jax.block_until_ready(net.init(jax.random.key(0), x))
step = jax.jit(jax.value_and_grad(lambda params, x: (net.apply(params, x) ** 2).mean()))
start = time.perf_counter()
jax.block_until_ready(step(params, x))
print(time.perf_counter() - start)
"""


def seconds(who: str, case: str, shape: tuple[int, ...], caches: Path | None) -> float:
    """Of the first call in a fresh process; with caches in a folder, or without any."""
    environment = os.environ | {"GRU_JAX_CACHE": "off" if caches is None else str(caches / "ours")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if caches is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(caches / "jax")
    asked = [who, *(str(int(a)) for a in (*CASES[case], *shape))]
    done = subprocess.run([sys.executable, "-c", PROCESS, *asked], env=environment, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def rows(shape: tuple[int, ...], rounds: int) -> Iterator[dict[str, Any]]:
    """The measurements, one of each case and kind of start."""
    for case in CASES:
        for start in ("cold", "again"):
            with tempfile.TemporaryDirectory() as folder:
                caches = Path(folder) if start == "again" else None
                if caches is not None:
                    for who in WHO:
                        seconds(who, case, shape, caches)
                times = [[seconds(who, case, shape, caches) for who in WHO] for _ in range(rounds)]
            ours, flax = (statistics.median(each) for each in zip(*times, strict=True))
            ratio = statistics.median(mine / theirs for mine, theirs in times)
            row = {"case": case, "start": start, "shape": shape}
            yield row | {"ours_s": round(ours, 3), "flax_s": round(flax, 3), "ours_over_flax": round(ratio, 2)}


def printed(row: dict[str, Any]) -> str:
    """The row as a line."""
    return (
        f"{row['case']:<28} {row['start']:<6} ours {row['ours_s']:.2f} s  flax {row['flax_s']:.2f} s"
        f"  ({row['ours_over_flax']:.2f} x)"
    )


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    shape = ", ".join(map(str, record["rows"][0]["shape"]))
    lines = [
        f"# The first call: {record['device']}, {record['date']}",
        "",
        f"`{record['command'].strip()}`: {record['cpu']}, {record['cores']} cores; {versions}. Seconds of the first"
        f" call of a jitted training step at T, B, I, H = {shape}, each in a process of its own, medians; again: with"
        " JAX's compilation cache and ours, filled by an earlier process.",
        "",
        "| | start | ours | flax | ours / flax |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        cells = (row["case"], row["start"], row["ours_s"], row["flax_s"], row["ours_over_flax"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_call", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once, to see that it runs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/")
    asked = parser.parse_args()
    if asked.quick and asked.write:
        parser.error("--quick measures nothing worth writing; leave out one of the two")
    if asked.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {asked.rounds}")
    found = []
    for row in rows(QUICK if asked.quick else SHAPE, 1 if asked.quick else asked.rounds):
        print(printed(row), flush=True)
        found.append(row)
    if asked.write:
        timing.write("first-call", found, module="first_call", table=markdown)


if __name__ == "__main__":
    main()

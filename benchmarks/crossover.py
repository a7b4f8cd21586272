"""Where all of time at once overtakes one step after another: a map over steps, sequences and units.

    python -m benchmarks.crossover [--device cpu|gpu|tpu] [--sizes small full deer 1000,1,8 ...] [--write]
    python -m benchmarks.crossover --draw benchmarks/results/<file>.json

For a GRU with torch's initial values, and for one that was trained on the adding problem: the sequential scan, in
every form that the device has, and Newton's method with the diagonal and with the dense Jacobian; the outputs, and a
training step, that is the value of a loss with its gradients. Every batch and width is measured in a process of its
own (`benchmarks.crossover_column`), which compares the methods and times them in turn. What needs more memory than
there is, or more than `--budget` seconds for one call, is left out and named; so is what `--total` seconds do not
reach. `--sizes deer` are the shapes of DEER's published times, which are printed beside ours. `--write` writes
benchmarks/results/, as JSON and as a table, the plot of docs/images/, and, where both kinds of weights were measured,
what method="auto" reads.
"""

import argparse
import dataclasses
import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks import crossover_plots, crossover_report, timing
from benchmarks.choices import save
from benchmarks.crossover_column import METHODS, UPDATES
from gru_jax.scans import choices
from gru_jax.scans.choices import Sizes, Tuned

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"

FULL = [Sizes(T, B, H) for H in (1, 4, 16, 64, 256, 1024) for B in (1, 8, 64) for T in (10**3, 10**4, 10**5, 10**6)]
SMALL = [Sizes(T, B, H) for B, H in ((1, 1), (1, 8), (1, 32), (16, 8), (1, 128)) for T in (10**3, 10**4)] + [
    Sizes(10**5, 1, 1), Sizes(10**5, 1, 8)
]
DEER = [Sizes(T, 16, H) for H in (1, 2, 4, 8, 16, 32) for T in (1000, 3000, 10**4, 30_000, 10**5, 300_000, 10**6)]
NAMED = {"small": SMALL, "full": FULL, "deer": DEER}

ON_CPU = ("sequential", "newton diagonal", "newton dense")
WEIGHTS = ("torch", "trained")
PLATFORMS = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}
COMPILING_S = 300.0
"""A process that says nothing for longer than this, and than its calls may take, is ended."""
SHARE = 0.7
"""Of the memory that there is, what a program may take."""


class Column(NamedTuple):
    """What one process measures."""

    group: str
    B: int
    H: int
    lengths: tuple[int, ...]


def name_or_sizes(text: str) -> str | Sizes:
    """What stands after --sizes: a name, or T,B,H."""
    if text in NAMED:
        return text
    sizes = text.split(",")
    if len(sizes) != 3 or not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(
            f"must be one of {', '.join(NAMED)}, or three whole numbers T,B,H from 1, such as 1000,1,8; got {text!r}"
        )
    made = Sizes(*map(int, sizes))
    if made.T < 2:
        raise argparse.ArgumentTypeError(f"the adding problem has at least 2 steps; got {text!r}")
    return made


def columns(wanted: list[str | Sizes]) -> list[Column]:
    """The processes for these sizes, each size once."""
    lengths: dict[tuple[str, int, int], dict[int, None]] = {}
    for one in wanted:
        group = "deer" if one == "deer" else "grid"
        for T, B, H in NAMED[one] if isinstance(one, str) else [one]:
            lengths.setdefault((group, B, H), {})[T] = None
    return [Column(*key, tuple(found)) for key, found in lengths.items()]


def measured(
    job: dict[str, Any], environment: dict[str, str], patience_s: float, ends: float
) -> Iterator[dict[str, Any]]:
    """What the process of this job prints, as it comes; the last is why it ended, where it did not come to its end."""
    command = [sys.executable, "-m", "benchmarks.crossover_column", json.dumps(job)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=ROOT, bufsize=0
    )
    who = f"B,H = {job['B']},{job['H']}"
    output, said = {process.stdout: b"", process.stderr: b""}, time.monotonic()
    with selectors.DefaultSelector() as ready, process:
        for stream in output:
            ready.register(stream, selectors.EVENT_READ)
        while ready.get_map():
            now = time.monotonic()
            if now > ends or now - said > patience_s:
                process.kill()
                why = "the time of --total was over" if now > ends else f"nothing came for {patience_s:.0f} s"
                yield {"left_out": f"{who}: what else there was of T = {','.join(map(str, job['lengths']))}: {why}"}
                return
            for key, _ in ready.select(timeout=1.0):
                part = os.read(key.fd, 65536)
                if not part:
                    ready.unregister(key.fileobj)
                output[key.fileobj] += part
            *lines, output[process.stdout] = output[process.stdout].split(b"\n")
            for line in lines:
                said = time.monotonic()
                yield json.loads(line)
    if process.returncode:
        last = output[process.stderr].decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        yield {"left_out": f"{who}: the process ended with {process.returncode}, saying: {last[0]}"}


def memory(device: str, environment: dict[str, str]) -> float:
    """Bytes that a program may take; raises SystemExit where JAX does not run on the device."""
    ask = "import jax; stats = jax.devices()[0].memory_stats(); "
    ask += "print(jax.default_backend(), stats['bytes_limit'] if stats else 0)"
    done = subprocess.run(
        [sys.executable, "-c", ask], env=environment, capture_output=True, text=True, cwd=ROOT, check=False
    )
    found = done.stdout.split()
    if done.returncode or found[0] != device:
        raise SystemExit(
            f"benchmarks.crossover: --device {device}: JAX does not run on one here; install jax for it on a machine"
            f" that has one, or take --device cpu"
        )
    return SHARE * (int(found[1]) or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def run(args: argparse.Namespace, environment: dict[str, str]) -> dict[str, list[Any]]:
    """The rows, what is known of the weights, and what was left out, printed as they come."""
    limit, ends = memory(args.device, environment), time.monotonic() + args.total
    found: dict[str, list[Any]] = {"rows": [], "known": [], "left_out": []}
    print(crossover_report.HEADER)
    for column in columns(args.sizes):
        if time.monotonic() > ends:
            each = ", ".join(f"{T},{column.B},{column.H}" for T in column.lengths)
            found["left_out"].append(f"T,B,H = {each}: the time of --total was over")
            continue
        job = {
            **column._asdict(), "methods": args.methods, "weights": args.weights, "budget": args.budget,
            "memory": limit, "updates": args.updates,
        }
        for each in measured(job, environment, COMPILING_S + 20 * args.budget, ends):
            if "known" in each:
                found["known"] += [each["known"]] if each["known"] not in found["known"] else []
            elif "left_out" in each:
                found["left_out"].append(each["left_out"])
                print(f"left out: {each['left_out']}", flush=True)
            else:
                found["rows"].append(each)
                print(crossover_report.printed(each), flush=True)
    return found


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.crossover", description=__doc__.splitlines()[0])
    made.add_argument("--device", choices=tuple(PLATFORMS), default="cpu")
    made.add_argument(
        "--sizes", nargs="+", type=name_or_sizes, metavar="NAME|T,B,H",
        help=f"of {', '.join(NAMED)}, or sizes; when left out small on CPU, full and deer elsewhere",
    )
    made.add_argument("--methods", nargs="+", choices=tuple(METHODS), help="all that the device has when left out")
    made.add_argument("--weights", nargs="+", choices=WEIGHTS, default=list(WEIGHTS))
    made.add_argument("--updates", type=int, default=UPDATES, help="of the training; the default is what is published")
    made.add_argument("--budget", type=float, default=5.0, metavar="SECONDS", help="one call may take, or is left out")
    made.add_argument("--total", type=float, default=float("inf"), metavar="SECONDS", help="after which nothing begins")
    made.add_argument("--write", action="store_true", help="into benchmarks/results/ and docs/images/")
    made.add_argument("--name", default="crossover", help="of the files that --write writes")
    made.add_argument("--draw", type=Path, metavar="FILE", help="draw the plot of a results file, measure nothing")
    return made


def checked(command: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, or the command's end where they do not fit each other."""
    args = command.parse_args()
    for name in ("budget", "total", "updates"):
        if not getattr(args, name) > 0:
            command.error(f"--{name} must be above 0; got {getattr(args, name):g}")
    if not re.fullmatch(r"[\w-]+", args.name):
        command.error(f"--name must be letters, digits, - and _, part of a file's name; got {args.name!r}")
    args.sizes = args.sizes or (["small"] if args.device == "cpu" else ["full", "deer"])
    args.methods = args.methods or list(ON_CPU if args.device == "cpu" else METHODS)
    if "sequential" not in args.methods:
        command.error("--methods must have sequential among them: all others are compared with it")
    # The first is what the others are compared with.
    args.methods = ["sequential", *(name for name in args.methods if name != "sequential")]
    return args


def draw(file: Path, command: argparse.ArgumentParser) -> None:
    """Draws a results file again."""
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        command.error(f"--draw: {file} cannot be read as a results file: {error}")
    if not isinstance(record, dict) or not all("method" in row for row in record.get("rows", [{}])):
        command.error(f"--draw: {file} was not written by benchmarks.crossover")
    crossover_plots.draw(record, IMAGES)


def choose(rows: list[dict[str, Any]]) -> None:
    """Writes what method="auto" is to take on this device."""
    backend = jax.default_backend()
    device = choices.device(backend)
    save(dataclasses.replace(choices.shipped(device, backend) or Tuned(device, backend), newton=tuple(rows)))


def main() -> None:
    command = parser()
    args = checked(command)
    if args.draw:
        draw(args.draw, command)
        return
    platform = {"JAX_PLATFORMS": PLATFORMS[args.device], "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    begin = time.monotonic()
    found = run(args, {**os.environ, **platform})
    print("\n".join(["", *crossover_report.summary(found["rows"], found["known"])]))
    print(f"measured in {(time.monotonic() - begin) / 60:.1f} minutes")
    if args.write:
        # The device's name is asked of this process, after all others have ended.
        jax.config.update("jax_platforms", PLATFORMS[args.device])
        more = {"weights": found["known"], "left_out": found["left_out"]}
        record = timing.write(args.name, found["rows"], module="crossover", table=crossover_report.markdown, **more)
        crossover_plots.draw(record, IMAGES)
        if set(args.weights) == set(WEIGHTS):
            choose(crossover_report.choices(record["rows"]))
    wrong = [each for each in found["left_out"] if "DISAGREES" in each]
    if wrong or not found["rows"]:
        raise SystemExit(f"benchmarks.crossover: {len(wrong)} methods disagree" if wrong else "nothing was measured")


if __name__ == "__main__":
    main()

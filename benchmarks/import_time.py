"""What `import gru_jax` costs over `import jax, flax`.

    python -m benchmarks.import_time [--repeats 10]

Every measurement is a fresh process. The two statements take turns, so that a machine that slows
down meanwhile slows both, and the medians are compared. One round before the first is thrown away:
it pays for reading the files from disk and for compiling them to bytecode.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence

BASELINE = "import jax, flax"
OURS = "import gru_jax"

_TIMER = """
import time
start = time.perf_counter()
{statement}
print(time.perf_counter() - start)
"""


def seconds(statement: str) -> float:
    """Wall-clock seconds that `statement` takes in a fresh process, the interpreter's own start
    not counted."""
    process = subprocess.run(
        [sys.executable, "-c", _TIMER.format(statement=statement)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(process.stdout)


def measure(repeats: int) -> dict[str, list[float]]:
    """Seconds of both statements, `repeats` times each, taken in turns."""
    times: dict[str, list[float]] = {BASELINE: [], OURS: []}
    for statement in times:
        seconds(statement)
    for _ in range(repeats):
        for statement, taken in times.items():
            taken.append(seconds(statement))
    return times


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the median of each statement and their ratio."""
    parser = argparse.ArgumentParser(description="Import time of gru_jax against jax and flax.")
    parser.add_argument("--repeats", type=int, default=10, help="processes per statement")
    repeats = parser.parse_args(arguments).repeats
    if repeats < 1:
        parser.error(f"--repeats must be at least 1, got {repeats}")

    times = measure(repeats)
    for statement, taken in times.items():
        print(
            f"{statement:<18} median {statistics.median(taken):.3f} s "
            f"(from {min(taken):.3f} to {max(taken):.3f}, {repeats} processes)"
        )
    ratio = statistics.median(times[OURS]) / statistics.median(times[BASELINE])
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()

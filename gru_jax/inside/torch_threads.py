"""Torch's OpenMP threads put to rest, so that the cores on which they wait are free.

libgomp's threads wait for more work by looking for it again and again, for some 10 ms after each of torch's operations.
As long as they do, a scan that wants their cores gets half of each. OpenMP's own call for "nothing more for now" ends
them; torch's next operation that wants some starts new ones, in some ten microseconds each.
"""

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import torch

WORTH_RESTING = 10**7
"""Multiplications of a scan from which on, about a millisecond, it gains more than starting threads again costs."""
_SOFT = 1
"""omp_pause_soft: what was set, such as the number of threads, stays."""


def rest(work: int) -> bool:
    """Ends the threads that wait for this thread's next operation; whether it was done.

    Args:
      work: multiplications of the scan that is to come.

    Source: OpenMP 5.0, 3.2.44, omp_pause_resource_all.
    """
    if work < WORTH_RESTING or torch.get_num_threads() == 1:
        return False
    pause = _pause()
    return pause is not None and pause(_SOFT) == 0


@functools.cache
def _pause() -> Callable[[int], int] | None:
    """libgomp's function, of the library that torch has loaded; None where torch has another OpenMP, or an old one."""
    if not sys.platform.startswith("linux"):
        return None
    paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    names = {path: Path(path).name for path in paths}
    others = any(name.startswith(("libiomp", "libomp")) for name in names.values())
    # Of several the one that lies among torch's own files.
    ours = [path for path, name in names.items() if name.startswith("libgomp") and "torch" in path]
    if others or len(ours) != 1:
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(ours[0]), "omp_pause_resource_all", None)
    return found

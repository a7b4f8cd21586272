"""What the seconds of a run went into: training, or compiling."""

import time
from collections.abc import Callable, Hashable
from typing import TypeVar

import jax

from gru_jax.runs.on_disk.history import History
from gru_jax.types import Tree

_T = TypeVar("_T")


class Stopwatch:
    """Sorts the seconds of a run into training and compiling."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._called: set[Hashable] = set()
        self._since = time.perf_counter()

    def mark(self, compiling: bool = False) -> None:
        """Books the time since the last mark."""
        now = time.perf_counter()
        if compiling:
            self.history.compile_s += now - self._since
        else:
            self.history.train_s += now - self._since
        self._since = now

    def skip(self) -> None:
        """Books the time since the last mark nowhere."""
        self._since = time.perf_counter()

    def call(self, name: Hashable, function: Callable[..., _T], *args: Tree) -> _T:
        """Calls a compiled function; its first call is waited for and booked as compilation."""
        if name in self._called:
            return function(*args)
        self._called.add(name)
        self.mark()
        result = jax.block_until_ready(function(*args))
        self.mark(compiling=True)
        return result

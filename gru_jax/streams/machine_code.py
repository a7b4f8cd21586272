"""A network's step as a function of machine code: its memory, its weights, and the call."""

import ctypes
import math
import mmap

import jax
import numpy as np

from gru_jax.scans.engines.llvm import host
from gru_jax.scans.engines.llvm.step import object_file, program
from gru_jax.scans.engines.llvm.step.net import Net
from gru_jax.streams.network import Network, NoMachineCodeError, Place
from gru_jax.types import Params, State

LARGE = 2**21
"""Bytes of a large page."""
WORTH_ASKING = 2**19
"""Bytes of weights from which on they lie in large pages: small ones, strewn over the memory, evict each other."""


class MachineCode:
    """A network's step for some sequences.

    Attributes:
      x: where a step's input is put, `[*batch, I]`.
      y: where its output then is, `[*batch, F]`.
      run: `run(job)` takes a step.
      job: what it takes.
      state: views of the states, each `[*batch, H]`, in the network's structure.
      initial: the cells' initial states.
    """

    def __init__(self, network: Network, batch: tuple[int, ...]) -> None:
        self._network, self._batch, self._rows = network, batch, math.prod(batch)
        self._net = Net(host.host().lanes, host.host().sums, self._rows, network.parts)
        self._written = program.write(self._net)
        try:
            (address,) = host.addresses(self._written.program, program.CALL)
        except host.NoKernel as error:
            raise NoMachineCodeError(str(error)) from error
        self._weights, self._memory = _memory(self._written.weights), _memory(self._written.memory)
        self.x, self.y = (_memory(self._rows * n).reshape(*batch, n) for n in (network.features, network.width))
        # What the code reads through a pointer has to live as long as `run`.
        self._pointers = (ctypes.c_void_p * 4)(*(a.ctypes.data for a in (self._weights, self._memory, self.x, self.y)))
        self.job = ctypes.c_void_p(ctypes.addressof(self._pointers))
        self.run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
        self.state = self._states(self._memory)
        self.initial = jax.tree.map(lambda start, now: np.broadcast_to(start, now.shape), network.initial, self.state)
        self.take(None, network)

    def take(self, params: Params, network: Network) -> None:
        """Takes the parameters of a network of the same parts."""
        self._written.lay_out(network.arrays, self._weights)

    def object_file(self, name: str, start: State) -> tuple[bytes, int]:
        """The step for a linker, see `object_file.write`, and how many float32 its memory has.

        Args:
          name: in front of its functions' names.
          start: the states before the first step.
        """
        memory = np.zeros_like(self._memory)
        for state, first in zip(jax.tree.leaves(self._states(memory)), jax.tree.leaves(start), strict=True):
            state[...] = first
        return object_file.write(self._net, name, self._weights, memory), memory.size

    def _states(self, memory: np.ndarray) -> State:
        """Views of the states in a memory, each `[*batch, H]`."""

        def view(place: Place) -> np.ndarray:
            (at, row), units = self._written.states[place.cell][place.vector], self._network.units[place.cell]
            rows = memory[at : at + self._rows * row].reshape(self._rows, row)
            return rows[:, :units].reshape(*self._batch, units)

        return jax.tree.map(view, self._network.state, is_leaf=lambda leaf: isinstance(leaf, Place))


def _memory(count: int) -> np.ndarray:
    """Zeros that begin where a line of the caches does."""
    size = 4 * count
    if size >= WORTH_ASKING and hasattr(mmap, "MADV_HUGEPAGE"):
        how = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        whole = mmap.mmap(-1, -(-size // LARGE) * LARGE + LARGE, flags=how)
        whole.madvise(mmap.MADV_HUGEPAGE)
        numbers, multiple = np.frombuffer(whole, np.float32), LARGE
    else:
        numbers, multiple = np.zeros(count + 16, np.float32), 64
    start = -numbers.ctypes.data % multiple // 4
    return numbers[start : start + count]

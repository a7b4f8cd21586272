"""The host library, loaded: its handlers registered with XLA, and what it says of memory and weights."""

import ctypes
import dataclasses
import functools
import struct
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from gru_jax.scans.engines.cudnn import build
from gru_jax.scans.engines.cudnn.build import BuildError

HANDLERS = ("gru_jax_cudnn_forward", "gru_jax_cudnn_backward_data", "gru_jax_cudnn_backward_weights")
DTYPES = {"float32": 0, "float16": 2, "bfloat16": 9}
"""The dtypes that the host library serves, with cuDNN's numbers for them."""

_ROOM = 1024


@dataclasses.dataclass(frozen=True)
class Net:
    """What is the same in every call for one layer, or several.

    Attributes:
      dtype: of every array, one of `DTYPES`.
      input_size: I.
      hidden_size: H.
      layers: how many, one on top of the other.
      bidirectional: whether each layer runs in both directions.
      batch_major: whether x and y are `[B, T, ...]`, not `[T, B, ...]`.
      tf32: whether float32 products may be rounded to TF32.
      persistent: whether the recurrent matrix is to stay on the chip, where cuDNN has that.
    """

    dtype: str
    input_size: int
    hidden_size: int
    layers: int = 1
    bidirectional: bool = False
    batch_major: bool = False
    tf32: bool = False
    persistent: bool = False

    def asked(self, steps: int, batch: int) -> dict[str, int]:
        """The numbers that the host library wants to know, in its order."""
        own = (self.input_size, self.hidden_size, self.layers)
        flags = (self.bidirectional, self.batch_major, self.tf32, self.persistent)
        names = ("type", "input", "hidden", "layers", "bidirectional", "batch_major", "tf32", "persistent")
        values = (DTYPES[self.dtype], *own, *map(int, flags))
        return {**dict(zip(names, values, strict=True)), "steps": steps, "batch": batch}


class Sizes(NamedTuple):
    """Bytes that a call needs."""

    workspace: int
    reserve: int
    weights: int


def _is_whole(path: Path) -> bool:
    """Whether a file is as long as it says: loading an ELF file that was cut off ends the process by a signal."""
    with path.open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            return True  # not a file of this kind: the loader says so
        (sections,) = struct.unpack_from("<Q", head, 0x28)
        size, count = struct.unpack_from("<HH", head, 0x3A)
        return file.seek(0, 2) >= sections + size * count


class Library:
    """A host library and the platform of XLA that its handlers are registered for.

    Args:
      path: of the shared library.
      platform: "CUDA"; "cpu" for one that was built to run on host memory.

    Raises:
      BuildError: when it cannot be loaded.
    """

    def __init__(self, path: Path, platform: str = "CUDA") -> None:
        try:
            if not _is_whole(path):
                raise OSError("it ends before its end")
            self._functions = ctypes.CDLL(str(path))
            for name in HANDLERS:
                handler = jax.ffi.pycapsule(getattr(self._functions, name))
                jax.ffi.register_ffi_target(name, handler, platform=platform)
        except (OSError, AttributeError) as error:
            fix = "gru-jax build-kernels --force builds it anew"
            raise BuildError(f"{path} cannot be loaded: {error}; {fix}") from error
        self._platform = platform
        self._sizes = functools.cache(self._ask_for_sizes)
        self._places = functools.cache(self._ask_for_places)

    def sizes(self, net: Net, steps: int, batch: int, training: bool) -> Sizes:
        """What one call needs of memory on the device."""
        return self._sizes(net, steps, batch, training)

    def places(self, net: Net) -> np.ndarray:
        """Where matrices and biases begin in the weights, in elements: `[parts, 6, 2]`, as `packing.places`."""
        return self._places(net)

    def problem(self, net: Net) -> str | None:
        """Why cuDNN does not run such a net here; None where it does."""
        try:
            self.sizes(net, 1, 1, True)
        except RuntimeError as error:
            return str(error)
        return None

    def _ask_for_sizes(self, net: Net, steps: int, batch: int, training: bool) -> Sizes:
        found = (ctypes.c_size_t * 3)()
        self._answer("gru_jax_cudnn_sizes", net.asked(steps, batch), ctypes.c_int(training), found)
        return Sizes(*found)

    def _ask_for_places(self, net: Net) -> np.ndarray:
        found = np.zeros((net.layers * (1 + net.bidirectional), 6, 2), np.int64)
        self._answer("gru_jax_cudnn_places", net.asked(1, 1), found.ctypes.data_as(ctypes.c_void_p))
        return found

    def _answer(self, function: str, asked: dict[str, int], *arguments: object) -> None:
        device = jax.local_devices()[0].local_hardware_id if self._platform == "CUDA" else 0
        numbers = (ctypes.c_int64 * len(asked))(*asked.values())
        message = ctypes.create_string_buffer(_ROOM)
        call = getattr(self._functions, function)
        code = call(ctypes.c_int64(device), numbers, *arguments, message, ctypes.c_int64(_ROOM))
        if code:
            raise RuntimeError(f"cuDNN: {message.value.decode(errors='replace')}")


_lock = threading.Lock()


@functools.cache
def _load() -> Library:
    return Library(build.build().path)


def loaded() -> Library:
    """The host library of this process, built at its first use.

    Raises:
      BuildError: when it can be neither found, nor built.
    """
    # Whoever comes second waits for the build instead of making one too.
    with _lock:
        return _load()

"""The processes that make one run together: how they meet, agree on something, and part.

jax.distributed brings them together and carries what they compute; `gru_jax.runs.lifelines` lets each know at
once when another one ends.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gru_jax.config.sections.devices import DistributedConfig
from gru_jax.runs.lifelines import ORDERLY, Lifelines
from gru_jax.runs.on_disk.run_directory import RunError
from gru_jax.types import Options, Plain

# jax's own watch, for a machine that is cut off; the end of a process is heard of at once.
_HEARTBEAT_S = 20
_MEETING_S = 300
_PATIENCE_S = 5.0
_HEARING_S = 3.0
# How many steps later a request to stop is looked at, so that looking does not wait for the step.
_LATE = 2
# A file system over a network may take a moment to show a file.
_LOOKS, _LOOK_S = 20, 0.25


class Group:
    """The processes of this run; of a run of one process there is nothing to agree on.

    Attributes:
        index: of this process; 0 alone writes and speaks.
        count: of all.
    """

    def __init__(self, index: int = 0, count: int = 1, lifelines: Lifelines | None = None) -> None:
        self.index, self.count, self._lifelines = index, count, lifelines
        self._asked: deque[jax.Array] = deque()
        self._any: Callable[[jax.Array], jax.Array] | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.index == 0

    def from_first(self, value: Plain = None) -> Plain:
        """The value, of JSON, that the first process has given; all have to ask for it."""
        if self.count == 1:
            return value
        data = np.frombuffer(json.dumps(value).encode(), np.uint8) if self.first else np.zeros(0, np.uint8)
        size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
        data = data if self.first else np.zeros(size, np.uint8)
        sent = np.asarray(multihost_utils.broadcast_one_to_all(data))
        return json.loads(sent.astype(np.uint8).tobytes())

    def from_all(self, value: int) -> list[int]:
        """The value that each process has given, by its index."""
        if self.count == 1:
            return [value]
        return [int(each) for each in np.asarray(multihost_utils.process_allgather(np.int32(value))).reshape(-1)]

    def require_shared(self, folder: Path) -> None:
        """Raises RunError unless every process sees what the first one writes into a folder."""
        if self.count == 1:
            return
        name = self.from_first(f".probe-{secrets.token_hex(8)}.tmp")
        if self.first:
            (folder / name).touch()
        self.from_all(0)  # not before it is written
        seen = any(_sees(folder / name) for _ in range(_LOOKS))
        blind = [index for index, sees in enumerate(self.from_all(int(seen))) if not sees]
        if self.first:
            (folder / name).unlink(missing_ok=True)
        if blind:
            raise RunError(
                f"process {blind[0]} does not see {folder}, where process 0 writes the run; all processes need one"
                " directory that they share: name it with --out"
            )

    def stops(self, requested: bool) -> bool:
        """Whether any process was asked to stop; the same answer, at the same step, in all of them.

        Args:
            requested: whether this one was; looked at two calls later, when the answer is here without waiting.
        """
        if self.count == 1:
            return requested
        if self._any is None:
            mesh = Mesh(np.array(jax.devices()), ("all",))
            self._split = NamedSharding(mesh, PartitionSpec("all"))
            self._any = jax.jit(lambda asked: asked.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))
        mine = np.full(jax.local_device_count(), requested, np.int32)
        self._asked.append(self._any(jax.make_array_from_process_local_data(self._split, mine)))
        return len(self._asked) > _LATE and bool(self._asked.popleft())

    def hear_of_others(self) -> None:
        """After a failed computation: waits a moment for the end of another process, which would be why, and ends this.

        A collective operation that fails knows neither which process is gone nor what became of it.
        """
        if self._lifelines is not None:
            time.sleep(_HEARING_S)

    def leave(self, code: int) -> None:
        """The end of this process's part, with an exit code; if it is a failure, the process ends here.

        The others end with the same code, rather than wait for this process forever.
        """
        if self._lifelines is None:
            return
        self._lifelines.farewell(code)
        if code not in ORDERLY:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            # Not sys.exit: jax would wait for processes that are about to end as this one does.
            os._exit(code)


ALONE = Group()
"""The group of a run of one process."""


def _sees(path: Path) -> bool:
    if path.exists():
        return True
    time.sleep(_LOOK_S)
    return False


def join(section: DistributedConfig, say: Callable[[str], None]) -> Group:
    """Meets the other processes of the run; waits until all are here.

    Args:
        section: of the config.
        say: what tells people that this takes long.

    Raises:
        RunError: they cannot be found, or do not come.
    """
    if section.mode == "off":
        return ALONE
    known: Options = {}
    if section.mode == "manual":
        known = {
            "coordinator_address": section.coordinator,
            "num_processes": section.processes,
            "process_id": section.process_id,
            "cluster_detection_method": "deactivate",
        }
    waiting = threading.Timer(_PATIENCE_S, say, [f"waiting for the other processes of the run, at most {_MEETING_S} s"])
    waiting.start()
    try:
        jax.distributed.initialize(**known, heartbeat_timeout_seconds=_HEARTBEAT_S, initialization_timeout=_MEETING_S)
    except (ValueError, RuntimeError) as error:
        raise RunError(_why_not(section, error)) from error
    finally:
        waiting.cancel()
    with _no_output_of_libraries():
        host = socket.gethostname() if section.coordinator is None else section.coordinator.rpartition(":")[0]
        return _with_lifelines(host)


def _with_lifelines(host: str) -> Group:
    group = Group(jax.process_index(), jax.process_count())
    if group.count == 1:
        return group
    lifelines = Lifelines(group.index, group.count, host)
    lifelines.connect(group.from_first(lifelines.address))
    return Group(group.index, group.count, lifelines)


def _why_not(section: DistributedConfig, error: Exception) -> str:
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if section.mode == "auto" and isinstance(error, ValueError):
        return (
            "distributed.mode 'auto' finds no cluster that has started this process (SLURM, TPU pod, Kubernetes, MPI);"
            " on one machine: gru-jax launch -n 2 -- run ...; for a run of one process: distributed.mode=off"
        )
    return f"the processes of this run did not meet: {said}"


@contextlib.contextmanager
def _no_output_of_libraries() -> Iterator[None]:
    """Keeps what Gloo prints when processes connect off standard output, which is ours."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)

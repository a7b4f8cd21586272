"""A connection from every process of a run to the first one, by which each hears at once that another has ended.

What a dead process owes the others they would wait for in vain: a collective operation on CPUs does not fail, it hangs.
A connection that closes without a farewell is a death; the process that hears of one says so and ends.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from typing import IO

from gru_jax.runs.exit_codes import DIVERGED, DONE, STOPPED
from gru_jax.types import Plain

_CONNECT_S = 15.0
_SAYS_IT_ITSELF_S = 5.0
"""What one process has found wrong most often all find, and the first one says it where it is read."""

ORDERLY = (DONE, DIVERGED, STOPPED)
"""Exit codes to which all processes come together: done, diverged, stopped."""


class Lifelines:
    """Those of one process.

    Args:
        index: of this process.
        count: of all.
        host: by which the others reach the first one.
    """

    def __init__(self, index: int, count: int, host: str) -> None:
        self._index, self._count = index, count
        self._peers: dict[int, socket.socket] = {}
        self._gone: set[int] = set()
        self._changing = threading.Lock()
        self._server: socket.socket | None = None
        self.address: list[Plain] = []
        if index == 0:
            here = host if host in ("127.0.0.1", "localhost") else ""
            self._server = socket.create_server((here, 0), backlog=count)
            self._token = secrets.token_hex(16)
            self.address = [host, self._server.getsockname()[1], self._token]

    def connect(self, address: list[Plain]) -> None:
        """Connects; where that is not possible, only jax's own, slower watch tells of a death.

        Args:
            address: that of the first process.
        """
        if self._server is not None:
            threading.Thread(target=self._accept, daemon=True).start()
            return
        host, port, token = address
        try:
            peer = socket.create_connection((host, port), timeout=_CONNECT_S)
            peer.settimeout(None)
            peer.sendall(json.dumps({"token": token, "process": self._index}).encode() + b"\n")
        except OSError as error:
            print(f"warning: process {self._index} has no line to process 0: {error}", file=sys.stderr, flush=True)
            return
        self._peers[0] = peer
        threading.Thread(target=self._listen, args=(0, peer.makefile("rb")), daemon=True).start()

    def _accept(self) -> None:
        assert self._server is not None
        while len(self._peers) < self._count - 1:
            peer, _ = self._server.accept()
            threading.Thread(target=self._greet, args=(peer,), daemon=True).start()

    def _greet(self, peer: socket.socket) -> None:
        try:
            peer.settimeout(_CONNECT_S)
            lines = peer.makefile("rb")
            said = json.loads(lines.readline(200))
            peer.settimeout(None)
            known = said["token"] == self._token
            index = int(said["process"])
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            peer.close()
            return
        self._peers[index] = peer
        self._listen(index, lines)

    def _listen(self, index: int, lines: IO[bytes]) -> None:
        """Waits for what a process has to say; its silence at the end of the line is its death."""
        try:
            for line in lines:
                said = json.loads(line)
                self._heard(said["of"], said["code"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if index not in self._gone:
            self._heard(index, None)

    def _heard(self, index: int, code: int | None) -> None:
        """That a process has ended, with a code of its own or without."""
        self._gone.add(index)
        if code in ORDERLY:
            return
        if code is not None:
            time.sleep(_SAYS_IT_ITSELF_S)
        with self._changing:  # never given back: the first to come ends the process
            self._tell(index, code)
            how = f"has ended with exit code {code}, so process {self._index} ends too"
            if code is None:
                how = f"is gone, so process {self._index} ends too; the same command goes on from the newest checkpoint"
            print(f"error: process {index} of {self._count} {how}", file=sys.stderr, flush=True)
            os._exit(1 if code is None else code)

    def farewell(self, code: int) -> None:
        """Tells the others that this process ends by itself, with an exit code."""
        self._gone.add(self._index)
        self._tell(self._index, code)

    def _tell(self, index: int, code: int | None) -> None:
        line = json.dumps({"of": index, "code": code}).encode() + b"\n"
        for other, peer in list(self._peers.items()):
            if other != index:
                with contextlib.suppress(OSError):  # it is gone as well
                    peer.sendall(line)

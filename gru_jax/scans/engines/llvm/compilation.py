"""Programs are compiled by processes of their own, one for each that is compiled at a time, which LLVM may end."""

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path

import llvmlite

from gru_jax.scans.engines.llvm import compiler


class NoKernel(Exception):
    """There is no kernel for a program, and why."""


def _compiled_here(program: str) -> bytes:
    """Where no process may be started, this one has to do."""
    try:
        return compiler.compiled(program)
    except RuntimeError as error:
        raise NoKernel(str(error)) from error


class Coming:
    """A program that is compiled in the background."""

    def __init__(self, program: str) -> None:
        self._program, self._owner, self._done = program, os.getpid(), Future[bytes]()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._done.set_result(asked(self._program, times=1))
        except BaseException as error:  # whoever waits is told
            self._done.set_exception(error)

    def code(self) -> bytes:
        """The code, once it is there.

        Raises:
          NoKernel: with LLVM's words.
        """
        if os.getpid() == self._owner:  # one that was forked off has no such thread
            with contextlib.suppress(NoKernel):
                return self._done.result()
        return asked(self._program)


def asked(program: str, times: int = 2) -> bytes:
    """A program's object file.

    Args:
      program: its text.
      times: how many processes may be lost over it.

    Raises:
      NoKernel: with LLVM's words.
    """
    lost = ""
    for _ in range(times):  # one that was lost to something else, or has just ended because it was idle, gets a second
        try:
            compiling = _idle() or _Compiler()
        except OSError:
            return _compiled_here(program)
        found = compiling.ask(program)
        if found is not None:
            _COMPILERS.append(compiling)
            done, answer = found
            if done:
                return answer
            raise NoKernel(answer.decode())
        lost = compiling.last_words
    raise NoKernel(lost)


def _idle() -> "_Compiler | None":
    """One that does nothing, taken out of the list, which threads share; those that have ended are cleared away."""
    with contextlib.suppress(IndexError):
        while True:
            compiling = _COMPILERS.pop()
            if compiling.alive():
                return compiling
            compiling.end()
    return None


class _Compiler:
    """A process that compiles.

    Attributes:
      last_words: the last line that it wrote before it ended, such as LLVM's assertion.
    """

    last_words = ""

    def __init__(self) -> None:
        if "python" not in Path(sys.executable or "").name.lower():  # Python inside of another program
            raise OSError(f"{sys.executable} does not run Python files")
        self.owner, self.errors = os.getpid(), tempfile.TemporaryFile()  # noqa: SIM115
        near = str(Path(llvmlite.__file__).parent.parent)
        self.process = subprocess.Popen(
            [sys.executable, "-I", compiler.__file__, near], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, start_new_session=True,  # keys that end a foreground process are not meant for it
        )  # fmt: skip
        atexit.register(self.end)

    def alive(self) -> bool:
        """Whether it can be asked; a process that was forked off has none yet."""
        return self.owner == os.getpid() and self.process.poll() is None

    def ask(self, program: str) -> tuple[bool, bytes] | None:
        """Whether it could compile a program, and the code or an error's text; None where the process is lost."""
        assert self.process.stdin is not None and self.process.stdout is not None
        data, found = program.encode(), None
        try:
            self.process.stdin.write(compiler.SIZE.pack(len(data)) + data)
            self.process.stdin.flush()
            found = compiler.received(self.process.stdout)
        except OSError:
            pass
        finally:
            if found is None:  # also where a signal's handler has raised: half an answer must not stay in the pipe
                self.end()
        return found

    def end(self) -> None:
        """Ends it."""
        if self.owner != os.getpid() or self.errors.closed:
            return
        atexit.unregister(self.end)
        self.process.kill()
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        self.last_words = lines[-1][-200:] if lines else f"its process ended with {self.process.returncode}"
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]


_COMPILERS: list[_Compiler] = []
"""Those that do nothing: as many as there were programs to compile at a time."""

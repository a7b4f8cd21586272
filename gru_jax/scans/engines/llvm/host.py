"""The processor that kernels are written for, and their compilation."""

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import llvmlite
from llvmlite import binding

from gru_jax.scans.engines import cache
from gru_jax.scans.engines.llvm import compiler
from gru_jax.scans.engines.llvm.code import I64, POINTER, Program


class Host(NamedTuple):
    """What a kernel has to know of a processor.

    Attributes:
      lanes: float32 numbers of a vector.
      registers: vectors that it holds.
    """

    lanes: int
    registers: int

    @property
    def sums(self) -> int:
        """Vectors of sums in a tile; the other registers hold what is multiplied."""
        return self.registers * 3 // 4


@functools.cache
def host() -> Host:
    """This processor, by the widest vectors that it has."""
    binding.initialize_native_target()
    features = binding.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl"):
        return Host(16, 32)
    if features.get("avx2") and features.get("fma"):
        return Host(8, 16)
    if features.get("neon"):
        return Host(4, 32)
    return Host(4, 16)


@functools.cache
def problem() -> str | None:
    """Why nothing can be compiled for this machine, None where it can."""
    if sys.byteorder != "little" or struct.calcsize("P") != 8:
        return "no 64-bit processor of the usual byte order"
    try:
        program = Program(host().lanes)
        write = lambda code, at: code.builder.inttoptr(code.add(0, code.builder.ptrtoint(at, I64)), POINTER)  # noqa: E731
        program.function("nothing", [POINTER], write, POINTER)
        _linked(_compiled(str(program.module)))
    except Exception as error:  # whatever a compiler may say on a machine that nobody has tried
        return f"its code cannot be compiled ({type(error).__name__}: {error})"
    return None


class NoKernel(Exception):
    """There is no kernel for a program, and why."""


LIMIT = 2**28
"""Bytes of kernels that a process keeps at most, thousands of them. None is ever freed, for XLA holds its address."""

_ENGINES: dict[str, Any] = {}
"""What was compiled, by its name."""
_SIZES: dict[str, int] = {}
"""How many bytes of code each of them has."""
_REGISTERED: set[str] = set()
_FAILED: dict[str, NoKernel] = {}
_LOCK = threading.RLock()


def register(program: Program, handler: str) -> str:
    """Compiles a program and makes its handler known to XLA; the name to call it by.

    Raises:
      NoKernel: where LLVM could not, or there are enough.
    """
    with _LOCK:
        name, engine = _loaded(program, handler)
        if name not in _REGISTERED:
            jax.ffi.register_ffi_target(name, _capsule(engine.get_function_address(handler)), platform="cpu")
            _REGISTERED.add(name)
    return name


def addresses(program: Program, *functions: str) -> tuple[int, ...]:
    """Compiles a program; where some of its functions are. They stay there.

    Raises:
      NoKernel: where LLVM could not, or there are enough.
    """
    with _LOCK:
        engine = _loaded(program, functions[0])[1]
        return tuple(engine.get_function_address(function) for function in functions)


def object_file(program: Program) -> bytes:
    """A program compiled for this processor so that a linker can take it.

    Raises:
      NoKernel: where LLVM could not.
    """
    with _LOCK:
        return _asked(compiler.LINKED + str(program.module))


def _loaded(program: Program, handler: str) -> tuple[str, Any]:
    """A program's name and what holds its code."""
    text = str(program.module)
    name = f"gru_jax.{handler}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if name in _FAILED:
        raise _FAILED[name]
    if name not in _ENGINES:
        if sum(_SIZES.values()) >= LIMIT:
            raise NoKernel(
                f"the {len(_ENGINES)} kernels of this process take {LIMIT >> 20} MiB; every batch size and option"
                f" needs one, so use fewer"
            )
        try:
            code = _compiled(text)
        except NoKernel as error:
            _FAILED[name] = NoKernel(f"LLVM cannot compile this kernel for this processor ({error})")
            raise _FAILED[name] from error
        _ENGINES[name], _SIZES[name] = _linked(code), len(code)
    return name, _ENGINES[name]


def warn(who: str, error: NoKernel) -> None:
    """Says, once for a reason, that XLA's loop runs in its place."""
    if error.args[0] not in _SAID:
        _SAID.add(error.args[0])
        warnings.warn(f"{who}: {error}; XLA's loop runs in its place", RuntimeWarning, stacklevel=2)


_SAID: set[str] = set()


def _linked(code: bytes) -> Any:
    """An engine with the functions of an object file: nothing but their code stays in memory."""
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), compiler.machine())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _compiled(program: str) -> bytes:
    """A program's object file: one that an earlier process kept, or made by a process that LLVM may end.

    Raises:
      NoKernel: with LLVM's words.
    """
    key = (program, *_made_by())
    code = cache.kept(*key)
    if code is None:
        with _LOCK:
            code = _asked(program)
        cache.keep(code, *key)
    return code


@functools.cache
def _made_by() -> tuple[str, ...]:
    """What code depends on besides its program: the compiler, how it is called, and the processor."""
    how = Path(compiler.__file__).read_text()
    processor = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    return how, llvmlite.__version__, str(binding.llvm_version_info), binding.get_default_triple(), *processor


def _compiled_here(program: str) -> bytes:
    """Where no process may be started, this one has to do."""
    try:
        return compiler.compiled(program)
    except RuntimeError as error:
        raise NoKernel(str(error)) from error


def _asked(program: str) -> bytes:
    global _COMPILER
    lost = ""
    for _ in range(2):  # one that was lost to something else, or has just ended because it was idle, gets a second one
        if _COMPILER is None or not _COMPILER.alive():
            if _COMPILER is not None:
                _COMPILER.end()
            try:
                _COMPILER = _Compiler()
            except OSError:
                return _compiled_here(program)
        found = _COMPILER.ask(program)
        if found is not None:
            done, answer = found
            if done:
                return answer
            raise NoKernel(answer.decode())
        lost = _COMPILER.last_words
    raise NoKernel(lost)


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


_COMPILER: _Compiler | None = None


def _capsule(address: int) -> Any:
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return make(address, None, None)

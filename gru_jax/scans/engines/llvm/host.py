"""The processor that kernels are written for, and their compilation."""

import ctypes
import functools
import hashlib
import struct
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import llvmlite
from llvmlite import binding

from gru_jax.cells import gru_layout
from gru_jax.scans.engines import cache
from gru_jax.scans.engines.llvm import compilation, compiler
from gru_jax.scans.engines.llvm.code import I64, POINTER, Program
from gru_jax.scans.engines.llvm.compilation import Coming, NoKernel


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
        _linked(_compiled(Source("nothing", host(), _nothing)))
    except Exception as error:  # whatever a compiler may say on a machine that nobody has tried
        return f"its code cannot be compiled ({type(error).__name__}: {error})"
    return None


def _nothing() -> Program:
    program = Program(host().lanes)
    write = lambda code, at: code.builder.inttoptr(code.add(0, code.builder.ptrtoint(at, I64)), POINTER)  # noqa: E731
    program.function("nothing", [POINTER], write, POINTER)
    return program


LIMIT = 2**28
"""Bytes of kernels that a process keeps at most, thousands of them. None is ever freed, for XLA holds its address."""

_ENGINES: dict[str, binding.ExecutionEngine] = {}
"""What was compiled, by its name."""
_SIZES: dict[str, int] = {}
"""How many bytes of code each of them has."""
_REGISTERED: set[str] = set()
_FAILED: dict[str, NoKernel] = {}
_COMING: dict[str, Coming] = {}
"""What is being compiled in the background."""
_LOCK = threading.RLock()


class Source(NamedTuple):
    """A program that is written only where nobody has compiled it before: writing one takes as long as a small model.

    Attributes:
      handler: the function that is asked for.
      made_from: all that the program depends on besides the source of this package, with a `repr` that tells it.
      write: writes it.
    """

    handler: str
    made_from: object
    write: Callable[[], Program]

    @classmethod
    def of(cls, program: Program, handler: str) -> "Source":
        """A program that is written already."""
        return cls(handler, str(program.module), lambda: program)

    @property
    def name(self) -> str:
        """Its name in this process, and in others on this machine."""
        told = repr((self.handler, self.made_from, _package()))
        return f"gru_jax.{self.handler}.{hashlib.sha256(told.encode()).hexdigest()[:32]}"


def ahead(source: Source) -> None:
    """Begins to compile a program in the background; `register` waits for it and says what became of it."""
    name = source.name
    with _LOCK:
        if name in _ENGINES or name in _FAILED or name in _COMING or cache.kept(name, *_made_by()) is not None:
            return
        _COMING[name] = Coming(_text(source))


def register(source: Source, suffix: str = "") -> str:
    """Compiles a program and makes its handler known to XLA; the name to call it by.

    Args:
      source: the program.
      suffix: what stands behind the handler's name in that of another one which is meant.

    Raises:
      NoKernel: where LLVM could not, or there are enough.
    """
    name = source.name + suffix
    with _LOCK:
        engine = _loaded(source)
        if name not in _REGISTERED:
            address = engine.get_function_address(source.handler + suffix)
            jax.ffi.register_ffi_target(name, _capsule(address), platform="cpu")
            _REGISTERED.add(name)
    return name


def addresses(program: Program, *functions: str) -> tuple[int, ...]:
    """Compiles a program; where some of its functions are. They stay there.

    Raises:
      NoKernel: where LLVM could not, or there are enough.
    """
    source = Source.of(program, functions[0])
    with _LOCK:
        engine = _loaded(source)
        return tuple(engine.get_function_address(function) for function in functions)


def object_file(program: Program) -> bytes:
    """A program compiled for this processor so that a linker can take it.

    Raises:
      NoKernel: where LLVM could not.
    """
    with _LOCK:
        return compilation.asked(compiler.LINKED + str(program.module))


def _loaded(source: Source) -> binding.ExecutionEngine:
    """What holds a program's code."""
    name = source.name
    if name in _FAILED:
        raise _FAILED[name]
    if name not in _ENGINES:
        if sum(_SIZES.values()) >= LIMIT:
            raise NoKernel(
                f"the {len(_ENGINES)} kernels of this process take {LIMIT >> 20} MiB; every batch size and option"
                f" needs one, so use fewer"
            )
        try:
            code = _compiled(source)
        except NoKernel as error:
            _FAILED[name] = NoKernel(f"LLVM cannot compile this kernel for this processor ({error})")
            raise _FAILED[name] from error
        _ENGINES[name], _SIZES[name] = _linked(code), len(code)
    return _ENGINES[name]


def warn(who: str, error: NoKernel) -> None:
    """Says, once for a reason, that XLA's loop runs in its place."""
    if error.args[0] not in _SAID:
        _SAID.add(error.args[0])
        warnings.warn(f"{who}: {error}; XLA's loop runs in its place", RuntimeWarning, stacklevel=2)


_SAID: set[str] = set()


def _linked(code: bytes) -> binding.ExecutionEngine:
    """An engine with the functions of an object file: nothing but their code stays in memory."""
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), compiler.machine())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _compiled(source: Source) -> bytes:
    """A program's object file: one that an earlier process kept, or made by a process that LLVM may end.

    Raises:
      NoKernel: with LLVM's words.
    """
    name = source.name
    key = (name, *_made_by())
    coming = _COMING.pop(name, None)
    code = cache.kept(*key) if coming is None else None
    if code is None:
        code = coming.code() if coming is not None else compilation.asked(_text(source))
        cache.keep(code, *key)
    return code


@functools.cache
def _package() -> str:
    """What programs depend on besides what they are made from: how they are written."""
    folder = Path(__file__).parent
    files = [*sorted(folder.rglob("*.py")), Path(gru_layout.__file__)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _made_by() -> tuple[str, ...]:
    """What code depends on besides its program: the compiler, how it is called, and the processor."""
    how = Path(compiler.__file__).read_text()
    processor = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    llvm = llvmlite.__version__, str(binding.llvm_version_info), binding.get_default_triple()
    return how, _in_a_hurry(), *llvm, *processor


def _in_a_hurry() -> str:
    """What stands before a program that is to be compiled quickly rather than well, as JAX's own option asks."""
    # No attribute of `jax.config`, as other options are.
    return compiler.QUICKLY if jax.config.values.get("jax_disable_most_optimizations") else ""


def _text(source: Source) -> str:
    """A program as the compiler takes it."""
    return _in_a_hurry() + str(source.write().module)


def _capsule(address: int) -> object:
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return make(address, None, None)

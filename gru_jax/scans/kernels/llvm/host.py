"""The processor that kernels are written for, and their compilation."""

import ctypes
import functools
import hashlib
import struct
import sys
import threading
from typing import Any, NamedTuple

import jax
from llvmlite import binding

from gru_jax.scans.kernels.llvm.code import I64, POINTER, Program


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
    _start()
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
        _compiled(str(program.module))
    except Exception as error:  # whatever a compiler may say on a machine that nobody has tried
        return f"its code cannot be compiled ({type(error).__name__}: {error})"
    return None


@functools.cache
def _start() -> None:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


def _machine() -> Any:
    """Each engine gets one of its own, and takes it along when it goes."""
    _start()
    target = binding.Target.from_default_triple()
    features = binding.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=binding.get_host_cpu_name(), features=features, opt=3, jit=True)


_ENGINES: dict[str, Any] = {}
"""What was compiled, by its name; kept as long as the process lives, for XLA may call it until then."""
_LOCK = threading.Lock()


def register(program: Program, handler: str) -> str:
    """Compiles a program and makes its handler known to XLA; the name to call it by."""
    text = str(program.module)
    name = f"gru_jax.{handler}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    with _LOCK:
        if name not in _ENGINES:
            engine = _compiled(text)
            address = engine.get_function_address(handler)
            jax.ffi.register_ffi_target(name, _capsule(address), platform="cpu")
            _ENGINES[name] = engine
    return name


def _compiled(program: str) -> Any:
    """An engine with a program's functions."""
    machine = _machine()
    module = binding.parse_assembly(program)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    # Everything that is worth it is unrolled and put into vectors as it is written.
    options = binding.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


def _capsule(address: int) -> Any:
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return make(address, None, None)

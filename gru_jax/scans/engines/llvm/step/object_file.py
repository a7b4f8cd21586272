"""A network's step as an object file that other programs link: its weights inside, its functions named after it."""

import numpy as np
from llvmlite import ir

from gru_jax.scans.engines.llvm import host
from gru_jax.scans.engines.llvm.code import I8, POINTER, Code, Program, Value
from gru_jax.scans.engines.llvm.step import program
from gru_jax.scans.engines.llvm.step.net import Net


def write(net: Net, name: str, weights: np.ndarray, start: np.ndarray) -> bytes:
    """The object file.

    Its functions are `void NAME_init(float *memory)`, which copies `start`, and `void NAME_step(float *memory, const
    float *x, float *y)`.

    Args:
      net: the network.
      name: in front of its functions' names.
      weights: laid out.
      start: the memory before the first step.

    Returns:
      Its bytes.

    Raises:
      NoKernel: with LLVM's words.
    """
    made = program.write.__wrapped__(net).program
    for function in made.module.functions:
        if not function.is_declaration:
            function.linkage = "internal"
    there = {key: _constant(made, key, array) for key, array in (("weights", weights), ("start", start))}
    step_of = made.module.get_global(program.STEP)

    def init(code: Code, memory: Value) -> None:
        copied = lambda i: code.builder.store(code.load_number(there["start"], i), code.at(memory, i))  # noqa: E731
        code.loop(0, start.size, copied)

    def stepping(code: Code, memory: Value, x: Value, y: Value) -> None:
        code.call(step_of, there["weights"], memory, x, y)

    made.function(f"{name}_init", [POINTER], init)
    made.function(f"{name}_step", [POINTER] * 3, stepping)
    return host.object_file(made)


def _constant(made: Program, name: str, numbers: np.ndarray) -> Value:
    """Numbers that are part of the program."""
    data = bytearray(np.ascontiguousarray(numbers, "<f4").tobytes())
    kind = ir.ArrayType(I8, len(data))
    constant = ir.GlobalVariable(made.module, kind, name)
    constant.initializer, constant.global_constant, constant.linkage = ir.Constant(kind, data), True, "internal"
    constant.align = 64
    return constant

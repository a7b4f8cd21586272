"""Whether a call's threads work in step, or its caller alone: what took less time in the calls before.

Threads in step wait for each other thousands of times, so that one neighbour on one of their cores makes them several
times slower than a single thread. Nobody can know that beforehand, and it changes. So every kernel remembers what a
step took both ways, and tries the slower way again now and then. No number depends on it.
"""

import sys
from collections.abc import Callable

from llvmlite import ir

from gru_jax.scans.engines.llvm.code import I1, I32, I64, POINTER, Code, Program, Value

AGAIN = 64
"""After how many calls the slower way is tried again."""

# Words for each magnitude of the number of steps, for what a call costs once is not to be taken for what a step does.
_CALLS, _TIME, _TRIED, _WORDS = 0, 1, 3, 5
"""Calls; nanoseconds of a step, in step and alone; in which call each was tried last."""
_MAGNITUDES = 65
_MONOTONIC = 6 if sys.platform == "darwin" else 1


def chosen(program: Program, name: str) -> ir.Function:
    """A function of the number of steps: whether the caller works alone this time."""

    def write(code: Code, steps: Value) -> Value:
        b, words = code.builder, _words(code, name, steps)
        call = b.atomic_rmw("add", code.word(words, _CALLS), I64(1), "monotonic")
        times, tried = ([_read(code, words, first + k) for k in (0, 1)] for first in (_TIME, _TRIED))
        faster = b.icmp_signed("<", times[1], times[0])
        stale = code.sub(call, b.select(faster, *tried))
        best = b.xor(faster, code.less(AGAIN - 1, stale))
        # In step first, and what the first call took says little: memory is touched for the first time.
        unknown = code.equal(times[0], 0)
        how = b.select(unknown, I1(0), b.or_(code.equal(times[1], 0), best))
        for k in (0, 1):
            with code.when(b.icmp_signed("==", how, I1(k))):
                _write(code, words, _TRIED + k, call)
        return b.select(b.icmp_signed("==", how, I1(1)), I64(1), I64(0))

    return program.function(f"{name}.alone", [I64], write, I64)


def remember(program: Program, name: str) -> ir.Function:
    """A function of the number of steps, of how they were done, and of the nanoseconds that it took."""

    def write(code: Code, steps: Value, alone: Value, took: Value) -> None:
        b, words = code.builder, _words(code, name, steps)
        first = code.less(_read(code, words, _CALLS), 2)
        of_step = code.add(code.div(took, b.select(code.less(0, steps), steps, I64(1))), 1)
        mine, other = (_read(code, words, code.add(_TIME, k)) for k in (alone, code.sub(1, alone)))
        # One call that was interrupted says little; what has not been tried for long counts as it is now.
        weight = b.select(code.less(other, mine), I64(2), I64(1))
        mean = code.div(code.add(code.mul(mine, code.sub(4, weight)), code.mul(of_step, weight)), 4)
        with code.when(b.not_(first)):
            _write(code, words, code.add(_TIME, alone), b.select(code.equal(mine, 0), of_step, mean))

    return program.function(f"{name}.remember", [I64] * 3, write)


def clock(program: Program) -> ir.Function:
    """A function: nanoseconds since some moment."""

    def write(code: Code) -> Value:
        at = code.builder.alloca(I64, 2)
        code.builder.call(program.outside("clock_gettime", [I32, POINTER], I32), [I32(_MONOTONIC), at])
        return code.add(code.mul(code.load_word(at, 0), 10**9), code.load_word(at, 1))

    return program.function("clock", [], write, I64)


def in_turn(code: Code, name: str, steps: Value, alone: Callable[[], None], in_step: Callable[[], None]) -> None:
    """Writes both ways, of which the one that is chosen is done and timed."""
    program = code.program
    how = code.call(chosen(program, name), steps)
    before = code.call(clock(program))
    with code.builder.if_else(code.equal(how, 1)) as (then, otherwise):
        with then:
            alone()
        with otherwise:
            in_step()
    code.call(remember(program, name), steps, how, code.sub(code.call(clock(program)), before))


def _words(code: Code, name: str, steps: Value) -> Value:
    """The words for a number of steps, in memory that lasts as long as the kernel."""
    module, name = code.program.module, f"{name}.memory"
    kind = ir.ArrayType(I64, _MAGNITUDES * _WORDS)
    if name not in module.globals:
        memory = ir.GlobalVariable(module, kind, name)
        memory.linkage, memory.initializer = "internal", ir.Constant(kind, None)
    zeros = code.builder.call(code.program.outside("llvm.ctlz.i64", [I64, I1], I64), [code.number(steps), I1(0)])
    there = code.builder.inttoptr(code.builder.ptrtoint(module.globals[name], I64), POINTER)
    return code.word(there, code.mul(zeros, _WORDS))


def _read(code: Code, words: Value, at: Value) -> Value:
    return code.builder.load_atomic(code.word(words, at), "monotonic", 8, typ=I64)


def _write(code: Code, words: Value, at: Value, value: Value) -> None:
    code.builder.atomic_rmw("xchg", code.word(words, at), value, "monotonic")

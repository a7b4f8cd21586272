"""Large pages for large results.

A C library gives the memory of large arrays back to the system as soon as they are freed, so that the next ones are
new pages again, each of which costs the system more time than a kernel needs to fill it. Pages of 2 MiB cost as much
for five hundred times the bytes.
"""

import sys

from gru_jax.scans.engines.llvm.code import I32, I64, POINTER, Code, Value

LARGE = 2**21
"""Bytes of a large page; if there are none of this size, the system declines."""
WORTH_ASKING = 2**22
"""Bytes of a result from which on the system is asked: of fewer, hardly a whole large page would be left."""
_HUGE = 14
"""MADV_HUGEPAGE of Linux: a hint, which changes nothing but how memory is handed out that nobody has touched yet."""


def ask(code: Code, data: Value, size: Value) -> None:
    """Writes the call that asks for large pages where a result of so many bytes will lie."""
    if not sys.platform.startswith("linux"):
        return
    b = code.builder
    with code.when(code.less(WORTH_ASKING - 1, size)):
        # Also for what shares its first page and its last: the result before or after it, most of the time.
        at = b.ptrtoint(data, I64)
        start = b.and_(at, I64(-LARGE))
        stop = b.and_(code.add(code.add(at, size), LARGE - 1), I64(-LARGE))
        advise = code.program.outside("madvise", [POINTER, I64, I32], I32)
        b.call(advise, [b.inttoptr(start, POINTER), code.sub(stop, start), I32(_HUGE)])

"""What XLA calls: a handler of its foreign function interface, and the threads among which it shares its work.

The threads are those that XLA has for its own operations. It promises neither that a task starts soon nor that two run
at the same time. So parts that do not need each other are taken one after the other by whoever is there, the caller
first, and there may be more of them than threads, so that one that comes late finds less left to do. Work that is done
in step by several threads waits a little for them to come, and else goes on without; where they keep coming late, the
caller does not ask them (`alone`).

What they have in common lives in a block of 64-bit words that is freed by the last who looks at it: a task may start
when the call that it was made for is long over.
"""

from collections.abc import Callable

from llvmlite import ir

from gru_jax.scans.engines.llvm import alone, pages
from gru_jax.scans.engines.llvm.code import I32, I64, POINTER, X86, Code, Program, Value

# Words of the job. Those that several threads write stand on cache lines of their own.
_REFERENCES, _CLAIMED, _DONE, _WAITING, _PHASE, _ARRIVED, _DOOR = range(0, 56, 8)
ARGUMENTS, RESULTS, STEPS, REVERSE = 56, 72, 88, 89
"""Where the pointers to arguments and results stand, the number of steps, and 1 where time runs the other way."""
REVERSED = ".reversed"
"""Behind the name of the function that XLA calls for that."""
_WORDS = 96

# Words of XLA's structures, version 0 of its interface (xla/ffi/api/c_api.h).
_FRAME_EXTENSION, _FRAME_API, _FRAME_CONTEXT, _FRAME_ARGS, _FRAME_RETS = 1, 2, 3, 9, 14
_BUFFER_DATA, _BUFFER_RANK, _BUFFER_DIMS = 3, 4, 5
_API_VERSION, _API_SCHEDULE = 4, 17
_METADATA = 3

_PATIENCE = 20_000
"""How often the caller looks whether the others have come: some hundred microseconds."""
_SPINS = 200
"""How often a waiting thread looks before it lets others run on its core."""
_OPEN, _SHUT = 1, 2


def handler(
    program: Program, name: str, *, arguments: int, results: int, time_axis: int, threads: int, together: bool,
    work: Callable[[Code, Value, Value, Value], None], parts: int | None = None,
    finish: Callable[[Code, Value], None] | None = None,
) -> None:  # fmt: skip
    """Writes the function that XLA calls, and one of the name with `REVERSED` that says so to the work.

    Args:
      program: the module it is written into.
      name: its name.
      arguments: how many arrays it is given.
      results: how many it writes.
      time_axis: the axis of the first argument that holds the steps.
      threads: how many may work at a time, the caller being one.
      together: whether they work in step; else each takes parts that need no other.
      work: writes the work of a part, from the job, the part and the number of parts.
      parts: into how many the work is cut, by default as many as there are threads; in step no other number is.
      finish: writes what the caller does when all parts are done.
    """

    parts = parts or threads

    def part(code: Code, job: Value, which: Value, of: Value) -> None:
        work(code, job, which, of)

    do_part = program.function(f"{name}.part", [POINTER, I64, I64], part)
    take = _together(program, name, do_part, parts) if together else _one_by_one(program, name, do_part, parts)

    def run(code: Code, frame: Value, reverse: Value) -> Value:
        b = code.builder
        extension = code.load_word(frame, _FRAME_EXTENSION, POINTER)
        asked = b.icmp_unsigned("!=", b.ptrtoint(extension, I64), I64(0))
        with b.if_else(asked) as (then, otherwise):
            with then:
                _answer(code, code.load_word(extension, _METADATA, POINTER), code.load_word(frame, _FRAME_API, POINTER))
            with otherwise:
                job = _job(code, frame, arguments, results, time_axis)
                code.store_word(reverse, job, REVERSE)

                def shared() -> None:
                    if threads > 1:
                        _schedule(code, frame, take.task, job, threads - 1)
                    code.call(take.caller, job)

                if together and threads > 1:
                    by_caller = lambda: code.call(do_part, job, 0, 1)  # noqa: E731
                    alone.in_turn(code, name, code.load_word(job, STEPS), by_caller, shared)
                else:
                    shared()
                if finish is not None:
                    finish(code, job)
                code.call(_release(program), job)
        return POINTER(None)

    run_so = program.function(f"{name}.run", [POINTER, I64], run, POINTER)
    for suffix, reverse in (("", 0), (REVERSED, 1)):
        forth = lambda code, frame, reverse=reverse: code.call(run_so, frame, reverse)  # noqa: E731
        program.function(name + suffix, [POINTER], forth, POINTER)


def barrier(program: Program) -> ir.Function:
    """A function of the job and a number of threads: none goes on before all have come."""

    def write(code: Code, job: Value, parties: Value) -> None:
        b = code.builder
        phase = _read(code, job, _PHASE)
        mine = _count(code, job, _WAITING)
        with b.if_else(code.equal(code.add(mine, 1), parties)) as (last, others):
            with last:
                _write(code, job, _WAITING, I64(0))
                _write(code, job, _PHASE, code.add(phase, 1))
            with others:
                _until(code, lambda: b.icmp_signed("!=", _read(code, job, _PHASE), phase))

    return program.function("barrier", [POINTER, I64], write)


class _Take:
    def __init__(self, caller: ir.Function, task: ir.Function) -> None:
        self.caller, self.task = caller, task


def _one_by_one(program: Program, name: str, do_part: ir.Function, parts: int) -> _Take:
    """Parts are claimed by who is free; the caller waits for those that others have claimed."""

    def claim(code: Code, job: Value) -> None:
        b = code.builder
        head, inside, after = (b.append_basic_block() for _ in range(3))
        b.branch(head)
        b.position_at_end(head)
        which = _count(code, job, _CLAIMED)
        b.cbranch(code.less(which, parts), inside, after)
        b.position_at_end(inside)
        code.call(do_part, job, which, parts)
        _count(code, job, _DONE)
        b.branch(head)
        b.position_at_end(after)

    claiming = program.function(f"{name}.claim", [POINTER], claim)

    def caller(code: Code, job: Value) -> None:
        code.call(claiming, job)
        if parts > 1:
            _until(code, lambda: code.equal(_read(code, job, _DONE), parts))

    def task(code: Code, job: Value) -> None:
        code.call(claiming, job)
        code.call(_release(program), job)

    return _Take(*(program.function(f"{name}.{f.__name__}", [POINTER], f) for f in (caller, task)))


def _together(program: Program, name: str, do_part: ir.Function, parts: int) -> _Take:
    """All parts at once if all threads come in time, else all of the work by the caller."""

    def caller(code: Code, job: Value) -> None:
        b = code.builder
        if parts == 1:
            code.call(do_part, job, 0, 1)
            return
        _until(code, lambda: code.equal(_read(code, job, _ARRIVED), parts - 1), at_most=_PATIENCE)
        all_here = code.equal(_read(code, job, _ARRIVED), parts - 1)
        opened = _decide(code, job, b.select(all_here, I64(_OPEN), I64(_SHUT)))
        all_here = b.and_(all_here, opened)
        with b.if_else(all_here) as (then, otherwise):
            with then:
                code.call(do_part, job, 0, parts)
                _until(code, lambda: code.equal(_read(code, job, _DONE), parts - 1))
            with otherwise:
                code.call(do_part, job, 0, 1)

    def task(code: Code, job: Value) -> None:
        b = code.builder
        mine = code.add(_count(code, job, _ARRIVED), 1)
        # XLA may run a task inside the call that hands it over: then nobody is there to open the door, and who has
        # waited long enough shuts it.
        _until(code, lambda: b.icmp_signed("!=", _read(code, job, _DOOR), I64(0)), at_most=20 * _PATIENCE)
        _decide(code, job, I64(_SHUT))
        with code.when(code.equal(_read(code, job, _DOOR), _OPEN)):
            code.call(do_part, job, mine, parts)
            _count(code, job, _DONE)
        code.call(_release(program), job)

    return _Take(*(program.function(f"{name}.{f.__name__}", [POINTER], f) for f in (caller, task)))


def _answer(code: Code, metadata: Value, api: Value) -> None:
    """Says which version of the interface this was written for: 0, and the minor one that asks."""
    b = code.builder
    version = code.load_word(api, _API_VERSION)
    minor = b.and_(version, I64(0xFFFFFFFF << 32))
    code.store_word(minor, metadata, 3)
    b.store(I32(0), code.word(metadata, 4))


def _job(code: Code, frame: Value, arguments: int, results: int, time_axis: int) -> Value:
    """A block with what all threads have to know."""
    program = code.program
    job = code.call(program.outside("malloc", [I64], POINTER), 8 * _WORDS)
    for word in (_REFERENCES, _CLAIMED, _DONE, _WAITING, _PHASE, _ARRIVED, _DOOR):
        code.store_word(1 if word == _REFERENCES else 0, job, word)
    for table, first, count in ((_FRAME_ARGS, ARGUMENTS, arguments), (_FRAME_RETS, RESULTS, results)):
        buffers = code.load_word(frame, table, POINTER)
        for i in range(count):
            buffer = code.load_word(buffers, i, POINTER)
            code.store_word(code.load_word(buffer, _BUFFER_DATA), job, first + i)
            if first == RESULTS:
                pages.ask(code, code.load_word(buffer, _BUFFER_DATA, POINTER), _bytes(code, buffer))
    first = code.load_word(code.load_word(frame, _FRAME_ARGS, POINTER), 0, POINTER)
    dims = code.load_word(first, _BUFFER_DIMS, POINTER)
    code.store_word(code.load_word(dims, time_axis), job, STEPS)
    return job


def _bytes(code: Code, buffer: Value) -> Value:
    """How many bytes of float32 an array has."""
    dims = code.load_word(buffer, _BUFFER_DIMS, POINTER)
    times = lambda k, size: [code.mul(size, code.load_word(dims, k))]  # noqa: E731
    return code.loop(0, code.load_word(buffer, _BUFFER_RANK), times, [I64(4)])[0]


def _schedule(code: Code, frame: Value, task: ir.Function, job: Value, number: int) -> None:
    """Hands a task to XLA's threads, so many times."""
    b = code.builder
    api = code.load_word(frame, _FRAME_API, POINTER)
    kind = ir.FunctionType(POINTER, [POINTER])
    schedule = b.inttoptr(code.load_word(api, _API_SCHEDULE), kind.as_pointer())
    asked = b.alloca(I64, 5)
    given = [I64(40), I64(0), code.load_word(frame, _FRAME_CONTEXT), b.ptrtoint(task, I64), b.ptrtoint(job, I64)]
    for i, value in enumerate(given):
        code.store_word(value, asked, i)
    for _ in range(number):
        b.atomic_rmw("add", code.word(job, _REFERENCES), I64(1), "acq_rel")
        error = b.call(schedule, [asked])
        # No pool of threads: nobody will come. The error is XLA's to free; one of a few bytes is left to it.
        with code.when(b.icmp_unsigned("!=", b.ptrtoint(error, I64), I64(0))):
            b.atomic_rmw("sub", code.word(job, _REFERENCES), I64(1), "acq_rel")


def _release(program: Program) -> ir.Function:
    def write(code: Code, job: Value) -> None:
        b = code.builder
        left = b.atomic_rmw("sub", code.word(job, _REFERENCES), I64(1), "acq_rel")
        with code.when(code.equal(left, 1)):
            code.call(program.outside("free", [POINTER]), job)

    return program.function("release", [POINTER], write)


def _count(code: Code, job: Value, word: int) -> Value:
    """Adds one to a word; what it was before."""
    return code.builder.atomic_rmw("add", code.word(job, word), I64(1), "acq_rel")


def _read(code: Code, job: Value, word: int) -> Value:
    return code.builder.load_atomic(code.word(job, word), "acquire", 8, typ=I64)


def _write(code: Code, job: Value, word: int, value: Value) -> None:
    code.builder.atomic_rmw("xchg", code.word(job, word), value, "acq_rel")


def _decide(code: Code, job: Value, how: Value) -> Value:
    """Opens the door or shuts it, for good; whether nobody had done so before."""
    b = code.builder
    return b.extract_value(b.cmpxchg(code.word(job, _DOOR), I64(0), how, "acq_rel", "acquire"), 1)


def _until(code: Code, holds: Callable[[], Value], at_most: int | None = None) -> None:
    """Looks again and again until something holds, or so many times."""
    b = code.builder
    head, again, after = (b.append_basic_block() for _ in range(3))
    before = b.block
    b.branch(head)
    b.position_at_end(head)
    looked = b.phi(I64)
    looked.add_incoming(I64(0), before)
    done = holds()
    if at_most is not None:
        done = b.or_(done, code.less(at_most, looked))
    b.cbranch(done, after, again)
    b.position_at_end(again)
    _pause(code)
    looked_now = code.add(looked, 1)
    with code.when(code.equal(b.urem(looked_now, I64(_SPINS)), 0)):
        b.call(code.program.outside("sched_yield", [], I32), [])
    looked.add_incoming(looked_now, b.block)
    b.branch(head)
    b.position_at_end(after)


def _pause(code: Code) -> None:
    """Tells the core that it waits."""
    if X86:
        code.builder.call(code.program.outside("llvm.x86.sse2.pause", []), [])

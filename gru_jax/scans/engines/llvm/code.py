"""Writing machine code: a thin layer over llvmlite's builder for loops, and for vectors of float32.

Numbers that are known when a kernel is written are Python's, and arithmetic on them is done here and now; the rest are
values of the program. Pointers are of bytes that hold float32; offsets count float32.
"""

import copy
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

Value = Any
"""A value of the program, or a Python number."""

I1, I8, I32, I64, FLOAT = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
POINTER = ir.PointerType()
X86 = platform.machine().lower() in ("x86_64", "amd64")


class Program:
    """A module of functions, for vectors of so many lanes."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.vector = ir.VectorType(FLOAT, lanes)
        self.module = ir.Module()
        self._prefix = ""
        self._made: dict[str, ir.Function] = {}

    def part(self, prefix: str) -> "Program":
        """The same module for a kernel beside others: its functions get a prefix, so that each has its own."""
        part = copy.copy(self)
        part._prefix = prefix
        return part

    def function(
        self, name: str, args: Sequence[ir.Type], write: Callable[..., Value], result: ir.Type | None = None
    ) -> ir.Function:
        """The function of this name; at the first call `write(code, *args)` writes it, and may return its result."""
        name = self._prefix + name
        if name not in self._made:
            made = ir.Function(self.module, ir.FunctionType(result or ir.VoidType(), args), name)
            made.attributes.add("noinline")
            made.attributes.add("nounwind")
            self._made[name] = made
            code = Code(self, ir.IRBuilder(made.append_basic_block()))
            found = write(code, *made.args)
            if result is None:
                code.builder.ret_void()
            else:
                code.builder.ret(found)
        return self._made[name]

    def outside(self, name: str, args: Sequence[ir.Type], result: ir.Type | None = None) -> ir.Function:
        """A function of C's library, or an intrinsic."""
        if name not in self._made:
            self._made[name] = ir.Function(self.module, ir.FunctionType(result or ir.VoidType(), args), name)
        return self._made[name]


class Code:
    """The body of a function, written from its first statement to its last."""

    def __init__(self, program: Program, builder: ir.IRBuilder) -> None:
        self.program, self.builder = program, builder
        self.lanes, self.vector = program.lanes, program.vector

    # Numbers.

    def number(self, a: Value) -> Value:
        """A whole number as a value."""
        return I64(a) if isinstance(a, int) else a

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        return self.builder.add(self.number(a), self.number(b))

    def sub(self, a: Value, b: Value) -> Value:
        """a - b."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return self.builder.sub(self.number(a), self.number(b))

    def mul(self, a: Value, b: Value) -> Value:
        """a * b."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        return self.builder.mul(self.number(a), self.number(b))

    def div(self, a: Value, b: Value) -> Value:
        """a // b, of what is not negative."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        return self.builder.udiv(self.number(a), self.number(b))

    def less(self, a: Value, b: Value) -> Value:
        """a < b."""
        return self.builder.icmp_signed("<", self.number(a), self.number(b))

    def equal(self, a: Value, b: Value) -> Value:
        """a == b."""
        return self.builder.icmp_signed("==", self.number(a), self.number(b))

    def smaller(self, a: Value, b: Value) -> Value:
        """The smaller of two."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.builder.select(self.less(a, b), self.number(a), self.number(b))

    # Flow.

    def loop(
        self, start: Value, stop: Value, body: Callable[..., Sequence[Value] | None], carried: Sequence[Value] = (),
        step: int = 1,
    ) -> list[Value]:  # fmt: skip
        """`carried = body(i, *carried)` for i from start, while i + step <= stop; what was carried at the end."""
        builder, start, stop = self.builder, self.number(start), self.number(stop)
        before = builder.block
        head, inside, after = (builder.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(I64)
        i.add_incoming(start, before)
        phis = [builder.phi(a.type) for a in carried]
        for phi, a in zip(phis, carried, strict=True):
            phi.add_incoming(a, before)
        builder.cbranch(builder.icmp_signed("<=", builder.add(i, I64(step)), stop), inside, after)
        builder.position_at_end(inside)
        found = body(i, *phis)
        i.add_incoming(builder.add(i, I64(step)), builder.block)
        for phi, a in zip(phis, found or () if phis else (), strict=True):
            phi.add_incoming(a, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return phis

    def rest(self, start: Value, stop: Value, step: int) -> Value:
        """Where such a loop ended."""
        count = self.div(self.sub(stop, start), step)
        return self.add(start, self.mul(count, step))

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """What is written inside is done where the condition holds."""
        with self.builder.if_then(condition):
            yield

    def choose(self, condition: Value, yes: Callable[[], list[Value]], no: Callable[[], list[Value]]) -> list[Value]:
        """The values of one of two pieces of code, of which only that one is done."""
        b, ends, found = self.builder, [], []
        with b.if_else(condition) as branches:
            for branch, write in zip(branches, (yes, no), strict=True):
                with branch:
                    found.append(write())
                    ends.append(b.block)
        phis = [b.phi(a.type) for a in found[0]]
        for values, end in zip(found, ends, strict=True):
            for phi, value in zip(phis, values, strict=True):
                phi.add_incoming(value, end)
        return phis

    def call(self, function: ir.Function, *args: Value) -> Value:
        """Calls a function."""
        return self.builder.call(function, [self.number(a) if isinstance(a, int) else a for a in args])

    # Memory.

    def at(self, pointer: Value, offset: Value) -> Value:
        """The pointer, so many float32 further."""
        if isinstance(offset, int) and offset == 0:
            return pointer
        return self.builder.gep(pointer, [self.number(offset)], source_etype=FLOAT)

    def load(self, pointer: Value, offset: Value = 0) -> Value:
        """A vector."""
        return self.builder.load(self.at(pointer, offset), typ=self.vector, align=4)

    def store(self, value: Value, pointer: Value, offset: Value = 0) -> None:
        """Writes a vector."""
        self.builder.store(value, self.at(pointer, offset), align=4)

    def store_past_caches(self, value: Value, pointer: Value, offset: Value = 0) -> None:
        """Writes a vector to an address that is a multiple of its size, and leaves the caches to others.

        Other threads may see it late: `finish_stores` before they are told that it is there.
        """
        stored = self.builder.store(value, self.at(pointer, offset), align=4 * self.lanes)
        stored.set_metadata("nontemporal", self.program.module.add_metadata([I32(1)]))

    def finish_stores(self) -> None:
        """Makes everybody see what was written past the caches."""
        if X86:
            self.builder.call(self.program.outside("llvm.x86.sse.sfence", []), [])

    def load_first(self, count: int, pointer: Value, offset: Value = 0) -> Value:
        """The first `count` numbers of a vector, 0 in the other lanes, without looking at memory behind them."""
        if count == self.lanes:
            return self.load(pointer, offset)
        found, done = ir.Constant(self.vector, None), 0
        for size in _powers(count):
            here = self.at(self.at(pointer, offset), done)
            if size == 1:
                # As a number: passes of LLVM end the process at a vector of one.
                found = self.builder.insert_element(found, self.load_number(here), I32(done))
                break
            kind = ir.VectorType(FLOAT, size)
            piece = self.builder.load(here, typ=kind, align=4)
            # Widened, then put in its place.
            wide = self.builder.shuffle_vector(
                piece, ir.Constant(kind, ir.Undefined),
                ir.Constant(ir.VectorType(I32, self.lanes), [min(lane, size - 1) for lane in range(self.lanes)]),
            )  # fmt: skip
            places = [
                self.lanes + lane - done if done <= lane < done + size else lane for lane in range(self.lanes)
            ]
            found, done = self.shuffle(found, wide, places), done + size
        return found

    def store_first(self, count: int, value: Value, pointer: Value, offset: Value = 0) -> None:
        """Writes the first `count` numbers of a vector and nothing behind them."""
        if count == self.lanes:
            self.store(value, pointer, offset)
            return
        done = 0
        for size in _powers(count):
            here = self.at(self.at(pointer, offset), done)
            if size == 1:
                self.builder.store(self.builder.extract_element(value, I32(done)), here, align=4)
                break
            lanes = ir.Constant(ir.VectorType(I32, size), [done + lane for lane in range(size)])
            piece = self.builder.shuffle_vector(value, ir.Constant(self.vector, ir.Undefined), lanes)
            self.builder.store(piece, here, align=4)
            done += size

    def load_number(self, pointer: Value, offset: Value = 0) -> Value:
        """A single float32."""
        return self.builder.load(self.at(pointer, offset), typ=FLOAT, align=4)

    def room(self, size: int) -> Value:
        """Memory for so many float32 until the function returns."""
        entry = self.builder.function.entry_basic_block
        with self.builder.goto_block(entry):
            at = self.builder.alloca(FLOAT, size)
            at.align = 64
            return self.builder.inttoptr(self.builder.ptrtoint(at, I64), POINTER)

    def bytes(self, pointer: Value, offset: Value) -> Value:
        """The pointer, so many bytes further."""
        return self.builder.gep(pointer, [self.number(offset)], source_etype=I8)

    def flag(self, pointer: Value, offset: Value) -> Value:
        """A boolean of an array of them."""
        byte = self.builder.load(self.bytes(pointer, offset), typ=I8)
        return self.builder.icmp_unsigned("!=", byte, I8(0))

    def bit(self, which: int, pointer: Value, offset: Value) -> Value:
        """Whether a bit is set in a byte of an array."""
        byte = self.builder.load(self.bytes(pointer, offset), typ=I8)
        return self.builder.icmp_unsigned("!=", self.builder.and_(byte, I8(which)), I8(0))

    def word(self, pointer: Value, index: Value) -> Value:
        """The address of a 64-bit word."""
        return self.builder.gep(pointer, [self.number(index)], source_etype=I64)

    def load_word(self, pointer: Value, index: Value, kind: ir.Type = I64) -> Value:
        """A 64-bit word, or the pointer that stands there."""
        return self.builder.load(self.word(pointer, index), typ=kind)

    def store_word(self, value: Value, pointer: Value, index: Value) -> None:
        """Writes one."""
        self.builder.store(self.number(value), self.word(pointer, index))

    # Vectors.

    def spread(self, a: Value) -> Value:
        """A number in all lanes."""
        if isinstance(a, float):
            return ir.Constant(self.vector, [a] * self.lanes)
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), a, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, ir.Constant(self.vector, ir.Undefined), zeros)

    def only_first(self, count: int, a: Value, others: Value) -> Value:
        """The first lanes of one vector, the rest of another."""
        if count == self.lanes:
            return a
        return self.shuffle(a, others, [lane if lane < count else self.lanes + lane for lane in range(self.lanes)])

    def over_lanes(self, join: Callable[[Value, Value], Value], a: Value) -> Value:
        """The numbers of a vector joined, such as added up, in all lanes."""
        size = 1
        while size < self.lanes:
            a = join(a, self.shuffle(a, a, [lane ^ size for lane in range(self.lanes)]))
            size *= 2
        return a

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""
        return self.intrinsic("fma", a, b, c)

    def rounded_to_bfloat16(self, a: Value) -> Value:
        """The nearest bfloat16, of two the even one, as a float32; NaN stays NaN."""
        b, integers = self.builder, ir.VectorType(I32, self.lanes)
        same = lambda number: ir.Constant(integers, [number] * self.lanes)  # noqa: E731
        bits = b.bitcast(a, integers)
        odd = b.and_(b.lshr(bits, same(16)), same(1))
        up = b.add(b.add(bits, same(0x7FFF)), odd)
        whole = b.bitcast(b.and_(up, same(0xFFFF0000)), self.vector)
        return b.select(b.fcmp_unordered("uno", a, a), a, whole)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Some lanes of two vectors, those of the second counted on."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))

    def transposed(self, rows: list[Value]) -> list[Value]:
        """As many vectors as they have lanes, as a matrix, transposed: blocks of growing size change places."""
        rows, lanes = list(rows), range(self.lanes)
        size = 1
        while size < self.lanes:
            for i in lanes:
                if not i & size:
                    a, b = rows[i], rows[i + size]
                    rows[i] = self.shuffle(a, b, [k if not k & size else self.lanes + k - size for k in lanes])
                    rows[i + size] = self.shuffle(a, b, [k + size if not k & size else self.lanes + k for k in lanes])
            size *= 2
        return rows

    def intrinsic(self, name: str, *args: Value) -> Value:
        """One of LLVM's functions of vectors."""
        function = self.program.outside(f"llvm.{name}.v{self.lanes}f32", [self.vector] * len(args), self.vector)
        return self.builder.call(function, args)


def _powers(count: int) -> list[int]:
    """Powers of two, the largest first, that add up to a number."""
    return [1 << bit for bit in range(count.bit_length() - 1, -1, -1) if count >> bit & 1]

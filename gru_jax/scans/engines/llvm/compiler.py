"""The compilation of a program, in this process or, run as a script, in one of its own that others ask.

Where LLVM meets what it did not expect, it ends its process: no exception comes back. So kernels are compiled by a
process that may be lost, which hands back their code; it costs nothing but that process's start.
"""

import signal
import struct
import sys
from typing import IO

if __name__ == "__main__":
    sys.path.append(sys.argv[1])
from llvmlite import binding

SIZE = struct.Struct("<q")
"""Stands before what is sent either way; the answer is an error's text where it is below 0."""
IDLE = 60
"""Seconds without a program after which such a process ends."""


LINKED = "; to be linked\n"
"""The first line of a program that is to stand in a file, and may come to lie anywhere."""
QUICKLY = "; quickly\n"
"""That of a program whose compilation costs more than its run."""


def machine(linked: bool = False, quickly: bool = False) -> binding.TargetMachine:
    """This processor; each engine gets one of its own, and takes it along when it goes."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    features = binding.get_host_cpu_features().flatten()
    how = {"reloc": "pic", "codemodel": "small"} if linked else {"jit": True}
    name, opt = binding.get_host_cpu_name(), 0 if quickly else 3
    return target.create_target_machine(cpu=name, features=features, opt=opt, **how)


def compiled(program: str) -> bytes:
    """The object file of a program."""
    quickly = program.startswith(QUICKLY)
    made_for = machine(program.startswith(LINKED), quickly)
    module = binding.parse_assembly(program)
    module.verify()
    module.triple, module.data_layout = made_for.triple, str(made_for.target_data)
    # Everything that is worth it is unrolled and put into vectors as it is written.
    options = binding.create_pipeline_tuning_options(speed_level=0 if quickly else 1)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = binding.create_pass_builder(made_for, options)
    builder.getModulePassManager().run(module, builder)
    return made_for.emit_object(module)


def received(stream: IO[bytes]) -> tuple[bool, bytes] | None:
    """What was sent, and whether it is what was wanted; None where the other side is gone."""
    head = stream.read(SIZE.size)
    if len(head) < SIZE.size:
        return None
    (size,) = SIZE.unpack(head)
    data = stream.read(abs(size))
    return (size >= 0, data) if len(data) == abs(size) else None


def _serve() -> None:
    alarm = getattr(signal, "alarm", lambda seconds: None)
    while True:
        alarm(IDLE)
        asked = received(sys.stdin.buffer)
        alarm(0)
        if asked is None:
            return
        try:
            sign, answer = 1, compiled(asked[1].decode())
        except Exception as error:  # whatever it is, it is the asking process's to tell
            sign, answer = -1, f"{type(error).__name__}: {error}".encode()
        sys.stdout.buffer.write(SIZE.pack(sign * len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()

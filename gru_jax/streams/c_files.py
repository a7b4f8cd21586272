"""A stream's step for programs in C: an object file and its header."""

import platform
import re
from importlib.metadata import version
from pathlib import Path

from llvmlite import binding

from gru_jax import files
from gru_jax.streams.machine_code import MachineCode
from gru_jax.types import State

_HEADER = """\
/* One step of a recurrent network, for {processor}. Written by gru_jax {version}; link it with {name}.o. */
#ifndef {upper}_H
#define {upper}_H
#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_SEQUENCES {sequences}
#define {upper}_INPUTS {inputs}
#define {upper}_OUTPUTS {outputs}

/* The states, and what a step computes with. Several of them are several streams. */
typedef struct {{
    float numbers[{size}];
}} {name}_state;

/* Every sequence at its beginning. */
void {name}_init({name}_state *state);

/* x [{upper}_SEQUENCES][{upper}_INPUTS] to y [{upper}_SEQUENCES][{upper}_OUTPUTS], and the states to the next. */
void {name}_step({name}_state *state, const float *x, float *y);

#ifdef __cplusplus
}}
#endif
#endif
"""


def write(path: Path, running: MachineCode, start: State) -> tuple[Path, Path]:
    """Writes both files.

    Args:
      path: without their endings.
      running: what is written.
      start: the states before the first step.

    Returns:
      Their paths.

    Raises:
      ValueError: for a path whose end is no name in C.
    """
    name = path.name
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(
            f"Stream: export names functions after the end of its path, so that it has to be a name in C;"
            f" got {name!r}; use letters, digits and _, without an ending"
        )
    data, size = running.object_file(name, start)
    inputs, outputs = running.x.shape[-1], running.y.shape[-1]
    header = _HEADER.format(
        name=name, upper=name.upper(), version=version("gru-jax"), size=size, inputs=inputs, outputs=outputs,
        sequences=running.x.size // inputs, processor=f"{platform.machine()}, {binding.get_host_cpu_name()} or later",
    )  # fmt: skip
    paths = path.with_name(f"{name}.o"), path.with_name(f"{name}.h")
    files.replace(paths[0], data)
    files.replace(paths[1], header.encode())
    return paths

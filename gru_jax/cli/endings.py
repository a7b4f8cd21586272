"""How a verb ends: with a message for every failure that a user can act on, and an exit code."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from gru_jax.config.sections.in_words import short
from gru_jax.runs.exit_codes import BAD_ARGUMENTS, FAILED, INTERRUPTED, MISSING

if TYPE_CHECKING:
    from gru_jax.config.loading import LoadedConfig

_BROUGHT_BY = {
    "watch": ("tensorboardX", "wandb"),
    "interop": ("flatbuffers", "keras", "onnx", "onnxruntime", "safetensors", "torch"),
}
"""Which extra has which packages; "experiments" has all others."""


def fail(message: str, code: int) -> int:
    """Says what is wrong; returns the exit code."""
    print(f"error: {short(message, 4000)}", file=sys.stderr)
    return code


def interrupted() -> NoReturn:
    """Ends the process after Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fail("interrupted", INTERRUPTED)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # Not sys.exit: imports cut in the middle can crash the interpreter while it takes itself down.
    os._exit(INTERRUPTED)


def needs_extra(error: ImportError) -> int:
    """Says which extra brings the package that is missing; returns the exit code."""
    extra = next((extra for extra, names in _BROUGHT_BY.items() if error.name in names), "experiments")
    fix = f"gru-jax[{extra}] brings it: pip install '.[{extra}]' in a clone"
    return fail(f"{error.name} is not installed; {fix}", MISSING)


def load(arguments: argparse.Namespace) -> "LoadedConfig | int":
    """The config, or the exit code after saying what is wrong with it."""
    try:
        from gru_jax.config.loading import ConfigError, load_config
    except ImportError as error:
        return needs_extra(error)
    try:
        return load_config(arguments.config, arguments.overrides)
    except ConfigError as error:
        return refuse(error.lines)


def refuse(lines: Sequence[str]) -> int:
    """Says all that is wrong with a config; returns the exit code."""
    for line in lines:
        print(short(line, 2000), file=sys.stderr)
    count = len(lines)
    print(f"{count} error{'s' if count > 1 else ''}; nothing was started.", file=sys.stderr)
    return BAD_ARGUMENTS


def guarded(verb: Callable[[], int]) -> int:
    """Calls a verb; every failure that a user can act on becomes a message and an exit code."""
    try:
        import jax

        from gru_jax.config.loading import ConfigError
        from gru_jax.data.dataset import DataDamaged, DataMissing
        from gru_jax.runs.on_disk.checkpoint import CheckpointError, silence_orphans
        from gru_jax.runs.on_disk.run_directory import RunError
    except ImportError as error:
        return needs_extra(error)
    silence_orphans()
    try:
        return verb()
    except ImportError as error:
        return needs_extra(error)
    except ConfigError as error:
        return refuse(error.lines)
    except DataMissing as error:
        return fail(str(error), MISSING)
    except DataDamaged as error:
        return fail(f"{error}\nnothing was changed.", FAILED)
    except RunError as error:
        return fail(f"{error}\nnothing was changed.", error.exit_code)
    except CheckpointError as error:
        return fail(f"{error}\nnothing was changed.", FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        return fail(f"{error}; what was written before is whole", FAILED)
    except jax.errors.JaxRuntimeError as error:
        return fail(f"the device could not go on: {str(error).splitlines()[0]}", FAILED)

"""A whole model as a StableHLO program of `jax.export`, its parameters in it."""

import contextlib
import importlib
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from gru_jax.runs.exporting.network import ExportError, takes
from gru_jax.runs.exporting.request import Request, on_cpu
from gru_jax.types import Array, IntArray


def files(request: Request) -> Mapping[str, bytes]:
    """The program, for any batch and any number of steps."""
    importlib.import_module("flatbuffers")  # so that what is missing is named
    features, tokens = takes(request.model)
    # The CPU always: there it is checked.
    platforms = tuple(dict.fromkeys(("cpu", *request.platforms)))
    scope = export.SymbolicScope()
    shape = export.symbolic_shape("b, t" if tokens else f"b, t, {features}", scope=scope)
    given = [jax.ShapeDtypeStruct(shape, jnp.int32 if tokens else jnp.float32)]
    if request.lengths:
        given.append(jax.ShapeDtypeStruct(shape[:1], jnp.int32))

    scaling = request.scaling

    def program(x: Array, lengths: IntArray | None = None) -> Array:
        x = x if scaling is None else (x - scaling.mean.reshape(1, 1, -1)) / scaling.deviation.reshape(1, 1, -1)
        return request.model.apply(request.params, x, lengths=lengths, deterministic=True)

    try:
        with _without_folders():
            exported = export.export(jax.jit(program), platforms=platforms)(*given)
    except (ValueError, NotImplementedError) as error:
        raise ExportError(
            f"export: jax cannot write this model for {', '.join(platforms)}: {str(error).splitlines()[0]}"
        ) from error
    return {"": bytes(exported.serialize())}


@contextlib.contextmanager
def _without_folders() -> Iterator[None]:
    """Programs name the source files of what they compute: here without the folders of this machine."""
    name = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, name)
    jax.config.update(name, r".*[/\\]")
    try:
        yield
    finally:
        jax.config.update(name, before)


def outputs(made: Mapping[str, bytes], request: Request, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """What the program, read back, makes of sequences."""
    read = export.deserialize(bytearray(made[""]))
    with on_cpu():
        return np.asarray(read.call(x) if lengths is None else read.call(x, lengths.astype(np.int32)))

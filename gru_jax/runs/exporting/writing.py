"""`export`: a model with its parameters as a file of another framework, compared with the model before it is there."""

import importlib
import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gru_jax import checks
from gru_jax import files as whole_files
from gru_jax.models import Model
from gru_jax.runs.exporting.checked import TOLERANCE, Trial, difference, made_up, several
from gru_jax.runs.exporting.network import ExportError, takes
from gru_jax.runs.exporting.request import Request, Scaling
from gru_jax.types import Params


class Format(NamedTuple):
    """How a format is written.

    Attributes:
        endings: of its files.
        module: of this package, with `files(request)`, what each of its files holds by what is put in the ending's
            place ("" for the file itself), and `outputs(made, request, x, lengths)`, what they compute.
        texts: whether the file has a place for what a reader should know; else a JSON file beside it has.
    """

    endings: tuple[str, ...]
    module: str
    texts: bool = True


FORMATS = {
    "onnx": Format((".onnx",), "onnx_graph"),
    "torch": Format((".pt", ".pth"), "torch_module"),
    "keras": Format((".keras",), "keras_model", texts=False),
    "safetensors": Format((".safetensors",), "parameter_file"),
    "stablehlo": Format((".stablehlo",), "program", texts=False),
}
PLATFORMS = ("cuda", "rocm", "tpu")


class Exported(NamedTuple):
    """What was written.

    Attributes:
        paths: of the files, the one that was named first.
        difference: the largest one of its outputs and the model's, as a share of the largest output.
        sequences: how many sequences were compared.
        what: they were.
    """

    paths: tuple[Path, ...]
    difference: float
    sequences: int
    what: str


@checks.suggesting
def export(
    trained: tuple[Model, Params],
    path: str | os.PathLike[str],
    to: str,
    *,
    lengths: bool = False,
    about: Mapping[str, str] | None = None,
    platforms: Sequence[str] = (),
    scale: tuple[np.ndarray, np.ndarray] | None = None,
    trial: Trial | None = None,
) -> Exported:
    """Writes a model in the format of another framework, if what is written computes what the model does.

        "onnx"         x, and lengths, to y: the whole model, for onnxruntime and others
        "torch"        a state dict, and beside it, ending in .py, the module that it is of
        "keras"        a model of Keras 3; in the place of lengths it takes a mask `[B, T]`
        "safetensors"  the parameters by their names, see `read_safetensors`
        "stablehlo"    a program of `jax.export`, the parameters in it

    All of it is in float32, for any batch and any number of steps, with dropout off. An older file stays until the new
    one is whole.

    Args:
        trained: a model of `gj.models.readout` or `gj.models.sequence_model`, and its parameters.
        path: of the file, whose ending is the format's, in a folder that exists.
        to: the format.
        lengths: whether what is written takes the lengths of sequences, `[B]` int32; torch's module always does.
        about: texts that go into the file: what the numbers are, how they were scaled. Those of Keras and StableHLO,
            which have no place for them, stand beside the file, in one that ends in .json.
        platforms: of "stablehlo", which of them beside the CPU: "cuda", "rocm", "tpu".
        scale: mean and deviation, `[I]` each: what is written begins with (x - mean) / deviation, so that it takes the
            numbers of the data; "safetensors", which holds parameters alone, does not.
        trial: sequences to compare on, as what is written takes them; random ones of several lengths when None.

    Returns:
        An `Exported`.

    Raises:
        ExportError: the format cannot hold the model, and what part of it stands in the way; or the outputs differ, and
            nothing was written.
        ImportError: the format's package, or the one that it is compared with, is not installed.
        OSError: the file cannot be written.

    Example:
        >>> import gru_jax as gj
        >>> model = gj.models.readout(gj.recurrent(gj.MinLSTM(4)), 3, 2)
        >>> export((model, model.init(jax.random.key(0))), "model.onnx", "onnx")
        Traceback (most recent call last):
        gru_jax.runs.exporting.network.ExportError: export: the cell MinLSTM is known to the formats 'stablehlo' and \
'safetensors' alone; export to one of them
    """
    checks.choice("export", "to", to, FORMATS)
    checks.flag("export", "lengths", lengths)
    for platform in platforms:
        checks.choice("export", "platforms", platform, PLATFORMS)
    target, format = _target(path, to), FORMATS[to]
    model, params = trained
    scaling = None if scale is None else _scaling(model, scale)
    takes(model)
    _check_dtype(params)
    texts = {"gru_jax": importlib.metadata.version("gru-jax"), **(about or {})}
    request = Request(model, params, lengths, texts, tuple(platforms), scaling)
    if trial is None:
        trial = made_up(model, lengths=lengths)
        trial = trial if scaling is None else trial._replace(x=scaling.unscaled(trial.x))
    trial = _fitting(trial, lengths=lengths)
    module: Any = importlib.import_module(f"gru_jax.runs.exporting.{format.module}")
    made = {**module.files(request), **({} if format.texts or not about else {".json": _beside(texts)})}
    wanted = request.computed(params, trial.x, trial.lengths)
    found = difference(wanted, module.outputs(made, request, trial.x, trial.lengths), trial)
    if not found <= TOLERANCE:  # nor when it is no number
        raise ExportError(
            f"export: what {to} computes differs from the model by {found:.1e} of the largest output, more than"
            f" {TOLERANCE:.0e}, on {len(trial.x)} {trial.what} sequences; {target} was not written",
            exit_code=1,
        )
    # The named file last: where it is, the others are.
    paths = {ending: target if not ending else target.with_suffix(ending) for ending in made}
    for ending in sorted(made, reverse=True):
        _check_own(paths[ending], made[ending], beside=ending != "")
        whole_files.replace(paths[ending], made[ending])
    return Exported(tuple(paths.values()), found, len(trial.x), trial.what)


def _scaling(model: Model, scale: tuple[np.ndarray, np.ndarray]) -> Scaling:
    (size, tokens), found = takes(model), Scaling(*(np.asarray(part, np.float32) for part in scale))
    shapes = [part.shape for part in found]
    if tokens or shapes != [(size,)] * 2:
        fact = "tokens, which have no scale" if tokens else f"{size} numbers a step; got shapes {checks.listed(shapes)}"
        raise ExportError(f"export: scale is a mean and a deviation of each number of a step; the model takes {fact}")
    return found


def _beside(texts: Mapping[str, str]) -> bytes:
    """Texts as JSON, whose first line says whose they are."""
    lines = ['{"written_by": "gru-jax export"', *(f"{json.dumps(key)}: {json.dumps(texts[key])}" for key in texts)]
    return (",\n".join(lines) + "}\n").encode()


def _target(path: str | os.PathLike[str], to: str) -> Path:
    target, endings = Path(path), FORMATS[to].endings
    if target.suffix not in endings:
        raise ExportError(f"export: a file of {to} ends in {' or '.join(endings)}; got {target.name!r}; rename it")
    if target.is_dir():
        raise ExportError(f"export: {target} is a folder; name a file")
    if not target.parent.is_dir():
        raise ExportError(f"export: there is no folder {target.parent}; make it first")
    return target


def _check_own(path: Path, content: bytes, *, beside: bool) -> None:
    """Raises where a file that nobody named, beside the one that was, would take the place of somebody's own."""
    if beside and path.exists() and path.read_bytes().partition(b"\n")[0] != content.partition(b"\n")[0]:
        raise ExportError(f"export: {path} is there, and no export wrote it; give the file another name")


def _check_dtype(params: Params) -> None:
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)})
    if dtypes != ["float32"]:
        raise ExportError(
            f"export: files are written in float32; got parameters in {' and '.join(dtypes)}; convert them with"
            f" jax.tree.map(lambda a: a.astype('float32'), params)"
        )


def _fitting(trial: Trial, *, lengths: bool) -> Trial:
    """The sequences with lengths, or without, as what is written takes them."""
    if not lengths:
        return trial._replace(lengths=None)
    if trial.lengths is None:
        return trial._replace(lengths=several(*trial.x.shape[:2]))
    # A sequence without steps has no last one; torch refuses it.
    return trial._replace(lengths=np.maximum(trial.lengths, 1))

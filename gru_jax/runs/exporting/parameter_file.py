"""Parameters by their names in a .safetensors file, with the config of their run, and read back."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import checks
from gru_jax.models import Model
from gru_jax.runs.exporting.network import ExportError
from gru_jax.runs.exporting.request import Request
from gru_jax.types import Array, Params


def files(request: Request) -> Mapping[str, bytes]:
    """The parameters as a file."""
    from safetensors.numpy import save

    arrays = {name: np.array(leaf, order="C") for name, leaf in _named(request.params).items()}
    return {"": save(arrays, metadata=dict(request.about))}


def outputs(made: Mapping[str, bytes], request: Request, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """What the model makes of sequences with the parameters that were read back."""
    from safetensors.numpy import load

    params = _structured("the file", load(made[""]), jax.eval_shape(request.model.init, jax.random.key(0)))
    return request.computed(params, x, lengths)


def read_safetensors(path: str | os.PathLike[str], model: Model | None = None) -> tuple[Model, Params]:
    """The model and the parameters of a file that `export` wrote.

    Args:
        path: of the file.
        model: whose parameters they are; when None, that of the config in the file.

    Returns:
        The model and its parameters, in the dtypes that its `init` gives.

    Raises:
        ExportError: the file holds no config, or parameters of another model.
        OSError: there is no such file.

    Example:
        >>> read_safetensors("nowhere.safetensors")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.safetensors'

    Source: the format is that of the package safetensors.
    """
    content = Path(path).read_bytes()
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load

    try:
        arrays = load(content)
        with safe_open(path, framework="np") as opened:
            about = opened.metadata() or {}
    except SafetensorError as error:
        raise ExportError(f"{path} is no whole .safetensors file ({error}); export it anew") from error
    model = _model(path, about) if model is None else model
    return model, _structured(str(path), arrays, jax.eval_shape(model.init, jax.random.key(0)))


def _model(path: str | os.PathLike[str], about: Mapping[str, str]) -> Model:
    if "config" not in about:
        raise ExportError(f"{path} holds no config of a run; pass the model that the parameters are of")
    from gru_jax.config.config import Config
    from gru_jax.training.experiment import build

    try:
        return build(Config.model_validate(json.loads(about["config"]))).model
    except ValueError as error:
        raise ExportError(f"the config in {path} is none of this version: {error}; pass the model") from error


def _named(params: Params) -> dict[str, Array]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _structured(file: str, arrays: Mapping[str, np.ndarray], like: Params) -> Params:
    """The arrays in the structure and the dtypes of a model's parameters."""
    wanted = _named(like)
    differ = [
        name for name in sorted(wanted.keys() | arrays.keys())
        if name not in wanted or name not in arrays or arrays[name].shape != wanted[name].shape
    ]  # fmt: skip
    if differ:
        raise ExportError(
            f"{file} holds other parameters than the model has: {checks.listed(differ)}; pass the model that they"
            f" are of"
        )
    leaves = [jnp.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)

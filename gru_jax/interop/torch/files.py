"""Files of torch's world, .safetensors and .pt, read without running anything that stands in them."""

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from gru_jax import checks, files
from gru_jax.interop.torch.names import DEQUANTISE
from gru_jax.types import Tree

if TYPE_CHECKING:
    import torch

OLDEST_TORCH = (2, 10)
"""Before torch 2.10 a hostile file could corrupt memory and run code in spite of weights_only=True
(CVE-2026-24747; before 2.6 also CVE-2025-32434)."""

BUDGET, LARGEST_RATIO = 2**26, 32
"""Bytes that a zip file may unpack to in any case, and how many times its own size beyond that."""

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "BOOL": np.bool_} | {
    f"{kind}{bits}": np.dtype(f"{'u' if kind == 'U' else ''}int{bits}") for kind in "IU" for bits in (8, 16, 32, 64)
}


def read(path: str | os.PathLike[str], *, key: str | None = None) -> dict[str, np.ndarray]:
    """The arrays in a .safetensors, .pt, .pth or .npz file, by name.

    The content decides which kind of file it is, not the name. Nothing in the file is run: a .pt file is read by
    torch.load(weights_only=True), for which torch 2.10 or newer must be installed.

    Args:
      path: of the file.
      key: the entry of the checkpoint that holds the weights, such as "ema"; needed when several do.

    Returns:
      NumPy arrays of any dtype; bfloat16 as JAX's.

    Raises:
      FileNotFoundError, IsADirectoryError: when there is no file.
      ValueError: for a file that is damaged, of another kind, unpacks to far more than it is, or holds anything but
        weights.
      ImportError: when the package that the format needs is not installed.

    Example:
      >>> import tempfile
      >>> from gru_jax.interop import torch as nn
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     try:
      ...         nn.read(f"{folder}/model.pt")
      ...     except FileNotFoundError as error:
      ...         print(str(error).replace(folder, "folder"))
      read: there is no file folder/model.pt

    Source: files as torch.save of torch 2.13, safetensors 0.8 and numpy.savez write them.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"read: path must be a path of a file; got {checks.described(path)}")
    if not isinstance(key, str | None):
        raise TypeError(f"read: key must be the name of an entry, such as 'ema'; got {checks.described(key)}")
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"read: {file} is a folder, not a file; pass the file with the weights in it")
    if not file.is_file():
        raise FileNotFoundError(f"read: there is no file {file}")
    with file.open("rb") as opened:
        start = opened.read(16)
    if not start:
        raise ValueError(f"read: {file} is empty; save it anew")
    if start[8:9] == b"{":
        found: Tree = _read_safetensors(file)
    elif start[:4] == b"PK\x03\x04" and _is_numpy(file):
        found = _read_numpy(file)
    elif start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        found = _read_torch(file)
    else:
        raise ValueError(
            f"read: {file} is neither a .safetensors file nor one of torch.save or numpy.savez; it begins with"
            f" {start[:8]!r}"
        )
    return _weights(file, found, key)


def write(path: str | os.PathLike[str], state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to a .safetensors file, whole or not at all."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"save: path must be a path of a file; got {checks.described(path)}")
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"save: {file} is a folder; pass the path of a file in it")
    if file.suffix != ".safetensors":
        raise ValueError(
            f"save: the file's name must end in .safetensors; got {str(path)!r}; torch reads it with"
            f" safetensors.torch.load_file"
        )
    if not file.parent.is_dir():
        raise FileNotFoundError(f"save: there is no folder {file.parent}; make it first")
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise ImportError("save needs the package safetensors: pip install 'gru-jax[interop]'") from error
    content = save({name: np.ascontiguousarray(array) for name, array in state_dict.items()})
    files.replace(file, content)


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as error:
        raise ImportError(
            f"read: {file} needs the package safetensors: pip install 'gru-jax[interop]'"
        ) from error
    try:
        entries = deserialize(file.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"read: {file} is a damaged .safetensors file ({error}); copy or save it anew") from error
    found = {}
    for name, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"read: {file} holds {name} as {entry['dtype']}, which is not read; save it as float32")
        try:
            # A bytearray, not bytes: the array can be written to and so becomes a torch tensor without a warning.
            found[name] = np.frombuffer(bytearray(entry["data"]), _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        except (OverflowError, ValueError) as error:  # an empty tensor of a shape that NumPy does not take
            raise ValueError(
                f"read: {file} is a damaged .safetensors file ({name} has the shape {entry['shape']}: {error}); copy or"
                f" save it anew"
            ) from error
    return found


def _is_numpy(file: Path) -> bool:
    """Whether a zip file is numpy.savez's; raises ValueError when it unpacks to far more than it is."""
    try:
        with zipfile.ZipFile(file) as opened:
            entries = opened.infolist()
    except Exception:  # of many kinds: no directory, a damaged one, one of a newer version
        return False  # torch says what is wrong with it
    whole = sum(entry.file_size for entry in entries)
    if whole > max(BUDGET, LARGEST_RATIO * file.stat().st_size):
        raise ValueError(
            f"read: {file} unpacks to {whole / 2**20:.0f} MiB, more than {LARGEST_RATIO} times its"
            f" {file.stat().st_size} bytes, which weights do not; nothing of it was read; save it anew"
        )
    return bool(entries) and all(entry.filename.endswith(".npy") for entry in entries)


def _read_numpy(file: Path) -> dict[str, np.ndarray]:
    found = {}
    with np.load(file, allow_pickle=False) as opened:
        for name in opened.files:
            try:
                found[name] = opened[name]
            except Exception as error:  # of many kinds: a damaged part, a header, objects that would run code
                raise ValueError(
                    f"read: {file} holds {name} in a form that is no array of numbers"
                    f" ({str(error).splitlines()[0] if str(error) else type(error).__name__}); save it anew"
                ) from error
    return found


def _read_torch(file: Path) -> Tree:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"read: {file} was written by torch.save, which torch must read: pip install 'gru-jax[interop]'; or save it"
            f" as .safetensors, which needs no torch"
        ) from error
    version = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if version is None or tuple(map(int, version.groups())) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise ImportError(
            f"read: .pt files are read with torch {oldest} or newer, for in older ones a hostile file can run code; got"
            f" torch {torch.__version__}; upgrade it, or save the weights as .safetensors"
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, and none of them names the file
        text = str(error)
        names = re.search(r"GLOBAL (\S+)", text)
        if "ScriptObject" in text or "PackedParams" in text:
            raise ValueError(
                f"read: {file} holds the packed weights of a quantised module, which only torch can unpack;"
                f" {DEQUANTISE}"
            ) from error
        if names or "TorchScript" in text or "weights_only" in text:
            what = f" ({names[1]})" if names else ""
            raise ValueError(
                f"read: {file} holds more than weights{what}, and to read it would mean to run code from it; save only"
                f" the weights: torch.save(module.state_dict(), path)"
            ) from error
        first = text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
        raise ValueError(f"read: {file} is damaged or no file of torch.save ({first}); copy or save it anew") from error


def _weights(file: Path, found: Tree, key: str | None) -> dict[str, np.ndarray]:
    """The one mapping of names to arrays in a checkpoint."""
    if not isinstance(found, Mapping):
        raise ValueError(
            f"read: {file} holds {checks.described(found)}, not a state dict; save module.state_dict()"
        )
    packed = [name for name in found if "_packed_params" in str(name)]
    if packed and not _is_weights(found):
        raise ValueError(
            f"read: {file} holds weights of quantised modules in a packed form: {checks.listed(packed, repr)};"
            f" {DEQUANTISE}, or save the rest:"
            f" {{name: one for name, one in state_dict.items() if torch.is_tensor(one)}}"
        )
    if key is not None:
        if not _is_weights(found.get(key)):
            there = checks.listed(_nested(found) or found, repr)
            raise ValueError(f"read: {file} has no weights under key={key!r}; got {there}")
        found = found[key]
    elif not _is_weights(found):
        inside = _nested(found)
        if len(inside) != 1:
            there = checks.listed(inside or found, repr) or "nothing"
            what = f"no weights; got {there}; save module.state_dict()"
            if inside:
                what = f"several entries with weights: {there}; pass key={next(iter(inside))!r}"
            raise ValueError(f"read: {file} has {what}")
        found = found[inside[0]]
    arrays = {}
    for name, value in found.items():
        if getattr(value, "is_quantized", False):
            raise ValueError(f"read: {file} holds {name} quantised; save its .dequantize(), or {DEQUANTISE}")
        try:
            arrays[str(name)] = _numpy(value)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"read: {file} holds {name} in a form that is no dense array ({error})") from error
    return arrays


def _nested(found: Mapping[str, object]) -> list[str]:
    return [name for name, value in found.items() if _is_weights(value)]


def _is_weights(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(one, np.ndarray) or hasattr(one, "detach") for one in value.values())
    )


def _numpy(value: "np.ndarray | torch.Tensor") -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    value = value.detach()
    if str(value.dtype) == "torch.bfloat16":  # the same bits; NumPy has no such type of its own
        return value.float().numpy().astype(jnp.bfloat16)
    return value.numpy()

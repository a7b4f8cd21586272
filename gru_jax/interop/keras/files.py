"""GRU layers in files of Keras, read as data: nothing in a file is run, and no other file is opened for it."""

import io
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gru_jax.interop.keras import configs, limits

DAMAGE = (
    *(OSError, RuntimeError, KeyError, TypeError, EOFError, NotImplementedError, UnicodeDecodeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What zipfile and h5py raise for a file that is not what it should be."""


class Record(NamedTuple):
    """A GRU or Bidirectional layer found somewhere.

    Attributes:
      name: the layer's name, and where it stands.
      directions: for each direction its arrays, [kernel, recurrent_kernel, bias].
      facts: see `configs.facts`.
    """

    name: str
    directions: list[list[np.ndarray]]
    facts: dict[str, Any]

    def check_fits(self, who: str, layer: Any) -> None:
        """Raises ValueError when a layer computes something else than this one did."""
        cells = list(layer._cells())
        if len(cells) != len(self.directions):
            raise ValueError(
                f"{who}: {self.name} has {len(self.directions)} directions, this layer {len(cells)}; use "
                + ("Bidirectional(GRU(...))" if len(self.directions) == 2 else "GRU(...)")
            )
        for cell, weights in zip(cells, self.directions, strict=True):
            units, biases = weights[1].shape[0], [w.ndim for w in weights[2:]]
            own = [1 + cell.options.reset_after] if cell.options.use_bias else []
            if units != cell.units or biases != own:
                shown = {(): "no biases", (1,): "reset_after=False", (2,): "reset_after=True"}
                raise ValueError(
                    f"{who}: {self.name} has {units} units and {shown[tuple(biases)]}, this layer {cell.units} units"
                    f" and {shown[tuple(own)]}; make a layer with the same options"
                )
        for option in ("activation", "recurrent_activation"):
            here, there = getattr(cells[0].options, option), self.facts.get(option)
            if there is not None and here != there:
                raise ValueError(f"{who}: {self.name} was saved with {option}={there!r}, this layer has {here!r};"
                                 f" make it with {option}={there!r}")  # fmt: skip


def record(name: str, config: Mapping[str, Any] | None, weights: Sequence[Any]) -> Record:
    """A layer's weights, as `get_weights` gives them, with what its config says.

    Raises:
      ValueError: when the layer is no GRU.
    """
    facts = configs.facts(config)
    arrays = [np.asarray(w) for w in weights]
    two = config is not None and config.get("class_name") == "Bidirectional"
    half = len(arrays) // 2
    directions = [arrays[:half], arrays[half:]] if two else [arrays]
    return _trusted("keras.load", Record(name, directions, facts))


def one(who: str, path: Any, layer: str | None) -> Record:
    """The GRU or Bidirectional layer of a file.

    Args:
      who: whose error message it is.
      path: of a `.keras`, `.weights.h5` or `.h5` file.
      layer: its name, or its place in the file; may be None when it is the only one.

    Raises:
      FileNotFoundError: when there is no such file.
      ValueError: for a file that is damaged, holds no such layer or several, or is not what Keras writes.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{who}: {path} is a directory; pass the .keras or .weights.h5 file")
    if not path.is_file():  # a pipe or a device would be waited for
        raise FileNotFoundError(f"{who}: there is no file {path}")
    found = _read(who, path)
    names = [record.name for record in found]
    listed = ", ".join(repr(name) for name in names)
    if not found:
        raise ValueError(f"{who}: {path} holds no GRU and no Bidirectional(GRU) layer")
    if layer is None:
        if len(found) > 1:
            raise ValueError(f"{who}: {path} holds {len(found)} layers: {listed}; choose one with layer={names[0]!r}")
        return _trusted(who, found[0])
    chosen = [record for record in found if layer in (record.name, record.name.partition(" at ")[0])]
    chosen = chosen or [record for record in found if record.name.endswith(f" at {layer}")]
    if len(chosen) != 1:
        what = "no layer" if not chosen else f"{len(chosen)} layers"
        raise ValueError(f"{who}: {path} holds {what} {layer!r}; got the layers {listed}")
    return _trusted(who, chosen[0])


def _trusted(who: str, record: Record) -> Record:
    if "foreign" in record.facts:
        raise ValueError(f"{who}: the layer {record.name!r} cannot be taken over: {record.facts['foreign']}")
    for weights in record.directions:
        if problem := limits.not_a_gru(weights):
            raise ValueError(f"{who}: the layer {record.name!r} is no GRU: {problem}")
    return record


def _read(who: str, path: Path) -> list[Record]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"{who}: reading files of Keras needs h5py; install it with pip install 'gru-jax[interop]'"
        ) from error
    from gru_jax.interop.keras import hdf5

    try:
        if zipfile.is_zipfile(path):
            config, weights = _unpacked(who, path)
            with h5py.File(io.BytesIO(weights), "r") as file:
                return _joined(hdf5.layers(who, path, file), config, required=True)
        with h5py.File(path, "r") as file:
            return _joined(hdf5.layers(who, path, file), hdf5.config(who, path, file), required=False)
    except DAMAGE as error:
        fact = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(
            f"{who}: {path} ({os.path.getsize(path)} bytes) is damaged, or no file of Keras: {fact}"
        ) from error


def _unpacked(who: str, path: Path) -> tuple[Any, bytes]:
    """The config and the weights file of a `.keras` archive, in memory; nothing is written anywhere."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for name in names:
            if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
                raise ValueError(f"{who}: {path} has a member {name!r}, a path out of the archive; Keras writes none")
        for needed in ("config.json", "model.weights.h5"):
            if needed not in names:
                raise ValueError(f"{who}: {path} is no .keras file: it has no member {needed}")
            info = archive.getinfo(needed)
            if info.file_size > limits.FLOOR and info.file_size > limits.EXPANSION * info.compress_size:
                raise ValueError(f"{who}: {path}: {needed} would grow from {info.compress_size} to {info.file_size}"
                                 f" bytes; refused, Keras does not compress")  # fmt: skip
        if archive.getinfo("config.json").file_size > limits.CONFIG_LIMIT:
            raise ValueError(f"{who}: {path}: config.json is longer than {limits.CONFIG_LIMIT} bytes; refused")
        return limits.parsed(who, path, archive.read("config.json")), archive.read("model.weights.h5")


def _joined(layers: list[Any], config: Any, required: bool) -> list[Record]:
    """The layers found, each with what the config says of it."""
    listed = list(configs.places(config))
    by_place = {place: found for place, _, found in listed}
    by_name: dict[str, list[Any]] = {}
    for _, name, found in listed:
        by_name.setdefault(name, []).append(found)
    records = []
    for layer in layers:
        own = by_place.get(layer.place)
        if own is None and len(by_name.get(layer.name, ())) == 1:
            own = by_name[layer.name][0]
        facts = configs.facts(own)
        if own is None and required:
            facts = {"foreign": "the model's config does not say what it computes; take its weights from Keras"}
        name = layer.name if not layer.place or layer.place == layer.name else f"{layer.name} at {layer.place}"
        records.append(Record(name, layer.directions, facts))
    return records



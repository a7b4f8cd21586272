"""GRU layers in an HDF5 file: in the format of 2022 (`layers/gru/cell/vars/0`) and in the older (`gru/gru/kernel:0`).

A layer is known by its arrays' shapes; names only name it. Nothing is read until a layer is chosen.
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gru_jax.interop.keras import limits, versions
from gru_jax.types import Plain

Group: TypeAlias = Any
"""An `h5py.Group`, such as a whole file; h5py has no types."""

Dataset: TypeAlias = Any
"""An `h5py.Dataset`."""

DEPTH, GROUPS = 32, 100_000
"""How deep and how many groups a file may have."""

ARRAY = re.compile(r"(kernel|recurrent_kernel|bias)(_\d+)?(:0)?")
CELL = re.compile(r"gru_cell(_\d+)?")


class Found(NamedTuple):
    """A layer in the file.

    Attributes:
      names: what it may be called; the last is its name, or that of the group it stands in.
      place: that group.
      scope: in the older format the groups above the arrays, from the model's layer on; empty in the newer.
      directions: the datasets by direction.
    """

    names: tuple[str, ...]
    place: str
    scope: tuple[str, ...]
    directions: list[list[Dataset]]


def layers(source: limits.Source, file: Group, singles: Iterable[str] = ()) -> list[Found]:
    """Every GRU of the file, the two directions of a Bidirectional together.

    Args:
      source: what is read.
      file: opened.
      singles: the names of layers of one direction, whatever they begin with.

    Raises:
      Refused: when the file refers to others, or to the same thing twice.
    """
    walk = _Walk(source, file)
    walk.group(file, PurePosixPath(), 0)
    found = walk.found
    if "model_weights" in file:  # beside it an optimizer keeps arrays of the same names
        found = [one for one in found if one.place.partition("/")[0] == "model_weights"]
    return _in_pairs(file, found, set(singles))


def config(source: limits.Source, file: Group) -> Plain:
    """The model's config that a file of the older format carries; None where there is none."""
    if "model_config" not in file.attrs:
        return None
    text = _text(file, "model_config")
    if text is None:
        raise source.refused("the model's config is no text, or too long")
    return limits.parsed(source, text) or {}


def version(file: Group, found: list[Found]) -> versions.Version | None:
    """Which Keras wrote the file; None where it does not say."""
    for group in (file, file.get("model_weights")):
        if group is not None and (said := versions.parsed(_text(group, "keras_version"))):
            return said
    if not found or found[0].scope:
        return None
    # Keras 2 knew the newer format too, but never wrote a layer's name into it.
    named = any(_own_name(file, PurePosixPath(one.place)) for one in found)
    return versions.KERAS_3 if named else versions.OF_NEWER_FORMAT


def read(source: limits.Source, found: Found, size: int) -> list[list[np.ndarray]]:
    """The arrays of a layer, those of a CuDNNGRU in the layout of a GRU.

    Args:
      source: what is read.
      found: the layer.
      size: of the file, in bytes.
    """
    left = max(limits.FLOOR, limits.EXPANSION * size)
    for dataset in (dataset for weights in found.directions for dataset in weights):
        if dataset.external or dataset.is_virtual:
            raise _unlike_keras(source, f"{found.place} has its numbers in another file")
        stored = dataset.id.get_storage_size()
        left -= dataset.nbytes
        if left < 0 or dataset.nbytes > max(limits.FLOOR, limits.EXPANSION * stored):
            raise _unlike_keras(source, f"{found.place} would grow from {stored} to {dataset.nbytes} bytes")
    return [limits.from_cudnn([_array(source, found.place, d) for d in weights]) for weights in found.directions]


def _array(source: limits.Source, place: str, dataset: Dataset) -> np.ndarray:
    if dataset.dtype.kind == "f":
        return np.asarray(dataset[()], dataset.dtype.newbyteorder("="))
    # Keras stores bfloat16 as such bits.
    if dataset.dtype.kind in "Vu" and dataset.dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16":
        import jax.numpy as jnp

        return np.asarray(dataset[()]).view(jnp.bfloat16)
    raise _unlike_keras(source, f"{place} holds {dataset.dtype}, no floating-point numbers")


def _unlike_keras(source: limits.Source, fact: str) -> limits.Refused:
    return source.refused(fact, "refused, Keras writes no such file")


class _Walk:
    def __init__(self, source: limits.Source, file: Group) -> None:
        import h5py  # here, so that the package can be imported without it

        self.h5py, self.source = h5py, source
        self.found: list[Found] = []
        self.seen = {h5py.h5o.get_info(file.id).addr}

    def group(self, group: Group, place: PurePosixPath, depth: int) -> None:
        if depth > DEPTH or len(self.seen) > GROUPS:
            raise _unlike_keras(self.source, "its groups have no end")
        datasets: dict[str, Dataset] = {}
        for key in group:
            link = group.get(key, getlink=True)
            if not isinstance(link, self.h5py.HardLink):
                raise _unlike_keras(self.source, f"{place / key} is a link to somewhere else")
            if len(key) > 4096:
                raise _unlike_keras(self.source, "it has a name of thousands of characters")
            thing = group[key]
            # Many names of one thing make a small file a large one, and a circle has no end.
            address = self.h5py.h5o.get_info(thing.id).addr
            if address in self.seen:
                raise _unlike_keras(self.source, f"{place / key} is another name of something else in it")
            self.seen.add(address)
            if isinstance(thing, self.h5py.Group):
                self.group(thing, place / key, depth + 1)
            elif isinstance(thing, self.h5py.Dataset):
                datasets[key] = thing
        newer = place.name == "vars"
        by_name = {key if newer else _plain(key): dataset for key, dataset in datasets.items()}
        names = ("0", "1", "2") if newer else ("kernel", "recurrent_kernel", "bias")
        chosen = [by_name[name] for name in names if name in by_name]
        if len(chosen) != len(datasets) or not chosen or limits.not_a_gru(chosen) is not None:
            return
        if newer:  # <layer>/cell/vars/0, the layer's own name in an attribute
            home, scope = place.parent, tuple[str, ...]()
            home = home.parent if home.name == "cell" else home
        else:  # <layer>/<scopes of TensorFlow>/kernel:0, the last of them a cell's, or the layer's own
            home, scope = place, place.parts[place.parts[:1] == ("model_weights",) :]
            home = home.parent if CELL.fullmatch(home.name) and len(scope) > 1 else home
        self.found.append(Found(_names(group.file, home, scope), str(home), scope, [chosen]))


def unnumbered(name: str) -> str:
    """A name without the number that TensorFlow adds to one it has seen before: the layer deep can be deep_1 here."""
    return re.sub(r"_\d+$", "", name)


def _plain(key: str) -> str:
    """The name of an array without what TensorFlow adds to it."""
    match = ARRAY.fullmatch(key)
    return match[1] if match else key


def _text(holder: Group | Dataset, key: str) -> str | None:
    """A text among the attributes of a group; None for whatever else stands there."""
    if key not in holder.attrs or holder.attrs.get_id(key).shape != ():
        return None
    text = holder.attrs[key]
    if not isinstance(text, bytes | str) or len(text) > limits.CONFIG_LIMIT:
        return None
    return text.decode() if isinstance(text, bytes) else text


def _own_name(file: Group, home: PurePosixPath) -> str | None:
    """The name that Keras 3 wrote beside a layer's variables."""
    variables = f"{home}/vars"
    return (variables in file and _text(file[variables], "name")) or None


def _names(file: Group, home: PurePosixPath, scope: tuple[str, ...]) -> tuple[str, ...]:
    """See `Found.names`."""
    if not scope:
        return (_own_name(file, home) or home.name,)
    alone = unnumbered(home.name) in (scope[0], unnumbered(scope[0]))  # a layer of the model, not of one inside it
    return (*scope, *map(unnumbered, scope), scope[0] if alone else home.name)


def _in_pairs(file: Group, found: list[Found], singles: set[str]) -> list[Found]:
    """The forward and the backward layer of one Bidirectional as one layer of two directions."""
    halves: dict[str, dict[str, Found]] = {}
    whole: list[Found] = []
    for one in found:
        home, (direction, _, rest) = PurePosixPath(one.place), PurePosixPath(one.place).name.partition("_")
        mine = direction in ("forward", "backward") and (rest == "layer" if not one.scope else home.name not in singles)
        if not mine or len(one.scope) == 1:
            whole.append(one)
            continue
        pair = halves.setdefault(str(home.parent), {})
        pair[direction] = one
        if len(pair) == 2:
            outer = home.parent
            forward, backward = pair["forward"], pair["backward"]
            directions = [*forward.directions, *backward.directions]
            whole.append(Found(_names(file, outer, one.scope), str(outer), one.scope, directions))
            del halves[str(home.parent)]
    return whole + [one for pair in halves.values() for one in pair.values()]

"""GRU layers in an HDF5 file, of Keras 3 (`layers/gru/cell/vars/0`) and of Keras 2 (`gru/gru_cell/kernel:0`).

A layer is known by its arrays' shapes; names only name it.
"""

from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from gru_jax.interop.keras import limits

DEPTH, GROUPS = 32, 100_000
"""How deep and how many groups a file may have; links in a circle have no end."""


class Found(NamedTuple):
    """A layer in the file: its name, the group it stands in, its arrays by direction."""

    name: str
    place: str
    directions: list[list[np.ndarray]]


def layers(who: str, path: Path, file: Any) -> list[Found]:
    """Every GRU of the file, the two directions of a Bidirectional together.

    Args:
      who: whose error message it is.
      path: of the file.
      file: opened.

    Raises:
      ValueError: when the file refers to others, or grows beyond its size.
    """
    walk = _Walk(who, path)
    walk.group(file, PurePosixPath(), 0)
    return _in_pairs(file, walk.found)


def config(who: str, path: Path, file: Any) -> Any:
    """The model's config that a file of Keras 2's format carries; None where there is none."""
    text = file.attrs.get("model_config")
    if isinstance(text, bytes | str) and len(text) <= limits.CONFIG_LIMIT:
        return limits.parsed(who, path, text)
    return None


class _Walk:
    def __init__(self, who: str, path: Path) -> None:
        import h5py  # here, so that the package can be imported without it

        self.h5py = h5py
        self.who, self.path = who, path
        self.found: list[Found] = []
        self.left = GROUPS

    def refuse(self, fact: str) -> ValueError:
        return ValueError(f"{self.who}: {self.path}: {fact}; refused, Keras writes no such file")

    def group(self, group: Any, place: PurePosixPath, depth: int) -> None:
        self.left -= 1
        if depth > DEPTH or self.left < 0:
            raise self.refuse("its groups have no end")
        datasets: dict[str, Any] = {}
        for key in group:
            link = group.get(key, getlink=True)
            if not isinstance(link, self.h5py.HardLink):
                raise self.refuse(f"{place / key} is a link to somewhere else")
            if len(key) > 4096:
                raise self.refuse("it has a name of thousands of characters")
            thing = group[key]
            if isinstance(thing, self.h5py.Group):
                self.group(thing, place / key, depth + 1)
            elif isinstance(thing, self.h5py.Dataset):
                datasets[key.removesuffix(":0")] = thing
        names = ("0", "1", "2") if place.name == "vars" else ("kernel", "recurrent_kernel", "bias")
        chosen = [datasets[name] for name in names if name in datasets]
        if len(chosen) == len(datasets) and chosen and limits.not_a_gru(chosen) is None:
            # Keras 3: <layer>/cell/vars/0, the layer's own name in an attribute; Keras 2: <layer>/<cell>/kernel.
            home = place.parent if place.name == "vars" else place
            home = home.parent if home.name == "cell" or place.name != "vars" else home
            self.found.append(Found(_name(group.file, home), str(home), [[self.read(d, place) for d in chosen]]))

    def read(self, dataset: Any, place: PurePosixPath) -> np.ndarray:
        if dataset.external or dataset.is_virtual:
            raise self.refuse(f"{place} has its numbers in another file")
        stored = dataset.id.get_storage_size()
        if dataset.nbytes > limits.FLOOR and dataset.nbytes > limits.EXPANSION * stored:
            raise self.refuse(f"{place} would grow from {stored} to {dataset.nbytes} bytes")
        if dataset.dtype.kind == "f":
            return np.asarray(dataset[()])
        bits = dataset[()]  # Keras stores bfloat16 as such bits
        if bits.dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16":
            import jax.numpy as jnp

            return np.asarray(bits).view(jnp.bfloat16)
        raise self.refuse(f"{place} holds {dataset.dtype}, no floating-point numbers")


def _name(file: Any, home: PurePosixPath) -> str:
    """The layer's name: an attribute in Keras 3, the group's own name otherwise."""
    attributes = file[f"{home}/vars"].attrs if f"{home}/vars" in file else {}
    name = attributes.get("name")
    return name if isinstance(name, str) and name else home.name


def _in_pairs(file: Any, found: list[Found]) -> list[Found]:
    """The forward and the backward layer of one Bidirectional as one layer of two directions."""
    halves: dict[str, dict[str, Found]] = {}
    whole: list[Found] = []
    for one in found:
        home = PurePosixPath(one.place)
        direction = next((d for d in ("forward", "backward") if home.name.startswith(f"{d}_")), None)
        if direction is None:
            whole.append(one)
            continue
        pair = halves.setdefault(str(home.parent), {})
        pair[direction] = one
        if len(pair) == 2:
            outer = home.parent
            forward, backward = pair["forward"], pair["backward"]
            whole.append(Found(_name(file, outer), str(outer), [*forward.directions, *backward.directions]))
            del halves[str(home.parent)]
    return whole + [one for pair in halves.values() for one in pair.values()]

"""GRU layers in files of Keras, read as data: nothing in a file is run, and no other file is opened for it."""

import contextlib
import io
import itertools
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gru_jax.interop.keras import configs, heaps, limits, versions
from gru_jax.types import Options, Plain

if TYPE_CHECKING:
    from gru_jax.interop.keras.hdf5 import Found, Group

DAMAGE = (
    *(OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError),
    *(EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error),
)
"""What zipfile and h5py raise for a file that is not what it should be."""


class Record(NamedTuple):
    """A GRU or Bidirectional layer found somewhere.

    Attributes:
      name: the layer's name, and where it stands.
      directions: for each direction its arrays, [kernel, recurrent_kernel, bias].
      facts: see `configs.facts`.
      version: of the Keras that wrote it; None when unknown.
    """

    name: str
    directions: list[list[np.ndarray]]
    facts: Options
    version: versions.Version | None

    def option(self, who: str, name: str, said: Any) -> Any:
        """What the layer has for one of `configs.OPTIONS`; None when nothing says it and nothing needs it.

        Args:
          who: whose error message it is.
          name: of the option.
          said: what the caller says that it is, or None.

        Raises:
          ValueError: when it is needed and nothing decides it.
        """
        if said is not None and name != "reset_after":
            said = configs.activation(who, name, said, self.version)
            if said is None:
                raise self.undecided(who, name, configs.TWO_SLOPES)
        if said is not None:
            return said
        if name in self.facts.get("code", ()):
            raise ValueError(
                f"{who}: {name} is code of its own in the layer's config, which is not run; pass {name}= yourself"
            )
        if name == "reset_after" and any(len(weights) == 3 for weights in self.directions):
            return None  # the biases show it
        if name in self.facts.get("open", ()):
            raise self.undecided(who, name, self.facts["open"][name])
        return self.facts.get(name)

    def undecided(self, who: str, option: str, why: str) -> ValueError:
        """The error for an option that nothing decides."""
        examples = {"reset_after": "True or False", "activation": "'tanh'"}
        examples["recurrent_activation"] = f"'sigmoid', {versions.KERAS_2_HARD_SIGMOID!r}"
        version = "" if self.version and self.version.number else "keras_version= ('2.2.4', ...) or "
        return ValueError(
            f"{who}: nothing decides {option} of the layer {self.name!r}: {why}; pass {version}{option}="
            f" ({examples[option]}, ...)"
        )

    def check_fits(self, who: str, layer: Any, said: Options) -> None:
        """Raises ValueError when a layer computes something else than this one did.

        Args:
          who: whose error message it is.
          layer: one of this package.
          said: what the caller says of `configs.OPTIONS`, or None for each.
        """
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
        for option, cell in itertools.product(configs.OPTIONS, cells):
            here = getattr(cell.options, option)
            if self.facts.get("alone") and said[option] is None:
                self._check_alone(who, option, here)
            elif option not in self.facts.get("code", ()):
                there = self.option(who, option, said[option])
                if there is not None and here != there:
                    raise ValueError(f"{who}: {self.name} was saved with {option}={there!r}, this layer has {here!r};"
                                     f" make it with {option}={there!r}")  # fmt: skip

    def _check_alone(self, who: str, option: str, here: object) -> None:
        """For weights without options: what the layer has counts, unless it is a default here that was none there."""
        if here == "hard_sigmoid":
            there = versions.hard_sigmoid(self.version)
            if there is None:
                raise self.undecided(who, option, configs.TWO_SLOPES)
            if there != here:
                raise ValueError(
                    f"{who}: Keras {self.version.text if self.version else 2} wrote {self.name}, whose hard_sigmoid is"
                    f" clip(x / 5 + 1/2, 0, 1); make this layer with {option}={there!r}"
                )
        shown = option == "reset_after" and any(len(weights) == 3 for weights in self.directions)
        default = {"reset_after": True, "recurrent_activation": "sigmoid"}.get(option)
        if shown or default is None or here != default or self.facts.get(option) == default:
            return
        why = self.facts["open"].get(option)
        if why is None and self.version is not None:
            by_default = f"Keras {self.version.text} had {self.facts[option]!r} by default"
            why = f"its options are not in the file, and {by_default}"
        raise ValueError(
            f"{who}: this layer has {option}={here!r}, and {self.name} may not: {why}; make this layer with"
            f" {option}={self.facts.get(option, 'the right one')!r}, or pass {option}={here!r} here as well, if it was"
            f" so"
        )


def record(
    name: str, config: Mapping[str, Plain] | None, weights: Sequence[object], version: versions.Version
) -> Record:
    """A layer's weights, as `get_weights` gives them, with what its config says.

    Args:
      name: of the layer.
      config: its own.
      weights: its arrays.
      version: of the Keras that it is of.

    Raises:
      ValueError: when the layer is no GRU.
    """
    facts = configs.facts(config, version)
    arrays = [np.asarray(w) for w in weights]
    two = config is not None and config.get("class_name") == "Bidirectional"
    half = len(arrays) // 2
    directions = [arrays[:half], arrays[half:]] if two else [arrays]
    if problem := _problem(facts, directions):
        raise ValueError(f"keras.load: the layer {name!r} {problem}")
    return Record(name, [limits.from_cudnn(weights) for weights in directions], facts, version)


def one(who: str, path: str | os.PathLike[str], layer: str | None, keras_version: str | None = None) -> Record:
    """The GRU or Bidirectional layer of a file.

    Args:
      who: whose error message it is.
      path: of a `.keras`, `.weights.h5` or `.h5` file.
      layer: its name, or its place in the file; may be None when it is the only one.
      keras_version: of the Keras that wrote the file, where that does not say it.

    Raises:
      FileNotFoundError: when there is no such file.
      ValueError: for a file that is damaged, holds no such layer or several, or is not what Keras writes.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{who}: {path} is a directory; pass the .keras or .weights.h5 file")
    if not path.is_file():  # a pipe or a device would be waited for
        raise FileNotFoundError(f"{who}: there is no file {path}")
    source = limits.Source(who, path)
    try:
        import h5py  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{who}: reading files of Keras needs h5py; install it with pip install 'gru-jax[interop]'"
        ) from error
    try:
        with _opened(source) as (file, config, version, size):
            return _one_of(source, file, config, version, size, layer, keras_version)
    except limits.Refused:
        raise
    except DAMAGE as error:
        fact = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(
            f"{who}: {path} ({os.path.getsize(path)} bytes) is damaged, or no file of Keras: {fact}; save the model"
            f" again with Keras, or get another copy"
        ) from error


@contextlib.contextmanager
def _opened(source: limits.Source) -> Iterator["tuple[Group, Plain, versions.Version | None, int]"]:
    """The HDF5 file, the model's config or None, the version beside it or None, the size of the HDF5 file."""
    import h5py

    from gru_jax.interop.keras import hdf5

    if not zipfile.is_zipfile(source.path):
        heaps.check(source)
        with h5py.File(source.path, "r") as file:
            yield file, hdf5.config(source, file), None, os.path.getsize(source.path)
        return
    config, metadata, weights = _unpacked(source)
    version = metadata.get("keras_version") if isinstance(metadata, Mapping) else None
    heaps.check(source, weights)
    with h5py.File(io.BytesIO(weights), "r") as file:
        yield file, config or {}, versions.parsed(version), len(weights)  # one that is null says nothing; it is there


def _unpacked(source: limits.Source) -> tuple[Plain, Plain, bytes]:
    """The config, the metadata and the weights file of a `.keras` archive, in memory; nothing is written anywhere."""
    with zipfile.ZipFile(source.path) as archive:
        names = archive.namelist()
        for name in names:
            if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
                raise source.refused(f"it has a member {name!r}, a path out of the archive", "Keras writes none")
        read: dict[str, bytes] = {}
        for needed in ("config.json", "metadata.json", "model.weights.h5"):
            if needed not in names:
                if needed == "metadata.json":
                    continue
                raise source.refused(f"it is no .keras file: it has no member {needed}")
            info = archive.getinfo(needed)
            if info.file_size > max(limits.FLOOR, limits.EXPANSION * info.compress_size):
                raise source.refused(
                    f"{needed} would grow from {info.compress_size} to {info.file_size} bytes",
                    "refused, Keras does not compress",
                )
            if needed.endswith("json") and info.file_size > limits.CONFIG_LIMIT:
                raise source.refused(f"{needed} is longer than {limits.CONFIG_LIMIT} bytes", "refused")
            read[needed] = archive.read(needed)
    config, metadata = (limits.parsed(source, read.get(f"{name}.json", b"{}")) for name in ("config", "metadata"))
    return config, metadata, read["model.weights.h5"]


def _one_of(
    source: limits.Source,
    file: "Group",
    config: Plain,
    version: versions.Version | None,
    size: int,
    layer: str | None,
    keras_version: str | None,
) -> Record:
    """The chosen layer of an opened file, the only one that is read."""
    from gru_jax.interop.keras import hdf5

    places = configs.places(config)
    singles = [place.names[-1] for place in places if place.config["class_name"] != "Bidirectional"]
    found = hdf5.layers(source, file, singles)
    try:
        version = versions.given(source.who, keras_version, version or hdf5.version(file, found))
    except ValueError as error:
        raise limits.Refused(str(error)) from error
    if version is not None and () < version.number < (2,):
        raise source.refused(f"Keras {version.text} wrote it", "open it with Keras 2.0 to 2.3 and save it from there")
    matches = [_match(one, places) for one in found]
    names = [(*one.names, *own.names) if own else one.names for one, own in zip(found, matches, strict=True)]
    titles = [
        own[-1] if one.place in ("", ".", own[-1]) else f"{own[-1]} at {one.place}"
        for one, own in zip(found, names, strict=True)
    ]
    index = _index(source, layer, titles, names)
    one, own = found[index], matches[index]
    if own is not None and sum(match is own for match in matches) > 1:
        facts = {"foreign": f"the model's config has one layer {own.names[-1]!r} for several in the file"}
    elif own is not None:
        facts = configs.facts(own.config, version)
    elif config is not None:
        facts = {"foreign": "the model's config does not say what it computes; take its weights from Keras"}
    else:
        facts = configs.of_weights(version, cudnn=limits.of_cudnn(one.directions[0]))
    if problem := _problem(facts, one.directions):
        raise source.refused(f"the layer {titles[index]!r} {problem}")
    return Record(titles[index], hdf5.read(source, one, size), facts, version)


def _match(found: "Found", places: list[configs.Place]) -> configs.Place | None:
    """What the config says of a layer in the file: by its place, in the older format by the names on the way to it."""
    if not found.scope:
        name = found.names[-1]
        own_name = name != found.place.rpartition("/")[2]
        for place in places:
            if place.place == found.place and (not own_name or place.names[-1] == name):
                return place
        named = [place for place in places if own_name and place.names[-1] == name]
        return named[0] if len(named) == 1 else None
    from gru_jax.interop.keras import hdf5

    inside = [place for place in places if place.names[0] == found.scope[0]]
    if len(inside) == 1:
        return inside[0]
    for part in reversed(found.scope[1:]):
        for name in (part, hdf5.unnumbered(part)):
            named = [place for place in inside if place.names[-1] == name]
            if len(named) == 1:
                return named[0]
    return None


def _index(source: limits.Source, layer: str | None, titles: list[str], names: list[tuple[str, ...]]) -> int:
    """Which of the layers found is called so: by title, by its own name, by its place, by the name of one around it."""
    start, listed = f"{source.who}: {source.path} holds", ", ".join(map(repr, titles))
    if not titles:
        raise limits.Refused(f"{start} no GRU and no Bidirectional(GRU) layer; pass the file of a model that has one")
    if layer is None:
        if len(titles) > 1:
            raise limits.Refused(f"{start} {len(titles)} layers: {listed}; choose one with layer={titles[0]!r}")
        return 0
    for is_called in (
        lambda title, own: layer in (title, own[-1]),
        lambda title, own: title.endswith(f" at {layer}"),
        lambda title, own: layer in own,
    ):
        chosen = [index for index, title in enumerate(titles) if is_called(title, names[index])]
        if len(chosen) == 1:
            return chosen[0]
        if chosen:
            raise limits.Refused(f"{start} {len(chosen)} layers {layer!r}; got the layers {listed}; name its place")
    raise limits.Refused(f"{start} no layer {layer!r}; got the layers {listed}; choose one of them")


def _problem(facts: Options, directions: Sequence[Sequence[limits.Shaped]]) -> str | None:
    """Why a layer cannot be taken over; None when it can."""
    if "foreign" in facts:
        return f"cannot be taken over: {facts['foreign']}"
    for weights in directions:
        if problem := limits.not_a_gru(weights):
            return f"is no GRU: {problem}"
        units, bias = weights[1].shape[0], [tuple(w.shape) for w in weights[2:]]
        if facts.get("units", units) != units or facts.get("use_bias", bool(bias)) != bool(bias):
            return f"has {units} units and {len(bias)} biases, its config says otherwise"
        after = bool(bias) and bias[0] != (3 * units,)
        if bias and not facts.get("alone") and facts.get("reset_after", after) != after:
            told = facts.get("by_default", f"its config says reset_after={facts['reset_after']}")
            return f"has a bias of shape {list(bias[0])}, and {told}"
    return None

"""The GRU cells in linen's parameter trees and in NNX's modules, and their arrays in the neutral layout."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
from flax import linen, nnx

from gru_jax import checks
from gru_jax.cells import GRU, GRUParams, activations
from gru_jax.interop import arrays, neutral
from gru_jax.types import Activation, Tree

Cells: TypeAlias = "nnx.GRUCell | tuple[nnx.GRUCell, ...] | list[Cells]"
"""One cell, a pair (forward, backward), or a list of layers, each one of these."""

# What linen.GRUCell holds: the names of its Dense layers, and what each of them has.
LINEN = {
    "ir": {"bias", "kernel"},
    "iz": {"bias", "kernel"},
    "in": {"bias", "kernel"},
    "hr": {"kernel"},
    "hz": {"kernel"},
    "hn": {"bias", "kernel"},
}
OTHER_CELLS = {
    "an LSTM cell": {"hi", "hf", "hg", "ho"},
    "an MGU cell": {"if", "in", "hf", "hn"},
    "a simple cell": {"i", "h"},
    "a Dense layer": {"kernel"},
    "a layer of gj.linen": {"layer_0"},
}


def cell_of(
    layers: tuple[GRUParams | neutral.Pair, ...], activation: Activation, gate_activation: Activation
) -> GRU:
    """The options of a `flax` cell with these parameters."""
    first = layers[0] if isinstance(layers[0], GRUParams) else layers[0][0]
    activation, gate_activation = activations.named(activation), activations.named(gate_activation)
    return GRU(first.w_h.shape[0], activation=activation, gate_activation=gate_activation, bias="minimal")


def leaves(cells: Cells) -> list[nnx.GRUCell]:
    """The cells in a nest of lists and tuples."""
    return [leaf for one in cells for leaf in leaves(one)] if isinstance(cells, list | tuple) else [cells]


def linen_cells(given: Tree) -> Tree:
    """The same nest of cells' parameters without what RNN, Bidirectional and `init` wrap around them."""
    if isinstance(given, list | tuple) and not hasattr(given, "_fields"):
        return type(given)(map(linen_cells, given))
    if not isinstance(given, Mapping):
        hint = ""
        if isinstance(given, nnx.Module):
            hint = ", a module of flax.nnx; those are for load_nnx"
        elif isinstance(given, linen.Module):
            hint = ", a linen module, which holds none; pass what its init returned"
        elif hasattr(given, "params"):
            hint = "; pass its .params"
        raise TypeError(
            f"load_linen: params must be the parameters of linen.GRUCell, RNN or Bidirectional, a pair or a list of"
            f" them; got {checks.described(given)}{hint}"
        )
    names = set(given)
    if names >= set(LINEN):
        return given
    if names == {"cell"}:
        return linen_cells(given["cell"])
    if names == {"forward_rnn", "backward_rnn"}:
        return linen_cells(given["forward_rnn"]), linen_cells(given["backward_rnn"])
    if "params" in names:
        return linen_cells(given["params"])
    paths = list(_paths(given))
    if paths:
        raise ValueError(
            f"load_linen: params hold GRU cells at {checks.listed(paths)} among other things; pass the sub-tree of one,"
            f" or a list of such sub-trees, one a layer, or a pair for two directions"
        )
    other = [what for what, parts in OTHER_CELLS.items() if names >= parts]
    raise TypeError(
        f"load_linen: params hold no GRU cell, that is no dict of ir, iz, in, hr, hz and hn; got"
        f" {checks.listed(given) or 'an empty dict'}{f', the names of {other[0]}' if other else ''}"
    )


def read_linen(name: str, cell: Mapping[str, Tree]) -> GRUParams:
    """The parameters of one `linen.GRUCell`."""
    who = "load_linen"
    found: dict[str, np.ndarray] = {}
    for part in cell:
        if part not in LINEN:
            raise ValueError(f"{who}: {name} has {part!r}, which linen.GRUCell has not and which would be lost")
    for part, expected in LINEN.items():
        has = set(cell[part]) if isinstance(cell[part], Mapping) else set()
        if has != expected:
            raise ValueError(
                f"{who}: {name} {part} must hold {' and '.join(sorted(expected))}, as in linen.GRUCell; got"
                f" {' and '.join(map(str, sorted(has))) or checks.described(cell[part])}"
            )
        for leaf, rank in (("kernel", 2), ("bias", 1)):
            if leaf in has:
                found[f"{part}/{leaf}"] = arrays.of_rank(who, f"{name} {part}/{leaf}", cell[part][leaf], rank)
    dtypes = sorted({str(array.dtype) for array in found.values()})
    if len(dtypes) > 1:
        raise ValueError(f"{who}: {name} holds arrays of {' and '.join(dtypes)}; convert them to one dtype")
    size, features = found["hn/kernel"].shape[1], found["ir/kernel"].shape[0]
    for leaf, array in found.items():
        shape = (size,) if leaf.endswith("bias") else (features if leaf[0] == "i" else size, size)
        arrays.shape(who, f"{name} {leaf}", array, shape, f"hn/kernel is that of {size} units")
    kernels = [found[f"{part}/kernel"] for part in LINEN]
    b_x = np.concatenate([found[f"{part}/bias"] for part in ("ir", "iz", "in")])
    return neutral.gru_params(np.concatenate(kernels[:3], -1), np.concatenate(kernels[3:], -1), b_x, found["hn/bias"])


def nnx_cells(given: object, say: Callable[[str, object], None]) -> Cells:
    """The same nest of cells without the modules around them, whose options go to `say(name, value)`."""
    match given:
        case list():
            return [nnx_cells(one, say) for one in given]
        case tuple():
            if not all(isinstance(one, nnx.GRUCell) for one in given):
                got = ", ".join(checks.described(one) for one in given)
                raise TypeError(
                    f"load_nnx: a pair must be of two nnx.GRUCell, forward and backward; got {got}; of two nnx.RNN make"
                    f" an nnx.Bidirectional, several layers are a list"
                )
            return given
        case nnx.GRUCell():
            return given
        case nnx.RNN():
            if given.reverse and not given.keep_order:
                raise ValueError(
                    "load_nnx: nnx.RNN(reverse=True) gives its outputs in reversed order, layers of this library in the"
                    " order of the input; load rnn.cell with reverse=True and flip y, or set keep_order=True"
                )
            say("time_major", given.time_major)
            say("reverse", given.reverse)
            return _gru_cell(given)
        case nnx.Bidirectional():
            # What its two RNNs say of the order of time and of axes is not used when it calls them.
            say("time_major", given.time_major)
            concatenated = inspect.signature(nnx.Bidirectional.__init__).parameters["merge_fn"].default
            say("merge", "concat" if given.merge_fn is concatenated else given.merge_fn)
            return _gru_cell(given.forward_rnn), _gru_cell(given.backward_rnn)
    expected = "modules must be flax.nnx.GRUCell, RNN or Bidirectional, a pair of cells or a list of layers"
    if isinstance(given, nnx.Module):
        paths = [".".join(map(str, path)) for path, one in nnx.iter_modules(given) if isinstance(one, nnx.GRUCell)]
        if paths:
            raise ValueError(
                f"load_nnx: {type(given).__name__} holds GRU cells at {checks.listed(paths)}; pass one of them, or a"
                f" list of layers"
            )
    hint = ""
    if isinstance(given, nnx.State):
        hint = "; make the module of it with nnx.merge(graphdef, state)"
    elif isinstance(given, Mapping):
        hint = "; parameters of flax.linen are for load_linen"
    raise TypeError(f"load_nnx: {expected}; got {_described(given)}{hint}")


def read_nnx(name: str, cell: nnx.GRUCell) -> GRUParams:
    """The parameters of one `flax.nnx.GRUCell`."""
    who = "load_nnx"
    for part, biased in (("dense_i", True), ("dense_h", False)):
        dense = getattr(cell, part)
        if type(dense) is not nnx.Linear or (dense.bias is not None) != biased:
            raise ValueError(
                f"{who}: {name} {part} must be the nnx.Linear {'with' if biased else 'without'} a bias that"
                f" nnx.GRUCell makes; got {type(dense).__name__}"
                f" {'with' if getattr(dense, 'bias', None) is not None else 'without'} a bias, which would be lost"
            )
    w_x = arrays.of_rank(who, f"{name} dense_i.kernel", cell.dense_i.kernel, 2)
    w_h = arrays.of_rank(who, f"{name} dense_h.kernel", cell.dense_h.kernel, 2)
    b_x = arrays.of_rank(who, f"{name} dense_i.bias", cell.dense_i.bias, 1)
    size = w_h.shape[0]
    arrays.shape(who, f"{name} dense_h.kernel", w_h, (size, 3 * size), "it is [H, 3H]")
    arrays.shape(who, f"{name} dense_i.kernel", w_x, (w_x.shape[0], 3 * size), f"dense_h is that of {size} units")
    arrays.shape(who, f"{name} dense_i.bias", b_x, (3 * size,), f"dense_h is that of {size} units")
    return neutral.gru_params(w_x, w_h, b_x, np.zeros(size, b_x.dtype))


def _gru_cell(rnn: object) -> nnx.GRUCell:
    cell = getattr(rnn, "cell", None)
    if not isinstance(cell, nnx.GRUCell):
        raise TypeError(f"load_nnx: {type(rnn).__name__} must run a flax.nnx.GRUCell; got {_described(cell)}")
    return cell


def _described(got: object) -> str:
    """What was got; cells of this library are named as flax's are."""
    whose = "gru_jax's own " if type(got).__module__.startswith("gru_jax.") else ""
    return whose + checks.described(got)


def _paths(tree: Mapping[str, Tree], path: tuple[str, ...] = ()) -> Iterator[str]:
    if set(tree) >= set(LINEN):
        yield "/".join(path)
        return
    for name, inner in tree.items():
        if isinstance(inner, Mapping):
            yield from _paths(inner, (*path, str(name)))

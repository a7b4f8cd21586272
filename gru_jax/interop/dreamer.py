"""Weights of DreamerV3's recurrent cell as a `DreamerGRU`, and back: Dreamer's own layout, and TorchRL's.

Both store the gates of each block side by side, reset, candidate, update; here the gates stand side by side, each of
all blocks, in the order r, z, n. The joint product's matrix is stored in one array there; here what belongs to the
input is apart, because it needs no state.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from gru_jax import checks
from gru_jax.cells import DreamerGRU, DreamerGRUParams, DreamerLinear
from gru_jax.interop import arrays
from gru_jax.interop.arrays import Weight
from gru_jax.types import Options, Params

__all__ = ["export", "export_torchrl", "load", "load_torchrl"]


class _Form(NamedTuple):
    """How others store a cell with layers above 0.

    Attributes:
      keys: the names of matrix, bias, scale and shift of a part: "state", "input", "layer" or "gates", and its number.
      inputs: how many parts of the input are projected.
      state_first: whether the state's projection stands before the input's in the joint product.
      transposed: whether dense matrices are `[out, in]`.
    """

    keys: Callable[[str, int], tuple[str, str, str, str]]
    inputs: int
    state_first: bool
    transposed: bool


def _dreamer_keys(part: str, number: int) -> tuple[str, str, str, str]:
    own = {"state": "dynin0", "input": f"dynin{number + 1}", "layer": f"dynhid{number}", "gates": "dyngru"}[part]
    return f"{own}/kernel", f"{own}/bias", f"{own}norm/scale", f"{own}norm/shift"


def _torchrl_keys(part: str, number: int) -> tuple[str, str, str, str]:
    own = {"state": "hidden_{}", "input": "input_{}", "layer": f"dynamic_{{}}s.{number}", "gates": "gates"}[part]
    linear, norm = own.format("linear"), own.format("norm")
    return f"{linear}.weight", f"{linear}.bias", f"{norm}.weight", f"{norm}.shift"


_DREAMER = _Form(_dreamer_keys, inputs=2, state_first=True, transposed=False)
_TORCHRL = _Form(_torchrl_keys, inputs=1, state_first=False, transposed=True)


def load(weights: Mapping[str, object], *, prefix: str = "dyn/", **options: Any) -> tuple[DreamerGRU, DreamerGRUParams]:
    """The recurrent cell of a world model from Dreamer's own parameters.

    Of the code of 2025 the cell is `RSSM._core` without what it does to its arguments: x is the latent and the action
    (divided by its absolute value where that is above 1) side by side. Of dreamerv3 1.5.0 it is `RSSM._gru`: x is what
    `img_in` gives.

    Args:
      weights: arrays by their names, such as "dyn/dyngru/kernel"; of dreamerv3 1.5.0 such as "rssm/gru/kernel".
      prefix: what stands before "dyngru/kernel" or "gru/kernel"; names that do not begin so, and those of other parts
        of the model, are left out.
      **options: of `DreamerGRU` that weights do not tell: activation (Dreamer's configs have "silu") and epsilon, 1e-4,
        of dreamerv3 1.5.0 1e-3, where not given.

    Returns:
      The cell and its parameters.

    Raises:
      ValueError: naming what is missing or of another shape.
      TypeError: for what are no arrays of floating-point numbers, or an option that the weights decide.

    Example:
      >>> import jax, gru_jax as gj
      >>> cell = gj.DreamerGRU(16, heads=2, norm="rms", layers=1, projection_size=8, input_sizes=(4, 2))
      >>> from gru_jax.interop import dreamer
      >>> weights = dreamer.export(cell, cell.init(jax.random.key(0), 6))
      >>> weights["dyn/dynhid0/kernel"].shape, dreamer.load(weights)[0] == cell
      ((2, 32, 8), True)

    Source: the code of dreamerv3; `w_x`, `w_s` and `joint.w` are the rows of `dynhid0/kernel`.
    """
    return _load("dreamer.load", _DREAMER, weights, prefix, options)


def export(cell: DreamerGRU, params: DreamerGRUParams, *, prefix: str = "dyn/") -> dict[str, np.ndarray]:
    """The parameters as Dreamer names and lays them out, the inverse of `load`.

    Args:
      cell: with layers above 0 and two `input_sizes`, latent and action; or with layers=0, heads=1 and norm "layer".
      params: its parameters.
      prefix: what is put before each name.

    Returns:
      Arrays by their names.

    Raises:
      ValueError: for a cell that Dreamer does not have.

    Example:
      >>> import jax, gru_jax as gj
      >>> from gru_jax.interop import dreamer
      >>> cell = gj.DreamerGRU(4, heads=1)
      >>> dreamer.export(cell, cell.init(jax.random.key(0), 3), prefix="rssm/")["rssm/gru/kernel"].shape
      (7, 12)
    """
    who = "dreamer.export"
    if cell.layers:
        return _export(who, _DREAMER, cell, params, prefix)
    if cell.heads > 1 or cell.norm != "layer":
        got = f"heads={cell.heads} and norm={cell.norm!r}"
        raise ValueError(f"{who}: with layers=0 Dreamer's cell has heads=1 and norm='layer'; got {got}")
    p = _checked(who, cell, params)
    found = {"gru/kernel": np.concatenate([p.joint.w[0], p.w_x])}
    found |= {"gru/norm/scale": p.joint.scale, "gru/norm/bias": p.joint.shift}
    return {prefix + name: _reordered(array) for name, array in found.items()}


def load_torchrl(
    weights: Mapping[str, object], *, prefix: str = "cell.", **options: Any
) -> tuple[DreamerGRU, DreamerGRUParams]:
    """The recurrent cell from the state dict of TorchRL's `DreamerV3BlockGRU`.

    Args:
      weights: the state dict, of torch, NumPy or JAX arrays.
      prefix: what stands before "gates.weight": "" for a `DreamerV3BlockGRUCell`.
      **options: of `DreamerGRU` that weights do not tell: activation, epsilon, update_bias, of which TorchRL has the
        same defaults.

    Returns:
      The cell and its parameters. TorchRL's is_init is `resets` of `scan`.

    Raises:
      ValueError: naming what is missing or of another shape.
      TypeError: for what are no arrays of floating-point numbers, or an option that the weights decide.

    Example:
      >>> import jax, gru_jax as gj
      >>> from gru_jax.interop import dreamer
      >>> cell = gj.DreamerGRU(16, heads=2, norm="rms", layers=2, projection_size=8)
      >>> weights = dreamer.export_torchrl(cell, cell.init(jax.random.key(0), 6))
      >>> weights["cell.dynamic_linears.0.weight"].shape, dreamer.load_torchrl(weights)[0] == cell
      ((2, 24, 8), True)

    Source: `DreamerV3BlockGRU` of TorchRL 0.14.1.
    """
    return _load("dreamer.load_torchrl", _TORCHRL, weights, prefix, options)


def export_torchrl(cell: DreamerGRU, params: DreamerGRUParams, *, prefix: str = "cell.") -> dict[str, np.ndarray]:
    """The parameters as the state dict of TorchRL's `DreamerV3BlockGRU`, the inverse of `load_torchrl`.

    Args:
      cell: with layers above 0, norm "rms" and one part of the input.
      params: its parameters.
      prefix: what is put before each name.

    Returns:
      Arrays by their names.

    Raises:
      ValueError: for a cell that TorchRL does not have.

    Example:
      >>> import jax, gru_jax as gj
      >>> from gru_jax.interop import dreamer
      >>> cell = gj.DreamerGRU(16, heads=2, norm="rms", layers=1)
      >>> dreamer.export_torchrl(cell, cell.init(jax.random.key(0), 6))["cell.gates.weight"].shape
      (2, 8, 24)
    """
    who = "dreamer.export_torchrl"
    if cell.norm != "rms":
        raise ValueError(f"{who}: TorchRL's cell has norm='rms'; got norm={cell.norm!r}")
    return _export(who, _TORCHRL, cell, params, prefix)


def _joint(who: str, given: "_Given", options: Options) -> tuple[DreamerGRU, DreamerGRUParams]:
    """The cell of dreamerv3 1.5.0."""
    kernel = given.take("gru/kernel", 2)
    H = kernel.shape[1] // 3
    if not 0 < H < kernel.shape[0] or kernel.shape[1] % 3:
        raise ValueError(f"{who}: gru/kernel must have shape [H + I, 3H]; got {list(kernel.shape)}")
    scale, shift = (given.take(name, 1, (3 * H,)) for name in ("gru/norm/scale", "gru/norm/bias"))
    kernel, scale, shift = (_reordered(a) for a in (kernel, scale, shift))
    params = DreamerGRUParams((), None, kernel[H:], None, DreamerLinear(kernel[None, :H], None, scale, shift), ())
    return _made(who, H, params, {"epsilon": 1e-3} | options, heads=1, norm="layer", layers=0)


def _load(
    who: str, form: _Form, weights: Mapping[str, object], prefix: str, options: Options
) -> tuple[DreamerGRU, DreamerGRUParams]:
    given = _Given(who, weights, prefix)
    if form is _DREAMER and "gru/kernel" in given.arrays:
        return _joint(who, given, options)
    gates = given.take(form.keys("gates", 0)[0], 3)
    k, size = gates.shape[:2]
    H, shifted = k * size, form.keys("state", 0)[3] in given.arrays

    def linear(part: str, number: int, *shape: int, normed: bool = True) -> DreamerLinear:
        wide = (shape[-1] * (k if len(shape) == 3 else 1),)
        w, b, scale, shift = form.keys(part, number)
        turned = form.transposed and len(shape) == 2
        matrix = given.take(w, len(shape), shape[::-1] if turned else shape)
        return DreamerLinear(
            matrix.T if turned else matrix,
            given.take(b, 1, wide),
            given.take(scale, 1, wide) if normed else None,
            given.take(shift, 1, wide) if normed and shifted else None,
        )

    layers = 1
    while form.keys("layer", layers)[0] in given.arrays:
        layers += 1
    place = 1 if form.transposed else 0
    P = given.take(form.keys("state", 0)[0], 2).shape[1 - place]
    features = tuple(given.take(form.keys("input", j)[0], 2).shape[place] for j in range(form.inputs))
    joint = linear("layer", 0, k, size + (form.inputs + 1) * P, size)
    shared: Weight = np.moveaxis(np.asarray(joint.w[:, size:]), 0, 1).reshape(-1, H)
    last = linear("gates", 0, k, size, 3 * size, normed=False)
    params = DreamerGRUParams(
        tuple(linear("input", j, width, P) for j, width in enumerate(features)),
        linear("state", 0, H, P),
        shared[P:] if form.state_first else shared[:-P],
        shared[:P] if form.state_first else shared[-P:],
        joint._replace(w=joint.w[:, :size]),
        (
            *(linear("layer", i, k, size, size) for i in range(1, layers)),
            last._replace(w=_reordered(last.w), b=_together(last.b, k)),
        ),
    )
    lost = sorted(name for name in given.arrays if name not in given.taken and (form is _TORCHRL or name[:3] == "dyn"))
    if lost:
        raise ValueError(f"{who}: there is no place for {checks.listed(lost)}, which would be lost")
    sizes = features if form.inputs > 1 else None
    norm = "layer" if shifted else "rms"
    return _made(who, H, params, options, heads=k, norm=norm, layers=layers, projection_size=P, input_sizes=sizes)


def _export(who: str, form: _Form, cell: DreamerGRU, params: DreamerGRUParams, prefix: str) -> dict[str, np.ndarray]:
    parts = len(cell.input_sizes or (0,))
    if not cell.layers or parts != form.inputs:
        raise ValueError(
            f"{who}: the cell must have layers of at least 1 and {form.inputs} part(s) of the input; got layers="
            f"{cell.layers} and input_sizes={cell.input_sizes}"
        )
    p, k = _checked(who, cell, params), cell.heads
    shared = np.concatenate([p.w_s, p.w_x] if form.state_first else [p.w_x, p.w_s])
    blocks = np.moveaxis(shared.reshape(len(shared), k, -1), 1, 0)
    *hidden, gates = p.layers
    linears = {("state", 0): p.state, ("layer", 0): p.joint._replace(w=np.concatenate([p.joint.w, blocks], 1))}
    linears |= {("input", j): one for j, one in enumerate(p.inputs)}
    linears |= {("layer", i): one for i, one in enumerate(hidden, 1)}
    linears["gates", 0] = gates._replace(w=_reordered(gates.w), b=_by_head(gates.b, k))
    found = {}
    for part, linear in linears.items():
        for name, array in zip(form.keys(*part), linear, strict=True):
            if array is not None:
                found[prefix + name] = array.T if form.transposed and array.ndim == 2 else array
    return found


class _Given:
    """Arrays by their names, less a prefix."""

    def __init__(self, who: str, weights: Mapping[str, object], prefix: str) -> None:
        if not isinstance(weights, Mapping):
            raise TypeError(f"{who}: weights must be arrays by their names; got {checks.described(weights)}")
        self.who, self.taken = who, set[str]()
        self.arrays = {name[len(prefix) :]: a for name, a in weights.items() if name.startswith(prefix)}
        if not self.arrays:
            got = checks.listed(weights) or "no names"
            raise ValueError(f"{who}: no name begins with {prefix!r}; got {got}; pass another prefix")

    def take(self, name: str, rank: int, shape: tuple[int, ...] | None = None) -> Weight:
        """An array of this rank and, where it is known, shape."""
        self.taken.add(name)
        if name not in self.arrays:
            raise ValueError(f"{self.who}: {name} is missing; got {checks.listed(self.arrays)}")
        array = arrays.of_rank(self.who, name, self.arrays[name], rank)
        if shape is not None:
            arrays.shape(self.who, name, array, shape, "the gates, the projections and their norms have to fit")
        return array


def _made(
    who: str, H: int, params: DreamerGRUParams, options: Options, **decided: Any
) -> tuple[DreamerGRU, DreamerGRUParams]:
    """The cell, and the parameters on the device."""
    for name in options:
        if name in decided:
            raise TypeError(f"{who}: {name} follows from the weights, it is {decided[name]!r}; leave it out")
    dtypes = sorted({str(a.dtype) for a in jax.tree.leaves(params)})
    if len(dtypes) > 1:
        raise ValueError(f"{who}: all weights must have one dtype; got {' and '.join(dtypes)}; convert them to one")
    return DreamerGRU(H, **decided, **options), jax.tree.map(lambda a: arrays.to_jax(who, "a weight", a), params)


def _checked(who: str, cell: DreamerGRU, params: DreamerGRUParams) -> Params:
    """The parameters as NumPy's."""
    if not isinstance(params, DreamerGRUParams):
        raise TypeError(f"{who}: params must be DreamerGRUParams, from cell.init; got {checks.described(params)}")
    cell.check_params(params, sum(one.w.shape[0] for one in params.inputs) or params.w_x.shape[0])
    return jax.tree.map(lambda a: arrays.to_numpy(who, "a parameter", a), params)


def _reordered(a: Weight) -> Weight:
    """The gates on the last axis in the other order, r, n, z to r, z, n and back."""
    a = np.asarray(a)
    return np.take(a.reshape(*a.shape[:-1], 3, -1), [0, 2, 1], -2).reshape(a.shape)


def _together(a: Weight, heads: int) -> Weight:
    """A vector of the gates of one head after another, as one of r of all heads, z of all, n of all."""
    return _reordered(np.swapaxes(np.asarray(a).reshape(heads, 3, -1), 0, 1).reshape(-1))


def _by_head(a: Weight, heads: int) -> Weight:
    """The inverse of `_together`."""
    return np.swapaxes(_reordered(a).reshape(3, heads, -1), 0, 1).reshape(-1)

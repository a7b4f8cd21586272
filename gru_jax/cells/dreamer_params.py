"""The parameters of a `DreamerGRU`, and the check that given ones fit a cell."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.types import Array, exportable


@exportable("DreamerLinear")
class DreamerLinear(NamedTuple):
    """A linear map of a `DreamerGRU`, and the norm of what it gives.

    Attributes:
      w: matrix, `[n, m]`, or the blocks on its diagonal, `[k, n/k, m/k]`.
      b: bias, `[m]`, or None.
      scale: what the normalised numbers are multiplied with, `[m]`; None where there is no norm.
      shift: what is added to that, `[m]`; None where there is no norm and with `norm="rms"`.
    """

    w: Array
    b: Array | None
    scale: Array | None
    shift: Array | None


@exportable("DreamerGRUParams")
class DreamerGRUParams(NamedTuple):
    """The parameters of a `DreamerGRU` of k heads, gates r, z, n side by side, in a block those of its head.

    Attributes:
      inputs: with layers above 0 the projection of each part of the input, w `[I, P]`; () otherwise.
      state: with layers above 0 the projection of the state, w `[H, P]`; None otherwise.
      w_x: what of the joint product belongs to the input, `[I, 3H]`, with layers above 0 to its N projections,
        `[N P, H]`.
      w_s: what belongs to the state's projection, `[P, H]`; None with `layers=0`.
      joint: what belongs to the state itself, block by block, w `[k, H/k, 3H/k]`, with layers above 0 `[k, H/k, H/k]`;
        with the bias and the norm of the whole joint product.
      layers: what follows, block by block: w `[k, H/k, H/k]`, of the last one, the gates, `[k, H/k, 3H/k]`.
    """

    inputs: tuple[DreamerLinear, ...]
    state: DreamerLinear | None
    w_x: Array
    w_s: Array | None
    joint: DreamerLinear
    layers: tuple[DreamerLinear, ...]


def shapes(
    features: tuple[int, ...], hidden_size: int, heads: int, layers: int, projection_size: int, shifted: bool
) -> DreamerGRUParams:
    """The shapes of all parameters, `jax.ShapeDtypeStruct` each.

    Args:
      features: of each part of the input.
      hidden_size: H.
      heads: k.
      layers: how many block products follow the joint one.
      projection_size: P.
      shifted: whether norms have a shift.
    """
    H, P, size = hidden_size, projection_size, hidden_size // heads
    of: Any = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731

    def linear(*w: int, biased: bool = True, normed: bool = True) -> DreamerLinear:
        wide = of(w[-1] * (heads if len(w) == 3 else 1))
        return DreamerLinear(
            of(*w), wide if biased else None, wide if normed else None, wide if normed and shifted else None
        )

    if not layers:
        joint = linear(heads, size, 3 * size, biased=False)
        return DreamerGRUParams((), None, of(sum(features), 3 * H), None, joint, ())
    return DreamerGRUParams(
        tuple(linear(width, P) for width in features),
        linear(H, P),
        of(len(features) * P, H),
        of(P, H),
        linear(heads, size, size),
        (*(linear(heads, size, size) for _ in range(layers - 1)), linear(heads, size, 3 * size, normed=False)),
    )


def named(tree: DreamerGRUParams) -> dict[str, Any]:
    """The leaves of parameters, or of their shapes, by what they are called, None among them."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: leaf is None)[0]
    return {f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}


def check(who: str, params: object, expected: DreamerGRUParams) -> None:
    """Raises unless every parameter is a floating-point array of the expected shape.

    Raises:
      TypeError: for what is no `DreamerGRUParams`, or holds something else than floating-point arrays.
      ValueError: for a wrong shape.
    """
    if not isinstance(params, DreamerGRUParams):
        raise TypeError(f"{who}: params must be DreamerGRUParams, from cell.init; got {type(params).__name__}")
    fix = "make params with this cell's init"
    given, wanted = named(params), named(expected)
    array: Any
    want: Any
    for name in [*wanted, *given]:
        array, want = given.get(name), wanted.get(name)
        if (array is None) != (want is None):
            got = "None" if array is None else checks.described(array)
            must = "be None" if want is None else f"have shape {list(want.shape)}"
            raise ValueError(f"{who}: {name} must {must}; got {got}; {fix}")
        if array is None:
            continue
        if not (hasattr(array, "dtype") and jnp.issubdtype(array.dtype, jnp.floating)):
            raise TypeError(f"{who}: {name} must be a floating-point array; got {checks.described(array)}")
        checks.shape(who, name, array.shape, want.shape, fix)

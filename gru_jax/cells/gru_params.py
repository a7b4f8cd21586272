"""The parameters of a GRU in the neutral layout, and the check that given ones fit a cell."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gru_jax import checks
from gru_jax.types import Array, exportable


@exportable("GRUParams")
class GRUParams(NamedTuple):
    """The parameters of a `GRU`, in the neutral layout.

    Attributes:
      w_x: input matrix `[I, 3H]`, gates r, z, n side by side.
      w_h: recurrent matrix `[H, 3H]`; with k > 1 heads, k blocks `[k, H/k, 3H/k]`.
      b_x: bias of the projected input, `[3H]`; None with `bias="none"`.
      b_h: bias inside the recurrent product: `[3H]` with `bias="full"`, the candidate's `[H]` with
        `bias="minimal"`, None with `bias="none"`.
    """

    w_x: Array
    w_h: Array
    b_x: Array | None
    b_h: Array | None


def shape_of_b_h(hidden_size: int, bias: str) -> tuple[int, ...]:
    """The shape of b_h under a `bias` option; () when there is none."""
    return {"full": (3 * hidden_size,), "minimal": (hidden_size,), "none": ()}[bias]


def check(
    params: GRUParams,
    features: int,
    hidden_size: int,
    bias: str,
    heads: int,
    check_features: Callable[[GRUParams, int], None],
) -> None:
    """Raises unless every parameter is what a cell of these options takes.

    Args:
      params: what was given.
      features: I, the features of the input.
      hidden_size: H.
      bias: "full", "minimal" or "none".
      heads: blocks of the recurrent matrix.
      check_features: raises for another number of features than params were made for.

    Raises:
      TypeError: for what is no `GRUParams`, or holds something else than floating-point arrays.
      ValueError: for a wrong shape.
    """
    who, H = f"GRU(hidden_size={hidden_size}, bias={bias!r}, heads={heads})", hidden_size
    if not isinstance(params, GRUParams):
        raise TypeError(f"{who}: params must be GRUParams, from cell.init; got {type(params).__name__}")
    for name, array in params._asdict().items():
        if not (hasattr(array, "shape") and hasattr(array, "dtype")) and (array is not None or name[0] == "w"):
            raise TypeError(f"{who}: params.{name} must be an array; got {checks.described(array)}")
        if array is not None and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{who}: params.{name} must be floating point; got {array.dtype}")
    if params.w_x.shape == (3 * H, features) != (features, 3 * H):
        raise ValueError(
            f"{who}: params.w_x must have shape {[features, 3 * H]}; got {[3 * H, features]}, its transpose, which"
            f" is how torch and ONNX store it; pass w_x.T and w_h.T"
        )
    if params.w_x.ndim == 2 and params.w_x.shape[1] == 3 * H:
        check_features(params, features)
    expected = {
        "w_x": (features, 3 * H),
        "w_h": (H, 3 * H) if heads == 1 else (heads, H // heads, 3 * H // heads),
        "b_x": () if bias == "none" else (3 * H,),
        "b_h": shape_of_b_h(H, bias),
    }
    for name, want in expected.items():
        got = getattr(params, name)
        if (got is None) != (want == ()) or (got is not None and got.shape != want):
            shown = "None" if got is None else f"shape {list(got.shape)}"
            wanted = f"have shape {list(want)}" if want else "be None"
            raise ValueError(f"{who}: params.{name} must {wanted}; got {shown}; make params with this cell's init")

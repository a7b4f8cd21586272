"""Mixed precision: a model that computes in another dtype than its parameters are held in, and rounding to bfloat16."""


import jax
import jax.numpy as jnp

from gru_jax.cells.base import accumulator
from gru_jax.config.sections.devices import PrecisionConfig
from gru_jax.models import Model
from gru_jax.types import Array, DType, Function, IntArray, Key, Options, Params, Tree


def in_precision(model: Model, precision: PrecisionConfig) -> Model:
    """The model with its parameters held in one dtype and its network computed in another.

    Args:
        model: a named tuple of pure functions of the parameters; its own dtype is float32.
        precision: the two dtypes.

    Returns:
        The same functions: `init` gives parameters of the one dtype; the others cast parameters, inputs and states to
        the other one, and what they give, losses are computed from it, is float32. With float32 twice, the model as
        it is.

    Example:
        >>> import gru_jax as gj
        >>> model = gj.models.readout(gj.recurrent(gj.GRU(4)), 3, 2)
        >>> model = in_precision(model, PrecisionConfig(params="bfloat16", compute="bfloat16"))
        >>> params = model.init(jax.random.key(0))
        >>> params.w.dtype, model.apply(params, jnp.ones((5, 7, 3))).dtype
        (dtype(bfloat16), dtype('float32'))
    """
    if precision == PrecisionConfig():
        return model
    held, computed = jnp.dtype(precision.params), jnp.dtype(precision.compute)

    def init(key: Key) -> Params:
        return in_dtype(model.init(key), held)

    functions: Options = {"init": init}
    for name in ("apply", "sample"):
        if hasattr(model, name):
            functions[name] = _computed_in(getattr(model, name), computed)
    return model._replace(**functions)  # type: ignore[attr-defined]  # a named tuple


def _computed_in(function: Function, dtype: DType) -> Function:
    def call(*arguments: Tree, **options: Tree) -> Tree:
        return widened(function(*in_dtype(arguments, dtype), **in_dtype(options, dtype)))

    return call


def in_dtype(tree: Tree, dtype: DType) -> Tree:
    """A pytree with its floating-point arrays of this dtype; whole numbers, flags and what is no array stay."""

    def cast(leaf: Tree) -> Tree:
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if floating else leaf

    return jax.tree.map(cast, tree)


def widened(tree: Tree) -> Tree:
    """A pytree with its half-precision arrays in float32."""

    def wide(leaf: Tree) -> Tree:
        half = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(accumulator(leaf.dtype)) if half else leaf

    return jax.tree.map(wide, tree)


def narrowed(wide: Params, like: Params, key: Key) -> Params:
    """Parameters in the dtypes that they are held in; to bfloat16 they are rounded up or down by chance.

    A step of training is often smaller than half the distance to the next bfloat16: rounded to the nearest it would be
    lost, every time. By chance, nearer is likelier, it is kept in the mean.

    Args:
        wide: of float32.
        like: the parameters before the step, whose dtypes are wanted.
        key: decides the chance.

    Source: Gupta et al. 2015, arXiv:1502.02551.
    """
    leaves, structure = jax.tree.flatten(wide)
    kept = jax.tree.leaves(like)
    if all(leaf.dtype == old.dtype for leaf, old in zip(leaves, kept, strict=True)):
        return wide
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [_rounded_by_chance(leaf, k) for leaf, k in zip(leaves, keys, strict=True)])


def _rounded_by_chance(wide: Array, key: Key) -> Array:
    # bfloat16 is the upper half of a float32: what carries over from the lower half is the rounding.
    bits: IntArray = jax.lax.bitcast_convert_type(wide, jnp.uint32)
    chance = jax.random.bits(key, wide.shape, jnp.uint16).astype(jnp.uint32)
    upper = jax.lax.shift_right_logical(bits + chance, jnp.full_like(bits, 16)).astype(jnp.uint16)
    finite = jnp.isfinite(wide)
    return jnp.where(finite, jax.lax.bitcast_convert_type(upper, jnp.bfloat16), wide.astype(jnp.bfloat16))

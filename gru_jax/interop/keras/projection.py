"""Constraints as a step of an optax optimizer."""

import jax
import optax
from flax import nnx

from gru_jax import checks
from gru_jax.interop.keras.cell import GRUCell
from gru_jax.types import Array, Function, Params


def constraints_of(model: nnx.Module) -> optax.GradientTransformation:
    """The constraints of all layers in a model, as the last step of an optax optimizer.

        p' = project(p + u)        u: what the steps before it would add

    Args:
      model: a layer of this package, or an `nnx.Module` that holds some; every layer in it is built.

    Returns:
      An `optax.GradientTransformation` for `optax.chain(optimizer, constraints_of(model))`.

    Raises:
      TypeError: when model is no `nnx.Module`.
      ValueError: when a layer with constraints is not built yet.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from flax import nnx
      >>> from gru_jax.interop import keras
      >>> gru = keras.layers.GRU(4, kernel_constraint="non_neg")
      >>> gru.build((None, None, 3))
      >>> tx = optax.chain(optax.sgd(1e-2), keras.constraints_of(gru))
      >>> optimizer = nnx.Optimizer(gru, tx, wrt=nnx.Param)
      >>> _ = optimizer.update(gru, nnx.grad(lambda gru: gru(jnp.ones((2, 7, 3))).sum())(gru))
      >>> bool((gru.kernel[...] >= 0).all())
      True

    Source: where keras.optimizers.Optimizer applies constraints.
    """
    if not isinstance(model, nnx.Module):
        raise TypeError(f"constraints_of: model must be an nnx.Module; got {checks.described(model)}")
    places: dict[tuple[str, ...], Function] = {}
    for path, module in nnx.iter_modules(model):
        if isinstance(module, GRUCell):
            if not module.built and any(module.options.constraints):
                raise ValueError("constraints_of: a layer is not built yet; call build((None, None, features)) first")
            for name, constraint in module.constraints().items():
                places[(*map(str, path), name)] = constraint

    def init(params: Params) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Params, state: optax.EmptyState, params: Params = None) -> tuple[Params, optax.EmptyState]:
        if params is None:
            raise ValueError("constraints_of: update needs the parameters; pass tx.update(updates, state, params)")

        def project(path: tuple[object, ...], change: Array, param: Array) -> Array:
            names = tuple(_name(key) for key in path)
            for place, constraint in places.items():
                if names[: len(place)] == place:
                    return constraint(param + change) - param
            return change

        return jax.tree_util.tree_map_with_path(project, updates, params), state

    return optax.GradientTransformation(init, update)


def _name(key: object) -> str:
    return str(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)))

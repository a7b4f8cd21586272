"""What `benchmarks.layers` times: our layer, the GRUs of other libraries with the same weights, and a floor below all.

A candidate is a call without arguments, together with how its results are read for comparison with ours.
"""

import functools
import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import gru_jax as gj
from benchmarks.agreement import Arrays
from benchmarks.layer_shapes import Shape
from gru_jax.interop import equinox as equinox_weights
from gru_jax.interop import flax as flax_weights
from gru_jax.interop import keras as keras_weights
from gru_jax.interop import neutral
from gru_jax.interop import torch as torch_weights

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MIB = 2**20


class LeftOut(Exception):
    """Why a peer cannot run here."""


class Problem(NamedTuple):
    """One layer with its input: `x [B, T, I]`, `h0 [B, H]`."""

    shape: Shape
    dtype: str
    cell: gj.GRU
    params: gj.GRUParams
    x: jax.Array
    h0: jax.Array


class Candidate(NamedTuple):
    """A call to time; `read` gives what it returned as named NumPy arrays, in our layout."""

    run: Callable[[], Any]
    read: Callable[[Any], Arrays] = lambda _: {}
    compile_s: float | None = None
    temp_MiB: float | None = None


class Layer(NamedTuple):
    """A JAX library's layer: its weights, `outputs(weights, x, h0) -> y`, and our w_h `[H, 3H]` of such weights."""

    weights: Any
    outputs: Callable[[Any, jax.Array, jax.Array], jax.Array]
    w_h: Callable[[Any], Any]


def problem(shape: Shape, dtype: str) -> Problem:
    """A layer with torch's initial values, but no recurrent biases: flax's NNX cell has none."""
    T, B, I, H = shape
    cell = gj.GRU(H, init="torch")
    params = cell.init(jax.random.key(0), I, DTYPES[dtype])
    params = params._replace(b_h=jnp.zeros_like(params.b_h))
    x = jax.random.normal(jax.random.key(1), (B, T, I), DTYPES[dtype])
    return Problem(shape, dtype, cell, params, x, jnp.zeros((B, H), DTYPES[dtype]))


def jitted(function: Callable[..., Any], *args: Any, read: Callable[[Any], Arrays] = lambda _: {}) -> Candidate:
    """A JAX function and its arguments, compiled."""
    jit, start = jax.jit(function), time.perf_counter()
    compiled = jit.lower(*args).compile()
    took, analysis = time.perf_counter() - start, compiled.memory_analysis()
    temp = None if analysis is None else round(analysis.temp_size_in_bytes / MIB, 3)
    # The call is the one that users write; it finds what has just been compiled.
    return Candidate(functools.partial(jit, *args), read, round(took, 2), temp)


def layer(made: Layer, given: Problem, kind: str) -> Candidate:
    """A JAX layer's outputs, or the value and all gradients of a loss of them."""
    # As a list: taking a library's own containers apart at every call is no part of a layer's time.
    leaves, tree = jax.tree.flatten(made.weights)
    args = (leaves, given.x, given.h0)

    def outputs(leaves: Any, x: Any, h0: Any) -> Any:
        return made.outputs(jax.tree.unflatten(tree, leaves), x, h0)

    if kind == "forward":
        return jitted(outputs, *args, read=lambda y: {"outputs": numbers(y)})

    def loss(leaves: Any, x: Any, h0: Any) -> Any:
        return (outputs(leaves, x, h0) ** 2).sum()

    def read(found: Any) -> Arrays:
        d_leaves, d_x, _ = found[1]
        d_w_h = made.w_h(jax.tree.unflatten(tree, d_leaves))
        return {"gradient of x": numbers(d_x), "gradient of w_h": numbers(d_w_h)}

    return jitted(jax.value_and_grad(loss, (0, 1, 2)), *args, read=read)


def ours(given: Problem, kind: str, method: Any = "auto") -> Candidate:
    """`gj.scan` as it comes, or by another method."""

    def outputs(params: Any, x: Any, h0: Any) -> Any:
        return gj.scan(given.cell, params, x, h0, method=method)[0]

    return layer(Layer(given.params, outputs, lambda params: params.w_h), given, kind)


def floor(given: Problem, kind: str) -> Candidate:
    """The step's matrix products and nothing else: no less is left for any layer that uses the same ones.

    Forward: the input's product for all steps, then one recurrent product `[B, H] [H, 3H]` a step. Training: besides
    them one `[B, 3H] [3H, H]` a step, and the products that give the gradients of w_h, w_x and x.
    """
    (T, B, I, H), dtype = given.shape, given.x.dtype
    # Orthogonal, so that states that nothing bounds neither vanish nor overflow.
    square = jax.nn.initializers.orthogonal()
    w_h = jnp.concatenate([square(key, (H, H)) for key in jax.random.split(jax.random.key(2), 3)], -1)
    h0 = jax.random.normal(jax.random.key(3), (B, H))

    def forward(w_x: Any, w_h: Any, x: Any, h0: Any) -> tuple[Any, Any]:
        def step(h: Any, _: None) -> tuple[Any, Any]:
            # A third of the product goes on; the compiler must not see that the rest is not used.
            h = lax.optimization_barrier(h @ w_h)[:, :H]
            return h, h

        u = x.reshape(B * T, I) @ w_x
        return u, lax.scan(step, h0, None, length=T)[1]

    def training(w_x: Any, w_h: Any, x: Any, h0: Any) -> Any:
        def step(c: Any, _: None) -> tuple[Any, None]:
            return lax.dynamic_update_slice(c, c @ w_h.T, (0, 0)), None

        u, h = forward(w_x, w_h, x, h0)
        c, _ = lax.scan(step, jnp.tile(h[-1], (1, 3)), None, length=T)
        # What a layer would multiply is known only after its backward loop; here u has its shape.
        u, h, c = lax.optimization_barrier((u, h, c))
        return h.reshape(T * B, H).T @ u, x.reshape(B * T, I).T @ u, u @ w_x.T, c

    function = forward if kind == "forward" else training
    return jitted(function, given.params.w_x, w_h.astype(dtype), given.x, h0.astype(dtype))


def nnx(given: Problem) -> Layer:
    """`flax.nnx.RNN(GRUCell)`."""
    from flax import nnx

    cell = flax_weights.export_nnx((given.cell, given.params))
    graph, weights, rest = nnx.split(nnx.RNN(cell), nnx.Param, ...)

    def outputs(weights: Any, x: Any, h0: Any) -> Any:
        return nnx.merge(graph, weights, rest)(x, initial_carry=h0)

    return Layer(weights, outputs, lambda weights: weights["cell"]["dense_h"]["kernel"][...])


def linen(given: Problem) -> Layer:
    """`flax.linen.RNN(GRUCell)`."""
    from flax import linen

    rnn = linen.RNN(linen.GRUCell(given.shape.H, param_dtype=given.x.dtype))

    def outputs(weights: Any, x: Any, h0: Any) -> Any:
        return rnn.apply({"params": weights}, x, initial_carry=h0)

    def w_h(weights: Any) -> Any:
        return jnp.concatenate([weights["cell"][name]["kernel"] for name in ("hr", "hz", "hn")], -1)

    return Layer(flax_weights.export_linen((given.cell, given.params)), outputs, w_h)


def equinox(given: Problem) -> Layer:
    """`eqx.nn.GRUCell` under `lax.scan`, one sequence, vmapped."""
    needs("equinox")
    cell = equinox_weights.export((given.cell, given.params))

    def outputs(cell: Any, x: Any, h0: Any) -> Any:
        def step(h: Any, x: Any) -> tuple[Any, Any]:
            h = cell(x, h)
            return h, h

        return jax.vmap(lambda x, h0: lax.scan(step, h0, x)[1])(x, h0)

    return Layer(cell, outputs, lambda cell: cell.weight_hh.T)


def keras(given: Problem) -> Layer:
    """`keras.layers.GRU` on its JAX backend."""
    needs("keras")
    os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

        if keras.backend.backend() != "jax":
            raise LeftOut(f"Keras was imported with the backend {keras.backend.backend()} before")
        # Its own initial values are thrown away, and could not be drawn in bfloat16.
        options = {"return_sequences": True, "reset_after": True, "recurrent_initializer": "zeros"}
        gru = keras.layers.GRU(given.shape.H, dtype=given.dtype, **options)
        gru.build(given.x.shape)
        gru.set_weights(keras_weights.export((given.cell, wide(given.params))))
        weights, rest = ([v.value for v in found] for found in (gru.trainable_variables, gru.non_trainable_variables))

    def outputs(weights: Any, x: Any, h0: Any) -> Any:
        return gru.stateless_call(weights, rest, x, initial_state=h0)[0]

    return Layer(weights, outputs, lambda weights: neutral.swapped(weights[1]))


def torch(given: Problem, kind: str) -> Candidate:
    """`torch.nn.GRU`, by cuDNN where JAX has a GPU too."""
    needs("torch")
    import torch

    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise LeftOut("this torch sees no GPU")
    if on_gpu:
        # float32 is to mean the same for all; see full_precision.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    finish = torch.cuda.synchronize if on_gpu else lambda: None
    place = {"device": "cuda" if on_gpu else "cpu", "dtype": getattr(torch, given.dtype)}
    gru = torch.nn.GRU(given.shape.I, given.shape.H, batch_first=True)
    exported = torch_weights.export((given.cell, wide(given.params)))
    gru.load_state_dict({name: torch.tensor(array) for name, array in exported.items()})
    gru.to(**place)
    training = kind == "training"
    x, h0 = (torch.tensor(numbers(a)).to(**place).requires_grad_(training) for a in (given.x, given.h0[None]))
    leaves = [*gru.parameters(), x, h0]

    def outputs() -> Any:
        with torch.inference_mode():
            y, _ = gru(x, h0)
        finish()
        return y

    def step() -> Any:
        for leaf in leaves:
            leaf.grad = None
        value = (gru(x, h0)[0] ** 2).sum()
        value.backward()
        finish()
        return value

    def host(tensor: Any) -> np.ndarray:
        return tensor.detach().float().cpu().numpy()

    if not training:
        return Candidate(outputs, lambda y: {"outputs": host(y)})
    return Candidate(step, lambda _: {"gradient of x": host(x.grad), "gradient of w_h": host(gru.weight_hh_l0.grad).T})


LAYERS = {"nnx": nnx, "linen": linen, "keras": keras, "equinox": equinox}
PEERS = ("torch", *LAYERS)


def peer(name: str, given: Problem, kind: str) -> Candidate:
    """A peer by its name, called once.

    Raises:
      LeftOut: with the reason, where it cannot run.
    """
    try:
        made = torch(given, kind) if name == "torch" else layer(LAYERS[name](given), given, kind)
        jax.block_until_ready(made.run())
    except LeftOut:
        raise
    except Exception as error:  # another library's, of any kind
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LeftOut(f"{type(error).__name__}: {first[:200]}") from error
    return made


def needs(package: str) -> None:
    """Raises LeftOut without the package."""
    if importlib.util.find_spec(package) is None:
        raise LeftOut("not installed; pip install '.[interop]'")


def full_precision() -> None:
    """float32 products in float32: GPUs round them to TF32 by default, some libraries' and not others'."""
    jax.config.update("jax_default_matmul_precision", "highest")


def wide(params: gj.GRUParams) -> gj.GRUParams:
    """The same numbers in float32, which libraries without NumPy's bfloat16 read."""
    return jax.tree.map(lambda array: array.astype(jnp.float32), params)


def numbers(array: Any) -> np.ndarray:
    """An array as float32 NumPy."""
    return np.array(array, np.float32)

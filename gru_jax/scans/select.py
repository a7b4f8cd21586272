"""Every choice that "auto" stands for, made in one place from what was measured."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from gru_jax import checks
from gru_jax.cells.base import Cell, accumulator, gifts
from gru_jax.cells.gru import GRU
from gru_jax.scans import choices
from gru_jax.scans.choices import Choice, Sizes
from gru_jax.scans.engines import registry
from gru_jax.scans.engines.registry import Asked
from gru_jax.scans.linear import forms
from gru_jax.scans.masking import Context, Steps
from gru_jax.scans.methods.associative import Associative
from gru_jax.scans.methods.newton import Newton
from gru_jax.scans.methods.sequential import Lean, Sequential
from gru_jax.scans.methods.time_sharded import TimeSharded
from gru_jax.scans.trajectory import Trajectory
from gru_jax.types import DType


class Method(Protocol):
    """A way to find the trajectory of a cell: a frozen dataclass of options."""

    def trajectory(self, cell: Cell, context: Context, steps: Steps, reverse: bool) -> Trajectory:
        """The states of all steps, with the shared derivative."""

    def keeps_states(self) -> bool:
        """Whether the backward pass is to be given nothing but arguments and states."""


METHODS = ("auto", "sequential", "associative", "newton", "naive")
"""The names that `method` may be; each is short for its class with default options."""


ACCELERATED = ("cudnn", "pallas", "interpret-gpu", "interpret-tpu")
"""The engines that are one call for the whole sequence whatever the options, of which nothing on a CPU was measured."""

GATES_BUDGET = 2**30
"""How many bytes of gates "auto" is willing to keep for a backward pass."""

STEPS_OF_ONE_SUM = 2000
"""Of how many steps plain differentiation may add up gradients of parameters one by one: over 10,000 steps they are
2e-6 to 5e-6 of the largest off in float32, over 200,000 1.7e-5; with keep="states" 5e-7."""

WORTH_COMPILING = 10**5
"""From how many operations on more than a plain loop is worth its longer compilation: some microseconds of them."""


def check(method: str | Method, cell: Cell) -> None:
    """Raises unless `method` is a name or a method, and one that runs this cell."""
    if isinstance(method, str):
        checks.choice("scan", "method", method, METHODS)
    elif not hasattr(method, "trajectory") or isinstance(method, type):
        got = f"the class {method.__name__}; call it" if isinstance(method, type) else repr(method)
        names = ", ".join(map(repr, METHODS))
        raise TypeError(f"scan: method must be one of {names} or a method such as gj.Sequential(); got {got}")
    if isinstance(method, TimeSharded):
        check(method.method, cell)
    inner = method.method if isinstance(method, TimeSharded) else method
    if isinstance(inner, Sequential | Newton):
        if inner is not method and registry.engine(inner.kernel).in_one_place:
            fix = "scan" if isinstance(inner, Sequential) else "xla"
            raise ValueError(
                f"scan: {type(inner).__name__}(kernel={inner.kernel!r}) needs all steps in one place; got it inside"
                f" TimeSharded; use kernel={fix!r}"
            )
        if inner.kernel == "chunked" and not gifts(cell).gradients:
            raise ValueError(
                f"scan: Sequential(kernel='chunked') needs a cell with a closed-form derivative, such as gj.GRU;"
                f" {type(cell).__name__} has none; use kernel='scan'"
            )
    if (method == "associative" or isinstance(method, Associative)) and not gifts(cell).affine:
        raise ValueError(
            f"scan: method {method!r} needs a cell that is linear in its state, with a method affine(params, u) ->"
            f" (a, b), such as gj.MinGRU; {type(cell).__name__} is not; use method='sequential'"
        )


def resolve(method: str | Method, cell: Cell, sizes: Sizes, asked: Asked) -> Method:
    """The method behind a name, with every "auto" in it decided for the backend that JAX will use.

    Args:
      method: a name or a method that `check` has let pass.
      cell: what is to be run.
      sizes: of what it is run over.
      asked: the call's dtype and options.

    Returns:
      A method without any "auto" in it.

    Raises:
      ValueError: for a kernel that was asked for by name and does not serve this cell or these options.
    """
    if isinstance(method, TimeSharded):
        inner = method.method
        # Steps in turn would leave all devices but one waiting.
        if inner == "auto" and not gifts(cell).affine:
            inner = Newton()
        if isinstance(inner, Sequential) or inner == "sequential":
            inner = Sequential() if isinstance(inner, str) else inner
            inner = dataclasses.replace(inner, kernel="scan", keep="states")
        return dataclasses.replace(method, method=resolve(inner, cell, sizes, asked))
    if isinstance(method, str):
        method = _by_name(method, cell, sizes)
    if isinstance(method, Newton):
        method.check_sizes(sizes)
    if isinstance(method, Associative | Newton) and sizes.B == 0 and (engine := registry.linear(method.kernel)):
        engine.require(type(method).__name__)
        return dataclasses.replace(method, kernel="auto")  # a kernel has no program for no sequence
    if isinstance(method, Associative):
        forms.check_known("Associative", method.kernel, sizes.T, (sizes.B,))
    if not isinstance(method, Sequential):
        return method
    every = method.checkpoint_every
    if every is not None and isinstance(sizes.T, int):
        sizes = sizes._replace(T=min(sizes.T, every))
    found = None
    if method.kernel not in ACCELERATED:
        found = choices.nearest(jax.default_backend(), sizes, asked.dtype, kind(cell))
    differentiated = _sequential(method, cell, sizes, asked, found and found.training, found and found.xla)
    if found is None or found.forward is None or every is not None or method.kernel not in ("auto", "xla", "llvm"):
        return differentiated
    # Where a forward pass is all there is, nothing has to be kept, and something else may be the fastest.
    alone = _sequential(method, cell, sizes, asked, found.forward, found.xla_forward)
    return differentiated if alone == differentiated else Lean(alone, differentiated)


def kind(cell: Any) -> str:
    """What a cell is called among what was measured: its equations, and whether they run in heads."""
    if not gifts(cell).equations:
        return type(cell).__name__
    heads = gifts(cell).block_size not in (None, cell.hidden_size)
    return f"{cell.equations.name}, heads" if heads else str(cell.equations.name)


def _by_name(name: str, cell: Cell, sizes: Sizes) -> Method:
    if name == "newton":
        return Newton()
    # For a cell that is linear in its state the recurrence over all of time is never slower: on CPU it is the same
    # loop with nothing but a product and a sum in it.
    if name == "associative" or (name == "auto" and gifts(cell).affine):
        return Associative()
    # What was measured was a GRU.
    found = choices.overtaking(jax.default_backend(), sizes) if name == "auto" and isinstance(cell, GRU) else None
    by_kernel = found is not None and found.kernel in registry.ROUNDS
    if found is None or (by_kernel and (jax.device_count() > 1 or not _on_default_backend())):
        return Sequential()
    return Newton(found.jacobian, kernel=found.kernel)


def _sequential(
    method: Sequential, cell: Cell, sizes: Sizes, asked: Asked, measured: Choice | None, of_xla: Choice | None
) -> Sequential:
    """The method with what was measured to be the fastest in place of every "auto".

    Where a kernel was that does not serve this call, it is the fastest of what XLA compiles by itself.
    """
    cpu, dtype = jax.default_backend() == "cpu", asked.dtype
    if method.kernel in ACCELERATED:
        _refuse(method.kernel, cell, asked)
        return dataclasses.replace(method, keep="states", chunk=1, hoist=True, cores=1)
    # A symbolic number of states, under jax.export, cannot be compared.
    known = all(isinstance(size, int) for size in sizes)
    if not isinstance(sizes.T, int):
        _refuse_unknown_steps(method)
    fits = known and _kept_by_plain_differentiation(sizes, dtype) <= GATES_BUDGET
    full = accumulator(dtype) == dtype

    kernel, keep, chunk = method.kernel, method.keep, method.chunk
    if kernel == "llvm":
        _refuse(kernel, cell, asked)
        return _compiled(method, sizes, measured, fits)
    if measured is not None and measured.kernel in ("cudnn", "pallas", "llvm"):
        if kernel == "auto" and _serves(measured, method, cell, asked):
            if measured.kernel != "llvm":
                return dataclasses.replace(method, kernel=measured.kernel, keep="states", chunk=1, hoist=True, cores=1)
            if _work(sizes) >= WORTH_COMPILING:
                return _compiled(method, sizes, measured, fits)
        measured = of_xla
    if kernel in ("auto", "xla"):
        # What is written for the loop is meant for the loop. And with several devices `jit` may split the batch over
        # them, which XLA's partitioner does not do inside the calls that keep a chunk's steps apart.
        plain = method.unroll != 1 or method.hoist != "auto" or not gifts(cell).gradients or jax.device_count() > 1
        kernel = "scan" if plain or measured is None or _work(sizes) < WORTH_COMPILING else measured.kernel
    if kernel == "chunked":
        if keep == "auto":
            keep = measured.keep if measured is not None and fits else "states"
        if not gifts(cell).products:
            keep = "states"
        if chunk == "auto":
            chunk = 8 if measured is None else measured.chunk
    elif keep == "auto":
        # On CPU computing the gates again makes a training step longer and memory is rarely short. In half precision
        # plain differentiation of the loop would add up the gradients of the parameters in half precision, step after
        # step.
        keep = "gates" if cpu and fits and full and sizes.T <= STEPS_OF_ONE_SUM else "states"
    # XLA's CPU code for a loop that slices a projected input does not vectorise.
    hoist = not cpu if method.hoist == "auto" else method.hoist
    return dataclasses.replace(method, kernel=kernel, keep=keep, chunk=chunk, hoist=hoist, cores=1)


def _compiled(method: Sequential, sizes: Sizes, measured: Choice | None, fits: bool) -> Sequential:
    """The method with the kernel "llvm", by what was measured of it; without that, on one core."""
    near = measured if measured is not None and measured.kernel == "llvm" else Choice("llvm", "gates", 1)
    keep = (near.keep if fits else "states") if method.keep == "auto" else method.keep
    cores = min(near.cores, registry.usable_cores()) if method.cores == "auto" else method.cores
    return dataclasses.replace(method, kernel="llvm", keep=keep, chunk=1, hoist=True, cores=cores)


def _serves(choice: Choice, method: Sequential, cell: Cell, asked: Asked) -> bool:
    """Whether a kernel that was measured to be the fastest can be taken."""
    # What is written for the loop is meant for the loop; and where a batch may be split over several devices, those of
    # a GPU are left to cuDNN and those of a CPU, which are its cores, to the plain loop.
    for_the_loop = method.unroll != 1 or method.hoist != "auto" or method.chunk != "auto"
    if for_the_loop or (choice.kernel != "cudnn" and jax.device_count() > 1):
        return False
    if asked.symbolic or not _on_default_backend():
        return False
    return registry.engine(choice.kernel).refusal(cell, asked) is None


def _on_default_backend() -> bool:
    """Whether arrays that were put nowhere are where JAX's default backend is."""
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    platform = getattr(device, "platform", device)
    return platform is None or platform == jax.default_backend() or (platform, jax.default_backend()) == ("cuda", "gpu")


def _refuse(kernel: str, cell: Cell, asked: Asked) -> None:
    """Raises where a kernel that was asked for by name does not serve a call."""
    reason = registry.engine(kernel).refusal(cell, asked)
    if reason is not None:
        others = ["xla"]
        if kernel == "cudnn" and registry.engine("pallas").refusal(cell, asked) is None:
            others.insert(0, "pallas")
        raise ValueError(
            f"Sequential: kernel={kernel!r} does not serve {reason}; use {' or '.join(f'kernel={k!r}' for k in others)}"
        )


def _refuse_unknown_steps(method: Sequential) -> None:
    """Raises where time is cut into pieces and a symbolic number of steps, under jax.export, cannot be."""
    options = {"kernel": "chunked", "checkpoint_every": method.checkpoint_every, "unroll": method.unroll}
    given = [name for name in options if getattr(method, name) == options[name] not in (None, 1)]
    if given:
        name, fix = given[0], {"kernel": "'scan'", "checkpoint_every": "None", "unroll": "1"}[given[0]]
        raise ValueError(
            f"Sequential: {name}={options[name]!r} needs a number of steps that is known; got a symbolic one; use"
            f" {name}={fix}, or export for one number of steps and pad x to it with lengths"
        )


def _kept_by_plain_differentiation(sizes: Sizes, dtype: DType) -> int:
    return 10 * sizes.T * sizes.B * sizes.H * jnp.dtype(dtype).itemsize


def _work(sizes: Sizes) -> int:
    """About how many operations the products of a forward pass take."""
    return 12 * sizes.T * sizes.B * sizes.H * sizes.H

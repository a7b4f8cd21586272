"""`gru_jax.inside.torch`: torch.nn.GRU, whose forward and backward passes on a CPU are this library's.

    from gru_jax import inside
    rnn = inside.torch.GRU(8, 32, num_layers=2)          # was: torch.nn.GRU(...)
"""

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import torch
from torch import _VF, Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gru_jax.inside import torch_run, torch_threads

__all__ = ["GRU", "accelerate"]

LEAST_STEPS = 16
"""Fewer steps are torch's: handing the arrays over takes longer than they do."""

MOST_PROGRAMS = 64
"""For how many shapes of input, of all modules together, programs are compiled; further ones are torch's."""

PROCESS = os.getpid()
"""Where JAX may run: a process that was forked from this one has none of its threads."""

Context: TypeAlias = Any
"""What torch hands from a forward to a backward pass: attributes of any name may be set on it."""

_programs: set[tuple[object, ...]] = set()


class GRU(nn.GRU):
    """torch.nn.GRU, run by this library: the same arguments, parameters, call, numbers and gradients.

    It is a `torch.nn.GRU`: `state_dict`, packed sequences, hooks, `torch.optim`, `deepcopy` and pickles are torch's,
    and dropout between layers is drawn by torch, with its seeds. What is run here is float32 on a CPU, and float64
    where JAX has it, from 16 steps on, in this process; every shape of input is compiled once, forward and backward, up
    to 64 of them. Packed sequences share a program with those that are about as long. All else is computed by torch:
    other devices and dtypes, autocast, `torch.compile`, `export` and `jit`, `torch.func`, forward mode, derivatives of
    gradients, and forked processes.

    Args:
      *args, **kwargs: those of torch.nn.GRU: input_size, hidden_size, num_layers, bias, batch_first, dropout,
        bidirectional, device, dtype.

    Example:
      >>> import torch
      >>> from gru_jax import inside
      >>> rnn = inside.torch.GRU(3, 4, bidirectional=True)
      >>> output, h_n = rnn(torch.ones(20, 2, 3))
      >>> output.sum().backward()
      >>> stock = torch.nn.GRU(3, 4, bidirectional=True)
      >>> stock.load_state_dict(rnn.state_dict())
      <All keys matched successfully>
      >>> torch.allclose(stock(torch.ones(20, 2, 3))[0], output, atol=1e-6)
      True

    Source: torch.nn.GRU of torch 2.13.
    """

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """Runs the layers over time.

        Args:
          input: `[T, B, I]` (`[B, T, I]` with batch_first), `[T, I]` for one sequence, or a `PackedSequence`.
          hx: the states before the first step, `[L*D, B, H]`, or `[L*D, H]` for one sequence; zeros when None.

        Returns:
          The outputs and the last states, as torch.nn.GRU gives them.
        """
        # The compiler leaves a torch.nn.GRU out of its graphs and runs it here, with an eye on every function it calls.
        watched = torch.compiler.is_compiling() or torch._C._dynamo.eval_frame.get_eval_frame_callback() is not None
        if watched or not self._taken(input, hx):
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            return self._of_packed(input, hx)
        alone = input.dim() == 2
        time_major = alone or not self.batch_first
        x = input.unsqueeze(1) if alone else input
        batch = x.size(1 if time_major else 0)
        states = self._states(x, batch) if hx is None else hx.unsqueeze(1) if alone else hx
        shape = (x.size(0), batch) if time_major else (x.size(1), batch)
        masks = [mask if time_major else mask.transpose(0, 1) for mask in self._dropped(x, shape)]
        y, ends = self._run(x, states, None, masks, time_major)
        return (y.squeeze(1), ends.squeeze(1)) if alone else (y, ends)

    def _of_packed(self, packed: PackedSequence, hx: Tensor | None) -> tuple[PackedSequence, Tensor]:
        data, sizes, order, back = packed
        steps = _rounded(len(sizes))
        x, lengths = _VF._pad_packed_sequence(data, sizes, False, 0.0, steps)
        states = self._states(x, x.size(1)) if hx is None else self.permute_hidden(hx, order)
        masks = [
            _VF._pad_packed_sequence(mask, sizes, False, 0.0, steps)[0] for mask in self._dropped(data, (len(data),))
        ]
        y, ends = self._run(x, states, lengths, masks, True)
        y, _ = _VF._pack_padded_sequence(y, lengths, False)
        return PackedSequence(y, sizes, order, back), self.permute_hidden(ends, back)

    def _run(
        self, x: Tensor, hx: Tensor, lengths: Tensor | None, masks: list[Tensor], time_major: bool
    ) -> tuple[Tensor, Tensor]:
        net = torch_run.Net(self.hidden_size, self.num_layers, 1 + self.bidirectional, self.bias, time_major)
        weights: list[Any] = self._flat_weights
        moving = torch.is_grad_enabled() and any(t.requires_grad for t in (x, hx, *weights))
        if moving:
            return _OverTime.apply(net, lengths, len(masks), x, hx, *masks, *weights)
        with jax.enable_x64(x.dtype is torch.float64):
            made = torch_run.alone(net, _given(lengths, x, hx, masks, weights))
            y, ends = _to_torch(made)
        return y, ends

    def _states(self, x: Tensor, batch: int) -> Tensor:
        rows = self.num_layers * (1 + self.bidirectional)
        return torch.zeros(rows, batch, self.hidden_size, dtype=x.dtype, device=x.device)

    def _dropped(self, x: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
        """What each layer's outputs but the last's are multiplied with, drawn in torch's order."""
        if not (self.training and self.dropout):
            return []
        keep, width = 1 - self.dropout, self.hidden_size * (1 + self.bidirectional)
        empty = torch.empty(*shape, width, dtype=x.dtype)
        if not keep:
            return [torch.zeros_like(empty)] * (self.num_layers - 1)
        return [torch.empty_like(empty).bernoulli_(keep).div_(keep) for _ in range(self.num_layers - 1)]

    def _taken(self, input: Any, hx: Tensor | None) -> bool:
        """Whether a call is run here; what is wrong with one is torch's to say."""
        self._update_flat_weights()
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        given = [x, *self._flat_weights] if hx is None else [x, hx, *self._flat_weights]
        if not all(_plain(t, x.dtype) for t in given) or not _computed_here(x.dtype):
            return False
        if x.dim() not in ((2,) if packed else (2, 3)) or x.size(-1) != self.input_size:
            return False
        steps, batch = x.size(0), tuple(x.shape[1:-1])
        if packed:
            steps, batch = len(input.batch_sizes), (int(input.batch_sizes[0]),)
        elif batch and self.batch_first:
            steps, batch = x.size(1), (x.size(0),)
        rows = self.num_layers * (1 + self.bidirectional)
        if hx is not None and hx.shape != (rows, *batch, self.hidden_size):
            return False
        if steps < LEAST_STEPS or 0 in batch:
            return False
        net = (self.input_size, self.hidden_size, rows, self.bidirectional, self.bias, self.batch_first)
        dropped = self.training and self.dropout > 0
        return _counted((*net, _rounded(steps) if packed else steps, batch, packed, dropped, x.dtype))

    def __prepare_scriptable__(self) -> nn.GRU:
        """What torch.jit.script compiles in its place: a torch.nn.GRU of the same parameters."""
        stock = nn.GRU.__new__(nn.GRU)
        stock.__setstate__(self.__getstate__())
        return stock


def accelerate(model: nn.Module) -> nn.Module:
    """Makes every torch.nn.GRU in a model an `inside.torch.GRU`, in place: parameters, optimizers and hooks stay.

    Args:
      model: any module; subclasses of torch.nn.GRU in it are left as they are.

    Returns:
      The model itself.

    Example:
      >>> import torch
      >>> from gru_jax import inside
      >>> model = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 4), "out": torch.nn.Linear(4, 1)})
      >>> type(inside.torch.accelerate(model)["rnn"])
      <class 'gru_jax.inside.torch.GRU'>
    """
    for module in model.modules():
        if type(module) is nn.GRU:
            module.__class__ = GRU
    return model


class _OverTime(torch.autograd.Function):
    """The programs of `torch_run` in torch's graph."""

    @staticmethod
    def forward(
        ctx: Context, net: torch_run.Net, lengths: Tensor | None, masked: int, x: Tensor, hx: Tensor, *rest: Tensor
    ) -> tuple[Tensor, Tensor]:
        masks, weights = rest[:masked], rest[masked:]
        with jax.enable_x64(x.dtype is torch.float64):
            given = _given(lengths, x, hx, masks, weights)
            outputs, kept = torch_run.forward(net, given)
            leaves, ctx.structure = jax.tree.flatten(kept)
            y, ends, *own = _to_torch((*outputs, *leaves))
        ctx.net, ctx.lengths, ctx.masked = net, lengths, masked
        ctx.weights = given.weights
        ctx.set_materialize_grads(False)
        # What was kept is torch's to free after a backward pass, and to check for changes in place.
        ctx.save_for_backward(x, hx, *rest, *own)
        return y, ends

    @staticmethod
    def backward(ctx: Context, d_y: Tensor | None, d_ends: Tensor | None) -> tuple[Tensor | None, ...]:
        many, saved = 2 + ctx.masked + len(ctx.weights), ctx.saved_tensors
        tensors, own = saved[:many], saved[many:]
        # To be differentiated once more, or for many gradients at once, as jacobians ask for them.
        if torch.is_grad_enabled() or not all(d is None or _plain(d, d.dtype) for d in (d_y, d_ends)):
            found = _by_torch(ctx, tensors, d_y, d_ends)
        else:
            x, hx, *masks = tensors[: 2 + ctx.masked]
            with jax.enable_x64(x.dtype is torch.float64):
                given = _given(ctx.lengths, x, hx, masks, ())._replace(weights=ctx.weights)
                kept = ctx.structure.unflatten([_to_jax(t) for t in own])
                d = (None if t is None else _to_jax(t) for t in (d_y, d_ends))
                made = torch_run.backward(ctx.net, given, kept, *d)
                d_x, d_h0, *d_weights = _to_torch((made.x, made.h0, *made.weights))
            found = [d_x, d_h0, *[None] * ctx.masked, *d_weights]
        return None, None, None, *found


def _by_torch(
    ctx: Context, tensors: Sequence[Tensor], d_y: Tensor | None, d_ends: Tensor | None
) -> list[Tensor | None]:
    """The gradients by torch, which computes the outputs again and goes back through what it then knows."""
    with torch.enable_grad():
        pairs = list(zip(_outputs_by_torch(ctx, tensors), (d_y, d_ends), strict=True))
    moving = [t for t in tensors if t.requires_grad]
    made = iter(
        torch.autograd.grad(
            [y for y, d in pairs if d is not None],
            moving,
            [d for _, d in pairs if d is not None],
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
        )
    )
    return [next(made) if t.requires_grad else None for t in tensors]


def _outputs_by_torch(ctx: Context, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    net, masked = ctx.net, ctx.masked
    x, hx, masks, weights = tensors[0], tensors[1], tensors[2 : 2 + masked], tensors[2 + masked :]
    kinds, rows = 4 if net.bias else 2, net.directions
    y, ends = x if net.time_major else x.transpose(0, 1), []
    for layer in range(net.layers):
        own = list(weights[layer * rows * kinds : (layer + 1) * rows * kinds])
        how = (own, net.bias, 1, 0.0, False, rows == 2)
        h = hx[layer * rows : (layer + 1) * rows].contiguous()
        if ctx.lengths is None:
            y, end = _VF.gru(y, h, *how, False)
        else:
            data, sizes = _VF._pack_padded_sequence(y, ctx.lengths, False)
            data, end = _VF.gru(data, sizes, h, *how)
            y, _ = _VF._pad_packed_sequence(data, sizes, False, 0.0, y.size(0))
        ends.append(end)
        if masked and layer < net.layers - 1:
            y = y * (masks[layer] if net.time_major else masks[layer].transpose(0, 1))
    return y if net.time_major else y.transpose(0, 1), torch.cat(ends)


def _given(
    lengths: Tensor | None, x: Tensor, hx: Tensor, masks: Sequence[Tensor], weights: Sequence[Tensor]
) -> torch_run.Given:
    """The arguments of a program that runs next."""
    (places, _, units), features = hx.shape, x.shape[-1]
    torch_threads.rest(x.numel() // max(features, 1) * places * 3 * units * (features + units))
    return torch_run.Given(
        _to_jax(x),
        _to_jax(hx),
        tuple(map(_to_jax, weights)),
        None if lengths is None else _to_jax(lengths.int()),
        tuple(map(_to_jax, masks)) or None,
    )


def _to_jax(tensor: Tensor) -> jax.Array:
    """The same memory as an array of JAX's, where it is contiguous."""
    return jax.dlpack.from_dlpack(tensor.detach().contiguous())


def _to_torch(arrays: Sequence[jax.Array]) -> list[Tensor]:
    """The same memory as tensors, once all of it is written: what was read may be changed from here on."""
    return [torch.from_dlpack(array) for array in jax.block_until_ready(arrays)]


def _plain(tensor: Any, dtype: torch.dtype) -> bool:
    """Whether a tensor is numbers of a dtype in this machine's memory, and nothing that only stands for some."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype is dtype
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and not torch._C._functorch.is_legacy_batchedtensor(tensor)
    )


def _computed_here(dtype: torch.dtype) -> bool:
    """Whether JAX has a CPU and the dtype, and torch does nothing else than compute: no tracing, no transformation."""
    return (
        (dtype is torch.float32 or (dtype is torch.float64 and bool(jax.config.read("jax_enable_x64"))))
        and os.getpid() == PROCESS
        and jax.default_backend() == "cpu"
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and torch.autograd.forward_ad._current_level < 0
    )


def _counted(key: tuple[object, ...]) -> bool:
    """Whether there is a program for a shape, or there may be one more."""
    if key in _programs:
        return True
    if len(_programs) >= MOST_PROGRAMS:
        return False
    _programs.add(key)
    return True


def _rounded(steps: int) -> int:
    """As many or up to an eighth more steps, so that there are eight such numbers between one power of 2 and the next.

    Packed sequences of one batch are rarely as long as those of another.
    """
    unit = max(1, 2 ** (steps.bit_length() - 4))
    return -(-steps // unit) * unit

"""torch: a training step and a forward pass of `torch.nn.GRU`, and of `inside.torch.GRU` in its place."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks import agreement, timing
from benchmarks.inside_rows import row
from benchmarks.layer_shapes import Shape
from gru_jax import inside

SHAPES = (Shape(2000, 16, 32, 64), Shape(700, 1, 48, 112), Shape(128, 32, 64, 128))
QUICK = (Shape(17, 2, 3, 4),)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "two layers": {"num_layers": 2},
    "two directions": {"bidirectional": True},
    "packed": {},
}
BOUND = 1e-5
"""How far gradients may be apart, in parts of the largest of each array."""


def training(rnn: torch.nn.GRU, optimizer: torch.optim.Optimizer, x: Any) -> Any:
    """One step of torch's usual loop; the learning rate is 0, so that all rounds compute the same."""
    optimizer.zero_grad()
    y, h = rnn(x)
    y = y.data if isinstance(y, torch.nn.utils.rnn.PackedSequence) else y
    loss = (y**2).mean() + (h**2).mean()
    loss.backward()
    optimizer.step()
    return loss


def forward(rnn: torch.nn.GRU, x: Any) -> Any:
    """The outputs alone."""
    with torch.no_grad():
        return rnn(x)[0]


def given(shape: Shape, case: str) -> Any:
    """The input of a case."""
    x = torch.randn(shape.T, shape.B, shape.I)
    if case != "packed":
        return x
    lengths = torch.linspace(max(1, shape.T // 2), shape.T, shape.B).long()
    return torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)


def sides(shape: Shape, case: str, x: Any) -> tuple[dict[str, list[Callable[[], Any]]], float]:
    """Ours and torch's call of each kind, and how far their gradients are apart."""
    torch.manual_seed(0)
    stock = torch.nn.GRU(shape.I, shape.H, **CASES[case])
    ours = inside.torch.GRU(shape.I, shape.H, **CASES[case])
    ours.load_state_dict(stock.state_dict())
    calls: dict[str, list[Callable[[], Any]]] = {"training": [], "forward": []}
    gradients = []
    for rnn in (ours, stock):
        step = functools.partial(training, rnn, torch.optim.SGD(rnn.parameters(), lr=0.0), x)
        step()
        gradients.append([p.grad.numpy().copy() for p in rnn.parameters()])
        calls["training"].append(step)
        calls["forward"].append(functools.partial(forward, rnn, x))
        calls["forward"][-1]()
    return calls, max(agreement.distance(theirs, mine) for mine, theirs in zip(*gradients, strict=True))


def rows(quick: bool, budget_s: float) -> Iterator[dict[str, Any]]:
    """A row for each shape, case and kind."""
    for shape in QUICK if quick else SHAPES:
        for case in CASES:
            calls, off = sides(shape, case, given(shape, case))
            if not off <= BOUND:
                raise agreement.Disagreement(f"torch, {case}, T,B,I,H = {shape}: gradients are off by {off:.2g}")
            for kind, (ours, theirs) in calls.items():
                times = timing.side_by_side(ours, theirs, budget_s)
                yield row("torch", kind, case, shape, off, times)

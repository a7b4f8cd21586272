"""A whole network as torch's: a state dict, and the source of the module that it belongs to."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from gru_jax.between import EPSILON
from gru_jax.runs.exporting.network import Network, NetworkLayer, Recurrence, check_directions, refuse
from gru_jax.runs.exporting.request import Request, Scaling

MODULES: dict[str, tuple[str, tuple[int, ...]]] = {
    "gru": ("GRU", (0, 1, 2)),
    "lstm": ("LSTM", (0, 1, 3, 2)),
    "tanh rnn": ("RNN", (0,)),
}
"""The module of each kind, and its gates in our order."""
KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

SOURCE = '''\
"""A network that gru_jax trained, as a module of torch. `load(path)` is the network with its weights.

x        {x}
lengths  [B] whole numbers from 1, the steps of each sequence; None when all have T
result   {y}

{about}
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def over_time(rnn, x, lengths):
    """Outputs at all steps, 0 past each sequence's length, and the final states."""
    if lengths is None:
        return rnn(x)
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    y, h = rnn(packed)
    return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0], h


class Model(nn.Module):
    def __init__(self):
        super().__init__()
{parts}

    def forward(self, x, lengths=None):
{steps}


def load(path):
    model = Model()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()
'''


def files(request: Request) -> Mapping[str, bytes]:
    """The state dict, and beside it the source of its module."""
    import torch

    network = request.network
    groups = _groups(network)
    tensors = {name: torch.from_numpy(np.array(a, np.float32, order="C")) for name, a in _arrays(network, groups)}
    if request.scaling is not None:
        tensors |= {name: torch.from_numpy(np.array(a)) for name, a in request.scaling._asdict().items()}
    content = io.BytesIO()
    torch.save(tensors, content)
    source = _source(request, groups)
    return {"": content.getvalue(), ".py": source.encode()}


def outputs(made: Mapping[str, bytes], request: Request, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """What the module makes of sequences: its source run, its weights read, as a user would."""
    import torch

    namespace: dict[str, Any] = {}
    exec(compile(made[".py"], "the module's source", "exec"), namespace)
    model = namespace["load"](io.BytesIO(made[""]))
    with torch.no_grad():
        return model(torch.tensor(x), None if lengths is None else torch.tensor(lengths)).numpy()


def _groups(network: Network) -> list[tuple[NetworkLayer, ...]]:
    """The layers as torch's modules hold them: all in one where nothing stands between them, or each in its own."""
    for layer in network.layers:
        check_directions("torch", layer)
        _check(layer.directions[0])
    same = {(layer.directions[0].kind, layer.directions[0].units, len(layer.directions)) for layer in network.layers}
    if len(same) == 1 and all(layer.plain for layer in network.layers):
        return [network.layers]
    return [(layer,) for layer in network.layers]


def _check(one: Recurrence) -> None:
    if one.kind not in MODULES:
        raise refuse("torch", "GRU with the reset gate before the recurrent product", "'onnx' and 'keras'")
    if (one.gate, one.candidate) != ("sigmoid", "tanh"):
        named = f"activation={one.candidate!r} and gate_activation={one.gate!r}"
        raise refuse("torch", f"GRU with {named}, but with tanh and sigmoid", "'onnx' and 'keras'")


def _arrays(network: Network, groups: list[tuple[NetworkLayer, ...]]) -> list[tuple[str, np.ndarray]]:
    """The state dict, in the order of the module's parts."""
    found = [] if network.embedding is None else [("embedding.weight", network.embedding)]
    for index, group in enumerate(groups):
        for number, layer in enumerate(group):
            for one, end in zip(layer.directions, ("", "_reverse"), strict=False):
                moved = one.ordered(MODULES[one.kind][1])
                arrays = (moved.w_x.T, moved.w_h.T, moved.b_x, moved.b_h)
                names = [f"rnn_{index}.{kind}_l{number}{end}" for kind in KINDS]
                found += list(zip(names, arrays, strict=True))
        scale = group[-1].scale
        if scale is not None:
            named = {"weight": scale.scale, "bias": scale.bias}
            found += [(f"norm_{index}.{name}", np.asarray(a)) for name, a in named.items() if a is not None]
    return [*found, ("head.weight", network.w.T), ("head.bias", network.b)]


def _source(request: Request, groups: list[tuple[NetworkLayer, ...]]) -> str:
    network, about, parts, steps = request.network, request.about, list[str](), list[str]()
    if request.scaling is not None:
        parts += [f'self.register_buffer("{name}", torch.empty({network.features}))' for name in Scaling._fields]
        steps.append("x = (x - self.mean) / self.deviation")
    if network.embedding is not None:
        vocabulary, width = network.embedding.shape
        parts.append(f"self.embedding = nn.Embedding({vocabulary}, {width})")
        steps.append("x = self.embedding(x)")
    elif network.vocabulary is not None:
        steps.append(f"x = nn.functional.one_hot(x.long(), {network.vocabulary}).to(self.head.weight.dtype)")
    for index, group in enumerate(groups):
        more_parts, more_steps = _group(index, group)
        parts += more_parts
        steps += more_steps
    if not all(layer.norm is None and not layer.residual for layer in network.layers):
        valid = "torch.arange(x.shape[1], device=x.device) < lengths.to(x.device)[:, None]"
        steps += ["if lengths is not None:", f"    x = x * ({valid})[..., None]"]
    if network.steps == "mean":
        steps.append("x = x.mean(1) if lengths is None else x.sum(1) / lengths.to(x)[:, None]")
    elif network.steps == "last" and len(groups[-1][-1].directions) == 2:
        steps.append("x = torch.cat([h[-2], h[-1]], -1)")
    elif network.steps == "last":
        rows = "torch.arange(len(x), device=x.device), lengths.to(x.device) - 1"
        steps.append(f"x = x[:, -1] if lengths is None else x[{rows}]")
    parts.append(f"self.head = nn.Linear({network.w.shape[0]}, {network.w.shape[1]})")
    if network.tied:
        parts.append("self.head.weight = self.embedding.weight")
    call = {"softmax": "torch.softmax(self.head(x), -1)", "sigmoid": "torch.sigmoid(self.head(x))"}
    steps.append(f"return {call.get(network.activation, 'self.head(x)')}")
    shape = "[B, T, " if network.steps == "all" else "[B, "
    given = f"[B, T, {network.features}] numbers{'' if request.scaling is None else ' as they are in the data'}"
    if network.vocabulary is not None:
        given = f"[B, T] tokens, whole numbers below {network.vocabulary}"
    return SOURCE.format(
        x=given,
        y=f"{shape}{network.b.size}]",
        # Not the config, which is long; and whatever a text holds, it ends no docstring.
        about="\n".join(f"{key}: {_quoted(text)}" for key, text in about.items() if key != "config"),
        parts="\n".join(" " * 8 + line for line in parts),
        steps="\n".join(" " * 8 + line for line in steps),
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def _group(index: int, group: tuple[NetworkLayer, ...]) -> tuple[list[str], list[str]]:
    """The lines of `__init__` and of `forward` for one module of layers and what follows it."""
    first, last = group[0], group[-1]
    one = first.directions[0]
    options = [f"num_layers={len(group)}"] if len(group) > 1 else []
    options += ["bidirectional=True"] if len(first.directions) == 2 else []
    sizes = ", ".join([str(first.features), str(one.units), *options, "batch_first=True"])
    parts = [f"self.rnn_{index} = nn.{MODULES[one.kind][0]}({sizes})"]
    y, h = "x" if last.plain else "y", "(h, _)" if one.kind == "lstm" else "h"
    steps = [f"{y}, {h} = over_time(self.rnn_{index}, x, lengths)"]
    if last.plain:
        return parts, steps
    if last.merge != "concat":
        sign, half = {"sum": "+", "mean": "+", "mul": "*"}[last.merge], one.units
        joined = f"y[..., :{half}] {sign} y[..., {half}:]"
        steps.append(f"y = ({joined}) / 2" if last.merge == "mean" else f"y = {joined}")
    if last.norm is not None:
        kind = {"layer": "LayerNorm", "rms": "RMSNorm"}[last.norm]
        parts.append(f"self.norm_{index} = nn.{kind}({last.width}, eps={EPSILON})")
        steps.append(f"y = self.norm_{index}(y)")
    steps.append("x = y + x" if last.residual else "x = y")
    return parts, steps

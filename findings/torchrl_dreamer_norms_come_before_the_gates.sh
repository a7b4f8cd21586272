#!/bin/sh
# TorchRL 0.14.1, DreamerV3BlockGRU, and dreamerv3 1.5.0, RSSM._gru: where the norm of Dreamer's recurrent cell is.
#
# Guess: both normalise one joint product of state and input, of which the gates are then made.
#
# Seen: dreamerv3 1.5.0 does, over all gates together (a layer norm, scale and shift, no bias, one block). TorchRL does
# not: it has RMS norms behind the projections of input and state and behind each product in blocks but the last, whose
# gates nothing normalises. Ten times the gates' matrix leave the hidden layers as they are, but not the state.
# Prints the numbers that tests/interop/test_dreamer.py has. Ends with 1 when any of this changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip --quiet --disable-pip-version-check"
$pip install torch==2.13.0 torchrl==0.14.1 jax==0.10.2 numpy
$pip install --no-deps dreamerv3==1.5.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import math
import pathlib
import sys
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torchrl.modules import DreamerV3BlockGRU


def made(number, *shape):
    """Numbers that every machine makes alike."""
    return np.cos(1.7 * number + 0.9 * np.arange(math.prod(shape))).reshape(shape).astype(np.float32)


gru = DreamerV3BlockGRU(6, 8, projection_size=4, num_blocks=2, num_layers=2)
names = sorted(gru.state_dict())
gru.load_state_dict({name: torch.from_numpy(made(k, *gru.state_dict()[name].shape)) for k, name in enumerate(names)})
x, h, first = made(50, 2, 4, 6), made(51, 2, 8), np.array([[0, 0, 0, 0], [0, 0, 1, 0]], bool)
with torch.no_grad():
    given = [torch.from_numpy(a) for a in (x, h, first)]
    y = gru(*given)[0].numpy()
    print("torchrl", np.round(y.astype(float), 6).tolist())
    gru.cell.gates.weight *= 10
    changed = float(np.abs(gru(*given)[0].numpy() - y).max())
print(f"ten times the gates' matrix: {changed:.2g} off")

# Its __init__ starts the whole agent, and what the cell does not use need not be there.
for name in ("tensorflow_probability", "tensorflow_probability.substrates", "optax", "ruamel", "ruamel.yaml", "rich"):
    sys.modules[name] = mock.MagicMock()
jax.tree_map, jax.tree_util.tree_map = jax.tree.map, jax.tree.map
place = importlib.metadata.distribution("dreamerv3").locate_file("dreamerv3")
package = types.ModuleType("of_dreamer")
package.__path__ = [str(pathlib.Path(str(place)))]
sys.modules["of_dreamer"] = package
from of_dreamer import nets, ninjax

rssm = nets.RSSM(deter=8, norm="layer", act="silu", name="rssm")
pure = ninjax.pure(lambda x, h: rssm._gru(x, h)[1])
x, h = made(60, 2, 4, 3), made(61, 2, 8)
weights = pure({}, jax.random.PRNGKey(0), x[:, 0], h)
weights = next(one for one in weights if isinstance(one, dict))
weights = {name: jnp.asarray(made(k, *weights[name].shape)) for k, name in enumerate(sorted(weights))}
y, scaled = [], h
for t in range(4):
    h = next(one for one in pure(weights, jax.random.PRNGKey(0), x[:, t], h) if not isinstance(one, dict))
    y.append(np.asarray(h))
print("dreamerv3", sorted(weights), np.round(np.stack(y, 1).astype(float), 6).tolist())
ten = weights | {"rssm/gru/kernel": 10 * weights["rssm/gru/kernel"]}
after = next(one for one in pure(ten, jax.random.PRNGKey(0), x[:, 0], scaled) if not isinstance(one, dict))
same = float(np.abs(np.asarray(after) - y[0]).max())
print(f"ten times the joint matrix: {same:.2g} off")
raise SystemExit(0 if changed > 0.1 and same < 2e-3 else 1)
PYTHON

#!/bin/sh
# PyPOTS 1.5, BackboneGRUD and the DatasetForGRUD that feeds it (torch 2.13.0).
#
# Guess: it computes Che et al. 2018 but for the place of the reset, which is torch.nn.GRUCell's, after the product; and
# a value that was not seen yet is made of nothing but the past and the mean.
#
# Seen: the decayed state is part of the cell's input, too. In the gates that is a second matrix to be added to the first;
# the candidate sees the state past the reset gate, which no GRU does (0.73 off the equations). With that block of the
# input matrix 0 it is the equations to 2e-8: those numbers are printed, and stand in tests/cells/test_grud.py.
# And where a series begins with missing values, the "last" one is the first that comes later: another value at step 3
# makes another state after step 0.
# Ends with 1 when that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pypots==1.5 torch==2.13.0
cd "$folder"
# It writes a file of settings into the home folder.
HOME=$folder "$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import torch

import pypots
from pypots.classification.grud.data import DatasetForGRUD
from pypots.nn.modules.grud import BackboneGRUD

D, H, T, B = 2, 4, 7, 3
rng = np.random.default_rng(0)
draw = lambda *shape: (0.6 * rng.normal(size=shape)).astype(np.float32)
weights = {
    "rnn_cell.weight_ih": draw(3 * H, 2 * D + H), "rnn_cell.weight_hh": draw(3 * H, H),
    "rnn_cell.bias_ih": draw(3 * H), "rnn_cell.bias_hh": draw(3 * H),
    "temp_decay_h.W": draw(H, D), "temp_decay_h.b": draw(H), "temp_decay_x.W": draw(D, D), "temp_decay_x.b": draw(D),
}
value, mask, since = draw(B, T, D), (rng.random((B, T, D)) < 0.5).astype(np.float32), abs(draw(B, T, D))
mean = np.array([0.25, -0.5], np.float32)
state_part = (slice(2 * H, None), slice(D, D + H))


def theirs(weights):
    model = BackboneGRUD(T, D, H)
    model.load_state_dict({k: torch.tensor(v) for k, v in weights.items()} | {"temp_decay_x.m": torch.eye(D)})
    given = map(torch.tensor, (value * mask, mask, since, mean, value))
    return model(*given)[1].detach().numpy()


def equations(weights):
    """The paper's, with the reset after the product; the state's part of the input added to the recurrent matrix."""
    w, u = (weights[f"rnn_cell.weight_{name}"].astype(float) for name in ("ih", "hh"))
    b, c = (weights[f"rnn_cell.bias_{name}"].astype(float) for name in ("ih", "hh"))
    u = u + np.concatenate([w[: 2 * H, D : D + H], np.zeros((H, H))])
    w = np.concatenate([w[:, :D], w[:, D + H :]], 1)
    sigmoid, h = lambda a: 1 / (1 + np.exp(-a)), np.zeros((B, H))
    for t in range(T):
        v, m, d = (a[:, t].astype(float) for a in (value, mask, since))
        left = np.exp(-np.maximum(0, d * np.diag(weights["temp_decay_x.W"]) + weights["temp_decay_x.b"]))
        x = m * v + (1 - m) * (left * v + (1 - left) * mean)
        h = h * np.exp(-np.maximum(0, d @ weights["temp_decay_h.W"].T + weights["temp_decay_h.b"]))
        a, g = np.concatenate([x, m], 1) @ w.T + b, h @ u.T + c
        r, z = (sigmoid(a[:, k * H : (k + 1) * H] + g[:, k * H : (k + 1) * H]) for k in (0, 1))
        h = z * h + (1 - z) * np.tanh(a[:, 2 * H :] + r * g[:, 2 * H :])
    return h


whole = abs(theirs(weights) - equations(weights)).max()
weights["rnn_cell.weight_ih"][state_part] = 0
made = theirs(weights)
without = abs(made - equations(weights)).max()
print(f"pypots {pypots.__version__}: {whole:.2g} off the equations; without what the candidate is shown {without:.2g}")
print("the states then:", made.tolist())

series = np.full((2, 5, 1), np.nan, np.float32)
series[:, 3, 0] = [1.0, -1.0]
data = DatasetForGRUD({"X": series, "y": np.zeros(2, np.int64)})
first = [float(data[i][2][0, 0]) for i in range(2)]
print("two series that differ at step 3 alone, and what is filled in at step 0:", first)
raise SystemExit(0 if whole > 0.1 and without < 1e-6 and first == [1.0, -1.0] else 1)
PYTHON

#!/bin/sh
# pytorch-forecasting 1.8.0, the GRU and LSTM of pytorch_forecasting.models.nn, "that can handle zero-length sequences"
# (torch 2.13.0).
#
# Guess: a sequence of length 0 ends in the state that it began in, whatever its place in the batch; the others as in
# torch.nn.GRU with a packed sequence.
#
# Seen: the others are torch's. A sequence of length 0 in row 2 ends in the initial state of row 0: states are taken from
# the beginning of the initial ones, as many as are needed, and not from the row. The LSTM's cell ends in the initial
# *hidden* state, also in row 0. Where all lengths are 0, the initial state is forgotten and zeros come back. And the
# outputs of an empty row are not 0: it runs one step over its padding.
# Ends with 1 when that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pytorch-forecasting==1.8.0 torch==2.13.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import pytorch_forecasting
import torch
from pytorch_forecasting.models.nn import GRU, LSTM

torch.manual_seed(0)
x, h0, c0 = torch.randn(3, 4, 2), torch.randn(1, 3, 5), torch.randn(1, 3, 5)
gru, lstm = GRU(2, 5, batch_first=True), LSTM(2, 5, batch_first=True)
last, first, none = torch.tensor([4, 3, 0]), torch.tensor([0, 4, 3]), torch.tensor([0, 0, 0])


def far(a, b):
    return float((a - b).detach().abs().max())


out, h = gru(x, h0, lengths=last)
whole, _ = torch.nn.GRU.forward(gru, x, h0)
lstm_last = lstm(x, (h0, c0), lengths=last)[1]
lstm_first = lstm(x, (h0, c0), lengths=first, enforce_sorted=False)[1]
seen = {
    "rows with steps: off torch": far(torch.stack([h[0, 0], h[0, 1]]), torch.stack([whole[0, 3], whole[1, 2]])),
    "GRU, empty row 2: off h0 of row 2": far(h[0, 2], h0[0, 2]),
    "GRU, empty row 2: off h0 of row 0": far(h[0, 2], h0[0, 0]),
    "LSTM, empty row 2: c off c0 of row 2": far(lstm_last[1][0, 2], c0[0, 2]),
    "LSTM, empty row 0: h off h0 of row 0": far(lstm_first[0][0, 0], h0[0, 0]),
    "LSTM, empty row 0: c off c0 of row 0": far(lstm_first[1][0, 0], c0[0, 0]),
    "LSTM, empty row 0: c off h0 of row 0": far(lstm_first[1][0, 0], h0[0, 0]),
    "GRU, all empty: largest |h|": float(gru(x, h0, lengths=none)[1].abs().max()),
    "GRU, all empty: off h0": far(gru(x, h0, lengths=none)[1], h0),
    "GRU, empty row 2: largest |output|": float(out[2].detach().abs().max()),
}
for what, value in seen.items():
    print(f"{what}: {value:.2g}")
zero = {name for name, value in seen.items() if value < 1e-6}
expected = {
    "rows with steps: off torch", "GRU, empty row 2: off h0 of row 0", "LSTM, empty row 0: h off h0 of row 0",
    "LSTM, empty row 0: c off h0 of row 0", "GRU, all empty: largest |h|",
}
as_seen = pytorch_forecasting.__version__ == "1.8.0" and zero == expected
raise SystemExit(0 if as_seen else f"another behaviour: 0 are {sorted(zero)}")
PYTHON

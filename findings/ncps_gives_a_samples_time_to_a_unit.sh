#!/bin/sh
# ncps 1.0.1, CfC and LTC with timespans (torch 2.13.0).
#
# Guess: timespans[b, t] is the time before step t of sequence b, as input[b, t] is its input: permuting the sequences of a
# batch permutes the outputs, and a batch gives what its sequences give one by one.
#
# Seen: a step's times are one vector [batch] that is multiplied with arrays [batch, units]: each *unit* gets the time of
# another sequence. With as many units as sequences it runs and is wrong (one by one it is something else); with another
# number it stops at shapes. With timespans of a trailing axis [batch, time, 1] it is the same, the axis is squeezed away.
# It stops even where all sequences share their times; a batch of one is computed as meant.
# Ends with 1 when that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ncps==1.0.1 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from ncps.torch import CfC, LTC

torch.manual_seed(0)
B = 4
x, times = torch.randn(B, 6, 3), torch.rand(B, 6) * 3 + 0.1


def seen_of(kind, units, times):
    torch.manual_seed(1)
    layer = kind(3, units)
    try:
        together, _ = layer(x, timespans=times)
    except RuntimeError:
        return "stops"
    # Of one sequence the times are a number, which all units share.
    alone = torch.cat([layer(x[b : b + 1], timespans=times[b : b + 1])[0] for b in range(B)])
    same = torch.allclose(together, alone, atol=1e-5)
    print(f"{kind.__name__}, {units} units: {float((together - alone).detach().abs().max()):.2g} off one by one")
    return "equal" if same else "differs"


shared = times[:1].expand(B, 6)
seen = {
    (kind.__name__, units, name): seen_of(kind, units, given)
    for kind in (CfC, LTC)
    for units in (B, B + 1)
    for name, given in (("own times", times), ("own times, a last axis", times[..., None]), ("shared times", shared))
}
for case, what in seen.items():
    print(*case, what, sep=", ")
expected = {case: "stops" if case[1] != B else "equal" if case[2] == "shared times" else "differs" for case in seen}
as_seen = version("ncps") == "1.0.1" and seen == expected
raise SystemExit(0 if as_seen else "another behaviour")
PYTHON

"""What the shell's Tab offers."""

import json
import subprocess
import sys
from pathlib import Path

from gru_jax.cli import completion

from .command import environment

# Of a word, what is after its last "=", where the shell breaks it; a space after the only one.
OFFERED = {
    "gru-jax re": ["report "],
    "gru-jax run co": ["config.yaml", "configs/"],
    "gru-jax run config.yaml optim.clip_n": ["optim.clip_norm="],
    "gru-jax run config.yaml task.kind=mn": ["mnist "],
    "gru-jax run config.yaml optim.mom": ["optim.momentum="],
    "gru-jax run config.yaml optim.kind=adam optim.mom": [],
    "gru-jax run config.yaml optim.kind=adam optim.b": ["optim.b1=", "optim.b2="],
    "gru-jax run config.yaml model.method=": ["auto", "newton", "sequential"],
    "gru-jax run config.yaml --f": ["--fork", "--fresh"],
    "gru-jax plot run": ["runs/"],
    "gru-jax plot runs --style ": ["paper", "talk"],
    "gru-jax data ada": [],
    "gru-jax data add": ["adding "],
}
# Many lines in one process, which would end after the first.
SCRIPT = """
import functools, json, os, sys
import argcomplete
from gru_jax.cli import main
class Ended(Exception): pass
def end(code): raise Ended
argcomplete.autocomplete = functools.partial(argcomplete.autocomplete, exit_method=end)
found = {}
for line in json.loads(sys.argv[1]):
    os.environ |= {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    try:
        main([])
    except Ended:
        found[line] = sorted(filter(None, open("offered").read().split("\\v")))
print(json.dumps(found))
"""


def test_what_is_offered(tmp_path: Path) -> None:
    for name in ("config.yaml", "container.txt", "runs.txt"):
        (tmp_path / name).touch()
    (tmp_path / "config.yaml").write_text("base: container.txt\n")
    (tmp_path / "container.txt").write_text("optim: {kind: sgd}\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "runs").mkdir()
    asked = environment(_ARGCOMPLETE="1", _ARGCOMPLETE_STDOUT_FILENAME="offered", _ARGCOMPLETE_COMP_WORDBREAKS=" =:")
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(OFFERED))]
    done = subprocess.run(command, cwd=tmp_path, env=asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == OFFERED


def test_keys_and_values() -> None:
    assert "model.method.kind=newton" in completion.overrides("model.method.kind=")
    assert completion.overrides("optim.lr=") == [] and completion.overrides("nothing") == []
    assert {"optim.lr=", "optim.schedule.kind="} <= set(completion.overrides("optim."))



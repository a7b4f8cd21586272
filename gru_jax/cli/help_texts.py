"""What stands at the end of a verb's help: an example, and what the command ends with."""

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Mapping

from gru_jax.runs.exit_codes import BAD_ARGUMENTS, DONE, FAILED, INTERRUPTED, MEANING, MISSING

_NO_TRAINING = (DONE, FAILED, BAD_ARGUMENTS, MISSING, INTERRUPTED)
_TRAINING = ("run", "launch", "sweep", "table")

EXAMPLES = {
    "run": "gru-jax run configs/digits/gru.yaml optim.lr=1e-3 train.epochs=5 --out runs/try",
    "launch": "gru-jax launch -n 2 -- run configs/digits/gru.yaml parallel.strategy=data",
    "sweep": "gru-jax sweep configs/digits/sweep.yaml 'sweep.optim.lr=[1e-3, 1e-2]' sweep.seed=0-3",
    "table": "gru-jax table gates --scale smoke --curves gates.png",
    "eval": "gru-jax eval runs/try --split valid --predictions answers.csv",
    "export": "gru-jax export runs/try --to onnx --out model.onnx",
    "forecast": "gru-jax forecast runs/co2 --out coming.csv --plot coming.png",
    "data": "gru-jax data mnist --data-root ~/data",
    "check": "gru-jax check configs/digits/gru.yaml model.hidden=256",
    "plot": "gru-jax plot runs/digits/gru/* --out curves.pdf --style paper --format pdf",
    "report": "gru-jax report runs/digits/gru/* --out report.html",
    "new": "gru-jax new task my_task --out experiments/mine",
    "build-kernels": "gru-jax build-kernels --into ~/kernels",
    "tune": "gru-jax tune --shapes 100,32,64,64 --seconds 30",
    "list": "gru-jax list",
}


def end_helps(parser: argparse.ArgumentParser, verbs: Mapping[str, argparse.ArgumentParser]) -> None:
    """Gives the command and each of its verbs the end of its help."""
    _end(parser, _exit_codes(MEANING))
    for name, verb in verbs.items():
        codes = _exit_codes(MEANING if name in _TRAINING else _NO_TRAINING)
        _end(verb, f"example: {EXAMPLES[name]}\n\n{codes}")


def _end(parser: argparse.ArgumentParser, text: str) -> None:
    # argparse would make one paragraph of all lines.
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = text


def _exit_codes(codes: Iterable[int]) -> str:
    said = "exit codes: " + ", ".join(f"{code} {MEANING[code]}" for code in codes)
    return textwrap.fill(said, max(40, shutil.get_terminal_size().columns - 2), break_on_hyphens=False)

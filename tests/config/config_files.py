"""Config texts that tests write and break."""

from pathlib import Path

from gru_jax.config.loading import ConfigError, load_config

GOOD = """\
schema: 1
name: digits/test
seed: 0
task: {kind: digits, view: rows, batch: 32}
model:
  kind: gru
  hidden: 16
  layers: 1
optim:
  kind: sgd
  lr: 1e-3
  momentum: 0.9
  schedule: {kind: cosine, final: 0.1}
train: {epochs: 2, eval_every: 1 epoch}
checkpoint: {every: 20 steps, keep: 2}
log: {every: 5}
"""


def write(folder: Path, text: str = GOOD) -> Path:
    """The text in a file of the folder."""
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def errors(folder: Path, text: str = GOOD, *overrides: str) -> list[str]:
    """What is wrong with a config, the path of the file shortened to its name; [] when it is good."""
    path = write(folder, text)
    try:
        load_config(path, overrides)
    except ConfigError as error:
        return [line.replace(str(path), "config.yaml") for line in error.lines]
    return []

"""Metrics sent to Weights & Biases: one run there for one run directory, however often it is cut and continued."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gru_jax.config.config import Config
from gru_jax.config.sections.log import WandbConfig
from gru_jax.runs.on_disk.json_files import write_text
from gru_jax.runs.watching.progress import Reporter
from gru_jax.types import Plain

if TYPE_CHECKING:
    from wandb import Run

# A job that is being stopped has not much time, and nothing is lost: metrics.jsonl has it all.
_SECONDS_TO_FINISH = 60.0


class WandbLog:
    """The lines of metrics.jsonl as the history of a run of wandb, a row a step.

    Its id there is kept in `wandb/id` of the run directory. What wandb has of a session that was killed lacks the last
    seconds, so that every session begins with what metrics.jsonl has and wandb has not: online that is what lies after
    the last step there; offline all of it, and the folders of earlier sessions move to `wandb/superseded/`.
    """

    def __init__(
        self, config: Config, section: WandbConfig, path: Path, past: Sequence[dict[str, Plain]], reporter: Reporter
    ) -> None:
        """Starts or resumes the run there; offline where it cannot be reached.

        Args:
            config: of the run.
            section: where it goes.
            path: the run directory.
            past: lines of metrics.jsonl of steps that are done.
            reporter: what speaks to the user.
        """
        folder = path / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        name = _id(folder / "id")
        earlier = list(folder.glob(f"offline-run-*-{name}"))
        try:
            self._run = _begin(config, section, section.mode, path, name)
        except Exception as error:
            if section.mode == "offline":
                raise
            said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            reporter.warn(f"log.wandb: {said}; kept offline: wandb sync {folder}/offline-run-* sends it")
            self._run = _begin(config, section, "offline", path, name)
        for session in earlier:
            (folder / "superseded").mkdir(exist_ok=True)
            session.rename(folder / "superseded" / session.name)
        self._first = self._run.starting_step
        self._row: dict[str, Plain] = {}
        for line in past:
            self.write(line)

    def write(self, line: dict[str, Plain]) -> None:
        """Takes one line; it is sent when the next step's comes, since a step may have several."""
        if self._row and self._row["step"] != line["step"]:
            self._send()
        self._row |= line

    def _send(self) -> None:
        row, self._row = self._row, {}
        step = row.pop("step")
        # After a cut it computes again what may be there already.
        if step >= self._first:
            self._run.log(row, step=step, commit=True)

    def close(self) -> None:
        """Sends the last row, and waits until what was sent has arrived, but not for long."""
        try:
            if self._row:
                self._send()
        finally:
            self._run.finish()


def _id(file: Path) -> str:
    """The run's id there, made when there is none."""
    try:
        name = file.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        name = ""
    if not (name.isascii() and name.isalnum()):
        name = secrets.token_hex(4)
        write_text(file, name + "\n")
    return name


def _begin(config: Config, section: WandbConfig, mode: Literal["online", "offline"], path: Path, name: str) -> "Run":
    import wandb

    # Left to itself it would ask on the terminal, and the run would wait for an answer. Asked for the server too: once
    # `init` has failed to reach it, the same process cannot begin the run offline any more.
    if mode == "online" and not wandb.login(prompt=False, verify=True):
        raise RuntimeError("nobody is logged in; wandb login does so")
    return wandb.init(
        project=section.project,
        entity=section.entity,
        mode=mode,
        id=name,
        resume="allow",
        name=f"{config.name} {path.name}",
        group=config.name,
        config=config.resolved(),
        dir=str(path),
        # Several at once are those of a sweep.
        reinit="create_new",
        # Standard output is the live bar's.
        settings=wandb.Settings(silent=True, console="off", finish_timeout=_SECONDS_TO_FINISH),
    )

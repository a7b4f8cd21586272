"""The directory of a run: where it is, what lies in it, and who may write to it.

config.yaml    the resolved config, re-runnable as it is
source.yaml    the file as given, its base, and the overrides
task/, model/  of a task or a cell of one's own, the Python file and what it imports from beside it
env.json       versions, devices, git commit, command line of the latest start
metrics.jsonl  one line of metrics per log or evaluation step
result.json    written once, at the end
STATUS         running | done | preempted | diverged
ckpt/<step>/   checkpoints
plots/*.png    pictures
tensorboard/, wandb/, profile/   what the section log asks for
"""

import json
import os
from pathlib import Path
from typing import Any

from gru_jax import files
from gru_jax.config import loading, yaml_document
from gru_jax.config.config import Config, changes, config_hash, is_free
from gru_jax.runs.on_disk.json_files import write_json, write_text
from gru_jax.runs.on_disk.metrics_log import read_metrics
from gru_jax.types import Plain

_FILES = ("config.yaml", "source.yaml", "env.json", "metrics.jsonl", "result.json", "STATUS")
_STATUSES = ("running", "done", "preempted", "diverged")
# What `gru-jax run` reads of a result when it meets a finished run.
_RESULT_TYPES = {
    "status": str, "name": str, "seed": int, "steps": int, "total_steps": int, "stopped_early": bool,
}  # fmt: skip


class RunError(Exception):
    """Something about the run directory keeps the run from going on; nothing was changed.

    Attributes:
        exit_code: 2 when the command asks for what cannot be, 1 when the directory is at fault.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def require_same_data(run: Path, then: str, now: str, fix: str) -> None:
    """Raises RunError where the data of a run have another fingerprint than when it was started."""
    if then != now:
        fact = f"the data have changed since {run} was started (fingerprint {then}, now {now})"
        raise RunError(f"{fact}; {fix}", exit_code=1)


class RunDirectory:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "ckpt"
        self.plots = path / "plots"
        self._lock: Any = None
        self._held_before = ""

    def is_run(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "config.yaml").is_file()

    def check_usable(self) -> None:
        """Raises RunError when the path is no directory, or one with files of somebody else."""
        if not self.path.exists():
            if self.path.is_symlink():
                raise RunError(f"{self.path} is a link to {os.readlink(self.path)}, which does not exist")
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path} is a file; --out names the directory of the run")
        for path in (self.path / name for name in _FILES):
            if path.is_dir():
                raise RunError(f"{path} is a directory, where a run keeps a file; move it away", exit_code=1)
        for path in (self.checkpoints, self.plots):
            if path.exists() and not path.is_dir():
                raise RunError(f"{path} is a file, where a run keeps a directory; move it away", exit_code=1)
        foreign = sorted(path.name for path in self.path.iterdir() if not _left_by_a_kill(path.name))
        if foreign and not self.is_run():
            raise RunError(f"{self.path} holds files but no run (first: {foreign[0]}); name a new or empty directory")

    def config(self) -> Config:
        """The config of the run that was started here."""
        try:
            return loading.load_config(self.path / "config.yaml").config
        except loading.ConfigError as error:
            raise RunError(f"the existing run's config cannot be read: {error}", exit_code=1) from error

    def status(self) -> str:
        """The word in STATUS, or "" when there is none.

        Raises:
            RunError: it cannot be read, or is no status.
        """
        path = self.path / "STATUS"
        try:
            word = path.read_text(encoding="utf-8", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}", exit_code=1) from error
        if word not in _STATUSES:
            said = f"{path} is damaged: it holds {word[:20]!r}, none of {', '.join(_STATUSES)}"
            raise RunError(f"{said}; remove it, and the run goes on from its newest checkpoint", exit_code=1)
        return word

    def set_status(self, status: str) -> None:
        """Replaces STATUS."""
        write_text(self.path / "STATUS", status + "\n")

    def result(self) -> dict[str, Plain] | None:
        """The content of result.json; None when there is none, or a damaged one.

        A result can be computed again from the last checkpoint, so a damaged one is as good as none.
        """
        try:
            values = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(values, dict):
            return None
        return values if all(type(values.get(key)) is kind for key, kind in _RESULT_TYPES.items()) else None

    def metrics_lines(self) -> list[dict[str, Plain]]:
        """The lines of metrics.jsonl, [] when there is none.

        Raises:
            RunError: it cannot be read.
        """
        try:
            return read_metrics(self.metrics)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"{self.metrics} cannot be read: {error.strerror}", exit_code=1) from error
        except UnicodeDecodeError as error:
            raise RunError(
                f"{self.metrics} is damaged: byte {error.start} is not UTF-8; mend it, or move it away", exit_code=1
            ) from error

    def set_result(self, result: dict[str, Plain]) -> None:
        """Writes result.json."""
        write_json(self.path / "result.json", result)

    def lock(self) -> None:
        """Creates the directory and keeps every other live run out of it; the lock names our process.

        The lock belongs to the open file, so the system drops it when the process ends, however it
        ends.

        Raises:
            RunError: another live run holds it.
            OSError: the directory cannot be created or written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        # Whatever somebody has put into it is put back as it was.
        as_it_is: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
        self._lock = open(self.path / ".lock", "a+", **as_it_is)  # noqa: SIM115 - held until the process ends
        try:
            files.lock(self._lock, wait=False)
        except BlockingIOError as error:
            self._lock.seek(0)
            holder = self._lock.read(20).strip()
            holder = holder if holder.isdecimal() else "unknown"
            self._lock.close()
            self._lock = None
            raise RunError(
                f"{self.path} is in use by another live run (process {holder}); wait for it, or choose another --out",
                exit_code=1,
            ) from error
        self._lock.seek(0)
        self._held_before = self._lock.read()
        self._name_holder(f"{os.getpid()}\n")

    def _name_holder(self, text: str) -> None:
        self._lock.truncate(0)
        self._lock.write(text)
        self._lock.flush()

    def unlock(self) -> None:
        """Lets others in, and leaves the lock's file as it was: a refused run changes nothing at all."""
        if self._lock is not None:
            self._name_holder(self._held_before)
            self._lock.close()
            self._lock = None

    def write_inputs(self, loaded: loading.LoadedConfig, environment: dict[str, Plain]) -> None:
        """Writes config.yaml, source.yaml, env.json and the Python files of a task and a cell of one's own."""
        values, own_files = loaded.config.resolved(), loaded.config.own_files
        for key, section in own_files.items():
            # Wherever the run is looked at again: a bare name would be that of another folder's file.
            values[key]["file"] = str(section.source.path)
        # First: it marks the directory as a run's, whatever a kill leaves unwritten.
        write_text(self.path / "config.yaml", yaml_document.dump(values))
        write_text(self.path / "source.yaml", loaded.source())
        for key, section in own_files.items():
            for path, text in section.source.keep(self.path / key):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, text)
        write_json(self.path / "env.json", environment)


def _left_by_a_kill(name: str) -> bool:
    """Whether a kill between creating the directory and writing config.yaml may leave this file."""
    return name == ".lock" or (name.startswith(".") and name.endswith(".tmp"))


def default_path(config: Config, root: Path = Path("runs")) -> Path:
    """`runs/<name>/<hash>-s<seed>`."""
    return root / config.name / f"{config_hash(config)}-s{config.seed}"


def numbered(path: Path) -> Path:
    """The path itself if nothing is there, else the first free of path-2, path-3, ..."""
    if path.name in ("", ".."):
        path = path.resolve()
    if not path.name:
        raise RunError(f"{path} has no directory beside it; name another --out")
    candidate, number = path, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def went_on(run: RunDirectory, new: Config) -> int:
    """The epochs of a run that began as this config, in its default directory, and then went on; 0 of any other."""
    old = run.config()
    if run.path.name != default_path(new).name or old.train.epochs <= new.train.epochs:
        return 0
    frozen = [key for key, pair in changes(old, new).items() if not is_free(key, *pair)]
    return old.train.epochs if frozen == ["train.epochs"] else 0


def compare(run: RunDirectory, new: Config) -> list[str]:
    """Notes on what changes when the run is continued with a new config.

    Raises:
        RunError: a key that decides the numbers has changed; the message lists old and new values.
    """
    changed = changes(run.config(), new)
    frozen = {key: pair for key, pair in changed.items() if not is_free(key, *pair)}
    if frozen:
        longer = went_on(run, new)
        hint = f" train.epochs={longer} --out {run.path} goes on with it." if longer else ""
        lines = [f"  {key}: was {old!r}, now {value!r}" for key, (old, value) in frozen.items()]
        raise RunError(
            f"{run.path} holds a run with another config:\n" + "\n".join(lines) + "\n"
            f"A run goes on with the values it was started with.{hint} --fresh starts a new directory,"
            " --fork starts one from this run's best parameters."
        )
    notes = [f"{key}: {old!r} -> {value!r}" for key, (old, value) in changed.items()]
    if "train.epochs" in changed and run.path.name == default_path(run.config()).name:
        notes.append(f"the name {run.path}, which stands for fewer epochs: --out names it from now on")
    return notes

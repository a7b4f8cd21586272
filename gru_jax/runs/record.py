"""What the training loop has of each run: its files, who watches it, what it remembers, how it ended."""


import jax
import numpy as np

from gru_jax.data.dataset import Dataset
from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.checkpoint import Checkpoint
from gru_jax.runs.on_disk.history import History
from gru_jax.runs.on_disk.metrics_log import MetricsLog, Unwritten
from gru_jax.runs.plan import Run
from gru_jax.runs.watching.watchers import Watchers
from gru_jax.training.experiment import to_checkpoint
from gru_jax.training.newton_sums import NewtonSums, to_meta, why_not_finite
from gru_jax.training.step import TrainState
from gru_jax.types import Params, Plain, Tree


class Record:
    """One run in the loop.

    Attributes:
        run: the run.
        dataset: of its task.
        history: what it remembers.
        best_params: of its best evaluation, on the host; None before the first.
        place: in the stack of those that are trained at once; None of a run alone.
        at_once: how many these are.
        open: whether it goes on.
        status: "done", "preempted" or "diverged", once it does not.
        step: steps done, then.
        why: what was not finite, of one that has diverged.
        warned: whether the user knows that its method is slow.
    """

    def __init__(self, run: Run, dataset: Dataset, place: int | None = None, at_once: int = 1) -> None:
        self.run, self.dataset, self.place, self.at_once = run, dataset, place, at_once
        self.history = History()
        self.best_params: Params | None = None
        self.open, self.status, self.step, self.why, self.warned = True, "", 0, "", False
        self.log: MetricsLog = Unwritten()
        self.watchers: Watchers | None = None

    def of(self, tree: Tree) -> Tree:
        """Its part of what is stacked: a copy, which does not hold the rest in memory; of a run alone, all of it."""
        return tree if self.place is None else jax.tree.map(lambda leaf: np.copy(leaf[self.place]), tree)

    def begin(self, step: int) -> None:
        """Opens the files, in the process that writes them, at a step."""
        run = self.run
        if run.group.first:
            self.watchers = Watchers(run.config, run.directory, step, run.reporter)
            self.log = MetricsLog(run.directory.metrics, resume_step=step)

    def write(self, line: dict[str, Plain]) -> None:
        """A line of metrics."""
        self.log.write(line)
        if self.watchers is not None:
            self.watchers.write(line)

    def close(self) -> None:
        """Closes the files; further calls do nothing."""
        self.log.close()
        if self.watchers is not None:
            self.watchers.close()

    def not_finite(self, what: str, step: int, newton: NewtonSums | None = None) -> None:
        """Keeps in mind why it has diverged, as its result says it; a loss is looked at once a line of metrics."""
        self.why = f"{what} was not finite at step {step}" + (" or shortly before" if step > 1 else "")
        self.blame_method(newton)

    def blame_method(self, newton: NewtonSums | None) -> None:
        """Says so when values are not finite because of Newton's method, whose totals these are."""
        method = self.run.config.newton
        if method is not None and newton is not None and (said := why_not_finite(method, newton)):
            self.run.reporter.warn(said)

    def is_finite(self, step: int, state: TrainState) -> bool:
        """Whether its state, on the host, may become a checkpoint."""
        # The loss of the steps since the last line has not been looked at yet.
        if state.sums.bad_steps:
            self.not_finite("the training loss or its gradient", step, state.sums.newton)
            return False
        try:
            checkpoint.require_finite(step, (to_checkpoint(state), self.best_params))
        except checkpoint.NotFinite:
            self.not_finite("the state", step)
            return False
        return True

    def save(self, step: int, state: TrainState) -> None:
        """Writes a checkpoint into its directory, in the process that writes."""
        self.log.sync()
        run, best = self.run, state.evaluated if self.best_params is None else self.best_params
        meta: dict[str, Plain] = {"fingerprint": self.dataset.fingerprint, "config_hash": run.hash}
        meta |= {"history": self.history.to_meta(), "metrics_lines": self.log.lines}
        if state.sums.newton is not None:
            meta["newton"] = to_meta(state.sums.newton)
        if run.group.first:
            saved = Checkpoint(step, to_checkpoint(state), best, meta)
            checkpoint.save(run.directory.checkpoints, saved, run.config.checkpoint.keep)

"""One of the runs that are trained at once: its directory, its history, its place in the stack."""

from typing import Any

import jax

from gru_jax.runs.loop import not_finite
from gru_jax.runs.many_runs import finished
from gru_jax.runs.on_disk.history import History
from gru_jax.runs.on_disk.metrics_log import MetricsLog
from gru_jax.runs.on_disk.run_directory import RunDirectory
from gru_jax.runs.plan import Run
from gru_jax.runs.watching.progress import Reporter
from gru_jax.runs.watching.watchers import Watchers
from gru_jax.sweeps.members import Member
from gru_jax.training.experiment import Experiment
from gru_jax.types import Params


class OneRun:
    """One run of the stack.

    Attributes:
        place: in the stack.
        best_params: of its best evaluation, on the host.
        open: whether it goes on.
        why: what was not finite, of one that has diverged.
    """

    def __init__(self, place: int, member: Member, experiment: Experiment, reporter: Reporter) -> None:
        self.place, self.member, loaded = place, member, member.task.loaded
        own = experiment._replace(config=loaded.config)
        self.run = Run(loaded, own, RunDirectory(member.task.path), reporter)
        self.history = History()
        self.best_params: Params | None = None
        self.open, self.why = finished(member.task) is None, ""
        self.log: MetricsLog | None = None
        self.watchers: Watchers | None = None

    def diverged(self, what: str, step: int) -> "OneRun":
        """Ends the run at a step where something was not finite; the run itself."""
        self.open, self.why = False, not_finite(what, step)
        return self

    def of(self, stacked: Any) -> Any:
        """Its part of what is stacked."""
        return jax.tree.map(lambda leaf: leaf[self.place], stacked)

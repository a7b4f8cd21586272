"""The training loop: steps, metrics, evaluations, checkpoints, and the ways it can end.

Metrics are fetched late: only when the next step is on its way, so that the device has something to do meanwhile.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from gru_jax.config.sections.base import interval_steps
from gru_jax.data.dataset import Dataset
from gru_jax.runs.evaluation import evaluate
from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.checkpoint import Checkpoint
from gru_jax.runs.on_disk.history import History
from gru_jax.runs.on_disk.metrics_log import MetricsLog, Unwritten
from gru_jax.runs.plan import Run
from gru_jax.runs.resume import Start
from gru_jax.runs.stop_request import StopRequest
from gru_jax.runs.stopwatch import Stopwatch
from gru_jax.runs.watching.watchers import Watchers
from gru_jax.training.devices import Placement
from gru_jax.training.experiment import to_checkpoint, train_batches
from gru_jax.training.losses import Sums, add_up, metrics_of, no_sums
from gru_jax.training.newton_sums import NewtonSums, newton_metrics, to_meta, why_slow
from gru_jax.training.step import TrainState
from gru_jax.types import Array, Params


class Outcome(NamedTuple):
    """How the loop ended.

    Attributes:
        status: "done", "preempted" or "diverged".
        step: steps done.
        best_params: parameters of the best evaluation, on the host; None when there was none.
        history: what the run remembers.
        why: what was not finite, of a run that has diverged.
        at_once: how many runs were trained at once with it, itself among them.
    """

    status: str
    step: int
    best_params: Params | None
    history: History
    why: str = ""
    at_once: int = 1


def not_finite(what: str, step: int) -> str:
    """Why a run has diverged, as its result says it; a loss is looked at once a line of metrics."""
    return f"{what} was not finite at step {step}" + (" or shortly before" if step > 1 else "")


class _Held(NamedTuple):
    """Totals of training steps that wait on the device to be looked at.

    Attributes:
        step: the newest of the steps.
        sums: their totals.
        factor: of the schedule at that step.
    """

    step: int
    sums: Sums
    factor: Array


class Loop:
    """One run of training, from a state (fresh or restored) to an outcome."""

    def __init__(self, run: Run, dataset: Dataset, placement: Placement, stop: StopRequest) -> None:
        self.run, self.dataset, self.placement, self.stop = run, dataset, placement, stop
        self.reporter = run.reporter
        self.watchers: Watchers | None = None
        self.config = config = run.config
        self.held: _Held | None = None
        self.total = config.total_steps
        self.newton, self.warned, self.why = config.newton, False, ""
        self.eval_every = interval_steps(config.train.eval_every, config.steps_per_epoch)
        self.save_every = interval_steps(config.checkpoint.every, config.steps_per_epoch)
        share = placement.rows(config.task.batch)
        self.train_batch = train_batches(dataset.train, config.shape, config.task.batch, config.seed, share)

    def train(self, begun: Start) -> Outcome:
        """Trains to the end, to a request to stop or to the first loss that is not finite.

        Args:
            begun: where to start, on the host; its history is changed in place.
        """
        self.history, self.watch = begun.history, Stopwatch(begun.history)
        self.best_params, self.saved_at = begun.best_params, begun.saved_at
        history, step, first = begun.history, int(begun.state.step), self.run.group.first
        self.watchers = Watchers(self.config, self.run.directory, step, self.reporter) if first else None
        state = self.placement.put_state(begun.state)
        log = MetricsLog(self.run.directory.metrics, resume_step=step) if first else Unwritten()
        self.reporter.start(step, self.total)
        try:
            while step < self.total and not history.stopped_early:
                if self.run.group.stops(self.stop.requested):
                    return self._end("preempted", step, state, log)
                if self.watchers is not None:
                    self.watchers.step(step, state)
                batch = self.watch.call("batch", self.train_batch, step)
                batch = self.placement.put_batch(batch)
                state = self.watch.call(("train", batch.x.shape), self.placement.train_step, state, batch)
                step += 1
                self.reporter.step(step)
                if not self._look(log):
                    return self._end("diverged", step - 1, None, log)
                state, finite = self._at_boundary(step, state, log)
                if not finite:
                    return self._end("diverged", step, None, log)
            return self._end("done", step, state, log)
        finally:
            self.reporter.stop()
            log.close()
            if self.watchers is not None:
                self.watchers.close()

    def _at_boundary(self, step: int, state: TrainState, log: MetricsLog) -> tuple[TrainState, bool]:
        """Writes, evaluates and saves what is due at a step, in this order.

        Returns:
            (state, False when a loss or the state was not finite).
        """
        last = step == self.total
        evaluates = step % self.eval_every == 0 or last
        saves = step % self.save_every == 0 or last
        if step % self.config.log.every == 0 or last:
            factor = self.run.experiment.schedule(jnp.asarray(step - 1, jnp.int32))
            self.held = _Held(step, state.sums, factor)
            state = state._replace(sums=self.placement.put_state(no_sums(newton=self.newton is not None)))
        # What is evaluated and saved here comes after the line of this step, and waits for the device anyhow.
        if (evaluates or saves) and not self._look(log):
            return state, False
        finite = True
        if evaluates:
            finite = self._evaluate(step, state, log)
        if finite and (saves or self.history.stopped_early):
            finite = self._save(step, state, log)
        return state, finite

    def _look(self, log: MetricsLog) -> bool:
        """Writes the line of the totals that are held, if there are any; False when a loss was not finite."""
        if self.held is None:
            return True
        (step, sums, factor), self.held = self.held, None
        fetched = self.placement.get(sums)
        totals = add_up([fetched])
        # Of finite steps too a sum may be too large a number.
        if totals["bad_steps"] or not np.isfinite([totals["loss"], totals["grad_norm"]]).all():
            return self._not_finite("the training loss or its gradient", step, fetched.newton)
        metrics = metrics_of(totals, self.config.shape.target, "train") | {
            "grad_norm": totals["grad_norm"] / totals["steps"],
            "lr": self.config.optim.lr * float(factor),
        }
        if self.newton is not None:
            metrics |= newton_metrics(fetched.newton)
            said = why_slow(self.newton, fetched.newton, step - int(totals["steps"]) + 1, step)
            if said and not self.warned:
                self.warned = True
                self.reporter.warn(said)
        self.history.last_train = metrics
        self._write(step, metrics, log)
        return True

    def _evaluate(self, step: int, state: TrainState, log: MetricsLog) -> bool:
        run = self.run
        call = self.watch.call
        metrics, newton = evaluate(run.experiment, self.dataset, self.placement, state.params, "valid", call)
        if not np.isfinite(metrics["valid/loss"]):
            return self._not_finite("the validation loss", step, newton)
        early_stop = self.config.train.early_stop
        patience, reached = (early_stop.patience, early_stop.reached) if early_stop else (None, None)
        if self.history.evaluated(step, metrics, self.config.train.best_by, patience, reached):
            self.best_params = self.placement.get(state.params)
        self._write(step, metrics, log)
        return True

    def _not_finite(self, what: str, step: int, newton: NewtonSums | None = None) -> bool:
        """Keeps in mind why the run ends; False."""
        self.why = not_finite(what, step)
        self.run.blame_method(newton)
        return False

    def _save(self, step: int, state: TrainState, log: MetricsLog) -> bool:
        host = self.placement.get(state)
        # The loss of the steps since the last line has not been looked at yet.
        if host.sums.bad_steps:
            return self._not_finite("the training loss or its gradient", step, host.sums.newton)
        log.sync()
        self.watch.mark()
        best = host.params if self.best_params is None else self.best_params
        meta = self.run.meta(self.dataset, self.history) | {"metrics_lines": log.lines}
        if host.sums.newton is not None:
            meta["newton"] = to_meta(host.sums.newton)
        saved = Checkpoint(step, to_checkpoint(host), best, meta)
        try:
            checkpoint.require_finite(step, (saved.state, best))
            if self.run.group.first:
                checkpoint.save(self.run.directory.checkpoints, saved, self.config.checkpoint.keep)
        except checkpoint.NotFinite:
            return self._not_finite("the state", step)
        self.saved_at = step
        return True

    def _write(self, step: int, metrics: dict[str, float], log: MetricsLog) -> None:
        self.watch.mark()
        self.reporter.metrics(metrics)
        epoch = step / self.config.steps_per_epoch
        examples = step * self.config.task.batch
        seconds = round(self.history.train_s, 3)
        line = {"step": step, "epoch": round(epoch, 4), "time_s": seconds, "examples": examples} | metrics
        log.write(line)
        if self.watchers is not None:
            self.watchers.write(line)

    def _end(self, status: str, step: int, state: TrainState | None, log: MetricsLog) -> Outcome:
        self.watch.mark()
        if status == "preempted" and not self._look(log):
            return Outcome("diverged", step, self.best_params, self.history, self.why)
        unsaved = status == "preempted" and self.saved_at != step
        if unsaved and state is not None and not self._save(step, state, log):
            status = "diverged"
        return Outcome(status, step, self.best_params, self.history, self.why)

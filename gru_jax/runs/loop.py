"""The training loop: steps, metrics, evaluations, checkpoints, and the ways in which runs end.

Metrics are fetched late: only when the next step is on its way, so that the device has something to do meanwhile.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from gru_jax.config.sections.base import interval_steps
from gru_jax.runs.evaluation import split_metrics, split_sums
from gru_jax.runs.on_disk.history import History
from gru_jax.runs.record import Record
from gru_jax.runs.scores import answered, scores
from gru_jax.runs.stop_request import StopRequest
from gru_jax.runs.stopwatch import Stopwatch
from gru_jax.training.devices import Placement
from gru_jax.training.experiment import train_batches
from gru_jax.training.losses import Sums, add_up, metrics_of, no_sums
from gru_jax.training.newton_sums import newton_metrics, why_slow
from gru_jax.training.optimizer import plateau_factor
from gru_jax.training.step import Batch, TrainState
from gru_jax.types import Array, Plain


class Trainees:
    """The runs of a loop, which but for their seeds and rates are alike: here a single one.

    What `gru_jax.sweeps.stacked.Stack` does in its own way is written here, and nothing else.

    Attributes:
        records: the runs, in the order of their stack.
        placement: the compiled steps, and the way in and out of the devices.
        train_batch: the batch of a step.
        clock: where the seconds of all of them are booked.
        end_at_signal: whether one whose state is not finite when a signal comes ends there; else nothing is saved, and
            it ends where it would have without the signal.
    """

    records: list[Record]
    placement: Placement
    train_batch: Callable[[int], Batch]
    clock: History
    end_at_signal = True

    def __init__(self, record: Record, placement: Placement) -> None:
        self.records, self.placement, self.clock = [record], placement, record.history
        config, size = record.run.config, record.run.config.task.batch
        rows = placement.rows(size)
        self.train_batch = train_batches(record.dataset.train, config.shape, size, config.seed, rows)

    def open(self) -> list[Record]:
        """Those that go on."""
        return [record for record in self.records if record.open]

    def no_sums(self) -> Sums:
        """Totals of 0 on the devices."""
        return self.placement.put_state(no_sums(newton=self.records[0].run.config.newton is not None))

    def save(self, step: int, host: TrainState) -> None:
        """Saves what those that are open go on from; their states are finite."""
        self.records[0].save(step, host)


class _Held(NamedTuple):
    """Totals of training steps that wait on the device to be looked at.

    Attributes:
        step: the newest of the steps.
        sums: their totals.
        factor: of the schedule at that step.
        plateau: what a plateau of the loss has left of the rate, on the device; None with other schedules.
    """

    step: int
    sums: Sums
    factor: Array
    plateau: Array | None


class Loop:
    """Training, from a state (fresh or restored) to the end of every run."""

    def __init__(self, trainees: Trainees, stop: StopRequest) -> None:
        self.trainees, self.placement, self.open, self.stop = trainees, trainees.placement, trainees.open, stop
        # What they have in common is that of the first one.
        self.run, self.dataset = trainees.records[0].run, trainees.records[0].dataset
        self.config = config = self.run.config
        self.total, self.reporter = config.total_steps, self.run.reporter
        self.eval_every = interval_steps(config.train.eval_every, config.steps_per_epoch)
        self.save_every = interval_steps(config.checkpoint.every, config.steps_per_epoch)
        self.held: _Held | None = None

    def train(self, state: TrainState, saved_at: int) -> Generator[Record, None, None]:
        """Trains to the end, to a request to stop or to the first loss that is not finite, of each run.

        Args:
            state: where to start, on the host.
            saved_at: the step of the newest checkpoint, or -1.

        Yields:
            Each run, as it comes to its end.
        """
        step = int(np.max(state.step))
        self.saved_at, self.watch = saved_at, Stopwatch(self.trainees.clock)
        try:
            for record in self.open():
                record.begin(step)
            state = self.placement.put_state(state)
            self.reporter.start(step, self.total)
            # One may have come to the end of its training before, and have been cut before its result.
            yield from self._end(self._over(step), step, "done")
            yield from self._steps(state, step)
        finally:
            self.reporter.stop()
            for record in self.trainees.records:
                record.close()

    def _steps(self, state: TrainState, step: int) -> Iterator[Record]:
        call = self.watch.call
        while self.open():
            if self.run.group.stops(self.stop.requested):
                yield from self._stopped(step, state)
                return
            for record in self.open():
                if record.watchers is not None:
                    record.watchers.step(step, state)
            batch = self.placement.put_batch(call("batch", self.trainees.train_batch, step))
            state = call(("train", batch.x.shape), self.placement.train_step, state, batch)
            step += 1
            self.reporter.step(step)
            yield from self._look()
            state = yield from self._at_boundary(step, state)

    def _at_boundary(self, step: int, state: TrainState) -> Generator[Record, None, TrainState]:
        """Writes, evaluates, ends and saves what is due at a step, in this order; the state to go on with."""
        last = step == self.total
        evaluates = step % self.eval_every == 0 or last
        saves = step % self.save_every == 0 or last
        if step % self.config.log.every == 0 or last:
            factor = self.run.experiment.schedule(jnp.asarray(step - 1, jnp.int32))
            plateau = plateau_factor(state.opt_state)
            # A copy: the state's own is overwritten by the next step.
            self.held = _Held(step, state.sums, factor, None if plateau is None else jnp.copy(plateau))
            state = state._replace(sums=self.trainees.no_sums())
        # What is evaluated and saved here comes after the line of this step, and waits for the device anyhow.
        if evaluates or saves:
            yield from self._look()
        if evaluates and self.open():
            yield from self._evaluate(step, state)
        if due := self.open() if saves else self._over(step):
            host = self.placement.get(state)
            yield from self._end(self._not_finite(due, step, host), step, "diverged")
            over = self._over(step)
            for record in over:
                self._time(record).save(step, record.of(host))
            yield from self._end(over, step, "done")
            if saves:
                self._save(step, host)
        return state

    def _look(self) -> Iterator[Record]:
        """Writes the lines of the totals that are held, if there are any; ends those whose loss was not finite."""
        if self.held is None:
            return
        (step, sums, factor, plateau), self.held = self.held, None
        fetched, left = self.placement.get((sums, plateau))
        for record in self.open():
            own = record.of(fetched)
            totals = add_up([own])
            # Of finite steps too a sum may be too large a number.
            if totals["bad_steps"] or not np.isfinite([totals["loss"], totals["grad_norm"]]).all():
                record.not_finite("the training loss or its gradient", step, own.newton)
                yield from self._end([record], step, "diverged")
                continue
            metrics = metrics_of(totals, self.config.shape.target, "train") | {
                "grad_norm": totals["grad_norm"] / totals["steps"],
                "lr": record.run.config.optim.lr * float(factor) * (1.0 if left is None else float(record.of(left))),
            }
            if self.config.newton is not None:
                metrics |= newton_metrics(own.newton)
                said = why_slow(self.config.newton, own.newton, step - int(totals["steps"]) + 1, step)
                if said and not record.warned:
                    record.warned = True
                    self.reporter.warn(said)
            record.history.last_train = metrics
            self._write(record, step, metrics)

    def _evaluate(self, step: int, state: TrainState) -> Iterator[Record]:
        """Looks at the validation split; ends those whose loss there is not finite."""
        experiment, train = self.run.experiment, self.config.train
        parts = split_sums(experiment, self.dataset, self.placement, state.evaluated, "valid", self.watch.call)
        patience, reached = (train.early_stop.patience, train.early_stop.reached) if train.early_stop else (None, None)
        best: list[Record] = []
        for record in self.open():
            metrics, newton = split_metrics(experiment, [record.of(part) for part in parts], "valid")
            if not np.isfinite(metrics["valid/loss"]):
                record.not_finite("the validation loss", step, newton)
                yield from self._end([record], step, "diverged")
                continue
            if train.best_by == "valid/macro_f1":
                metrics |= self._scores(record, state)
            if record.history.evaluated(step, metrics, train.best_by, patience, reached):
                best.append(record)
            self._write(record, step, metrics)
        params = self.placement.get(state.evaluated) if best else None
        for record in best:
            record.best_params = record.of(params)

    def _scores(self, record: Record, state: TrainState) -> dict[str, float]:
        """Those of the validation split; where an answer is not finite, the score that picks is the worst one."""
        params = record.of(self.placement.get(state.evaluated))
        told = self.watch.call("scores", answered, self.run.whole, self.dataset, params, "valid")
        return {"valid/macro_f1": 0.0} | scores(told, self.dataset, self.config.shape, "valid")

    def _stopped(self, step: int, state: TrainState) -> Iterator[Record]:
        """What is done when a signal has come."""
        yield from self._look()
        if self.open() and self.saved_at != step:
            host = self.placement.get(state)
            diverged = self._not_finite(self.open(), step, host)
            if self.trainees.end_at_signal:
                yield from self._end(diverged, step, "diverged")
            if self.trainees.end_at_signal or not diverged:
                self._save(step, host)
        yield from self._end(self.open(), step, "preempted")

    def _over(self, step: int) -> list[Record]:
        return [record for record in self.open() if step == self.total or record.history.stopped_early]

    def _not_finite(self, records: Sequence[Record], step: int, host: TrainState) -> list[Record]:
        return [record for record in records if not record.is_finite(step, record.of(host))]

    def _save(self, step: int, host: TrainState) -> None:
        if records := self.open():
            for record in records:
                self._time(record)
            self.trainees.save(step, host)
            self.saved_at = step

    def _write(self, record: Record, step: int, metrics: dict[str, float]) -> None:
        if record is self.open()[0]:
            self.reporter.metrics(metrics)
        line: dict[str, Plain] = {"step": step, "epoch": round(step / self.config.steps_per_epoch, 4)}
        line |= {"time_s": round(self._time(record).history.train_s, 3), "examples": step * self.config.task.batch}
        record.write(line | metrics)

    def _time(self, record: Record) -> Record:
        """Books its share of the seconds; the run."""
        self.watch.mark()
        clock, history = self.trainees.clock, record.history
        history.train_s, history.compile_s = clock.train_s / record.at_once, clock.compile_s / record.at_once
        return record

    def _end(self, records: Sequence[Record], step: int, status: str) -> Iterator[Record]:
        for record in records:
            self._time(record).close()
        for record in records:
            record.open, record.step, record.status = False, step, status
            yield record
            # The test and the pictures of one are of no other's training.
            self.watch.skip()

"""Several runs trained at once: their states stacked, every step one program for all of them.

Each has its own directory, its own metrics, its own best parameters and its own end; one that has come to its end
stays in the stack, computed and not looked at, so that the numbers of the others do not change.
"""

import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.config.config import config_hash
from gru_jax.config.sections.base import interval_steps
from gru_jax.data.dataset import Dataset
from gru_jax.runs import final_result
from gru_jax.runs.environment import environment
from gru_jax.runs.evaluation import evaluate
from gru_jax.runs.loop import Outcome
from gru_jax.runs.many_runs import Task
from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.checkpoint import Checkpoint
from gru_jax.runs.on_disk.history import History
from gru_jax.runs.on_disk.metrics_log import MetricsLog
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.stop_request import StopRequest
from gru_jax.runs.stopwatch import Stopwatch
from gru_jax.runs.watching.progress import Reporter
from gru_jax.runs.watching.watchers import Watchers, require
from gru_jax.sweeps import groups
from gru_jax.sweeps.groups import Group
from gru_jax.sweeps.one_run import OneRun
from gru_jax.training.devices import place
from gru_jax.training.experiment import Experiment, batch_at, build, eval_batches, train_batches
from gru_jax.training.losses import Sums, add_up, metrics_of, no_sums
from gru_jax.training.step import Batch, TrainState


class Stack:
    """The M runs of a group, trained at once: every leaf of the state is `[M, ...]`, a batch `[M, B, ...]` or shared.

    Args:
        group: the runs; they differ in the seed and the learning rate alone.
        dataset: of their task.
        reporter: what shows the progress.
        stop: what hears of signals.
    """

    def __init__(self, group: Group, dataset: Dataset, reporter: Reporter, stop: StopRequest) -> None:
        self.group, self.dataset, self.reporter, self.stop = group, dataset, reporter, stop
        self.runs = [OneRun(place, member) for place, member in enumerate(group.members)]
        self.config = config = self.runs[0].config
        self.experiment: Experiment = build(config)
        self.shared = groups.shares_batches(group.members)
        over_batches = None if self.shared else 0
        self.train_step = jax.jit(jax.vmap(self.experiment.train_step, in_axes=(0, over_batches)), donate_argnums=0)
        self.eval_step = jax.jit(jax.vmap(self.experiment.eval_step, in_axes=(0, None)))
        self.train_batch = self._train_batches()
        self.single = place("single", self.experiment.train_step, self.experiment.eval_step, jax.devices()[:1])
        self.total = config.total_steps
        self.eval_every = interval_steps(config.train.eval_every, config.steps_per_epoch)
        self.save_every = interval_steps(config.checkpoint.every, config.steps_per_epoch)
        self.directory = RunDirectory(group.path)
        self.clock = History()

    def _train_batches(self) -> Callable[[int], Batch]:
        config, train = self.config, self.dataset.train
        if self.shared:
            return train_batches(train, config.shape, config.task.batch, config.seed)
        one = functools.partial(batch_at, target=config.shape.target, size=config.task.batch)
        seeds = jnp.asarray([run.config.seed for run in self.runs], jnp.uint32)
        if callable(train):
            made = jax.jit(lambda step: jax.vmap(lambda seed: one(train, seed, step))(seeds))
            return lambda step: made(jnp.int32(step))
        of_data = jax.jit(lambda data, step: jax.vmap(lambda seed: one(data, seed, step))(seeds))
        data = jax.device_put(train)
        return lambda step: of_data(data, jnp.int32(step))

    def train(self) -> Iterator[tuple[Task, str]]:
        """Trains all runs to their ends, or to a request to stop.

        Yields:
            (run, "done", "diverged" or "preempted"), when it has come to it.

        Raises:
            RunError, CheckpointError: the group cannot go on; nothing was changed.
            ImportError: a package to watch the runs with is missing; nothing was changed.
            OSError: something could not be written; what was there is whole.
        """
        require(self.config)
        mine = [run.directory for run in self.runs if run.open]
        for directory in mine:
            directory.check_usable()
        locked: list[RunDirectory] = []
        try:
            for directory in [self.directory, *mine]:
                directory.lock()
                locked.append(directory)
            if (yield from self._train()):
                groups.end(self.group)
        finally:
            for run in self.runs:
                if run.log is not None:
                    run.log.close()
                if run.watchers is not None:
                    run.watchers.close()
            for directory in locked:
                directory.unlock()

    def _train(self) -> Generator[tuple[Task, str], None, bool]:
        """Trains; whether all runs have come to their ends."""
        state, step = self._start()
        groups.begin(self.group)
        here = environment(jax.devices()[:1])
        for run in self._open():
            # Left by a kill while the run was coming to its end, which it now comes to again.
            checkpoint.clean(run.directory.checkpoints, -1)
            run.directory.write_inputs(run.loaded, here)
            run.directory.set_status("running")
            run.watchers = Watchers(run.config, run.directory, step, self.reporter)
            run.log = MetricsLog(run.directory.metrics, resume_step=step)
        self.watch = Stopwatch(self.clock)
        self.saved_at = step if step else -1
        self.reporter.start(step, self.total)
        state = jax.device_put(state)
        try:
            while step < self.total and self._open():
                if self.stop.requested:
                    if not self._not_finite(jax.device_get(state)):
                        # Otherwise what comes of it is seen at the same step as without the signal: from an older one.
                        yield from self._save(step, state)
                    for run in self._open():
                        run.directory.set_status("preempted")
                        yield run.member.task, "preempted"
                    return False
                batch = self.watch.call("batch", self.train_batch, step)
                state = self.watch.call(("train", batch.x.shape), self.train_step, state, batch)
                step += 1
                self.reporter.step(step)
                state = yield from self._at_boundary(step, state)
        finally:
            self.reporter.stop()
        # Every run has its own checkpoint now.
        checkpoint.remove_all(self.directory.checkpoints)
        return True

    def _open(self) -> list[OneRun]:
        return [run for run in self.runs if run.open]

    def _start(self) -> tuple[TrainState, int]:
        """The stacked state to go on from, on the host, and its step."""
        seeds = jnp.asarray([run.config.seed for run in self.runs], jnp.uint32)
        rates = jnp.asarray([run.config.optim.lr for run in self.runs], jnp.float32)
        init = jax.vmap(self.experiment.init_state)
        like = jax.eval_shape(init, seeds, rates)
        found, warnings = checkpoint.restore(self.directory.checkpoints, like, like.params)
        for warning in warnings:
            self.reporter.warn(warning)
        if found is None:
            return jax.device_get(jax.jit(init)(seeds, rates)), 0
        if found.meta["fingerprint"] != self.dataset.fingerprint:
            raise RunError(
                f"the data have changed since {self.group.path} was begun (fingerprint {found.meta['fingerprint']}, now"
                f" {self.dataset.fingerprint}); remove it to train its runs anew",
                exit_code=1,
            )
        for run, (history, was_open) in zip(self.runs, found.meta["runs"], strict=True):
            run.history = History.from_meta(history)
            run.best_params = run.of(found.best_params) if run.history.best else None
            # What ended after this checkpoint is finished; what had ended before and is gone waits for its own turn.
            run.open = run.open and was_open
        self.clock = History.from_meta(found.meta["clock"])
        checkpoint.clean(self.directory.checkpoints, found.step)
        return found.state, found.step

    def _at_boundary(self, step: int, state: TrainState) -> Generator[tuple[Task, str], None, TrainState]:
        """Writes, evaluates, saves and ends what is due at a step; the generator's value is the state to go on with."""
        last = step == self.total
        diverged: list[OneRun] = []
        if step % self.config.log.every == 0 or last:
            state, diverged = self._log_train(step, state)
        if step % self.eval_every == 0 or last:
            diverged += self._evaluate(step, state)
        for run in diverged:
            yield self._end(run, step, "diverged")
        over = [run for run in self._open() if last or run.history.stopped_early]
        host = jax.device_get(state) if over else None
        for run in over:
            yield self._end(run, step, self._last_checkpoint(run, step, host))
        if self._open() and step % self.save_every == 0:
            yield from self._save(step, state)
        return state

    def _log_train(self, step: int, state: TrainState) -> tuple[TrainState, list[OneRun]]:
        """Writes a line of training metrics for every run; the state to go on with, and the runs that have diverged."""
        sums: Sums = jax.device_get(state.sums)
        factor = float(self.experiment.schedule(jnp.asarray(step - 1, jnp.int32)))
        self.watch.mark()
        diverged: list[OneRun] = []
        for run in self._open():
            own = add_up([run.of(sums)])
            if own["bad_steps"] or not np.isfinite([own["loss"], own["grad_norm"]]).all():
                diverged.append(run.diverged("the training loss or its gradient", step))
                continue
            metrics = metrics_of(own, self.config.shape.target, "train") | {
                "grad_norm": own["grad_norm"] / own["steps"],
                "lr": run.config.optim.lr * factor,
            }
            run.history.last_train = metrics
            self._write(run, step, metrics)
        zeros = jax.tree.map(lambda leaf: jnp.zeros((len(self.runs), *leaf.shape), leaf.dtype), no_sums())
        return state._replace(sums=zeros), diverged

    def _evaluate(self, step: int, state: TrainState) -> list[OneRun]:
        """Evaluates every run on the validation split; those that have diverged."""
        parts = []
        for batch in eval_batches(self.dataset, "valid", self.config.shape, self.config.task.batch):
            parts.append(self.watch.call(("eval", batch.x.shape), self.eval_step, state.params, batch))
        fetched = jax.device_get(parts)
        self.watch.mark()
        early = self.config.train.early_stop
        patience, reached = (early.patience, early.reached) if early else (None, None)
        diverged: list[OneRun] = []
        best: list[OneRun] = []
        for run in self._open():
            metrics = metrics_of(add_up([run.of(part) for part in fetched]), self.config.shape.target, "valid")
            if not np.isfinite(metrics["valid/loss"]):
                diverged.append(run.diverged("the validation loss", step))
                continue
            if run.history.evaluated(step, metrics, self.config.train.best_by, patience, reached):
                best.append(run)
            self._write(run, step, metrics)
        if best:
            params = jax.device_get(state.params)
            for run in best:
                run.best_params = jax.tree.map(np.copy, run.of(params))
        return diverged

    def _write(self, run: OneRun, step: int, metrics: dict[str, float]) -> None:
        assert run.log is not None and run.watchers is not None
        head = {"step": step, "epoch": round(step / self.config.steps_per_epoch, 4)}
        seconds = round(self.clock.train_s / len(self.runs), 3)
        line = head | {"time_s": seconds, "examples": step * self.config.task.batch} | metrics
        run.log.write(line)
        run.watchers.write(line)
        if run is self._open()[0]:
            self.reporter.metrics(metrics)

    def _last_checkpoint(self, run: OneRun, step: int, host: Any) -> str:
        """Saves a run that has come to its end as a run of its own would; how it ended."""
        own = run.of(host)
        assert run.log is not None
        if own.sums.bad_steps:
            run.diverged("the training loss or its gradient", step)
            return "diverged"
        run.log.sync()
        meta = {
            "fingerprint": self.dataset.fingerprint,
            "config_hash": config_hash(run.config),
            "history": self._timed(run).to_meta(),
            "metrics_lines": run.log.lines,
        }
        best = own.params if run.best_params is None else run.best_params
        try:
            checkpoint.save(run.directory.checkpoints, Checkpoint(step, own, best, meta), self.config.checkpoint.keep)
        except checkpoint.NotFinite:
            run.diverged("the state", step)
            return "diverged"
        return "done"

    def _timed(self, run: OneRun) -> History:
        """Its history, with its share of the seconds."""
        run.history.train_s = self.clock.train_s / len(self.runs)
        run.history.compile_s = self.clock.compile_s / len(self.runs)
        return run.history

    def _end(self, run: OneRun, step: int, status: str) -> tuple[Task, str]:
        """Writes what a run leaves at its end; the run and its status."""
        run.open = False
        if run.watchers is not None:
            run.watchers.close()
        outcome = Outcome(status, step, run.best_params, self._timed(run), run.why)
        result = final_result.result(run.config, self.experiment, self.dataset, 1, outcome)
        result["wall_s_is"] = (
            f"the share of one of the {len(self.runs)} runs that were trained at once: of training, validation and"
            " checkpoints; compilation is apart, in compile_s"
        )
        if run.best_params is None or status != "done":
            run.directory.set_result(result)
        else:
            params = self.single.put_state(run.best_params)
            metrics, _ = evaluate(self.experiment, self.dataset, self.single, params, "test")
            result = final_result.with_test_values(result, metrics)
            run.directory.set_result(result)
            final_result.pictures(run.directory, self.experiment, self.dataset, run.best_params, self.reporter)
        run.directory.set_status(result["status"])
        return run.member.task, result["status"]

    def _not_finite(self, host: TrainState) -> list[OneRun]:
        """The runs that go on though they have diverged."""
        finite = host.sums.bad_steps == 0
        for leaf in jax.tree.leaves(host):
            finite = finite & np.isfinite(leaf).reshape(len(self.runs), -1).all(axis=1)
        return [run for run in self._open() if not finite[run.place]]

    def _save(self, step: int, state: TrainState) -> Iterator[tuple[Task, str]]:
        """Saves the stack; a run whose state is not finite ends here."""
        if self.saved_at == step:
            return
        host = jax.device_get(state)
        for run in self._not_finite(host):
            yield self._end(run.diverged("the loss or the state", step), step, "diverged")
        self.watch.mark()
        for run in self._open():
            assert run.log is not None
            run.log.sync()
        keeps = np.array([run.open for run in self.runs])
        best = [run.of(host.params) if run.best_params is None else run.best_params for run in self.runs]
        stacked_best = jax.tree.map(lambda *leaves: np.stack(leaves), *best)
        meta = {
            "fingerprint": self.dataset.fingerprint,
            "clock": self.clock.to_meta(),
            "runs": [[run.history.to_meta(), run.open] for run in self.runs],
        }
        cleared = functools.partial(_zero_where_over, keeps)
        saved = Checkpoint(step, jax.tree.map(cleared, host), jax.tree.map(cleared, stacked_best), meta)
        checkpoint.save(self.directory.checkpoints, saved, self.config.checkpoint.keep)
        self.saved_at = step


def _zero_where_over(keeps: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    # What has diverged is not finite, and nobody reads it again.
    return np.where(keeps.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, np.zeros_like(leaf))

"""Several runs trained at once: their states stacked, every step one program for all of them.

Each has its own directory, its own metrics, its own best parameters and its own end; one that has come to its end
stays in the stack, computed and not looked at, so that the numbers of the others do not change.
"""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax.data.dataset import Dataset
from gru_jax.runs import final_result
from gru_jax.runs.environment import environment
from gru_jax.runs.loop import Loop, Trainees
from gru_jax.runs.many_runs import Task, finished
from gru_jax.runs.on_disk import checkpoint
from gru_jax.runs.on_disk.checkpoint import Checkpoint
from gru_jax.runs.on_disk.history import History
from gru_jax.runs.on_disk.run_directory import RunDirectory, RunError
from gru_jax.runs.plan import Run, with_weights
from gru_jax.runs.record import Record
from gru_jax.runs.stop_request import StopRequest
from gru_jax.runs.watching.progress import Reporter
from gru_jax.runs.watching.watchers import require
from gru_jax.sweeps import groups
from gru_jax.sweeps.groups import Group
from gru_jax.training.devices import Placement, place
from gru_jax.training.experiment import Experiment, batch_at, build, train_batches
from gru_jax.training.losses import Sums, no_sums
from gru_jax.training.step import Batch, TrainState


class Stack(Trainees):
    """The M runs of a group, trained at once: every leaf of the state is `[M, ...]`, a batch `[M, B, ...]` or shared.

    Args:
        group: the runs; they differ in the seed and the learning rate alone.
        dataset: of their task.
        reporter: what shows the progress.
        stop: what hears of signals.
    """

    # The others go on from an older state as well.
    end_at_signal = False

    def __init__(self, group: Group, dataset: Dataset, reporter: Reporter, stop: StopRequest) -> None:
        self.group, self.dataset, self.reporter, self.stop = group, dataset, reporter, stop
        self.config = group.members[0].task.loaded.config
        self.experiment: Experiment = with_weights(group.members[0].task.loaded, build(self.config), dataset)
        self.records = [self._record(place, member.task) for place, member in enumerate(group.members)]
        self.directory, self.clock = RunDirectory(group.path), History()
        self.seeds = jnp.asarray([record.run.config.seed for record in self.records], jnp.uint32)
        self.shared = groups.shares_batches(group.members)
        self.placement, self.train_batch = self._placement(), self._train_batches()
        self.single = place("single", self.experiment.train_step, self.experiment.eval_step, jax.devices()[:1])

    def _record(self, place: int, task: Task) -> Record:
        own = self.experiment._replace(config=task.loaded.config)
        run = Run(task.loaded, own, RunDirectory(task.path), self.reporter)
        record = Record(run, self.dataset, place, len(self.group.members))
        record.open = finished(task) is None
        return record

    def _placement(self) -> Placement:
        over_batches = None if self.shared else 0
        return Placement(
            jax.jit(jax.vmap(self.experiment.train_step, in_axes=(0, over_batches)), donate_argnums=0),
            jax.jit(jax.vmap(self.experiment.eval_step, in_axes=(0, None))),
            jax.device_put,
            lambda batch: batch,
            jax.device_get,
            lambda size: slice(0, size),
            1,
        )

    def _train_batches(self) -> Callable[[int], Batch]:
        config, train = self.config, self.dataset.train
        if self.shared:
            return train_batches(train, config.shape, config.task.batch, config.seed)
        one = functools.partial(batch_at, target=config.shape.target, size=config.task.batch)
        seeds = self.seeds
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
        mine = [record.run.directory for record in self.open()]
        for directory in mine:
            directory.check_usable()
        with contextlib.ExitStack() as locked:
            for directory in [self.directory, *mine]:
                directory.lock()
                locked.callback(directory.unlock)
            if (yield from self._train()):
                # Every run has its own checkpoint now.
                checkpoint.remove_all(self.directory.checkpoints)
                groups.end(self.group)

    def _train(self) -> Generator[tuple[Task, str], None, bool]:
        """Trains; whether all runs have come to their ends."""
        state, step = self._start()
        groups.begin(self.group)
        here = environment(jax.devices()[:1])
        for record in self.open():
            directory = record.run.directory
            # Left by a kill while the run was coming to its end, which it now comes to again.
            checkpoint.clean(directory.checkpoints, -1)
            directory.write_inputs(record.run.loaded, here)
            directory.set_status("running")
        with contextlib.closing(Loop(self, self.stop).train(state, step or -1)) as ended:
            for record in ended:
                status = record.status
                if status == "preempted":
                    record.run.directory.set_status(status)
                else:
                    status = final_result.finish(record, self.single)["status"]
                yield self.group.members[self.records.index(record)].task, status
        return all(record.status != "preempted" for record in self.records)

    def _start(self) -> tuple[TrainState, int]:
        """The stacked state to go on from, on the host, and its step."""
        rates = jnp.asarray([record.run.config.optim.lr for record in self.records], jnp.float32)
        init = jax.vmap(self.experiment.init_state)
        like = jax.eval_shape(init, self.seeds, rates)
        found, warnings = checkpoint.restore(self.directory.checkpoints, like, like.evaluated)
        for warning in warnings:
            self.reporter.warn(warning)
        if found is None:
            return jax.device_get(jax.jit(init)(self.seeds, rates)), 0
        if found.meta["fingerprint"] != self.dataset.fingerprint:
            raise RunError(
                f"the data have changed since {self.group.path} was begun (fingerprint {found.meta['fingerprint']}, now"
                f" {self.dataset.fingerprint}); remove it to train its runs anew",
                exit_code=1,
            )
        for record, (history, was_open) in zip(self.records, found.meta["runs"], strict=True):
            record.history = History.from_meta(history)
            record.best_params = record.of(found.best_params) if record.history.best else None
            # What ended after this checkpoint is finished; what had ended before and is gone waits for its own turn.
            record.open = record.open and was_open
        self.clock = History.from_meta(found.meta["clock"])
        checkpoint.clean(self.directory.checkpoints, found.step)
        return found.state, found.step

    def no_sums(self) -> Sums:
        """Totals of 0 on the devices."""
        return jax.tree.map(lambda leaf: jnp.zeros((len(self.records), *leaf.shape), leaf.dtype), no_sums())

    def save(self, step: int, host: TrainState) -> None:
        """Saves the whole stack in a directory of its own."""
        for record in self.open():
            record.log.sync()
        keeps = np.array([record.open for record in self.records])
        best = [
            record.of(host.evaluated) if record.best_params is None else record.best_params for record in self.records
        ]
        stacked_best = jax.tree.map(lambda *leaves: np.stack(leaves), *best)
        meta = {
            "fingerprint": self.dataset.fingerprint,
            "clock": self.clock.to_meta(),
            "runs": [[record.history.to_meta(), record.open] for record in self.records],
        }
        cleared = functools.partial(_zero_where_over, keeps)
        saved = Checkpoint(step, jax.tree.map(cleared, host), jax.tree.map(cleared, stacked_best), meta)
        checkpoint.save(self.directory.checkpoints, saved, self.config.checkpoint.keep)


def _zero_where_over(keeps: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    # What has diverged is not finite, and nobody reads it again.
    return np.where(keeps.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, np.zeros_like(leaf))

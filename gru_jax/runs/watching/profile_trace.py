"""A trace of some steps of a run by jax.profiler, and only of those."""

from pathlib import Path

import jax

from gru_jax.config.sections.log import ProfileConfig
from gru_jax.runs.watching.progress import Reporter
from gru_jax.types import Tree


class ProfileTrace:
    """Traces the steps that the section names, counted from the start of the run."""

    def __init__(self, section: ProfileConfig, folder: Path, resume_step: int, total: int, reporter: Reporter) -> None:
        """Waits for its first step, if that is still to come.

        Args:
            section: which steps.
            folder: where the trace goes.
            resume_step: steps done before.
            total: steps of the whole run.
            reporter: what speaks to the user.
        """
        self._first, self._end = section.start_step, section.start_step + section.num_steps
        self._folder, self._reporter = folder, reporter
        self._waits, self._traced_from, self._now = True, -1, resume_step
        self._marked: jax.profiler.StepTraceAnnotation | None = None
        if self._first < resume_step:
            self._waits = False
            reporter.note(f"no trace: the run goes on at step {resume_step}, past log.profile.start_step {self._first}")
        elif self._first >= total:
            self._waits = False
            reporter.warn(f"no trace: log.profile.start_step {self._first} is not before the end, step {total}")

    def step(self, step: int, state: Tree) -> None:
        """Called before a step is begun, with the number of steps done and their state."""
        self._now = step
        if self._waits and step == self._first:
            # What is still on its way belongs to the steps before, and what is at the end to those that are traced.
            jax.block_until_ready(state)
            self._waits = False
            jax.profiler.start_trace(str(self._folder))
            self._traced_from = step
        elif self._traced_from >= 0 and step == self._end:
            jax.block_until_ready(state)
            self._stop(step)
        if self._traced_from >= 0:
            self._mark(step)

    def _mark(self, step: int | None) -> None:
        """Ends the mark of a step in the trace, and begins the next."""
        if self._marked is not None:
            self._marked.__exit__(None, None, None)
            self._marked = None
        if step is not None:
            self._marked = jax.profiler.StepTraceAnnotation("train", step_num=step)
            self._marked.__enter__()

    def _stop(self, step: int) -> None:
        first, self._traced_from = self._traced_from, -1
        self._mark(None)
        jax.profiler.stop_trace()
        self._reporter.note(f"trace of steps {first + 1} to {step}: {self._folder}")
        self._reporter.note(f"xprof --logdir {self._folder} shows it (pip install xprof); so does tensorboard, with it")

    def close(self) -> None:
        """Ends a trace that a run has left open, and says so if there was none to end."""
        if self._traced_from >= 0:
            self._stop(min(self._now + 1, self._end))
        elif self._waits:
            self._reporter.note(f"no trace: the run ended before log.profile.start_step {self._first}")

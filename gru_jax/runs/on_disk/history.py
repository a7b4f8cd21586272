"""What a run remembers besides its arrays; a part of every checkpoint."""

import dataclasses

from gru_jax.data.dataset import BETTER_HIGHER
from gru_jax.types import Plain


@dataclasses.dataclass
class History:
    """The host's side of a run.

    Attributes:
        best: the validation metrics of the best evaluation, {} before the first.
        best_step: its step.
        evaluations_since_best: the early-stop counter.
        stopped_early: whether the patience ran out.
        last_train: the newest training metrics.
        train_s: seconds of training, evaluation and saving so far, compilation left out.
        compile_s: seconds spent in first calls, which compile.
    """

    best: dict[str, float] = dataclasses.field(default_factory=dict)
    best_step: int = 0
    evaluations_since_best: int = 0
    stopped_early: bool = False
    last_train: dict[str, float] = dataclasses.field(default_factory=dict)
    train_s: float = 0.0
    compile_s: float = 0.0

    def to_meta(self) -> dict[str, Plain]:
        """As JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_meta(cls, meta: dict[str, Plain]) -> "History":
        """The inverse of `to_meta`."""
        return cls(**meta)

    def evaluated(
        self, step: int, metrics: dict[str, float], best_by: str, patience: int | None, reached: float | None = None
    ) -> bool:
        """Takes note of an evaluation.

        Args:
            step: when it was.
            metrics: its values.
            best_by: the metric that decides.
            patience: evaluations without a new best after which to stop, or None.
            reached: a value that is good enough to stop, or None.

        Returns:
            Whether it is the best so far.
        """
        sign = 1 if best_by.endswith(BETTER_HIGHER) else -1
        is_best = not self.best or sign * metrics[best_by] > sign * self.best[best_by]
        if is_best:
            self.best, self.best_step, self.evaluations_since_best = dict(metrics), step, 0
        else:
            self.evaluations_since_best += 1
        done = reached is not None and sign * metrics[best_by] >= sign * reached
        self.stopped_early = done or (patience is not None and self.evaluations_since_best >= patience)
        return is_best

"""What a run shows while it goes on: rate, time left, bar, result."""

import io
from collections.abc import Iterator

import pytest

from gru_jax.runs.watching import progress
from gru_jax.runs.watching.progress import Rate, Reporter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Seconds that only the test moves on, in a list of one."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    yield now


def test_rate_counts_from_the_first_finished_step_and_forgets() -> None:
    rate = Rate()
    assert rate.per_second(1, 60.0) is None
    assert rate.per_second(11, 61.0) == 10
    for second in range(200):
        last = rate.per_second(11 + 2 * (second + 1), 62.0 + second)
    assert last == pytest.approx(2, rel=0.05)


def test_lines_without_a_terminal(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    reporter.start(0, 100)
    for step in range(1, 10):
        clock[0] += 30 if step == 1 else 1  # the first step is compiled
        reporter.metrics({"train/loss": 0.5, "lr": 1.0})
        reporter.step(step)
    assert capsys.readouterr().out.splitlines() == [
        "compiling",
        "step 1/100  train/loss 0.5000",
        "step 6/100  1.0 steps/s  0:01:34 left  train/loss 0.5000",
    ]


def test_bar_keeps_its_parts_at_80_columns(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    reporter, shown = Reporter(), io.StringIO()
    reporter.console = progress._Console(file=shown, force_terminal=True, width=80, soft_wrap=True, highlight=False)
    reporter.start(0, 100000)
    splits = {f"{split}/{metric}": 0.1234 for split in ("train", "valid") for metric in ("loss", "accuracy")}
    for step in (1000, 52000):
        clock[0] += 10
        reporter.metrics(splits)
        reporter.step(step)
    reporter.stop()
    first, *_, bar, metrics = [line for line in shown.getvalue().replace("\r", "\n").splitlines() if "/" in line]
    assert "compiling" in first
    for part in ("training", "━", "52000/100000", "5100.0 steps/s", "0:00:09 left"):
        assert part in bar, bar
    assert "train/loss 0.1234" in metrics and "valid/accuracy 0.1234" in metrics


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.5, "0.5000"), (0.0, "0.0000"), (1.373e30, "1.373e+30"), (2e-5, "2e-05"), (-3e8, "-3e+08")],
)
def test_numbers_of_the_table(value: float, said: str) -> None:
    assert progress._number(value) == said

"""What TensorBoard shows of a run, by its own reader."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """tag -> (step, value) of all its points, in the order in which they are shown."""
    # Zero keeps all of them; its default is a sample of ten thousand.
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={SCALARS: 0})
    reader.Reload()
    return {tag: [(point.step, point.value) for point in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}

"""The tasks a config can name; a new file here and its class below add one."""

from gru_jax.training.sections import Section
from gru_jax.training.tasks.digits import DigitsTask

TASKS: tuple[type[Section], ...] = (DigitsTask,)
# Of several: Annotated[DigitsTask | OtherTask, Field(discriminator="kind")].
AnyTask = DigitsTask

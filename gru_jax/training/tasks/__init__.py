"""The tasks a config can name; a new file here and a line below add one."""

from gru_jax.training.sections import Section, one_of
from gru_jax.training.tasks.digits import DigitsTask

TASKS: tuple[type[Section], ...] = (DigitsTask,)
AnyTask = one_of(*TASKS)

"""The tasks a config can name; a new file here and its class below add one."""

from typing import Annotated

from pydantic import Field

from gru_jax.training.sections import Section
from gru_jax.training.tasks.adding import AddingTask
from gru_jax.training.tasks.copying import CopyingTask
from gru_jax.training.tasks.digits import DigitsTask
from gru_jax.training.tasks.forecast import ForecastTask
from gru_jax.training.tasks.formal import FormalTask
from gru_jax.training.tasks.listops import ListOpsTask
from gru_jax.training.tasks.lra import TableTask
from gru_jax.training.tasks.mnist import MNISTTask
from gru_jax.training.tasks.mqar import MQARTask
from gru_jax.training.tasks.music import MusicTask
from gru_jax.training.tasks.python_file import PythonTask
from gru_jax.training.tasks.selective_copying import SelectiveCopyingTask
from gru_jax.training.tasks.text import CharactersTask
from gru_jax.training.tasks.ucr import SeriesTask

TASKS: tuple[type[Section], ...] = (
    DigitsTask,
    AddingTask,
    CopyingTask,
    SelectiveCopyingTask,
    FormalTask,
    MQARTask,
    ListOpsTask,
    MusicTask,
    MNISTTask,
    CharactersTask,
    TableTask,
    SeriesTask,
    ForecastTask,
    PythonTask,
)
AnyTask = Annotated[
    DigitsTask
    | AddingTask
    | CopyingTask
    | SelectiveCopyingTask
    | FormalTask
    | MQARTask
    | ListOpsTask
    | MusicTask
    | MNISTTask
    | CharactersTask
    | TableTask
    | SeriesTask
    | ForecastTask
    | PythonTask,
    Field(discriminator="kind"),
]

"""The tasks a config can name; a new file here and its class below add one."""

from typing import Annotated

from pydantic import Field

from gru_jax.config.sections.base import members
from gru_jax.config.sections.tasks.adding import AddingTask
from gru_jax.config.sections.tasks.characters import CharactersTask
from gru_jax.config.sections.tasks.copying import CopyingTask
from gru_jax.config.sections.tasks.digits import DigitsTask
from gru_jax.config.sections.tasks.forecast import ForecastTask
from gru_jax.config.sections.tasks.formal import FormalTask
from gru_jax.config.sections.tasks.group_words import GroupWordsTask
from gru_jax.config.sections.tasks.irregular import IrregularTask
from gru_jax.config.sections.tasks.k_hop import KHopTask
from gru_jax.config.sections.tasks.keep_nth import KeepNthTask
from gru_jax.config.sections.tasks.listops import ListOpsTask
from gru_jax.config.sections.tasks.mnist import MNISTTask
from gru_jax.config.sections.tasks.mqar import MQARTask
from gru_jax.config.sections.tasks.polyphonic import MusicTask
from gru_jax.config.sections.tasks.python_file import PythonTask
from gru_jax.config.sections.tasks.selective_copying import SelectiveCopyingTask
from gru_jax.config.sections.tasks.sequences import SequencesTask
from gru_jax.config.sections.tasks.series import SeriesForecastTask
from gru_jax.config.sections.tasks.tsv import TableTask
from gru_jax.config.sections.tasks.uea import SeriesTask

AnyTask = Annotated[
    DigitsTask
    | AddingTask
    | CopyingTask
    | SelectiveCopyingTask
    | FormalTask
    | GroupWordsTask
    | KeepNthTask
    | KHopTask
    | MQARTask
    | ListOpsTask
    | IrregularTask
    | MusicTask
    | MNISTTask
    | CharactersTask
    | TableTask
    | SeriesTask
    | ForecastTask
    | SeriesForecastTask
    | SequencesTask
    | PythonTask,
    Field(discriminator="kind"),
]
TASKS = members(AnyTask)

READ_FROM_FILES = (
    "polyphonic", "mnist", "characters", "tsv", "uea", "forecast", "series", "sequences", "python",
)  # fmt: skip
"""The kinds whose data are not decided by the config alone."""

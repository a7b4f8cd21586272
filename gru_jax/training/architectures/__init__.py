"""The models a config can name; a new file here and its class below add one."""

from typing import Annotated

from pydantic import Field

from gru_jax.training.architectures.baselines import LSTMModel, TanhModel
from gru_jax.training.architectures.gru import GRUModel, MGUModel
from gru_jax.training.architectures.minimal import MinBlocksModel, MinGRUModel, MinLSTMModel
from gru_jax.training.sections import Section

MODELS: tuple[type[Section], ...] = (
    GRUModel,
    MGUModel,
    MinGRUModel,
    MinLSTMModel,
    MinBlocksModel,
    LSTMModel,
    TanhModel,
)
AnyModel = Annotated[
    GRUModel | MGUModel | MinGRUModel | MinLSTMModel | MinBlocksModel | LSTMModel | TanhModel,
    Field(discriminator="kind"),
]

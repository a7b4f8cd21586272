"""The models a config can name; a new file here and its class below add one."""

from typing import Annotated

from pydantic import Field

from gru_jax.config.sections.base import members
from gru_jax.config.sections.models.baselines import LSTMModel, TanhModel
from gru_jax.config.sections.models.dreamer import DreamerModel
from gru_jax.config.sections.models.gru import GRUDModel, GRUModel, MGUModel
from gru_jax.config.sections.models.minimal import MinBlocksModel, MinGRUModel, MinLSTMModel
from gru_jax.config.sections.models.own_cell import PythonModel

AnyModel = Annotated[
    GRUModel
    | GRUDModel
    | DreamerModel
    | MGUModel
    | MinGRUModel
    | MinLSTMModel
    | MinBlocksModel
    | LSTMModel
    | TanhModel
    | PythonModel,
    Field(discriminator="kind"),
]
MODELS = members(AnyModel)

"""The models a config can name; a new file here and its class below add one."""

from gru_jax.training.architectures.gru import GRUModel
from gru_jax.training.sections import Section

MODELS: tuple[type[Section], ...] = (GRUModel,)
# Of several: Annotated[GRUModel | OtherModel, Field(discriminator="kind")].
AnyModel = GRUModel

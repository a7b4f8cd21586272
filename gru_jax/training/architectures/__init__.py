"""The models a config can name; a new file here and a line below add one."""

from gru_jax.training.architectures.gru import GRUModel
from gru_jax.training.sections import Section, one_of

MODELS: tuple[type[Section], ...] = (GRUModel,)
AnyModel = one_of(*MODELS)

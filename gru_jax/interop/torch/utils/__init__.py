"""torch's own spelling, `nn.utils.rnn`, and nothing else."""

from gru_jax.interop.torch.utils import rnn as rnn

__all__ = ["rnn"]

"""What a step costs on a processor that nobody measured: enough to choose by, no more."""

from gru_jax.scans.choices.tuned import Choice, Fastest, Sizes

RATE = 2e10
"""Operations a second of one core in machine code."""
SYNC_S = 1e-6
"""What threads that share the units of a step wait for each other, in each; those that share sequences do not."""
WIDE = 2**20
"""Bytes of a recurrent matrix from which on they share units where they could share sequences."""
START_S = 2e-5
"""What it takes to call other threads at all."""
WORTH_THREADS = 1.1
"""How many times faster several cores have to be for one not to be left to others."""


def estimated(sizes: Sizes, cores: int) -> Fastest:
    """The forms of a processor: machine code where it serves, on as many cores as pay.

    Args:
      sizes: of the call.
      cores: that this process may run on.
    """

    def compiled(operations: int) -> Choice:
        """With the products of one step of one sequence, in units of H squared."""
        step_s = operations * sizes.B * sizes.H**2 / RATE
        alone = sizes.T * step_s
        sync_s = SYNC_S if sizes.B < cores or 12 * sizes.H**2 > WIDE else 0.0
        together = sizes.T * (step_s / cores + sync_s) + START_S
        return Choice("llvm", "gates", 1, cores if together * WORTH_THREADS < alone else 1)

    # Of what XLA compiles itself chunks are the fastest in training nearly everywhere that was measured.
    xla = Choice("chunked", "gates" if sizes.B * sizes.H >= 2**10 else "states", 12)
    forward = xla if sizes.B * sizes.H >= 2**10 else Choice("scan", "gates", 12)
    return Fastest(compiled(36), compiled(12), xla, forward)

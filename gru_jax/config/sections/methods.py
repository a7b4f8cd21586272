"""The section `model.method`: how the steps run over time, by `kind`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gru_jax.config.sections.base import KIND_ALONE, Count, Expected, NonNegative, Positive, Section

if TYPE_CHECKING:
    from gru_jax.scans import Method


def _no_number(value: Any) -> Any:
    # To Python, and so to pydantic, 1 is True.
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(value)
    return value


class AutoMethod(Section):
    """What is fastest for the cell on the device."""

    kind: Literal["auto"]

    def build(self) -> "str | Method":
        return "auto"


class SequentialMethod(Section):
    """One step after another."""

    kind: Literal["sequential"]
    # Every step of them is compiled.
    unroll: Annotated[int, Field(ge=1, le=1024)] = 1
    kernel: Literal[
        "auto", "xla", "scan", "chunked", "llvm", "cudnn", "pallas", "interpret-gpu", "interpret-tpu"
    ] = "auto"
    keep: Literal["auto", "states", "gates"] = "auto"
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    hoist: Annotated[
        Literal["auto", True, False], BeforeValidator(_no_number), Expected("'auto', true or false")
    ] = "auto"

    def build(self) -> "str | Method":
        import gru_jax as gj

        return gj.Sequential(
            self.unroll, self.kernel, keep=self.keep, checkpoint_every=self.checkpoint_every, hoist=self.hoist
        )


class NewtonMethod(Section):
    """All steps at once, by Newton's method.

    There is no `fallback: error`: `nan` ends a run as well, with its last good checkpoint kept.
    """

    kind: Literal["newton"]
    jacobian: Literal["auto", "dense", "diagonal"] = "auto"
    damping: NonNegative = 0.0
    tol: Positive | None = None
    max_iters: Count = 64
    window: Count | None = None
    fallback: Literal["sequential", "nan"] = "sequential"
    kernel: Literal["auto", "xla", "pallas", "interpret-gpu", "interpret-tpu"] = "auto"

    def build(self) -> "str | Method":
        import gru_jax as gj

        return gj.Newton(
            jacobian=self.jacobian,
            damping=self.damping,
            tol=self.tol,
            max_iters=self.max_iters,
            window=self.window,
            fallback=self.fallback,
            kernel=self.kernel,
        )


METHODS: tuple[type[Section], ...] = (AutoMethod, SequentialMethod, NewtonMethod)
AnyMethod = Annotated[
    AutoMethod | SequentialMethod | NewtonMethod,
    Field(discriminator="kind"),
    KIND_ALONE,
    Expected("'auto', 'sequential', 'newton' or a section with such a kind"),
]

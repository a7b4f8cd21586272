"""The random streams of Flax NNX that modules are given: which one dropout draws from."""


from flax import nnx


def checked_rngs(who: str, rngs: object) -> nnx.Rngs:
    """The streams that a module is made with; raises TypeError for anything else."""
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"{who}: rngs must be nnx.Rngs; got {type(rngs).__name__}; pass rngs=nnx.Rngs(0)")
    return rngs


def dropout_stream(who: str, rngs: object) -> nnx.RngStream:
    """The stream that dropout masks are drawn from."""
    rngs = checked_rngs(who, rngs)
    if "dropout" not in rngs and "default" not in rngs:
        raise ValueError(
            f"{who}: rngs has no stream for dropout; it has {', '.join(rngs) or 'none'};"
            f" pass nnx.Rngs(0), or nnx.Rngs(params=0, dropout=1)"
        )
    return rngs.dropout

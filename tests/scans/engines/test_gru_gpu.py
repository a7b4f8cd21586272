"""The GPU's kernels for a GRU, in Pallas's interpreter, against the cell's own steps and their transpose."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import gru_jax as gj
from gru_jax.scans import masking, solve_by_steps
from gru_jax.scans.engines.pallas import gru_gpu
from gru_jax.scans.engines.pallas.gru_gpu_plan import ALONE, MULTIPROCESSORS, Plan, plan
from gru_jax.scans.masking import Context, Steps

EVERYTHING = ("use", "reset", "drop")


def both(
    sizes: tuple[int, int, int, int], mode: str, options: tuple[str, ...], dtype: Any, reverse: bool, bias: str
) -> list[tuple[str, jax.Array, jax.Array]]:
    """What the kernels and the plain loops compute for (T, B, H, heads)."""
    T, B, H, heads = sizes
    cell = gj.GRU(H, heads=heads, reset=mode, bias=bias, init="torch")
    keys = jax.random.split(jax.random.key(0), 8)
    params = cell.init(keys[0], 3, dtype)
    x, h0 = jax.random.normal(keys[1], (T, B, 3), dtype), jax.random.normal(keys[2], (B, H), dtype)
    use = jax.random.bernoulli(keys[3], 0.7, (T, B)) if "use" in options else None
    reset = jax.random.bernoulli(keys[4], 0.3, (T, B)) if "reset" in options else None
    drop = jax.random.bernoulli(keys[5], 0.7, (B, H)).astype(dtype) * jnp.asarray(1.5, dtype)
    drop = drop if "drop" in options else None
    to = jax.random.normal(keys[6], (B, H), dtype) if "reset" in options else None
    c = jax.random.normal(keys[7], (T, B, H), dtype)
    context, steps = Context(params, h0, None, drop, reset_to=to), Steps(x, use, reset)
    w = params.w_h if heads > 1 else params.w_h[None]
    b = params.b_h
    if bias == "minimal":
        b = jnp.concatenate([jnp.zeros(2 * H, dtype), b])
    shared: dict[str, Any] = dict(use=use, reset=reset, drop=drop, reset_mode=mode, reverse=reverse, interpret=True)

    @jax.jit
    def run() -> Any:
        def body(h: Any, step: Steps) -> Any:
            h = masking.F(cell, context, step, h)
            return h, h

        h = lax.scan(body, h0, steps, reverse=reverse)[1]
        starts = jnp.concatenate([h[1:], h0[None]]) if reverse else jnp.concatenate([h0[None], h[:-1]])
        gradients, first = solve_by_steps.by_scan(cell, reverse)(context, steps, starts).transpose(c)
        at = jax.vmap(lambda step, h: masking.linearize(cell, context, step, h))(steps, starts)
        kernel_h = gru_gpu.states(cell.project(params, x), w, b, h0, reset_to=to, **shared)
        kernel_gradients, kernel_first = gru_gpu.adjoints(at, w, c, **shared)
        return (kernel_h, h), (kernel_gradients, gradients), (kernel_first, first)

    return [(name, *pair) for name, pair in zip(("states", "gradients", "first"), run(), strict=True)]


def check(*args: Any) -> None:
    """The kernels' results are those of the plain loops."""
    dtype = args[3]
    for name, ours, plain in both(*args):
        assert ours.dtype == (jnp.float32 if name == "first" else dtype) and ours.shape == plain.shape
        ours, plain = ours.astype(jnp.float32), plain.astype(jnp.float32)
        bound = 1e-6 if dtype == jnp.float32 else 2e-2
        # A NaN, which is what the interpreter fills outputs with, fails too.
        assert float(jnp.abs(ours - plain).max()) <= bound * max(float(jnp.abs(plain).max()), 1.0), name


def named(case: Any) -> str:
    """A case in words."""
    if isinstance(case, Plan):
        return f"{case.product}, {case.rows} rows, {case.groups} groups"
    sizes, mode, options, dtype, reverse, bias = case
    words = ("x".join(map(str, sizes)), mode, *options, jnp.dtype(dtype).name, bias)
    return "-".join((*words, "reverse") if reverse else words)


def slow(*case: Any) -> Any:
    """A case for the slow tests."""
    return pytest.param(*case, marks=pytest.mark.slow)


ALONE_CASES = [
    slow(((1, 1, 1, 1), "after", (), jnp.float32, False, "none")),
    ((7, 3, 4, 1), "after", EVERYTHING, jnp.float32, True, "full"),
    slow(((7, 3, 20, 2), "before", EVERYTHING, jnp.float32, False, "minimal")),
    slow(((11, 3, 5, 5), "before", EVERYTHING, jnp.float32, True, "full")),
    slow(((19, 2, 130, 130), "after", ("use",), jnp.float32, False, "full")),
    slow(((3, 1, 100, 1), "after", ("reset",), jnp.float32, False, "full")),
    slow(((5, 20, 24, 2), "before", EVERYTHING, jnp.bfloat16, True, "full")),
    slow(((5, 8, 40, 1), "after", (), jnp.float16, False, "minimal")),
    slow(((5, 2, 40, 1), "after", ("drop",), jnp.bfloat16, False, "full")),
]


@pytest.mark.parametrize("case", ALONE_CASES, ids=named)
def test_a_program_alone(case: Any) -> None:
    check(*case)


# Programs of 4 or 8 units, so that several share a small head.
SUM = {"exchanged": True, "product": "sum", "units": 4, "warps": 4, "chunk": 8}
DOT = {"exchanged": True, "product": "dot", "units": 8, "warps": 4, "chunk": 16, "rows": 16}
EXCHANGED_CASES = [
    slow(Plan(rows=1, **SUM), ((7, 3, 10, 1), "after", EVERYTHING, jnp.float32, True, "full")),
    slow(Plan(rows=2, groups=2, **SUM), ((5, 7, 24, 2), "after", EVERYTHING, jnp.float32, False, "minimal")),
    slow(Plan(rows=4, **SUM), ((1, 3, 9, 1), "after", (), jnp.float32, False, "none")),
    (Plan(dtype=jnp.bfloat16, **DOT), ((5, 20, 40, 2), "after", EVERYTHING, jnp.bfloat16, True, "full")),
    slow(Plan(dtype=jnp.float16, groups=2, **DOT), ((4, 40, 17, 1), "after", (), jnp.float16, False, "full")),
]


@pytest.mark.parametrize(("form", "case"), EXCHANGED_CASES, ids=named)
def test_programs_that_exchange(monkeypatch: pytest.MonkeyPatch, form: Plan, case: Any) -> None:
    monkeypatch.setattr(gru_gpu, "plan", lambda *args, **options: form)
    check(*case)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        ((1000, 1, 16, 1), "after", ("use",), jnp.float32, False, "full"),
        ((1000, 3, 100, 100), "after", EVERYTHING, jnp.float32, True, "full"),
        ((3, 3, 200, 1), "after", EVERYTHING, jnp.float32, False, "full"),
    ],
    ids=named,
)
def test_longer_and_wider(case: Any) -> None:
    check(*case)


def test_no_steps_and_no_sequences() -> None:
    w = jnp.zeros((1, 4, 12))
    for T, B in ((0, 2), (2, 0)):
        assert gru_gpu.states(jnp.zeros((T, B, 12)), w, None, jnp.zeros((B, 4)), interpret=True).shape == (T, B, 4)


def test_what_is_refused() -> None:
    assert gru_gpu.refusal(gj.GRU(1024)) is None
    assert gru_gpu.refusal(gj.GRU(5000, heads=5000, reset="before")) is None
    assert gru_gpu.refusal(gj.GRU(256, heads=2, reset="before")) is None
    assert "exchanged twice" in str(gru_gpu.refusal(gj.GRU(256, reset="before")))
    assert "do not fit" in str(gru_gpu.refusal(gj.GRU(1536)))
    with pytest.raises(ValueError, match=r"1 heads of 2048 units .* use kernel='scan'"):
        gru_gpu.states(jnp.zeros((1, 1, 6144)), jnp.zeros((1, 2048, 6144)), None, jnp.zeros((1, 2048)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("chip", [MULTIPROCESSORS, 80])
def test_every_plan_can_run(dtype: Any, chip: int) -> None:
    for size in (1, 2, 5, 16, 33, 100, 128, 129, 256, 300, 512, 768, 1000, 1024):
        for heads in (1, 2, 4, 8):
            for B in (1, 3, 8, 16, 100, 1000):
                how = plan(B, size * heads, heads, dtype, multiprocessors=chip)
                if how is None:
                    # All matrices of all heads, over all multiprocessors.
                    assert 12 * heads * size * size > 40 * 1024 * chip
                    continue
                assert all(n & (n - 1) == 0 for n in (how.rows, how.units, how.warps, how.chunk))
                assert how.exchanged == (size > ALONE)
                if how.exchanged:
                    programs = heads * -(-size // how.units) * min(how.groups, -(-B // how.rows))
                    # More than can run at the same time would wait for ever.
                    assert programs <= chip
                    assert how.chunk >= 16 or how.product == "sum"

"""Every framework into every other: the function stays the same, or the conversion is refused and says why."""

import itertools
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

import gru_jax as gj
from gru_jax.interop import flax, haiku

from ..interop import draws


class Framework(NamedTuple):
    """How to convert, and what the framework's GRU cannot be."""

    export: object
    load: object
    resets: tuple[str, ...] = ("after",)
    b_hn: bool = True
    package: str = "numpy"


def onnx_export(layer, path):
    return gj.interop.onnx.export(layer, path / "gru.onnx")


FRAMEWORKS = {
    "torch": Framework(
        lambda layer, _: gj.interop.torch.export(layer),
        lambda theirs, _: gj.interop.torch.load(theirs),
    ),
    "keras": Framework(
        lambda layer, _: gj.interop.keras.export(layer, reset_after=layer.spec.reset == "after"),
        # Weights without biases do not show where the reset gate is.
        lambda theirs, reset: gj.interop.keras.load(theirs, reset_after=reset == "after"),
        ("after", "before"),
    ),
    "linen": Framework(lambda layer, _: flax.export_linen(layer), lambda theirs, _: flax.load_linen(theirs)),
    "nnx": Framework(lambda layer, _: flax.export_nnx(layer), lambda theirs, _: flax.load_nnx(theirs), b_hn=False),
    "equinox": Framework(
        lambda layer, _: gj.interop.equinox.export(layer),
        lambda theirs, _: gj.interop.equinox.load(theirs),
        package="equinox",
    ),
    "haiku": Framework(lambda layer, _: haiku.export(layer), lambda theirs, _: haiku.load(theirs), ("before",)),
    "onnx": Framework(onnx_export, lambda theirs, _: gj.interop.onnx.load(theirs), ("after", "before"), package="onnx"),
}
CASES = list(itertools.product(("after", "before"), ("full", "full, b_hn = 0", "minimal", "none")))


@cache
def example(reset, bias):
    """Two layers of two directions."""
    form = bias.partition(",")[0]
    layer = draws.layer(np.random.default_rng(0), 3, 4, 2, True, reset=reset, bias=form)
    if form != bias:
        for index, way in itertools.product((0, 1), ("forward", "backward")):
            b_h = getattr(layer, f"layer_{index}")[way]["b_h"]
            b_h.set_value(b_h[...].at[8:].set(0.0))
    return layer


X = draws.array(np.random.default_rng(1), 2, 5, 3)


@cache
def expected(reset, bias):
    return draws.run(example(reset, bias), X)


def refusal(target, reset, bias):
    """What the target says to a layer that it cannot be; None for one that it can."""
    if reset not in target.resets:
        return "they are different functions, which no weights make equal"
    if not target.b_hn and bias in ("full", "minimal"):
        return "no recurrent bias of the candidate.* would be lost"
    return None


def convert(target, layer, reset, path):
    return target.load(target.export(layer, path), reset)


@pytest.mark.parametrize("second", FRAMEWORKS)
@pytest.mark.parametrize("first", FRAMEWORKS)
def test_keeps_the_function_or_says_what_would_be_lost(first, second, tmp_path):
    a, b = FRAMEWORKS[first], FRAMEWORKS[second]
    for package in (a.package, b.package):
        pytest.importorskip(package)
    kept = 0
    for reset, bias in CASES:
        layer = example(reset, bias)
        if message := refusal(a, reset, bias):
            with pytest.raises(ValueError, match=message):
                a.export(layer, tmp_path)
            continue
        through_a = convert(a, layer, reset, tmp_path)
        if message := refusal(b, reset, bias):
            with pytest.raises(ValueError, match=message):
                b.export(through_a, tmp_path)
            continue
        through_both = convert(b, through_a, reset, tmp_path)
        assert (through_both.spec.reset, through_both.spec.bidirectional) == (reset, True)
        if kept == 0 or first <= second:  # the way back is run once, for it is made of the same two halves
            draws.close(draws.run(through_both, X), expected(reset, bias), 1e-6)
        kept += 1
    # In one group or the other, but for what the two do not share.
    shared = set(a.resets) & set(b.resets)
    assert kept == sum(4 if a.b_hn and b.b_hn else 2 for _ in shared)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_second_round_changes_no_bit(name, tmp_path):
    """What a framework's own layout holds comes back as it was."""
    framework = FRAMEWORKS[name]
    pytest.importorskip(framework.package)
    for reset, bias in CASES:
        if refusal(framework, reset, bias) is None:
            once = convert(framework, example(reset, bias), reset, tmp_path)
            twice = convert(framework, once, reset, tmp_path)
            assert once.spec.cell == twice.spec.cell
            draws.same_bits(twice.functional()[1], once.functional()[1])

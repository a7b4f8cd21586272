"""The section `sweep`: which values which keys of the config take, and what picks the best run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, model_validator

from gru_jax.checks import did_you_mean
from gru_jax.config.sections.base import Expected, Section, broken_rule
from gru_jax.config.sections.in_words import show
from gru_jax.types import Plain

MOST_VALUES = 1000
SPAN = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
DRAWS = ("uniform", "log_uniform")
OUTSIDE = ("sweep", "schema", "name", "data_root", "checkpoint", "log", "parallel", "distributed")


def _check_vmap(value: Plain) -> int:
    if isinstance(value, bool) or (_is_whole(value) and 1 <= value <= MOST_VALUES):
        return value
    raise ValueError(value)


class SweepConfig(Section):
    """Other values for keys of this config, each combination of them a run.

    Every key that is none of these two is a key of the config, such as `optim.lr`, with

    - a list of values, `[1e-3, 1e-2]`,
    - whole numbers from one to another, `0-7`,
    - or draws, `{log_uniform: [1e-4, 1e-2], n: 10, seed: 0}`, also `uniform`: n numbers between the two bounds,
      rounded to six digits, the same ones every time.

    `pick` is the metric by which runs are compared, at its best evaluation. `vmap: 8` trains at most eight at once,
    where they differ in seed and learning rate alone; `true` is all of them, `false` one after the other.
    """

    over: dict[str, list[Any]] = {}
    pick: Literal["valid/loss", "valid/accuracy", "valid/nll"] | None = None
    vmap: Annotated[Any, BeforeValidator(_check_vmap), Expected("true, false, or how many at once")] = True

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: Plain) -> Plain:
        """The keys of the config, which may be anything, under `over`."""
        if not isinstance(given, Mapping):
            return given
        own = {key: value for key, value in given.items() if key in ("pick", "vmap")}
        leaves: dict[str, Plain] = {}
        # In their order: what is laid over the file comes after it, in whichever form either is written.
        for key, value in given.items():
            if key == "over" and not isinstance(value, Mapping):
                raise broken_rule(key, "expected keys with their values, such as {optim.lr: [1e-3, 1e-2]}")
            if key not in own:
                leaves |= _leaves(value if key == "over" else {key: value})
        return own | {"over": {key: values_of(key, value) for key, value in leaves.items()}}


def is_draws(value: Plain) -> bool:
    """Whether a mapping says how values are drawn; any other one holds keys with values."""
    return isinstance(value, Mapping) and any(each in value for each in (*DRAWS, "n"))


def _leaves(values: Mapping[str, Plain], prefix: str = "") -> dict[str, Plain]:
    """`{a: {b: x}}` as `{"a.b": x}`; draws are leaves, and so is a list of them."""
    found: dict[str, Plain] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping) and not is_draws(value)
        found |= _leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def values_of(key: str, given: Plain) -> list[Plain]:
    """The values that a key takes.

    Example:
        >>> values_of("seed", "0-3"), values_of("optim.lr", {"log_uniform": [1e-4, 1e-2], "n": 3, "seed": 0})
        ([0, 1, 2, 3], [0.00187899, 0.000346396, 0.000120767])
    """
    if key.partition(".")[0] in OUTSIDE:
        raise broken_rule(key, "decides nothing about the numbers of a run; choose one of task, model, optim, train")
    if isinstance(given, str) and (match := SPAN.fullmatch(given.strip())):
        first, last = int(match[1]), int(match[2])
        if not first <= last < first + MOST_VALUES:
            raise broken_rule(key, f"expected at most {MOST_VALUES} whole numbers from low to high, got {given!r}")
        return list(range(first, last + 1))
    values = _drawn(key, given) if isinstance(given, Mapping) else given
    if not isinstance(values, list) or not values:
        raise broken_rule(
            key,
            "expected a list of values, whole numbers such as 0-7, or draws such as {log_uniform: [1e-4, 1e-2], n: 10}"
            + did_you_mean(key, ("pick", "vmap"), before="; or "),
        )
    if len(values) > MOST_VALUES:
        raise broken_rule(key, f"has {len(values)} values, more than {MOST_VALUES}")
    if not _is_finite(values):
        raise broken_rule(key, "has a value that is no finite number")
    if any(value in values[:place] for place, value in enumerate(values)):
        raise broken_rule(key, "has a value twice, which would be one run")
    return values


def _drawn(key: str, given: Mapping[str, Plain]) -> list[float]:
    kinds = [kind for kind in DRAWS if kind in given]
    unknown = [str(each) for each in given if each not in (*DRAWS, "n", "seed")]
    if len(kinds) != 1 or unknown:
        got = f", got a key {unknown[0]!r}" if unknown else ""
        raise broken_rule(key, "expected draws such as {log_uniform: [1e-4, 1e-2], n: 10, seed: 0}" + got)
    bounds: Plain = given[kinds[0]]
    count: Any = given.get("n")
    seed: Plain = given.get("seed", 0)
    if not _are_bounds(bounds, positive=kinds[0] == "log_uniform"):
        least = " above 0" if kinds[0] == "log_uniform" else ""
        raise broken_rule(key, f"{kinds[0]}: expected two numbers{least}, the lower one first, got {_listed(bounds)}")
    if not _is_whole(count) or not 1 <= count <= MOST_VALUES:
        raise broken_rule(key, f"n: expected a whole number from 1 to {MOST_VALUES}, got {show(count)}")
    if not _is_whole(seed) or not 0 <= seed < 2**32:
        raise broken_rule(key, f"seed: expected a whole number >= 0 and < 2**32, got {show(seed)}")
    low, high = (math.log(bound) if kinds[0] == "log_uniform" else float(bound) for bound in bounds)
    places = np.random.default_rng(seed).uniform(low, high, count)
    values: np.ndarray = np.exp(places) if kinds[0] == "log_uniform" else places
    return list(dict.fromkeys(float(f"{value:.6g}") for value in values.tolist()))


def _listed(bounds: object) -> str:
    return f"[{', '.join(map(show, bounds[:3]))}]" if isinstance(bounds, list) and len(bounds) <= 3 else show(bounds)


def _is_finite(value: Plain) -> bool:
    if isinstance(value, list | Mapping):
        return all(map(_is_finite, value.values() if isinstance(value, Mapping) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_bounds(bounds: object, positive: bool) -> bool:
    if not isinstance(bounds, list) or len(bounds) != 2:
        return False
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in bounds):
        return False
    # Each within what float32 holds; as a comparison, which integers of any size stand, and which nan fails.
    return all(-1e38 <= each <= 1e38 for each in bounds) and bounds[0] < bounds[1] and (bounds[0] > 0 or not positive)

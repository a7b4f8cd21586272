"""The section `sweep`: which values which keys of the config take, and what picks the best run."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, model_validator

from gru_jax.training.sections import Expected, Section, broken_rule

MOST_VALUES = 1000
_SPAN = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
_DRAWS = ("uniform", "log_uniform")
_OUTSIDE = ("sweep", "schema", "name", "data_root", "checkpoint", "log", "parallel")


def _check_vmap(value: Any) -> Any:
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
    def _gather(cls, given: Any) -> Any:
        """The keys of the config, which may be anything, under `over`."""
        if not isinstance(given, Mapping):
            return given
        own = {key: value for key, value in given.items() if key in ("pick", "vmap")}
        rest = {key: value for key, value in given.items() if key not in ("pick", "vmap", "over")}
        written = given.get("over")
        leaves = _leaves(rest) | _leaves(written if isinstance(written, Mapping) else {})
        return own | {"over": {key: values_of(key, value) for key, value in leaves.items()}}


def _leaves(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """`{a: {b: x}}` as `{"a.b": x}`; draws are leaves, and so is a list of them."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        inner = isinstance(value, Mapping) and not any(each in value for each in (*_DRAWS, "n"))
        found |= _leaves(value, f"{name}.") if inner else {name: value}
    return found


def values_of(key: str, given: Any) -> list[Any]:
    """The values that a key takes.

    Example:
        >>> values_of("seed", "0-3"), values_of("optim.lr", {"log_uniform": [1e-4, 1e-2], "n": 3, "seed": 0})
        ([0, 1, 2, 3], [0.00187899, 0.000346396, 0.000120767])
    """
    if key.partition(".")[0] in _OUTSIDE:
        raise broken_rule(key, "decides nothing about the numbers of a run; choose one of task, model, optim, train")
    if isinstance(given, str) and (match := _SPAN.fullmatch(given.strip())):
        first, last = int(match[1]), int(match[2])
        if not first <= last < first + MOST_VALUES:
            raise broken_rule(key, f"expected at most {MOST_VALUES} whole numbers from low to high, got {given!r}")
        return list(range(first, last + 1))
    values = _drawn(key, given) if isinstance(given, Mapping) else given
    if not isinstance(values, list) or not values:
        near = difflib.get_close_matches(key, ("pick", "vmap"), n=1)
        raise broken_rule(
            key,
            "expected a list of values, whole numbers such as 0-7, or draws such as {log_uniform: [1e-4, 1e-2], n: 10}"
            + (f"; or did you mean {near[0]!r}?" if near else ""),
        )
    if len(values) > MOST_VALUES:
        raise broken_rule(key, f"has {len(values)} values, more than {MOST_VALUES}")
    if any(value in values[:place] for place, value in enumerate(values)):
        raise broken_rule(key, "has a value twice, which would be one run")
    return values


def _drawn(key: str, given: Mapping[Any, Any]) -> list[Any]:
    kinds = [kind for kind in _DRAWS if kind in given]
    unknown = [str(each) for each in given if each not in (*_DRAWS, "n", "seed")]
    if len(kinds) != 1 or unknown:
        got = f", got a key {unknown[0]!r}" if unknown else ""
        raise broken_rule(key, "expected draws such as {log_uniform: [1e-4, 1e-2], n: 10, seed: 0}" + got)
    bounds: Any = given[kinds[0]]
    count: Any = given.get("n")
    seed: Any = given.get("seed", 0)
    if not _are_bounds(bounds, positive=kinds[0] == "log_uniform"):
        least = " above 0" if kinds[0] == "log_uniform" else ""
        raise broken_rule(key, f"{kinds[0]}: expected two numbers{least}, the lower one first, got {bounds!r}")
    if not _is_whole(count) or not 1 <= count <= MOST_VALUES:
        raise broken_rule(key, f"n: expected a whole number from 1 to {MOST_VALUES}, got {count!r}")
    if not _is_whole(seed) or not 0 <= seed < 2**32:
        raise broken_rule(key, f"seed: expected a whole number >= 0, got {seed!r}")
    low, high = (math.log(bound) if kinds[0] == "log_uniform" else float(bound) for bound in bounds)
    places = np.random.default_rng(seed).uniform(low, high, count)
    values: np.ndarray = np.exp(places) if kinds[0] == "log_uniform" else places
    return list(dict.fromkeys(float(f"{value:.6g}") for value in values.tolist()))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_bounds(bounds: Any, positive: bool) -> bool:
    if not isinstance(bounds, list) or len(bounds) != 2:
        return False
    numbers = [isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in bounds]
    return all(numbers) and bounds[0] < bounds[1] and (bounds[0] > 0 or not positive)

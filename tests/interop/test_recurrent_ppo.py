"""Recurrent PPO, as purejaxrl has it, in our own words: the same weights whatever runs the recurrence.

The oracle is flax's GRUCell under `nn.scan`, which goes back to zeros where an episode begins.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

import gru_jax as gj
from gru_jax.interop import flax

ENVS, STEPS, UPDATES, EPOCHS, PARTS, H, SEEN, ACTIONS = 4, 12, 3, 2, 2, 8, 3, 2
DISCOUNT, TRACE, CLIP = 0.9, 0.8, 0.2


class Place(NamedTuple):
    """Where an episode is: which action is right, and how far it has come."""

    goal: Any
    clock: Any


def begun(key):
    return Place(jax.random.randint(key, (), 0, ACTIONS), jnp.zeros((), jnp.int32))


def seen(place):
    """The goal shows at the first step alone, so that an agent has to remember it."""
    shown = jnp.where(place.clock == 0, 2 * place.goal - 1, 0)
    return jnp.stack([shown.astype(jnp.float32), jnp.cos(place.clock.astype(jnp.float32)), jnp.ones(())])


def moved(key, place, action):
    """The place after an action, the next episode's where this one ends, the reward, and whether it ended."""
    clock = place.clock + 1
    reward = jnp.where(action == place.goal, 1.0, -0.5) * (clock > 1)
    done = (clock >= 4) | (jax.random.uniform(key) < 0.15)
    on = Place(place.goal, clock)
    return jax.tree.map(lambda new, old: jnp.where(done, new, old), begun(key), on), reward, done


class Step(NamedTuple):
    """What is stored of one step, each `[T, envs, ...]`."""

    x: Any
    first: Any
    action: Any
    logp: Any
    value: Any
    reward: Any


class ByFlax(linen.Module):
    """flax's cell, step by step."""

    @linen.compact
    def __call__(self, carry, x, first):
        def body(cell, h, now):
            x, first = now
            return cell(jnp.where(first[:, None], jnp.zeros_like(h), h), x)

        over = linen.scan(body, variable_broadcast="params", split_rngs={"params": False})
        return over(linen.GRUCell(H, name="cell"), carry, (x, first))


CELL = gj.GRU(H, bias="minimal")


def by_scan(params, carry, x, first):
    y, h = gj.scan(CELL, params, x, carry, resets=first, time_major=True)
    return h, y


def by_nnx(params, carry, x, first):
    layer = gj.nnx.GRU(H, H, bias="minimal", time_major=True, params=params)
    if x.shape[0] == 1:
        y, h = layer.step(x[0], carry, resets=first[0])
        return h, y[None]
    y, h = layer(x, carry, resets=first)
    return h, y


def by_linen(params, carry, x, first):
    named = {name: leaf for name, leaf in params._asdict().items() if leaf is not None}
    layer = gj.linen.GRU(H, bias="minimal", time_major=True)
    y, h = layer.apply({"params": {"layer_0": named}}, x, carry, resets=first)
    return h, y


def by_flax(params, carry, x, first):
    return ByFlax().apply({"params": params}, carry, x, first)


def dense(params, x):
    return x @ params["w"] + params["b"]


def network(run, params, carry, x, first):
    """The state after the last step, the logits and the values of all steps."""
    h, y = run(params["rnn"], carry, jnp.tanh(dense(params["in"], x)), first)
    return h, dense(params["actor"], y), dense(params["critic"], y)[..., 0]


def loss(params, run, carry, steps, gain, target):
    _, logits, value = network(run, params, carry, steps.x, steps.first)
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits), steps.action[..., None], -1)[..., 0]
    ratio = jnp.exp(logp - steps.logp)
    gain = (gain - gain.mean()) / (gain.std() + 1e-8)
    actor = -jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * gain).mean()
    near = steps.value + jnp.clip(value - steps.value, -CLIP, CLIP)
    critic = 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2).mean()
    entropy = -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(-1).mean()
    return actor + 0.5 * critic - 0.01 * entropy


def trained(run, params):
    """The parameters after some updates: act, look back, replay from the carry at the start."""
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.02, eps=1e-5))

    def act(state, key):
        params, carry, place, first = state
        x = jax.vmap(seen)(place)
        draw, move = jax.random.split(key)
        carry, logits, value = network(run, params, carry, x[None], first[None])
        action = jax.random.categorical(draw, logits[0])
        logp = jnp.take_along_axis(jax.nn.log_softmax(logits[0]), action[:, None], -1)[:, 0]
        place, reward, done = jax.vmap(moved)(jax.random.split(move, ENVS), place, action)
        return (params, carry, place, done), Step(x, first, action, logp, value[0], reward)

    def look_back(later, step):
        value, gain, first = later
        on = 1.0 - first.astype(jnp.float32)
        gain = step.reward + DISCOUNT * value * on - step.value + DISCOUNT * TRACE * on * gain
        return (step.value, gain, step.first), gain

    def update(state, key):
        params, learned, carry, place, first = state
        acting, shuffling = jax.random.split(key)
        begin = carry
        (_, carry, place, first), steps = jax.lax.scan(
            act, (params, carry, place, first), jax.random.split(acting, STEPS)
        )
        _, _, value = network(run, params, carry, jax.vmap(seen)(place)[None], first[None])
        _, gain = jax.lax.scan(look_back, (value[0], jnp.zeros(ENVS), first), steps, reverse=True)
        target = gain + steps.value

        def learn(state, rows):
            params, learned = state
            part = jax.tree.map(lambda a: a[:, rows], (steps, gain, target))
            gradient = jax.grad(loss)(params, run, begin[rows], *part)
            change, learned = optimizer.update(gradient, learned, params)
            return (optax.apply_updates(params, change), learned), None

        orders = jax.vmap(lambda key: jax.random.permutation(key, ENVS))(jax.random.split(shuffling, EPOCHS))
        (params, learned), _ = jax.lax.scan(learn, (params, learned), orders.reshape(EPOCHS * PARTS, -1))
        return (params, learned, carry, place, first), steps.first.sum()

    place = jax.vmap(begun)(jax.random.split(jax.random.key(5), ENVS))
    state = params, optimizer.init(params), jnp.zeros((ENVS, H)), place, jnp.zeros(ENVS, bool)
    (params, *_), episodes = jax.lax.scan(update, state, jax.random.split(jax.random.key(6), UPDATES))
    return params, episodes


def weights():
    """Fresh ones, those of the recurrence as flax makes them."""
    keys = jax.random.split(jax.random.key(0), 4)

    def layer(key, inputs, outputs):
        return {"w": jax.random.normal(key, (inputs, outputs)) / inputs**0.5, "b": jnp.zeros(outputs)}

    made = ByFlax().init(keys[3], jnp.zeros((ENVS, H)), jnp.zeros((1, ENVS, H)), jnp.zeros((1, ENVS), bool))
    widths = {"in": (SEEN, H), "actor": (H, ACTIONS), "critic": (H, 1)}
    return {name: layer(key, *widths[name]) for name, key in zip(widths, keys, strict=False)}, made["params"]


@cache
def expected():
    heads, rnn = weights()
    before = {**heads, "rnn": rnn}
    after, episodes = jax.jit(lambda params: trained(by_flax, params))(before)
    change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before, after)
    assert episodes.min() >= 4 and min(jax.tree.leaves(change)) > 1e-3, "there was nothing to learn"
    return after


# The layer of nnx acts by its step and replays by its call, which is a scan.
@pytest.mark.slow
@pytest.mark.parametrize("run", (by_nnx, by_scan, by_linen))
def test_the_weights_of_flax_after_three_updates(run):
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        wanted = expected()
        heads, rnn = weights()
        params = {**heads, "rnn": flax.load_linen(rnn).functional()[1]}
        ours, _ = jax.jit(lambda params: trained(run, params))(params)
        layer = gj.nnx.GRU(H, H, bias="minimal", params=ours["rnn"])
        ours = {**ours, "rnn": {"cell": flax.export_linen(layer)["cell"]}}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=0), ours, wanted)

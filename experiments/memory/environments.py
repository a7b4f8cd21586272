"""Tasks that cannot be done without memory, as pure functions that run on the device.

Written from their published definitions: RepeatPrevious and Autoencode of POPGym (Morad et al. 2023, arXiv:2303.01859),
the T-maze (Bakker 2001), bsuite's memory chain (Osband et al. 2020, arXiv:1908.03568). `from_gymnax` takes
those of gymnax.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.memory.ppo import Environment

SUITS = 4


class Hand(NamedTuple):
    """Cards of which only the suit counts.

    Attributes:
      left: how many of each suit are still in the deck, `[4]`.
      seen: suits that are remembered, the newest last, `[k]`.
      dealt: cards dealt so far.
      played: cards recited so far.
    """

    left: Any
    seen: Any
    dealt: Any
    played: Any


def _deal(key: Any, hand: Hand) -> tuple[Hand, Any]:
    """A card from the shuffled deck: each of those that are left is as likely as any other."""
    suit = jax.random.categorical(key, jnp.log(hand.left))
    left = hand.left - jax.nn.one_hot(suit, SUITS)
    return Hand(left, jnp.append(hand.seen[1:], suit), hand.dealt + 1, hand.played), suit


def _full(decks: int, remembered: int) -> Hand:
    zero = jnp.zeros((), jnp.int32)
    return Hand(jnp.full(SUITS, 13.0 * decks), jnp.zeros(remembered, jnp.int32), zero, zero)


def repeat_previous(decks: int = 1, k: int = 4) -> Environment:
    """POPGym's RepeatPrevious, by default the easy one: say the suit of the card that was shown k - 1 cards before.

    Each right answer gives 1 / (cards - k), each wrong one takes as much, and nothing counts before k cards were seen.
    """
    cards = 52 * decks

    def reset(key: Any) -> Any:
        hand, suit = _deal(key, _full(decks, k))
        return hand, jax.nn.one_hot(suit, SUITS)

    def step(key: Any, hand: Hand, action: Any) -> Any:
        worth = jnp.where(action == hand.seen[0], 1.0, -1.0) / (cards - k)
        reward = jnp.where(hand.dealt >= k, worth, 0.0)
        hand, suit = _deal(key, hand)
        return hand, jax.nn.one_hot(suit, SUITS), reward, hand.dealt == cards, jnp.array(False)

    return Environment(reset, step, SUITS, SUITS, cards - 1)


def autoencode(decks: int = 1) -> Environment:
    """POPGym's Autoencode, by default the easy one: watch a deck being dealt, then say all its suits backwards.

    Each right answer gives 1 / cards, each wrong one takes as much. What is shown: a suit, the
    first one's while reciting, and whether to watch.
    """
    cards = 52 * decks

    def shown(watch: Any, suit: Any) -> Any:
        return jnp.append(jax.nn.one_hot(suit, SUITS), jnp.where(watch, 1.0, 0.0))

    def reset(key: Any) -> Any:
        hand, suit = _deal(key, _full(decks, cards))
        return hand, shown(True, suit)

    def step(key: Any, hand: Hand, action: Any) -> Any:
        watch = hand.dealt < cards
        worth = jnp.where(action == hand.seen[cards - 1 - hand.played], 1.0, -1.0) / cards
        more, suit = _deal(key, hand)
        recited = hand._replace(played=hand.played + 1)
        hand = jax.tree.map(lambda a, b: jnp.where(watch, a, b), more, recited)
        seen = shown(hand.dealt < cards, jnp.where(watch, suit, 0))
        return hand, seen, jnp.where(watch, 0.0, worth), hand.played == cards, jnp.array(False)

    return Environment(reset, step, SUITS + 1, SUITS, 2 * cards - 1)


class Walk(NamedTuple):
    """Where one is in the T-maze: the place, whether the goal lies in the south, steps so far."""

    place: Any
    south: Any
    steps: Any


NORTH, EAST, SOUTH, WEST = range(4)


def t_maze(length: int = 20, limit: int | None = None) -> Environment:
    """Bakker's T-maze: a sign at the start says which way to turn at the end of a corridor of `length` steps.

    The right turn gives 4, the wrong one takes 0.1, and so does walking into a wall. Seen are 011 or 110 at the start
    (goal in the north or south), 101 in the corridor, 010 at the junction. After `limit` steps, 10 times the length
    unless it is given, an episode is truncated; the definition has no such limit.
    """
    limit = 10 * length if limit is None else limit

    def shown(walk: Walk) -> Any:
        sign = jnp.where(walk.south, jnp.array([1.0, 1, 0]), jnp.array([0.0, 1, 1]))
        inside = jnp.where(walk.place == length, jnp.array([0.0, 1, 0]), jnp.array([1.0, 0, 1]))
        return jnp.where(walk.place == 0, sign, inside)

    def reset(key: Any) -> Any:
        zero = jnp.zeros((), jnp.int32)
        walk = Walk(zero, jax.random.bernoulli(key), zero)
        return walk, shown(walk)

    def step(key: Any, walk: Walk, action: Any) -> Any:
        moved = jnp.where(action == EAST, 1, jnp.where(action == WEST, -1, 0))
        place = jnp.clip(walk.place + moved, 0, length)
        turned = (walk.place == length) & ((action == NORTH) | (action == SOUTH))
        right = (action == SOUTH) == walk.south
        stood = jnp.where(place == walk.place, -0.1, 0.0)
        reward = jnp.where(turned & right, 4.0, stood)
        walk = Walk(place, walk.south, walk.steps + 1)
        return walk, shown(walk), reward, turned, ~turned & (walk.steps == limit)

    return Environment(reset, step, 3, 4, limit)


class Chain(NamedTuple):
    """The memory chain: bits to remember `[bits]`, the one that is asked for, observations so far."""

    context: Any
    query: Any
    time: Any


def memory_chain(length: int = 20, bits: int = 1) -> Environment:
    """bsuite's memory chain: bits are shown at the start and one of them is asked for after `length` steps: 1 or -1.

    Seen are the time that is left, at the end the number of the bit that is asked for, and at the start the bits, as 1
    and -1: in the first two observations, as in bsuite, where time begins to run with the second.
    """

    def shown(chain: Chain, time: Any) -> Any:
        asked = jnp.where(time == length - 1, chain.query, 0).astype(jnp.float32)
        context = jnp.where(time == 0, 2.0 * chain.context - 1, 0.0)
        return jnp.concatenate([jnp.stack([1 - time / length, asked]), context])

    def reset(key: Any) -> Any:
        key_context, key_query = jax.random.split(key)
        context = jax.random.bernoulli(key_context, shape=(bits,)).astype(jnp.float32)
        chain = Chain(context, jax.random.randint(key_query, (), 0, bits), jnp.zeros((), jnp.int32))
        return chain, shown(chain, chain.time)

    def step(key: Any, chain: Chain, action: Any) -> Any:
        last = chain.time == length
        right = action == chain.context[chain.query]
        reward = jnp.where(last, jnp.where(right, 1.0, -1.0), 0.0)
        return chain._replace(time=chain.time + 1), shown(chain, chain.time), reward, last, jnp.array(False)

    return Environment(reset, step, bits + 2, 2, length + 1)


def from_gymnax(env: Any, params: Any = None) -> Environment:
    """An environment of gymnax (1.0 or newer) with discrete actions, its observation as a vector.

    Args:
      env, params: as `gymnax.make` returns them; params the environment's own when None.

    Raises:
      ValueError: its actions are not numbered.
    """
    params = env.default_params if params is None else params
    actions = env.action_space(params)
    if not hasattr(actions, "n"):
        raise ValueError(f"from_gymnax: needs numbered actions; {env.name} has {type(actions).__name__}; use another")

    def flat(observation: Any) -> Any:
        return jnp.ravel(observation).astype(jnp.float32)

    def reset(key: Any) -> Any:
        observation, state = env.reset_env(key, params)
        return state, flat(observation)

    def step(key: Any, state: Any, action: Any) -> Any:
        observation, state, reward, terminated, _ = env.step_env(key, state, action, params)
        truncated = env.is_truncated(state, params) & ~terminated
        return state, flat(observation), jnp.asarray(reward, jnp.float32), terminated, truncated

    size = math.prod(env.observation_space(params).shape)
    return Environment(reset, step, size, int(actions.n), int(params.max_steps_in_episode))

"""Recurrent PPO in one file: take it away and change it. It needs jax, optax and gru_jax, and nothing beside it.

An `Environment` runs on the device, a `Memory` is what the policy has between its first layer and its heads. A rollout
of `steps` steps in `envs` environments is one `lax.scan`; each minibatch replays all steps of some of the environments
in one call of `gj.scan`, from the carries that they had at the rollout's start, with `resets` where episodes began.

    env = environments.repeat_previous()
    memory = ppo.recurrent(gj.GRU(64))
    params, returns = ppo.train(jax.random.key(0), env, memory, ppo.Options())
    ppo.evaluate(jax.random.key(1), params, env, memory)

Source: Schulman et al. 2017, arXiv:1707.06347; the whole of training as one program is the form of purejaxrl.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.nn.initializers import orthogonal

import gru_jax as gj


class Environment(NamedTuple):
    """A partially observed task, as pure functions of one environment; it does not begin anew by itself.

    Attributes:
      reset: `key -> (state, observation)`, observation `[O]`, float32.
      step: `(key, state, action) -> (state, observation, reward, terminated, truncated)`; the task
        terminates an episode; a limit of time, of which the task knows nothing, truncates it.
      observation_size: O.
      actions: how many there are.
      limit: steps that the longest episode has.
    """

    reset: Callable[..., Any]
    step: Callable[..., Any]
    observation_size: int
    actions: int
    limit: int


class Memory(NamedTuple):
    """What a policy remembers with, one step at a time when it acts and all steps at once when it learns.

    Attributes:
      init: `(key, input_size) -> params`.
      start: `batch -> state`, before the first step.
      step: `(params, x, state, first) -> (y, state)`, x `[*batch, I]`; `first`, `[*batch]`: an episode begins.
      replay: `(params, x, state, first) -> y`, x `[T, B, I]` and `first` `[T, B]`, from the state before them.
      size: features of y; those of x where it is None.
    """

    init: Callable[..., Any]
    start: Callable[..., Any]
    step: Callable[..., Any]
    replay: Callable[..., Any]
    size: int | None


def recurrent(cell: gj.Cell, method: Any = "auto") -> Memory:
    """Any cell of gru_jax, or one of your own."""

    def step(params: Any, x: Any, state: Any, first: Any) -> Any:
        start = cell.initial_state(first.shape, x.dtype)
        state = jax.tree.map(lambda new, old: jnp.where(first[..., None], new, old), start, state)
        state = cell.step(params, cell.project(params, x), state)
        return cell.output(state), state

    def replay(params: Any, x: Any, state: Any, first: Any) -> Any:
        return gj.scan(cell, params, x, state, resets=first, time_major=True, method=method)[0]

    start = lambda batch: cell.initial_state(batch, jnp.float32)  # noqa: E731
    return Memory(cell.init, start, step, replay, cell.output(start(())).shape[-1])


def without() -> Memory:
    """No memory: y is x."""
    return Memory(lambda *_: (), lambda *_: (), lambda _, x, state, first: (x, state), lambda _, x, *rest: x, None)


@dataclasses.dataclass(frozen=True)
class Options:
    """How PPO learns.

    Attributes:
      envs, steps: B and T of a rollout.
      updates: rollouts in all.
      epochs, minibatches: how often a rollout is learned from, and in how many parts of its environments.
      hidden: units of the first layer and of the heads.
      rate: of Adam, falling to 0 in a line.
      discount, trace: gamma and lambda of the advantages.
      clip, entropy, value, max_norm: of the ratio; weights of entropy and value loss; of the gradient.
    """

    envs: int = 64
    steps: int = 128
    updates: int = 200
    epochs: int = 4
    minibatches: int = 4
    hidden: int = 64
    rate: float = 1e-3
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    value: float = 0.5
    max_norm: float = 0.5


class Params(NamedTuple):
    """Parameters: of the first layer, of the memory, of two layers each of actor and critic."""

    embed: Any
    memory: Any
    actor: Any
    critic: Any


def init(key: Any, env: Environment, memory: Memory, hidden: int) -> Params:
    """Fresh parameters."""

    def drawn(key: Any, inputs: int, outputs: int, scale: float = 2**0.5) -> Any:
        return orthogonal(scale)(key, (inputs, outputs)), jnp.zeros(outputs)

    keys, features = jax.random.split(key, 6), memory.size or hidden
    return Params(
        drawn(keys[0], env.observation_size, hidden),
        memory.init(keys[1], hidden),
        (drawn(keys[2], features, hidden), drawn(keys[3], hidden, env.actions, 0.01)),
        (drawn(keys[4], features, hidden), drawn(keys[5], hidden, 1, 1.0)),
    )


def linear(layer: Any, x: Any) -> Any:
    """x w + b, of all steps in a row: on a CPU XLA takes half as long again where two axes lead."""
    w, b = layer
    return (x.reshape(-1, x.shape[-1]) @ w + b).reshape(*x.shape[:-1], -1)


def embedded(params: Params, observation: Any) -> Any:
    """What the memory reads."""
    return jax.nn.relu(linear(params.embed, observation))


def heads(params: Params, y: Any) -> Any:
    """Logits of the actions and the value, of what the memory puts out."""
    logits, value = (linear(last, jax.nn.relu(linear(hidden, y))) for hidden, last in (params.actor, params.critic))
    return logits, value[..., 0]


class Step(NamedTuple):
    """A step of all environments; in a rollout time stands before the environments.

    Attributes:
      observation, first: what was seen, and whether an episode began with it.
      action, log_prob, value: what was done, and thought, there.
      state: of the memory, after this observation.
      reward, shown: what came of it; `shown` is the old episode's last observation where it ended.
      terminated, done: whether the episode ended by the task; or at all.
      score: return of the episode so far.
    """

    observation: Any
    first: Any
    action: Any
    log_prob: Any
    value: Any
    state: Any
    reward: Any
    shown: Any
    terminated: Any
    done: Any
    score: Any


class Runner(NamedTuple):
    """Where the environments stand between two rollouts."""

    env: Any
    observation: Any
    first: Any
    state: Any
    score: Any


def begin(key: Any, env: Environment, memory: Memory, envs: int) -> Runner:
    """The first steps of `envs` episodes."""
    state, observation = jax.vmap(env.reset)(jax.random.split(key, envs))
    return Runner(state, observation, jnp.ones(envs, bool), memory.start((envs,)), jnp.zeros(envs))


def act(
    key: Any, params: Params, runner: Runner, env: Environment, memory: Memory, greedy: bool
) -> tuple[Runner, Step]:
    """One step of every environment; those that ended begin anew."""
    envs = runner.first.shape[0]
    key_action, key_step, key_reset = jax.random.split(key, 3)
    y, state = memory.step(params.memory, embedded(params, runner.observation), runner.state, runner.first)
    logits, value = heads(params, y)
    action = logits.argmax(-1) if greedy else jax.random.categorical(key_action, logits)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], -1)[:, 0]
    old, shown, reward, terminated, truncated = jax.vmap(env.step)(jax.random.split(key_step, envs), runner.env, action)
    done, score = terminated | truncated, runner.score + reward
    fresh = jax.vmap(env.reset)(jax.random.split(key_reset, envs))
    over = lambda new, old: jnp.where(done.reshape(-1, *(1,) * (new.ndim - 1)), new, old)  # noqa: E731
    new, seen = jax.tree.map(over, fresh, (old, shown))
    step = Step(runner.observation, runner.first, action, chosen, value, state, reward, shown, terminated, done, score)
    return Runner(new, seen, done, state, jnp.where(done, 0.0, score)), step


def rollout(
    key: Any, params: Params, runner: Runner, env: Environment, memory: Memory, steps: int, greedy: bool = False
) -> tuple[Runner, Step]:
    """So many steps of every environment: the runner after them and `Step` with arrays `[T, B, ...]`."""
    keys = jax.random.split(key, steps)
    return jax.lax.scan(lambda runner, key: act(key, params, runner, env, memory, greedy), runner, keys)


def advantages(params: Params, roll: Step, memory: Memory, options: Options) -> Any:
    """Generalised advantages `[T, B]`, of Schulman et al. 2016.

    The value after a step is that of what the environment showed then, whether it was cut off there or goes on: one
    step of the memory from the state that it had, for all steps at once.
    """
    y, _ = memory.step(params.memory, embedded(params, roll.shown), roll.state, jnp.zeros_like(roll.done))
    after = jnp.where(roll.terminated, 0.0, heads(params, y)[1])
    delta = roll.reward + options.discount * after - roll.value
    kept = jnp.where(roll.done, 0.0, options.discount * options.trace)

    def back(later: Any, now: Any) -> Any:
        advantage = now[0] + now[1] * later
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, kept), reverse=True)[1]


def loss(params: Params, state: Any, roll: Step, advantage: Any, memory: Memory, options: Options) -> Any:
    """PPO's loss of a minibatch: all steps of some environments, replayed from the state before the first."""
    y = memory.replay(params.memory, embedded(params, roll.observation), state, roll.first)
    logits, value = heads(params, y)
    log_probs = jax.nn.log_softmax(logits)
    ratio = jnp.exp(jnp.take_along_axis(log_probs, roll.action[..., None], -1)[..., 0] - roll.log_prob)
    gain = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - options.clip, 1 + options.clip)
    actor = -jnp.minimum(ratio * gain, clipped * gain).mean()
    critic = 0.5 * jnp.square(value - (advantage + roll.value)).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return actor + options.value * critic - options.entropy * entropy


def optimizer(options: Options) -> optax.GradientTransformation:
    """Adam with a clipped gradient and a rate that falls to 0."""
    rate = optax.linear_schedule(options.rate, 0.0, options.updates * options.epochs * options.minibatches)
    return optax.chain(optax.clip_by_global_norm(options.max_norm), optax.adam(rate, eps=1e-5))


def update(key: Any, learner: Any, env: Environment, memory: Memory, options: Options) -> Any:
    """One rollout and what is learned from it; the mean return of the episodes that ended in it."""
    params, adam, runner = learner
    key_roll, key_order = jax.random.split(key)
    before = runner.state
    runner, roll = rollout(key_roll, params, runner, env, memory, options.steps)
    advantage = advantages(params, roll, memory, options)

    def learn(carry: Any, chosen: Any) -> Any:
        params, adam = carry
        mine = jax.tree.map(lambda a: a[:, chosen], (roll, advantage))
        grads = jax.grad(loss)(params, jax.tree.map(lambda a: a[chosen], before), *mine, memory, options)
        changes, adam = optimizer(options).update(grads, adam, params)
        return (optax.apply_updates(params, changes), adam), None

    shuffled = jax.vmap(functools.partial(jax.random.permutation, x=options.envs))
    parts = shuffled(jax.random.split(key_order, options.epochs)).reshape(options.epochs * options.minibatches, -1)
    (params, adam), _ = jax.lax.scan(learn, (params, adam), parts)
    ended = jnp.where(roll.done, roll.score, 0.0).sum() / roll.done.sum()
    return (params, adam, runner), ended


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def train(key: Any, env: Environment, memory: Memory, options: Options) -> tuple[Params, Any]:
    """The whole of training as one program: parameters, and each update's mean return, NaN where no episode ended."""
    key_init, key_begin, key_train = jax.random.split(key, 3)
    params = init(key_init, env, memory, options.hidden)
    learner = params, optimizer(options).init(params), begin(key_begin, env, memory, options.envs)
    keys = jax.random.split(key_train, options.updates)
    learner, returns = jax.lax.scan(lambda one, key: update(key, one, env, memory, options), learner, keys)
    return learner[0], returns


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def evaluate(key: Any, params: Params, env: Environment, memory: Memory, episodes: int = 512) -> Any:
    """The mean return of so many episodes of the policy that takes its likeliest action."""
    key, key_begin = jax.random.split(key)
    _, steps = rollout(key, params, begin(key_begin, env, memory, episodes), env, memory, env.limit, greedy=True)
    return jnp.take_along_axis(steps.score, steps.done.argmax(0)[None], 0).mean()

"""experiments/memory: tasks as they are defined, replays that are what was done, and files that agree."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from experiments.memory import environments, ppo, speed, table

FOLDER = Path(__file__).parent.parent / "experiments" / "memory"


@pytest.fixture(autouse=True)
def as_readers_have_it():
    """With JAX's own settings: optax does not run under our strict ones."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Played:
    """What an environment shows and gives along a row of actions; it is the same for the same key."""

    def __init__(self, env: ppo.Environment) -> None:
        def along(key: Any, actions: Any) -> Any:
            state, first = env.reset(key)

            def step(state: Any, given: Any) -> Any:
                state, *told = env.step(*given[:1], state, given[1])
                return state, told

            _, told = jax.lax.scan(step, state, (jax.random.split(key, actions.size), actions))
            return first, told

        self.run, self.env = jax.jit(along), env

    def __call__(self, seed: int, actions: Any = None) -> tuple[np.ndarray, ...]:
        actions = np.zeros(self.env.limit, int) if actions is None else np.asarray(actions)
        first, (shown, *told) = jax.device_get(self.run(jax.random.key(seed), jnp.asarray(actions, jnp.int32)))
        return np.concatenate([first[None], shown]), *told


def test_repeat_previous_asks_for_the_card_of_three_steps_before():
    play = Played(environments.repeat_previous())
    seen, _, terminated, truncated = play(0)
    suits = seen.argmax(1)
    assert seen.shape == (52, 4) and (np.bincount(suits) == 13).all() and (seen.sum(1) == 1).all()
    assert terminated.tolist() == [False] * 50 + [True] and not truncated.any()
    asked = np.concatenate([np.zeros(3, int), suits[:48]])
    _, reward, *_ = play(0, asked)
    assert (reward[:3] == 0).all() and reward[3:] == pytest.approx(1 / 48)
    _, wrong, *_ = play(0, (asked + 1) % 4)
    assert wrong.sum() == pytest.approx(-1) and (play(1)[0] != seen).any()


def test_autoencode_asks_for_all_cards_backwards():
    play = Played(environments.autoencode())
    seen, reward, terminated, truncated = play(0)
    suits, watch = seen[:, :4].argmax(1), seen[:, 4]
    assert len(reward) == 103 and terminated.tolist() == [False] * 102 + [True] and not truncated.any()
    # The last card is shown when there is nothing more to watch, and then the first suit alone.
    assert watch.tolist() == [1] * 51 + [0] * 53 and (suits[52:] == 0).all()
    assert (np.bincount(suits[:52]) == 13).all() and (reward[:51] == 0).all()
    _, reward, *_ = play(0, np.concatenate([np.zeros(51, int), suits[51::-1]]))
    assert reward[51:] == pytest.approx(1 / 52) and len(reward[51:]) == 52


def test_the_t_maze_rewards_the_turn_that_its_sign_names():
    play = Played(environments.t_maze(3, limit=6))
    north, east, south, west = range(4)
    signs = {tuple(play(seed)[0][0]): seed for seed in range(8)}
    assert set(signs) == {(0, 1, 1), (1, 1, 0)}
    for right, wrong, seed in ((north, south, signs[0, 1, 1]), (south, north, signs[1, 1, 0])):
        seen, reward, terminated, truncated = play(seed, [east, east, east, right, 0, 0])
        assert seen[1:4].tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 0]]
        assert reward[:4] == pytest.approx([0, 0, 0, 4]) and terminated[:4].tolist() == [False] * 3 + [True]
        assert play(seed, [east, east, east, wrong, 0, 0])[1][3] == pytest.approx(-0.1)
        seen, reward, terminated, truncated = play(seed, [west, north, east, west, east, east])
        assert reward == pytest.approx([-0.1, -0.1, 0, 0, 0, 0]) and (seen[[1, 2, 4]] == seen[0]).all()
        assert not terminated.any() and truncated.tolist() == [False] * 5 + [True]


def test_the_memory_chain_asks_for_its_bit_at_the_end():
    play = Played(environments.memory_chain(4))
    bits = []
    for seed in range(6):
        seen, reward, terminated, truncated = play(seed)
        assert (seen[:, 2] != 0).tolist() == [True, True, False, False, False, False] and seen[0, 2] == seen[1, 2]
        assert seen[:, 0] == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0]) and (seen[:, 1] == 0).all()
        assert terminated.tolist() == [False] * 4 + [True] and not truncated.any()
        bits.append(seen[0, 2])
        assert reward.tolist() == [0, 0, 0, 0, -bits[-1]]
    assert {-1, 1} == set(bits)


def test_advantages_go_on_past_a_truncation_and_end_with_a_task():
    rng, T, B = np.random.default_rng(0), 12, 3
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    layer = lambda inputs, outputs: (draw(inputs, outputs), draw(outputs))  # noqa: E731
    params = ppo.Params(layer(3, 4), (), (layer(4, 4), layer(4, 2)), (layer(4, 4), layer(4, 1)))
    ended = rng.integers(0, 4, (T, B))  # by the task, by a limit, or not
    roll = ppo.Step(*[None] * 11)._replace(
        value=draw(T, B), state=(), reward=draw(T, B), shown=draw(T, B, 3), terminated=ended == 0, done=ended < 2
    )
    after = jax.jit(lambda shown: ppo.heads(params, ppo.embedded(params, shown))[1])(roll.shown)
    expected, later = np.zeros((T, B)), np.zeros(B)
    for t in reversed(range(T)):
        delta = roll.reward[t] + 0.99 * after[t] * ~roll.terminated[t] - roll.value[t]
        later = expected[t] = delta + 0.99 * 0.95 * ~roll.done[t] * later
    found = jax.jit(lambda roll: ppo.advantages(params, roll, ppo.without(), ppo.Options()))(roll)
    assert np.asarray(found) == pytest.approx(expected, abs=1e-4)


def drawn(env: ppo.Environment, memory: ppo.Memory, hidden: int) -> ppo.Params:
    """Parameters, of which the orthogonal matrices of `init` cost a program more."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: ppo.init(key, env, memory, hidden), jax.random.key(0))
    return jax.tree.map(lambda a: jnp.asarray(0.3 * rng.standard_normal(a.shape), a.dtype), shapes)


CELLS = {
    "gru": gj.GRU(8),
    "diagonal": gj.GRU(8, heads=8),
    "min_gru": gj.MinGRU(8),
    "lstm": gj.models.LSTM(8),
}
ALL = [pytest.param(name, marks=() if name == "gru" else pytest.mark.slow) for name in CELLS]


@pytest.mark.parametrize("name", ALL)
def test_chunks_replayed_from_their_carries_are_what_was_done(name: str):
    env, memory = environments.t_maze(2, limit=5), ppo.recurrent(CELLS[name])
    params = drawn(env, memory, 8)

    @jax.jit
    def rolled(key: Any) -> Any:
        runner = ppo.begin(key, env, memory, 4)
        return runner, ppo.rollout(key, params, runner, env, memory, 24)[1]

    runner, roll = rolled(jax.random.key(0))
    assert roll.first.any(1).sum() > 5 and roll.terminated.any()

    @jax.jit
    def thought(state: Any, chunk: ppo.Step) -> Any:
        y = memory.replay(params.memory, ppo.embedded(params, chunk.observation), state, chunk.first)
        logits, value = ppo.heads(params, y)
        return jnp.take_along_axis(jax.nn.log_softmax(logits), chunk.action[..., None], -1)[..., 0], value

    for start in (0, 8, 16):
        chunk = jax.tree.map(lambda a, start=start: a[start : start + 8], roll)
        state = jax.tree.map(lambda a, start=start: a[start - 1], roll.state) if start else runner.state
        for found, expected in zip(thought(state, chunk), (chunk.log_prob, chunk.value), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


TINY = ppo.Options(envs=4, steps=6, updates=2, epochs=1, minibatches=2, hidden=8)


@pytest.mark.slow
def test_an_update_changes_all_parameters():
    env, memory = environments.memory_chain(2), ppo.recurrent(CELLS["gru"])

    params = drawn(env, memory, TINY.hidden)

    @jax.jit
    def updated(key: Any) -> Any:
        learner = params, ppo.optimizer(TINY).init(params), ppo.begin(key, env, memory, TINY.envs)
        (after, *_), ended = ppo.update(key, learner, env, memory, TINY)
        return after, ended

    after, ended = updated(jax.random.key(0))
    assert -1 <= ended <= 1 and all(np.isfinite(a).all() for a in jax.tree.leaves(after))
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(after), strict=True))


@pytest.mark.slow
def test_a_gru_learns_what_cannot_be_done_without_memory():
    env, options = environments.t_maze(3), ppo.Options(envs=32, steps=32, updates=60, hidden=32)
    come_to = {}
    for name, memory in (("gru", ppo.recurrent(gj.GRU(32))), ("none", ppo.without())):
        params, returns = ppo.train(jax.random.key(0), env, memory, options)
        assert returns.shape == (60,)
        come_to[name] = float(ppo.evaluate(jax.random.key(1), params, env, memory, 256))
    assert come_to["gru"] > 3.9 and come_to["none"] < 2.6


@pytest.mark.slow
def test_the_loop_with_flax_s_cell_is_the_same():
    ours, theirs = ppo.recurrent(gj.GRU(8, bias="minimal")), speed.with_flax(8)
    weights = theirs.init(jax.random.key(0), 5)
    params = gj.interop.flax.load_linen(weights["params"]["GRUCell_0"]).functional()[1]
    x = jax.random.normal(jax.random.key(1), (12, 3, 5))
    first = jax.random.bernoulli(jax.random.key(2), 0.3, (12, 3))
    h = jax.random.normal(jax.random.key(3), (3, 8))
    expected = theirs.replay(weights, x, h, first)
    np.testing.assert_allclose(ours.replay(params, x, h, first), expected, atol=1e-6)
    for memory, own in ((ours, params), (theirs, weights)):
        np.testing.assert_allclose(memory.step(own, x[0], h, first[0])[0], expected[0], atol=1e-6)


@pytest.mark.slow
def test_speed_is_measured_and_written(tmp_path: Path):
    speed.make(0.1, tmp_path, sizes=[(4, 5, 8)])
    record = json.loads((tmp_path / "speed.json").read_text())
    assert record["rows"][0]["ours"] > 0 and "| 4 | 5 | 8 |" in table.page(tmp_path)


def test_the_table_s_files_agree():
    file = FOLDER / "results.json"
    entries = {entry["label"]: entry for entry in json.loads(file.read_text())["rows"]} if file.exists() else {}
    for label, entry in entries.items():
        row = next(row for row in table.ROWS if row.label == label)
        ran = {int(seed): table.Ran(**values) for seed, values in entry["of_seeds"].items()}
        assert entry == table.entry_of(row, ran) | {"hardware": entry["hardware"]}, f"{label}: made otherwise"
    assert list(entries) == [row.label for row in table.ROWS if row.label in entries]
    assert (FOLDER / "table.md").read_text() == table.page(FOLDER)
    readme = (FOLDER / "README.md").read_text()
    assert all(heading in readme for heading in ("## Question", "## Protocol", "## Result"))


@pytest.mark.parametrize("task", ["RepeatPrevious, easy", "T-maze of 20 steps"])
def test_a_gru_solves_what_is_at_chance_without_memory(task: str):
    entries, (_, _, chance, best) = table.read(FOLDER), table.TASKS[task]
    assert min(entries[f"{task}: GRU"]["values"]) > 0.99 * best
    assert max(abs(value - chance) for value in entries[f"{task}: no memory"]["values"]) < 0.05 * best


def test_a_row_goes_on_with_the_next_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def run(row: Any, seeds: Any, stop: bool = False) -> Any:
        for seed in seeds:
            asked.append(seed)
            yield seed, table.Ran(float(seed), [0.0, None], 1.5)
            if stop:
                raise KeyboardInterrupt

    monkeypatch.setattr(table, "POINTS", 2)
    monkeypatch.setattr(table, "draw", lambda *_: None)
    monkeypatch.setattr(table, "run", lambda row, seeds: run(row, seeds, stop=True))
    with pytest.raises(KeyboardInterrupt):
        table.make(table.ROWS[:1], tmp_path)
    monkeypatch.setattr(table, "run", run)
    for _ in range(2):
        table.make(table.ROWS[:1], tmp_path)
    assert asked == [0, 1, 2]
    (entry,) = table.read(tmp_path).values()
    assert entry["values"] == [0, 1, 2] and entry["mean"] == 1 and entry["label"] in table.page(tmp_path)


@pytest.mark.slow
def test_gymnax_plugs_in():
    gymnax = pytest.importorskip("gymnax")
    env = environments.from_gymnax(*gymnax.make("MemoryChain-bsuite"))
    ours = environments.memory_chain(5)
    assert env[2:4] == ours[2:4] == (3, 2)
    for seed in range(4):
        seen, reward, terminated, truncated = Played(env._replace(limit=6))(seed)
        mine = Played(ours)(seed)
        assert seen[:, :2] == pytest.approx(mine[0][:, :2]) and (np.abs(seen) == np.abs(mine[0])).all()
        assert (np.abs(reward) == np.abs(mine[1])).all() and (terminated == mine[2]).all() and not truncated.any()
    params, returns = ppo.train(jax.random.key(0), env, ppo.recurrent(CELLS["gru"]), TINY)
    assert np.isfinite(returns).any()

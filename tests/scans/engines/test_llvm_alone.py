"""Threads in step or one alone: what a kernel remembers of its calls, and that parts and threads change no number."""

import ctypes
import itertools

import chex
import jax
import pytest

import gru_jax as gj
from gru_jax.scans.engines.llvm import alone, host
from gru_jax.scans.engines.llvm.code import Program
from tests.scans.engines.test_llvm import by_kernel, outputs_and_gradients, select_plan

TOGETHER, ALONE = 0, 1
_NAMES = itertools.count()


@pytest.fixture
def memory():
    """The two functions of a kernel that nobody has called."""
    program, name = Program(host.host().lanes), f"memory_{next(_NAMES)}"
    made = [alone.chosen(program, name), alone.remember(program, name), alone.clock(program)]
    at = host.addresses(program, *(function.name for function in made))
    kinds = (ctypes.c_int64, ctypes.c_int64), (None, *[ctypes.c_int64] * 3), (ctypes.c_int64,)
    return [ctypes.CFUNCTYPE(*kind)(address) for kind, address in zip(kinds, at, strict=True)]


def calls(memory, number, steps, took):
    """How so many calls were done, if a step takes `took[how]` nanoseconds."""
    chosen, remember, _ = memory
    found = []
    for _ in range(number):
        found.append(chosen(steps))
        remember(steps, found[-1], steps * took[found[-1]])
    return found


def test_the_faster_way_is_taken_and_the_other_tried_again(memory):
    first = calls(memory, 300, 100, (1000, 1900))
    assert first[:3] == [TOGETHER, TOGETHER, ALONE] and first.count(ALONE) == 1 + 300 // alone.AGAIN
    # A neighbour comes: threads in step become slow, and are left to themselves after some calls.
    beside = calls(memory, 300, 100, (5000, 2500))
    assert beside.index(ALONE) < 5 and beside[10:].count(TOGETHER) <= 300 // alone.AGAIN
    # It goes again.
    after = calls(memory, 400, 100, (1000, 1900))
    assert after[-alone.AGAIN :].count(TOGETHER) >= alone.AGAIN - 1


def test_one_call_that_was_interrupted_changes_nothing(memory):
    calls(memory, 20, 100, (1000, 1900))
    assert calls(memory, 1, 100, (3000, 0)) == [TOGETHER]
    assert calls(memory, 20, 100, (1000, 1900)) == [TOGETHER] * 20


def test_numbers_of_steps_are_told_apart_by_their_magnitude(memory):
    calls(memory, 10, 1000, (1000, 1900))
    assert calls(memory, 3, 1, (9000, 2000)) == [TOGETHER, TOGETHER, ALONE]
    assert calls(memory, 3, 1, (9000, 2000)) == [ALONE] * 3
    assert calls(memory, 3, 900, (1000, 1900)) == [TOGETHER] * 3
    assert calls(memory, 3, 0, (1000, 1900)) == [TOGETHER, TOGETHER, ALONE]


def test_the_clock_counts_nanoseconds(memory):
    before = memory[2]()
    sum(range(100_000))
    assert 10_000 < memory[2]() - before < 10**10


def test_sequences_are_cut_into_more_parts_than_threads():
    each = lambda B, cores=2: (p := select_plan(10, B, 4, 64, cores)).parts // p.threads  # noqa: E731
    assert [each(B) for B in (2, 16, 31, 32, 63, 64, 640)] == [1, 1, 1, 2, 3, 4, 4]
    assert each(64, cores=1) == 1 and each(64, cores=8) == 1
    assert select_plan(10, 50, 4, 64).rows() == [(2, 9), (4, 8)]
    assert select_plan(10, 64, 4, 512).parts == 2  # units are shared


@pytest.mark.parametrize("keep", ["gates", pytest.param("states", marks=pytest.mark.slow)])
def test_parts_of_uneven_size_change_no_number(keep):
    cell = gj.GRU(5)
    params, x = cell.init(jax.random.key(0), 3), jax.random.normal(jax.random.key(1), (51, 7, 3))
    h0 = jax.random.normal(jax.random.key(2), (51, 5))
    parts, whole = (outputs_and_gradients(cell, params, x, h0, method=by_kernel(keep, n)) for n in (2, 1))
    chex.assert_trees_all_close(parts, whole, atol=2e-6, rtol=2e-5)
    chex.assert_trees_all_equal(parts, outputs_and_gradients(cell, params, x, h0, method=by_kernel(keep, 2)))

"""What LLVM is given and what becomes of it: every tail of every kernel compiles, and what does not ends no process."""

import itertools
import os
import re
import subprocess
import sys
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import pytest

import gru_jax as gj
from gru_jax.cells.gru_layout import NEUTRAL, Layout
from gru_jax.scans.engines.llvm import (
    cells,
    compilation,
    gated,
    gated_backward,
    gated_forward,
    host,
    minimal,
    minimal_passes,
    recurrence,
)
from gru_jax.scans.engines.llvm import recurrence_passes as passes
from gru_jax.scans.engines.llvm.code import POINTER, Program
from gru_jax.scans.engines.llvm.host import Host
from gru_jax.scans.engines.llvm.plan import Plan

from ..cases import arrays, assert_close, outputs_and_gradients, table


def gru_plan(lanes, units, *, steps=40, features=3, batch=1, keep=True, cores=1, backward=False, **more):
    options = {"bias": "full", "masked": False, "bfloat16": False, "weights": NEUTRAL} | more
    return Plan.of(
        Host(lanes, 16 if lanes == 8 else 32), cells.described(gj.GRU(units).equations), steps=steps, batch=batch,
        features=features, units=units, batch_leads=True, reverse=False, keep=keep, cores=cores, backward=backward,
        **options,
    )  # fmt: skip


def grus(lanes, units, *, wide):
    """Both passes; with `wide` in every form."""
    options = [{"keep": True, "features": units}]
    if wide:
        options += [
            {"keep": False, "masked": True, "bias": "minimal", "bfloat16": True, "batch": 3},
            {"keep": False, "bias": "none", "batch": 1, "cores": 2, "steps": 1},
            {"keep": True, "weights": Layout("zrn", True), "batch": 9, "cores": 2},
        ]
    for each in options:
        yield gated_forward.write(gru_plan(lanes, units, **each))
        yield gated_backward.write(gru_plan(lanes, units, backward=True, **each | {"weights": NEUTRAL}))


def linear(lanes, units, *, wide):
    """Recurrences and the cells that are linear in their state, likewise."""
    rows = [(3, 1, False)] + ([(1, 2, True), (3, 1, True)] if wide else [])
    for batch, threads, reverse in rows:
        for write in (passes.write_forward, passes.write_backward):
            yield write(passes.Plan(lanes, batch, units, reverse, threads, wide and units % lanes == 0))
    for parts, positive in itertools.product((2, 3), (False, True)):
        if not wide and parts + positive != 3:
            continue
        for leads, threads, masked in [(True, 1, False)] + ([(False, 2, True)] if wide else []):
            at_once = wide and units % lanes == 0
            flags = (masked, wide)
            plan = minimal_passes.Plan(lanes, parts, positive, 3, units, leads, not leads, *flags, threads, at_once)
            yield minimal_passes.write_forward(plan)
            yield minimal_passes.write_backward(plan)


def check(programs):
    """In the process that compiles: what ends it is an exception here."""
    for program in programs:
        text = str(program.module)
        assert not re.search(r"<1 x ", text), "passes of LLVM end the process at vectors of one"
        assert compiled(program)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_vectors_of_one_lane(lanes):
    check(linear(lanes, 1, wide=False))
    check(grus(lanes, lanes + 1, wide=False))


def test_vectors_of_all_lanes_but_one():
    check(linear(8, 15, wide=False))


@pytest.mark.slow
@pytest.mark.parametrize("lanes, tail", [(lanes, tail) for lanes in (4, 8, 16) for tail in range(1, lanes + 1)])
def test_every_tail_of_every_kernel(lanes, tail):
    for units in (tail, 2 * lanes + tail):
        check([*linear(lanes, units, wide=True), *grus(lanes, units, wide=True)])


class Text(NamedTuple):
    module: str


# LLVM ends its process at it: there is nobody to translate this instruction.
DEADLY = Text('define void @deadly() {\n  call void asm sideeffect "nonsense", ""()\n  ret void\n}')
NONSENSE = Text("no program")


def compiled(program):
    return host._compiled(host.Source.of(program, "program"))


def test_a_program_that_ends_its_process_ends_no_other(monkeypatch):
    monkeypatch.setattr(host, "_FAILED", {})
    for _ in range(2):
        with pytest.raises(host.NoKernel, match="LLVM cannot compile this kernel for this processor .LLVM ERROR: "):
            host.register(host.Source.of(DEADLY, "deadly"))
    with pytest.raises(host.NoKernel, match="expected top-level entity"):
        compiled(NONSENSE)
    program = Program(4)
    program.function("nothing", [POINTER], lambda code, at: at, POINTER)
    assert compiled(program)


def test_where_no_process_may_be_started_this_one_compiles(monkeypatch):
    monkeypatch.setattr(compilation, "_COMPILERS", [])
    monkeypatch.setattr(compilation.sys, "executable", "/opt/studio/studio")
    program = Program(4)
    program.function("nothing", [POINTER], lambda code, at: at, POINTER)
    assert compiled(program) and not compilation._COMPILERS
    with pytest.raises(host.NoKernel, match="expected top-level entity"):
        compiled(NONSENSE)


def test_what_is_compiled_ahead_is_waited_for(monkeypatch, tmp_path):
    monkeypatch.setenv("GRU_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(host, "_FAILED", {})
    asked, given = compilation.asked, []
    monkeypatch.setattr(compilation, "asked", lambda program, **how: given.append(program) or asked(program, **how))

    def write():
        program = Program(4)
        program.function("coming", [POINTER], lambda code, at: at, POINTER)
        return program

    source = host.Source("coming", tmp_path, write)
    host.ahead(source)
    host.ahead(source)
    assert host._loaded(source) and len(given) == 1
    host.ahead(source)  # is there
    assert len(given) == 1
    # What cannot be compiled is said where it is wanted.
    bad = host.Source.of(DEADLY, "deadly")._replace(made_from=tmp_path)
    host.ahead(bad)
    with pytest.raises(host.NoKernel, match="LLVM cannot compile this kernel for this processor .LLVM ERROR: "):
        host.register(bad)
    # A process that was forked off has no thread that compiles, and does it itself.
    again = host.Source("coming", (tmp_path, "again"), write)
    host.ahead(again)
    host._COMING[again.name]._owner += 1
    assert host._loaded(again) and len(given) == 5


def no_kernel(*_):
    raise host.NoKernel("none today")


def forget(monkeypatch):
    monkeypatch.setattr(host, "_SAID", set())
    jax.clear_caches()


FALLING_BACK = {
    "both": ("_forward", "_backward"), "forward alone": ("_forward",), "backward alone": ("_backward",),
}  # fmt: skip
MASK = jnp.array([[1, 0, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]], bool)


@pytest.mark.parametrize(
    "of, bias, keep, reverse, masked",
    table(
        FALLING_BACK, ("full", "minimal", "none"), ("gates", "states"), (False, True), (False, True),
        quick=lambda of, bias, keep, reverse, masked: (of, bias, keep, reverse, masked) in {
            ("both", "minimal", "states", False, True), ("forward alone", "full", "gates", True, True),
        },
    ),
)  # fmt: skip
def test_without_a_kernel_a_gru_is_a_loop(of, bias, keep, reverse, masked, monkeypatch):
    forget(monkeypatch)
    for name in FALLING_BACK[of]:
        monkeypatch.setattr(gated, name, no_kernel)
    cell = gj.GRU(4, bias=bias, init="torch")
    params, x, h0 = arrays(cell)
    how = {"reverse": reverse, "mask": MASK if masked else None}
    with pytest.warns(RuntimeWarning, match="Sequential: none today; XLA's loop runs in its place") as said:
        ours = outputs_and_gradients(
            cell, params, x, h0, method=gj.Sequential(kernel="llvm", keep=keep, cores=1), **how
        )
    assert len(said) == 1
    plain = outputs_and_gradients(cell, params, x, h0, method=gj.Sequential(kernel="scan"), **how)
    assert_close(ours, plain, 1e-6, 2e-5)


@pytest.mark.parametrize(
    "make, time_major, reverse",
    [pytest.param(gj.MinGRU, True, False, marks=pytest.mark.slow), (gj.MinLSTM, False, True)],
    ids=["minGRU", "minLSTM"],
)
def test_without_a_kernel_linear_cells_are_loops(make, time_major, reverse, monkeypatch):
    forget(monkeypatch)
    for module, name in itertools.product((minimal, recurrence), ("_forward", "_backward")):
        monkeypatch.setattr(module, name, no_kernel)
    cell = make(4)
    params, x, h0 = arrays(cell)
    how = {"reverse": reverse, "mask": MASK.T if time_major else MASK, "time_major": time_major}
    x = jnp.swapaxes(x, 0, 1) if time_major else x
    with pytest.warns(RuntimeWarning, match="Associative: none today"):
        ours = outputs_and_gradients(cell, params, x, h0, method=gj.Associative("llvm"), **how)
    plain = outputs_and_gradients(cell, params, x, h0, method=gj.Associative("scan"), **how)
    assert_close(ours, plain, 1e-6, 2e-5)

    def found(kernel):
        run = lambda a, h0: gj.linear_scan(a, 1 - a, h0, time_major=time_major, reverse=reverse, kernel=kernel)  # noqa: E731
        factors = jax.nn.sigmoid(x @ jnp.ones((x.shape[-1], 4)))
        return jax.value_and_grad(lambda *given: (run(*given) ** 2).sum(), (0, 1))(factors, h0)

    monkeypatch.setattr(host, "_SAID", set())
    with pytest.warns(RuntimeWarning, match="linear_scan: none today"):
        ours = found("llvm")
    chex.assert_trees_all_close(ours, found("scan"), rtol=1e-5)


def test_kernels_in_memory_are_bounded(monkeypatch):
    monkeypatch.setattr(host, "LIMIT", 0)
    program = Program(4)
    program.function("one_more", [POINTER], lambda code, at: at, POINTER)
    with pytest.raises(host.NoKernel, match=r"the \d+ kernels of this process take 0 MiB; .* use fewer"):
        host.register(host.Source.of(program, "one_more"))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("batch, units", [(1, 17), (4, 64), (20, 32)])
def test_one_program_for_every_number_of_steps(batch, units, backward):
    plans = {gru_plan(16, units, steps=steps, batch=batch, backward=backward) for steps in range(20, 400)}
    assert len(plans) == 1
    few = {gru_plan(16, units, steps=steps, batch=batch, backward=backward) for steps in range(1, 20)}
    assert len(few | plans) <= 2  # a matrix that is read a few times is read where it lies


def test_wide_recurrences_are_no_longer_programs():
    for write, past_caches in itertools.product((passes.write_forward, passes.write_backward), (False, True)):
        size = lambda width, w=write, p=past_caches: len(str(w(passes.Plan(16, 1, width, False, 2, p)).module))  # noqa: E731
        assert size(2**20) <= 1.05 * size(2**13)


SAVES = """
import pickle, sys, jax, jax.numpy as jnp, gru_jax as gj
from jax.experimental import serialize_executable
cell = gj.GRU(16)
params, x = cell.init(jax.random.key(0), 8), jnp.ones((4, 20, 8))
run = jax.jit(lambda params, x: gj.scan(cell, params, x, method=gj.Sequential(kernel="llvm"))[0])
if sys.argv[1] == "save":
    pickle.dump(serialize_executable.serialize(run.lower(params, x).compile()), open(sys.argv[2], "wb"))
else:
    saved = pickle.load(open(sys.argv[2], "rb"))
    try:
        serialize_executable.deserialize_and_load(*saved)
    except Exception as error:
        print(error)
    run.lower(params, x)
    print(serialize_executable.deserialize_and_load(*saved)(params, x).shape)
"""


@pytest.mark.slow
def test_a_serialized_program_runs_where_it_was_lowered_first(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    run = lambda what: subprocess.run(  # noqa: E731
        [sys.executable, "-c", SAVES, what, str(tmp_path / "saved")], capture_output=True, text=True, check=True,
        env=environment,
    )  # fmt: skip
    run("save")
    said = run("load").stdout
    assert "No FFI handler registered for gru_jax.gated_forward." in said and "(4, 20, 16)" in said


def test_vmap_over_nothing():
    cell, linear = gj.GRU(4), gj.MinGRU(4)
    params, x, h0 = arrays(cell)
    gru = lambda p, x: gj.scan(cell, p, x, h0, method=gj.Sequential(kernel="llvm", cores=1))[0]  # noqa: E731
    runs = {
        gru: params,
        lambda p, x: gj.scan(linear, p, x, method=gj.Associative("llvm"))[0]: linear.init(jax.random.key(0), 3),
        lambda p, x: gj.linear_scan(x, x, x[:, 0], kernel="llvm"): (),
    }
    no_x = jnp.zeros((0, *x.shape))
    for run, p in runs.items():
        y = jax.eval_shape(jax.vmap(run, (None, 0)), p, no_x)
        assert y.shape[:3] == no_x.shape[:3]
        gradient = jax.grad(lambda p, x, run=run: run(p, x).sum(), 1)
        assert jax.eval_shape(jax.vmap(gradient, (None, 0)), p, no_x).shape == no_x.shape
    none = jax.tree.map(lambda a: jnp.zeros((0, *a.shape)), params)
    chex.assert_trees_all_equal_shapes(jax.vmap(jax.grad(lambda p: gru(p, x).sum()))(none), none)

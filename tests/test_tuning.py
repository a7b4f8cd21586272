"""`gj.tune`, what it keeps, and that "auto" goes by it."""

import json
import threading

import jax
import jax.numpy as jnp
import pytest

import gru_jax as gj
from gru_jax.scans import choices, select
from gru_jax.scans.choices import Choice, Fastest, Row, Sizes, Tuned
from gru_jax.scans.engines import registry
from gru_jax.scans.engines.registry import Asked
from gru_jax.tuning import measure, tune

from .cli.command import gru_jax

SIZES = Sizes(400, 8, 64)
SHAPE = (12, 3, 2, 4)


@pytest.fixture(autouse=True)
def in_a_cache_of_its_own(monkeypatch, tmp_path):
    """One device, as users have it; and nothing in the cache."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setenv("GRU_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choices, "shipped", lambda device, backend: None)


@pytest.fixture
def two_forms(monkeypatch):
    """What is looked at: compiling every form takes most of the time of these tests."""
    found = [Choice("scan", "gates", 12), Choice("llvm", "gates", 1)]
    monkeypatch.setattr(measure, "forms", lambda backend, training: found)


def by(choice, cell="gru", sizes=SIZES, backend="cpu", dtype="float32"):
    return Tuned("a processor", backend, (Row(sizes, Fastest(choice, None), cell, dtype),))


def chosen(cell=None, sizes=SIZES, dtype=jnp.float32):
    found = select.resolve("auto", cell or gj.GRU(sizes.H), sizes, Asked(dtype))
    found = getattr(found, "differentiated", found)
    return found.kernel, found.keep, found.chunk, found.cores


ODD = Choice("chunked", "states", 7)


def test_auto_goes_by_what_is_nearest_and_nearest_to_the_user(two_forms):
    with by(ODD) as outer:
        assert chosen()[:3] == ODD[:3] == chosen(sizes=Sizes(300, 10, 50))[:3]
        assert chosen(sizes=Sizes(4000, 8, 64))[0] == "llvm"  # too far from what was measured
        with by(Choice("chunked", "gates", 5)):
            assert chosen()[1:3] == ("gates", 5)
            with by(ODD, backend="gpu"):
                assert chosen()[1:3] == ("gates", 5)
        assert chosen()[:3] == ODD[:3]
        tune(shapes=[SHAPE], seconds=0.01)
        assert list(choices.active()) == [outer]
    assert chosen()[0] == "llvm"


def test_cells_and_dtypes_have_their_own_and_a_plain_gru_s_stands_for_others():
    tuned = by(ODD)
    own = Row(SIZES, Fastest(Choice("chunked", "gates", 3), None), "gru, reset before")
    half = Row(SIZES, Fastest(Choice("chunked", "gates", 4), None), "gru", "bfloat16")
    with Tuned("a processor", "cpu", (*tuned.rows, own, half)):
        assert chosen(gj.MGU(64))[2] == 7
        assert chosen(gj.GRU(64, reset="before"))[2] == 3
        assert chosen(dtype=jnp.bfloat16)[2] == 4
        assert chosen(gj.GRU(64, reset="before"), dtype=jnp.bfloat16)[2] == 3
    assert select.kind(gj.GRU(64, heads=4)) == "gru, heads"


def test_an_estimate_where_nothing_was_measured(monkeypatch):
    monkeypatch.setattr(registry, "usable_cores", lambda: 4)
    assert chosen()[3] == 4 and chosen(sizes=Sizes(400, 1, 16))[3] == 1
    monkeypatch.setattr(registry, "usable_cores", lambda: 1)
    assert chosen()[3] == 1


def test_what_is_kept_counts_in_this_process_and_in_others(two_forms):
    lines = []
    tuned = tune(shapes=[SHAPE], seconds=0.01, tell=lines.append)
    path = choices.of_user()
    assert lines[-1] == f"kept in {path}" and Tuned.load(path) == tuned == choices.kept(path)
    assert str(tuned.rows[0].fastest.training) in tuned.rows[0].ms
    more = tune(gj.MGU, shapes=[SHAPE, (12, 1, 2, 5)], seconds=3)
    assert [row.key for row in choices.kept(path).rows] == [row.key for row in (*tuned.rows, *more.rows)]
    # As a process finds it that was not there.
    record = json.loads(path.read_text())
    for row in record["rows"]:
        row |= ODD._asdict() | SIZES._asdict()
    path.write_text(json.dumps(record))
    choices.kept.cache_clear()
    assert chosen()[:3] == ODD[:3]


@pytest.mark.slow
def test_two_that_tune_at_a_time_keep_both(two_forms):
    threads = [
        threading.Thread(target=tune, kwargs={"shapes": [(5, 1, 2, H)], "seconds": 0.01}) for H in (2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {row.sizes.H for row in choices.kept(choices.of_user()).rows} == {2, 3}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"rows": [{"T": 1}]}', "kernel", "chunk"])
def test_what_is_damaged_is_named_and_not_taken(damage):
    path = choices.of_user()
    path.parent.mkdir(parents=True)
    by(ODD).save(path)
    whole = path.read_text()
    broken = {"kernel": whole.replace('"chunked"', '"magic"'), "chunk": whole.replace(": 7", ": 0")}.get(damage, damage)
    path.write_text(broken)
    choices.kept.cache_clear()
    with pytest.raises(ValueError, match=r"is not what Tuned.save writes .*measure again: gru-jax tune") as error:
        Tuned.load(path)
    assert str(path) in str(error.value)
    with pytest.warns(UserWarning, match="the choices of this machine cannot be read, others are taken"):
        assert chosen()[0] == "llvm"


def test_what_is_damaged_is_measured_again(two_forms):
    path = choices.of_user()
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.warns(UserWarning, match="cannot be read"):
        tune(shapes=[SHAPE], seconds=0.01)
    assert len(choices.kept(path).rows) == 1


def test_what_does_not_agree_or_run_is_left_out(monkeypatch):
    forms = [Choice("scan", "gates", 12), Choice("chunked", "states", 12), Choice("cudnn", "states", 1)]
    monkeypatch.setattr(measure, "forms", lambda backend, training: forms)
    compiled = measure._compiled

    def wrong(cell, choice, given, training):
        step = compiled(cell, choice, given, training)
        return step if choice.kernel != "chunked" else lambda: jax.tree.map(lambda a: 1.01 * a, step())

    monkeypatch.setattr(measure, "_compiled", wrong)
    lines = []
    tuned = tune(shapes=[SHAPE], seconds=0.01, keep=False, tell=lines.append)
    assert tuned.rows[0].fastest.training == forms[0]
    said = "\n".join(lines)
    assert "chunked states 12: its numbers are 0.01 of the largest off those of the plain loop" in said
    assert "cudnn states 1: " in said


def test_what_there_is_no_time_for_is_named(two_forms):
    lines = []
    tuned = tune(shapes=[SHAPE, (7, 1, 2, 3), (8, 1, 2, 3)], seconds=1e-6, keep=False, tell=lines.append)
    assert len(tuned.rows) == 1
    assert lines[-1] == "not measured for want of time, 2 of 3 shapes: 7,1,2,3, 8,1,2,3"


@pytest.mark.slow
def test_every_form_of_a_cpu_runs_and_agrees():
    lines = []
    tuned = tune(shapes=[SHAPE], seconds=0.01, keep=False, tell=lines.append)
    names = {str(choice) for choice in measure.forms("cpu", training=True)}
    assert set(tuned.rows[0].ms) == names >= {"scan gates 12", "chunked states 12", "llvm gates 1", "llvm states 1"}
    assert not any("left out" in line for line in lines)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shapes": [(1, 2, 3)]}, r"four whole numbers T, B, I, H from 1, .*; got \(1, 2, 3\)"),
        ({"shapes": []}, "at least one"),
        ({"seconds": 0}, "seconds must be a number above 0; got 0"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"cell": gj.MinGRU}, "MinGRU is linear in its state"),
    ],
)
def test_refused(given, said):
    with pytest.raises((TypeError, ValueError), match=said):
        tune(**{"shapes": [SHAPE], "seconds": 0.01} | given)


def test_nothing_is_kept_where_nothing_is_to_be(monkeypatch, two_forms):
    monkeypatch.setenv("GRU_JAX_CACHE", "off")
    lines = []
    tune(shapes=[SHAPE], seconds=0.01, tell=lines.append)
    assert lines[-1] == "not kept: GRU_JAX_CACHE=off"


@pytest.mark.slow
def test_the_command(tmp_path, two_forms):
    done = gru_jax("tune", "--shapes", "9,2,3,4", "--cells", "mgu", "tanh", "--seconds", "0.1", cwd=tmp_path)
    assert done.returncode == 0 and "mgu, float32: T,B,I,H" in done.stdout
    assert len(Tuned.load(choices.of_user()).rows) == 2
    out = tmp_path / "mine.json"
    done = gru_jax("tune", "--shapes", "9,2,3,4", "--seconds", "0.1", "--out", str(out), cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.endswith(f"written to {out}\n")
    assert [row.cell for row in Tuned.load(out).rows] == ["gru"]
    for words, said in ((["--shapes", "1,2"], "T,B,I,H"), (["--seconds", "nan"], "above 0"), (["--cells", "x"], "'x'")):
        refused = gru_jax("tune", *words, cwd=tmp_path)
        assert refused.returncode == 2 and said in refused.stderr

"""What is kept on the disk between processes: found again whole, never trusted blindly, never needed."""

import concurrent.futures
import contextlib
import os
from pathlib import Path

import jax
import pytest

from gru_jax.scans.engines import cache
from gru_jax.scans.engines.llvm import compilation, compiler, host
from gru_jax.scans.engines.llvm.code import I64, POINTER, Program


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRU_JAX_CACHE", str(tmp_path / "own"))
    return tmp_path / "own" / "kernels"


def test_the_folder(monkeypatch, tmp_path):
    assert cache.folder() == tmp_path / "own"
    monkeypatch.setenv("GRU_JAX_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "gru_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.folder() == Path("/home/somebody/.cache/gru_jax")
    monkeypatch.setenv("GRU_JAX_CACHE", "off")
    assert cache.folder() is None


def test_what_is_kept_is_found_by_its_whole_key(folder):
    cache.keep(b"code", "program", "processor")
    assert cache.kept("program", "processor") == b"code"
    assert cache.kept("program", "another") is None and cache.kept("programprocessor") is None
    assert folder.stat().st_mode & 0o777 == 0o700


def damage(file: Path, how: str) -> None:
    data = file.read_bytes()
    file.write_bytes({"half": data[: len(data) // 2], "nothing": b"", "a bit": data[:-1] + b"?"}[how])


@pytest.mark.parametrize("how", ["half", "nothing", "a bit"])
def test_damaged_files_are_none(how, folder):
    cache.keep(b"some code", "program")
    (file,) = folder.iterdir()
    damage(file, how)
    assert cache.kept("program") is None
    cache.keep(b"some code", "program")
    assert cache.kept("program") == b"some code"


def test_a_file_under_another_s_name_is_none(folder):
    cache.keep(b"one", "one")
    (one,) = folder.iterdir()
    cache.keep(b"two", "two")
    (two,) = set(folder.iterdir()) - {one}
    os.replace(two, one)
    assert cache.kept("one") is None


def test_what_others_can_write_is_not_executed(folder):
    cache.keep(b"code", "program")
    (file,) = folder.iterdir()
    for path in (file, folder):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)
        assert cache.kept("program") is None
        path.chmod(mode)
    assert cache.kept("program") == b"code"


def test_off_keeps_nothing(folder, monkeypatch):
    cache.keep(b"code", "program")
    monkeypatch.setenv("GRU_JAX_CACHE", "off")
    assert cache.kept("program") is None
    cache.keep(b"code", "another")
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("where", ["in a file", "nowhere"])
def test_a_folder_that_cannot_be_is_no_error(where, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRU_JAX_CACHE", str(tmp_path / "file" / "below") if where == "in a file" else "/proc/none")
    cache.keep(b"code", "program")
    assert cache.kept("program") is None


def test_it_is_bounded_and_keeps_what_was_used_last(folder, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 3 * (100 + 32))
    for number in range(3):
        cache.keep(b"x" * 100, str(number))
    for age, file in enumerate(folder.iterdir()):
        os.utime(file, (1000 + age, 1000 + age))
    assert cache.kept("0")  # and is the newest from now on
    cache.keep(b"x" * 100, "3")
    cache.keep(b"x" * 100, "4")
    assert [bool(cache.kept(str(number))) for number in range(5)] == [True, False, False, True, True]


def test_many_write_at_once(folder):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: cache.keep(b"y" * 10_000, str(number % 2)), range(64)))
    assert cache.kept("0") == cache.kept("1") == b"y" * 10_000
    assert len(list(folder.iterdir())) == 2


def test_a_kernel_is_written_and_compiled_once(folder, monkeypatch):
    def write():
        program = Program(host.host().lanes)
        program.function("once", [POINTER], lambda code, at: at, POINTER)
        return program

    source = host.Source("once", (1, "one"), write)
    code = host._compiled(source)
    assert code == host._compiled(source._replace(write=lambda: pytest.fail("written again")))
    assert host._compiled(source._replace(made_from=(2, "one"))) and len(list(folder.iterdir())) == 2
    monkeypatch.setattr(compilation, "asked", lambda program: b"of another processor")
    monkeypatch.setattr(host, "_made_by", lambda: ("another processor",))
    assert host._compiled(source) == b"of another processor"
    monkeypatch.setattr(host, "_package", lambda: "another version of this package")
    assert host._compiled(source) == b"of another processor"
    assert len(list(folder.iterdir())) == 4


def test_what_was_compiled_in_a_hurry_is_kept_apart(folder, monkeypatch):
    def write():
        program = Program(host.host().lanes)
        program.function("hurried", [POINTER], there_and_back, POINTER)
        return program

    source, asked = host.Source("hurried", 1, write), []
    monkeypatch.setattr(compilation, "asked", lambda program: asked.append(program) or b"code")
    for hurry in (False, True, False, True):
        with hurried(hurry):
            host._compiled(source)
    well, quickly = asked
    assert quickly == compiler.QUICKLY + well and len(list(folder.iterdir())) == 2
    assert compiler.compiled(quickly) != compiler.compiled(well)


def there_and_back(code, at):
    """What nobody computes who takes the time to look."""
    return code.builder.inttoptr(code.add(1, code.add(-1, code.builder.ptrtoint(at, I64))), POINTER)


@contextlib.contextmanager
def hurried(value):
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", value)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)

"""Who hears first that another process has ended, and what is left to say."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from gru_jax.runs import lifelines
from gru_jax.runs.lifelines import Lifelines


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes with which the first of two processes was ended by what it heard."""
    codes: list[int] = []
    monkeypatch.setattr(lifelines.os, "_exit", codes.append)
    monkeypatch.setattr(lifelines, "_SAYS_IT_ITSELF_S", 0.5)
    return codes


@pytest.fixture
def second(ended: list[int]) -> Iterator[Lifelines]:
    """The second of two processes that are connected."""
    first, second = Lifelines(0, 2, "127.0.0.1"), Lifelines(1, 2, "127.0.0.1")
    first.connect([])
    second.connect(first.address)
    while not first._peers:
        time.sleep(0.01)
    yield second
    second._gone.add(0)
    assert first._server is not None
    for each in (*second._peers.values(), *first._peers.values()):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
    first._server.close()


def until(codes: list[int], seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while not codes and time.monotonic() < end:
        time.sleep(0.01)
    return codes


def test_what_all_find_wrong_the_first_has_time_to_say(second: Lifelines, ended: list[int]) -> None:
    second.farewell(2)
    assert not until(ended, 0.3)
    assert until(ended, 5) == [2]


def test_a_death_is_heard_at_once(second: Lifelines, ended: list[int]) -> None:
    second._peers[0].shutdown(2)
    assert set(until(ended, 0.4)) == {1}  # by both: each has lost the other


def test_an_orderly_end_ends_nobody(second: Lifelines, ended: list[int]) -> None:
    second.farewell(0)
    assert not until(ended, 0.8)

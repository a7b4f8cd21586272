"""Torch's OpenMP threads are put to rest before a large scan, and come again for torch."""

import importlib
import os
import sys
import time

import pytest

torch = pytest.importorskip("torch")
torch_threads = importlib.import_module("gru_jax.inside.torch_threads")  # imports torch


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at Linux's list of threads")
def test_torch_s_waiting_threads_are_put_to_rest_before_a_large_scan() -> None:
    def number() -> int:
        return len(os.listdir("/proc/self/task"))

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        large = torch.randn(4, 2**20)
        mean, waiting = large.tanh().mean(), number()
        assert not torch_threads.rest(torch_threads.WORTH_RESTING - 1) and number() == waiting
        if torch_threads._pause() is None:
            pytest.skip("torch has another OpenMP here")
        assert torch_threads.rest(torch_threads.WORTH_RESTING)
        deadline = time.monotonic() + 10
        while number() > waiting - 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert number() == waiting - 3
        assert torch.get_num_threads() == 4 and torch.equal(large.tanh().mean(), mean)
        torch.set_num_threads(1)
        assert not torch_threads.rest(torch_threads.WORTH_RESTING)
    finally:
        torch.set_num_threads(before)

"""What the tests of the machine code share."""

import jax
import pytest

from gru_jax.scans.engines.llvm import host
from gru_jax.scans.engines.llvm.host import Host


@pytest.fixture
def lanes(request, monkeypatch):
    """Vectors of other processors, which LLVM makes of what this one has."""
    made = Host(request.param, 16 if request.param == 8 else 32)
    monkeypatch.setattr(host, "host", lambda: made)
    jax.clear_caches()
    yield request.param
    jax.clear_caches()

"""What a stream's step runs by."""

import pytest

from gru_jax.scans.engines import llvm


@pytest.fixture(params=["llvm", "xla"])
def engine(request, monkeypatch):
    """Machine code, and a machine without."""
    if request.param == "xla":
        monkeypatch.setattr(llvm, "missing", lambda: "this machine: llvmlite is not installed")
    return request.param

"""Test configuration: strict jax settings, eight virtual CPU devices, shared fixtures."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# Inherited by the subprocesses that tests start; it has to stand before jax looks for devices.
os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile far more than they compute: LLVM's slow passes cost more than they save here. The HLO stays the same,
# and so does the text of our kernels, which the slow tests compile as users do.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
if "GRU_JAX_ONLY_QUICK" in os.environ:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
if version("jaxlib").startswith("0.10."):
    # They take as long as the rest of the compiler. A later jaxlib ends the process at a flag that it does not know.
    # As does cutting a program into parts whose code is made side by side: these are smaller than that costs.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
# Programs compiled by earlier runs, by other workers and by the subprocesses. JAX's key holds the program, the flags
# and the versions; the folder holds jaxlib's, so that what an upgrade left behind can be thrown away.
if os.environ.get("GRU_JAX_TEST_CACHE", "yes") != "no":
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gru_jax-tests"
elif "GRU_JAX_TEST_CACHE_OF_RUN" in os.environ:
    caches = Path(os.environ["GRU_JAX_TEST_CACHE_OF_RUN"])
else:
    # Nothing of earlier runs: an empty folder, for this run alone, whose workers and subprocesses inherit its name.
    caches = Path(tempfile.mkdtemp(prefix="gru_jax-tests-"))
    atexit.register(shutil.rmtree, caches, ignore_errors=True)
    os.environ["GRU_JAX_TEST_CACHE_OF_RUN"] = str(caches)
    for name in ("JAX_COMPILATION_CACHE_DIR", "GRU_JAX_CACHE"):
        os.environ.pop(name, None)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(caches / f"jaxlib-{version('jaxlib')}"))
os.environ.setdefault("GRU_JAX_CACHE", str(caches / "gru_jax"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Of the dozens of processes that tests start each would compile every module of ours anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Where in Python each operation of a program comes from: a sixth of the time of these tests, and nothing reads it.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import jax
import pytest
from hypothesis import settings

sys.dont_write_bytecode = False  # the modules of the tests themselves, which are rewritten
# The same examples in every run, so that a red one comes again; `make test-slow` draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None)
settings.load_profile(os.environ.get("GRU_JAX_TEST_EXAMPLES", "same"))

jax.config.update("jax_num_cpu_devices", 8)
# A float32 that silently meets a float64, or a vector that silently becomes a matrix, is how
# wrong numbers get through: both are errors in every test.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


_RAN = pytest.StashKey[int]()  # tests that this process has run of a file
ORACLES = ("equinox", "h5py", "haiku", "keras", "onnx", "onnxruntime", "safetensors", "torch")


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs() -> Iterator[None]:
    """What one file traced hardly serves another, and Python's garbage collector walks through all of it."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def forget_within_long_tables(request: pytest.FixtureRequest) -> Iterator[None]:
    """The slow rows of one file are thousands of programs: a worker that kept them all grew to 5 GB."""
    yield
    ran = request.node.getparent(pytest.Module).stash
    ran[_RAN] = ran.get(_RAN, 0) + 1
    if ran[_RAN] % 200 == 0:
        jax.clear_caches()


@pytest.fixture
def getkey() -> Callable[[], jax.Array]:
    """A function that gives a new random key at each call, the same ones in every run."""
    key = jax.random.key(0)
    count = 0

    def next_key() -> jax.Array:
        nonlocal count
        count += 1
        return jax.random.fold_in(key, count)

    return next_key


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit floats for this one test."""
    with jax.enable_x64(True):
        yield


# Examples in docstrings that take more than a few seconds: every form of a scan is compiled.
SLOW_EXAMPLES = {
    "gru_jax/tuning/__init__.py::gru_jax.tuning.tune",
    "gru_jax/scans/diagnosis.py::gru_jax.scans.diagnosis.diagnose",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A docstring cannot say itself that it is slow."""
    for item in items:
        if item.nodeid in SLOW_EXAMPLES:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Thousands of test items and a dozen frameworks stay to the end: the garbage collector need not look at them."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_configure() -> None:
    """With GRU_JAX_REQUIRE_ORACLES=1 a missing framework to compare with is an error instead of a skip."""
    if os.environ.get("GRU_JAX_REQUIRE_ORACLES") != "1":
        return
    missing = [name for name in ORACLES if find_spec(name) is None]
    if missing:
        raise pytest.UsageError(
            f"GRU_JAX_REQUIRE_ORACLES=1, but {' and '.join(missing)} cannot be imported. "
            "Fix: pip install -e '.[test,interop]', or unset the variable."
        )

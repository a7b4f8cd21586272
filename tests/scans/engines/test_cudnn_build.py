"""The host library of cuDNN's GRU: how it is built, kept and loaded, and how weights lie in cuDNN's memory."""

import concurrent.futures
import ctypes
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj
from gru_jax.cells.gru_params import GRUParams
from gru_jax.scans.engines import cache
from gru_jax.scans.engines.cudnn import build, gru, library, packing
from gru_jax.scans.engines.cudnn.build import BuildError, PartMissing
from gru_jax.scans.engines.registry import Asked

ROOT = Path(__file__).parents[3]


def installed() -> build.Toolkit:
    """What is installed here; skips where NVIDIA's packages are not."""
    try:
        build.compiler()
        return build.find()
    except PartMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> build.Toolkit:
    """Headers and libraries that are only names, a source that needs none of them, and a cache of its own."""
    try:
        build.compiler()
    except PartMissing as missing:
        pytest.skip(str(missing))
    source = tmp_path / "source.cc"
    source.write_text('extern "C" int answer() { return 42; }\n')
    made = build.Toolkit((tmp_path,), (), "9.9.9")
    monkeypatch.setattr(build, "find", lambda: made)
    monkeypatch.setattr(build, "SOURCE", source)
    monkeypatch.setenv("GRU_JAX_CACHE", str(tmp_path / "cache"))
    return made


def test_compiles_against_cudnn_s_own_headers(tmp_path: Path) -> None:
    toolkit = installed()
    path = tmp_path / "host.so"
    includes = [word for include in toolkit.includes for word in ("-isystem", str(include))]
    libraries = [str(library) for library in toolkit.libraries]
    folders = [f"-Wl,-rpath,{library.parent}" for library in toolkit.libraries]
    strict = ["-Wall", "-Wextra", "-Werror", "-Wl,--no-undefined"]
    build.compile_into(path, [*strict, *includes, str(build.SOURCE), *libraries, *folders])
    functions = ctypes.CDLL(str(path))
    for name in library.HANDLERS:
        assert jax.ffi.pycapsule(getattr(functions, name)) is not None
    assert functions.gru_jax_cudnn_sizes and functions.gru_jax_cudnn_places


def test_compiles_once_and_again_for_another_cudnn(toolkit: build.Toolkit, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.build()
    assert first.fresh and first.path.parent == cache.folder()
    assert ctypes.CDLL(str(first.path)).answer() == 42
    written = first.path.stat().st_mtime_ns
    again = build.build()
    assert again == first._replace(fresh=False) and again.path.stat().st_mtime_ns == written
    assert build.build(force=True).path.stat().st_mtime_ns > written
    monkeypatch.setattr(build, "find", lambda: toolkit._replace(cudnn="9.10.0"))
    assert build.build().path != first.path
    build.SOURCE.write_text('extern "C" int answer() { return 43; }\n')
    assert build.build().fresh
    assert {path.suffix for path in cache.folder().iterdir()} == {".so"}


def test_many_build_at_once(toolkit: build.Toolkit) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        paths = {built.path for built in pool.map(lambda _: build.build(force=True), range(4))}
    assert list(cache.folder().iterdir()) == list(paths)
    assert ctypes.CDLL(str(*paths)).answer() == 42


def test_what_does_not_compile_leaves_nothing(toolkit: build.Toolkit) -> None:
    build.SOURCE.write_text("#error no such GPU\n")
    with pytest.raises(BuildError, match="failed with exit code 1: .*no such GPU; CXX names another compiler"):
        build.build()
    assert list(cache.folder().iterdir()) == []


def test_a_folder_that_cannot_hold_it(toolkit: build.Toolkit, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = "cannot hold the library: .*; name a folder that can, by GRU_JAX_CACHE or --into"
    with pytest.raises(BuildError, match=said):
        build.build(tmp_path / "file" / "below")


def test_what_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "broken.so"
    path.write_text("nothing")
    said = "broken.so cannot be loaded: .*; gru-jax build-kernels --force builds it anew"
    with pytest.raises(BuildError, match=said):
        library.Library(path)


def test_the_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", f"{sys.executable} -c")
    assert build.compiler() == [sys.executable, "-c"]
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(PartMissing, match="CXX='no-such-compiler' is no command here"):
        build.compiler()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PartMissing, match=r"no C\+\+ compiler is installed: none of g\+\+, c\+\+, clang\+\+"):
        build.compiler()


@pytest.mark.parametrize("length", [4096, 0.5, 0.99])
def test_half_a_library_is_an_error_and_no_signal(toolkit: build.Toolkit, length: float) -> None:
    path = build.build().path
    whole = path.read_bytes()
    path.write_bytes(whole[: int(length if length > 1 else length * len(whole))])
    with pytest.raises(BuildError, match="cannot be loaded: it ends before its end; gru-jax build-kernels --force"):
        library.Library(path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("quiet", "#!/bin/sh\nexit 0\n", "said that it was done but made nothing; CXX names another compiler"),
        ("words", "no script\n", "cannot be run: Exec format error; CXX names another compiler"),
        ("bytes", "#!/bin/sh\nprintf '\\377 error' >&2\nexit 1\n", "failed with exit code 1: .* error; CXX names"),
    ],
)
def test_compilers_that_are_none(
    toolkit: build.Toolkit, name: str, text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / name
    compiler.write_text(text)
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(BuildError, match=said):
        build.build()


def test_a_quote_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", 'g++ "')
    with pytest.raises(PartMissing, match="is no command: No closing quotation; name a C"):
        build.compiler()


def test_without_a_folder(toolkit: build.Toolkit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRU_JAX_CACHE", "off")
    with pytest.raises(BuildError, match="GRU_JAX_CACHE=off; set it to one, or pass --into"):
        build.build()


def home(root: Path, *files: str, version: str = "9.1.0") -> Path:
    """A folder with these files, as CUDNN_HOME and CUDA_HOME have them."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    if (root / "include").is_dir():
        parts = zip(("MAJOR", "MINOR", "PATCHLEVEL"), version.split("."), strict=True)
        text = "\n".join(f"#define CUDNN_{part} {number}" for part, number in parts)
        (root / "include" / "cudnn_version.h").write_text(text)
    return root


CUDNN = ("include/cudnn.h", "lib/libcudnn.so.9")
CUDA = ("include/cuda_runtime_api.h", "include/crt/host_defines.h", "lib64/libcudart.so.13")

MISSING = [
    ((), CUDA, "9.1.0", "cudnn.h is not in .*include, as CUDNN_HOME says, nor .*; gru-jax.cuda. brings it"),
    (CUDNN, (), "9.1.0", "cuda_runtime_api.h is not in .*include, as CUDA_HOME says"),
    (CUDNN, CUDA, "8.9.7", "cuDNN 9 is needed; .* is of 8.9.7"),
    (CUDNN[:1], CUDA, "9.1.0", "libcudnn.so.9 is not in "),
    (CUDNN, CUDA[:1] + CUDA[2:], "9.1.0", "crt/host_defines.h of CUDA is not installed"),
    (CUDNN, CUDA[:2], "9.1.0", r"libcudart.so\* is not in "),
]


@pytest.fixture
def nothing_of_nvidia_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    for variable in ("CUDNN_HOME", "CUDA_HOME"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(("cudnn", "cuda", "version", "said"), MISSING)
def test_says_what_is_missing(
    cudnn: tuple[str, ...], cuda: tuple[str, ...], version: str, said: str,
    nothing_of_nvidia_s: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("CUDNN_HOME", str(home(tmp_path / "cudnn", *cudnn, version=version)))
    monkeypatch.setenv("CUDA_HOME", str(home(tmp_path / "cuda", *cuda)))
    with pytest.raises(PartMissing, match=said):
        build.find()


def test_finds_what_the_variables_name(
    nothing_of_nvidia_s: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudnn, cuda = home(tmp_path / "cudnn", *CUDNN), home(tmp_path / "cuda", *CUDA)
    monkeypatch.setenv("CUDNN_HOME", str(cudnn))
    monkeypatch.setenv("CUDA_HOME", str(cuda))
    found = build.find()
    assert found.cudnn == "9.1.0" and found.includes[:2] == (cudnn / "include", cuda / "include")
    assert found.libraries == (cudnn / "lib/libcudnn.so.9", cuda / "lib64/libcudart.so.13")


# Without a GPU nothing of this is looked at --------------------------------------------------------------------------


def test_a_cpu_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "loaded", lambda: pytest.fail("something was built"))
    cell, x = gj.GRU(4), jnp.ones((2, 5, 3))
    needs = "Sequential: kernel='cudnn' needs an NVIDIA GPU; JAX runs on cpu here; use kernel='auto'"
    with pytest.raises(ValueError, match=needs):
        gj.scan(cell, cell.init(jax.random.key(0), 3), x, method=gj.Sequential(kernel="cudnn"))


def test_a_machine_without_a_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded() -> None:
        raise PartMissing("no C++ compiler is installed")

    monkeypatch.setattr(gru, "BACKEND", "cpu")
    monkeypatch.setattr(library, "loaded", loaded)
    assert gru.refusal(gj.GRU(4), Asked(jnp.float32)) == "this machine: no C++ compiler is installed"


# The layout of weights -----------------------------------------------------------------------------------------------


def parameters(features: list[int], units: int) -> list[GRUParams]:
    cells = [gj.GRU(units, init="torch") for _ in features]
    keys = jax.random.split(jax.random.key(3), len(features))
    return [cell.init(key, width) for cell, key, width in zip(cells, keys, features, strict=True)]


def assert_equal(ours: list[GRUParams], given: list[GRUParams]) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(given), strict=True):
        assert a.shape == b.shape and (a == b).all()


@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 1), (2, 2)])
def test_the_documented_layout(layers: int, directions: int) -> None:
    features = [3] * directions + [4 * directions] * directions * (layers - 1)
    params = parameters(features, 4)
    matrices = [m.T.ravel() for p in params for m in (p.w_x, p.w_h)]
    biases = [b for p in params for b in (p.b_x, p.b_h)]
    at = packing.places(3, 4, layers, directions)
    flat = packing.pack(params, at, sum(part.size for part in matrices + biases))
    assert (flat == jnp.concatenate(matrices + biases)).all()
    assert_equal(packing.unpack(flat, at, features, 4), params)


def test_any_other_layout() -> None:
    """Gaps, and an order of its own for the gates: what counts is where cuDNN says that they are."""
    params, at = parameters([3], 4), packing.places(3, 4)
    order = np.random.default_rng(0).permutation(12)
    sizes = np.stack([3 * [12] + 3 * [16], 6 * [4]], -1).reshape(-1)
    starts = np.zeros(12, np.int64)
    starts[order] = np.cumsum(sizes[order] + 5) - sizes[order]
    at = starts.reshape(1, 6, 2)
    flat = packing.pack(params, at, int(sizes.sum()) + 100)
    assert flat.shape == (sizes.sum() + 100,)
    assert (flat[at[0, 4, 0] :][:16].reshape(4, 4) == params[0].w_h[:, 4:8].T).all()
    assert (flat[at[0, 2, 1] :][:4] == params[0].b_x[8:]).all()
    assert int((flat == 0).sum()) == 100 + sum(int((leaf == 0).sum()) for leaf in jax.tree.leaves(params))
    assert_equal(packing.unpack(flat, at, [3], 4), params)

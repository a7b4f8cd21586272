"""The host library that calls cuDNN: where its headers are, its one compilation, and the cache it is kept in."""

import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax.scans.engines import cache

SOURCE = Path(__file__).with_name("host.cc")
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared")
COMPILERS = ("g++", "c++", "clang++")
_EXTRA = "gru-jax[cuda] brings it: pip install '.[cuda]' in a clone"


class BuildError(RuntimeError):
    """The host library could not be built or loaded."""


class PartMissing(BuildError):
    """What the host library is built from, or with, is not installed."""


class Toolkit(NamedTuple):
    """What the host library is built from.

    Attributes:
      includes: the folders of headers: cuDNN's, CUDA's, XLA's.
      libraries: the shared libraries that it calls.
      cudnn: cuDNN's version, such as "9.28.0".
    """

    includes: tuple[Path, ...]
    libraries: tuple[Path, ...]
    cudnn: str


class Built(NamedTuple):
    """A host library.

    Attributes:
      path: where it is.
      fresh: whether it was compiled just now.
      toolkit: what it belongs to.
    """

    path: Path
    fresh: bool
    toolkit: Toolkit


def build(into: Path | None = None, *, force: bool = False) -> Built:
    """The host library for what is installed here; compiled where there is none yet.

    Args:
      into: the folder to keep it in; the cache when None.
      force: compile it even where there is one.

    Returns:
      The library.

    Raises:
      PartMissing: when NVIDIA's packages or a C++ compiler are not there.
      BuildError: when it does not compile, or cannot be written.
    """
    toolkit = find()
    folder = (_cache() if into is None else into).absolute()
    path = folder / f"cudnn-gru-{_fingerprint(toolkit)}.so"
    if path.is_file() and not force:
        return Built(path, False, toolkit)
    folders = dict.fromkeys(str(library.parent) for library in toolkit.libraries)
    compile_into(
        path,
        [
            *(word for include in toolkit.includes for word in ("-isystem", str(include))),
            str(SOURCE),
            *map(str, toolkit.libraries),
            *(f"-Wl,-rpath,{folder}" for folder in folders),
        ],
    )
    return Built(path, True, toolkit)


def _cache() -> Path:
    try:
        folder = cache.folder()
    except RuntimeError as error:
        raise BuildError(f"no folder for what is built: {error}; set GRU_JAX_CACHE to one") from error
    if folder is None:
        raise BuildError(
            f"no folder for what is built: GRU_JAX_CACHE={os.environ['GRU_JAX_CACHE']}; set it to one, or pass --into"
        )
    return folder


def compile_into(path: Path, arguments: Sequence[str]) -> None:
    """Compiles a shared library; the file appears whole or not at all, whoever else is building it.

    Args:
      path: of the library.
      arguments: of the compiler, after `FLAGS`.

    Raises:
      PartMissing: when there is no C++ compiler.
      BuildError: when it fails, with the first error it gives, or when the file cannot be written.
    """
    command = [*compiler(), *FLAGS, *arguments]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=path.parent) as scratch:
            made = Path(scratch) / path.name
            _run([*command, "-o", str(made)], made)
            with made.open("rb") as file:
                # On the disk before it has its name: half a library is a signal, not an error, to who loads it.
                os.fsync(file.fileno())
            os.replace(made, path)
    except OSError as error:
        raise BuildError(
            f"{path.parent} cannot hold the library: {error.strerror or error}; name a folder that can,"
            f" by GRU_JAX_CACHE or --into"
        ) from error


def _run(command: list[str], made: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        why = error.strerror or error
        raise BuildError(f"{command[0]} cannot be run: {why}; CXX names another compiler") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise BuildError(f"{command[0]} failed with exit code {done.returncode}: {first}; CXX names another compiler")
    if not made.is_file():
        raise BuildError(f"{command[0]} said that it was done but made nothing; CXX names another compiler")


def find() -> Toolkit:
    """The headers and libraries of cuDNN 9 and CUDA: NVIDIA's Python packages, else CUDNN_HOME and CUDA_HOME.

    Raises:
      PartMissing: naming what is not there, and what brings it.
    """
    import jax.ffi

    cudnn, cuda = _folder_with("cudnn.h", "CUDNN_HOME"), _folder_with("cuda_runtime_api.h", "CUDA_HOME")
    text = (cudnn / "cudnn_version.h").read_text(errors="replace")
    numbers = [re.search(rf"#define CUDNN_{part}\s+(\d+)", text) for part in ("MAJOR", "MINOR", "PATCHLEVEL")]
    version = ".".join(found[1] if found else "?" for found in numbers)
    if not version.startswith("9."):
        raise PartMissing(f"cuDNN 9 is needed; {cudnn} is of {version}; {_EXTRA}")
    includes = (cudnn, cuda, *_more_of_cuda(cuda), Path(jax.ffi.include_dir()))
    return Toolkit(includes, (_library("libcudnn.so.9", cudnn), _library("libcudart.so*", cuda)), version)


def compiler() -> list[str]:
    """The C++ compiler as a command: CXX, or the first of `COMPILERS` that is installed."""
    if named := os.environ.get("CXX"):
        try:
            command = shlex.split(named)
        except ValueError as error:
            raise PartMissing(f"CXX={named!r} is no command: {error}; name a C++ compiler, or unset it") from error
        if not command or shutil.which(command[0]) is None:
            raise PartMissing(f"CXX={named!r} is no command here; name a C++ compiler, or unset it")
        return command
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise PartMissing(f"no C++ compiler is installed: none of {', '.join(COMPILERS)}; install one, or name it in CXX")


def _roots(variable: str) -> Iterator[Path]:
    """The folders that may hold include/ and lib/."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or () if spec else ()):
        yield from sorted(path for path in Path(place).glob("*") if path.is_dir())
    if named := os.environ.get(variable):
        yield Path(named)


def _folder_with(header: str, variable: str) -> Path:
    for root in _roots(variable):
        if (root / "include" / header).is_file():
            return root / "include"
    if named := os.environ.get(variable):
        where = Path(named) / "include"
        raise PartMissing(f"{header} is not in {where}, as {variable} says, nor in NVIDIA's packages; {_EXTRA}")
    raise PartMissing(f"{header} is not installed; {_EXTRA}, or {variable} says where it is")


def _more_of_cuda(cuda: Path) -> list[Path]:
    """A package of its own may have the headers that CUDA's runtime includes."""
    if (cuda / "crt" / "host_defines.h").is_file():
        return []
    for root in _roots("CUDA_HOME"):
        if (root / "include" / "crt" / "host_defines.h").is_file():
            return [root / "include"]
    raise PartMissing(f"crt/host_defines.h of CUDA is not installed; {_EXTRA}")


def _library(name: str, include: Path) -> Path:
    for folder in ("lib", "lib64"):
        if found := sorted((include.parent / folder).glob(name)):
            return found[-1]
    raise PartMissing(f"{name} is not in {include.parent / 'lib'}; {_EXTRA}")


def _fingerprint(toolkit: Toolkit) -> str:
    """What a library that was built before has to agree in, to be used."""
    import jaxlib

    parts = [SOURCE.read_text(), jaxlib.__version__, platform.machine(), toolkit.cudnn, *FLAGS]
    parts += [str(path) for path in (*toolkit.includes, *toolkit.libraries)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

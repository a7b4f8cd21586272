"""Checkpoints with orbax: `<directory>/<step>/`, whole or absent, newest first on restore.

The only module that knows orbax.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from gru_jax.runs.on_disk.json_files import write_json
from gru_jax.types import Params, Plain, Tree

if TYPE_CHECKING:
    from orbax.checkpoint import Checkpointer

_WRITING, _REMOVED = ".writing", ".removed"
_MANIFEST = "sha256.json"


class CheckpointError(Exception):
    """Checkpoints exist but none can be used; nothing was changed."""


class NotFinite(Exception):
    """A state with NaN or infinity in it, which must not become a checkpoint."""


class Checkpoint(NamedTuple):
    """What is saved at one step, on the host.

    Attributes:
        step: steps done.
        state: the train state, numpy arrays.
        best_params: the parameters of the best evaluation so far.
        meta: JSON values: history of the run, fingerprints, versions.
    """

    step: int
    state: Tree
    best_params: Params
    meta: dict[str, Plain]


def require() -> None:
    """Raises ImportError where orbax is not installed: before a run writes anything."""
    _orbax()


def steps(directory: Path) -> list[int]:
    """The steps that have a checkpoint, torn ones included, newest first."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir()]
    return sorted((int(name) for name in names if name.isascii() and name.isdigit()), reverse=True)


def save(directory: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Saves, then removes all but the newest `keep`.

    Raises:
        NotFinite: the state holds NaN or infinity; nothing was written.
        OSError: it could not be written; older checkpoints are untouched.
    """
    tree = {"state": checkpoint.state, "best_params": checkpoint.best_params}
    require_finite(checkpoint.step, tree)
    target = directory / str(checkpoint.step)
    writing = directory / f"{checkpoint.step}{_WRITING}"
    ocp = _orbax()
    args = ocp.args.Composite(
        tree=ocp.args.StandardSave(_as_dict(tree)),
        meta=ocp.args.JsonSave(checkpoint.meta | {"step": checkpoint.step}),
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_checkpointer(ocp)) as checkpointer:
            checkpointer.save(writing.absolute(), args=args)
        write_json(writing / _MANIFEST, _hashes(writing))
        writing.rename(target)
    except Exception as error:
        _remove_leftovers(directory)
        # orbax and tensorstore report a full disk with errors of their own, of several types.
        raise OSError(f"checkpoint {target} could not be written: {_first_line(error)}") from error
    for step in steps(directory)[keep:]:
        _remove(directory / str(step))


def require_finite(step: int, tree: Tree) -> None:
    """Raises NotFinite for a state, on the host, that must not be saved."""
    for leaf in jax.tree.leaves(tree):
        if not np.all(np.isfinite(leaf)):
            raise NotFinite(f"step {step}: the state is not finite")


def restore(
    directory: Path, like: Tree, best_like: Params, step: int | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole.

    Args:
        directory: where the checkpoints are.
        like, best_like: pytrees with the shapes of the state and the parameters.
        step: only that of this step; None for any.

    Returns:
        (checkpoint, or None when there are no candidates; a warning for each one skipped as torn).

    Raises:
        CheckpointError: there are candidates and none can be read.
    """
    warnings: list[str] = []
    candidates = [each for each in steps(directory) if step in (None, each)]
    if candidates:
        require()  # or every checkpoint would look torn
    for each in candidates:
        try:
            return _load(directory / str(each), like, best_like), warnings
        except Exception as error:
            # Whatever a torn file makes orbax raise, the answer is the same: the next older one.
            warnings.append(f"checkpoint {directory / str(each)} is torn, skipped ({_first_line(error)})")
    if warnings:
        raise CheckpointError(
            "\n".join(warnings) + f"\nno checkpoint in {directory} can be read, and a run with checkpoints is"
            " never restarted from step 0 by itself; --fresh starts a new directory"
        )
    return None, []


def clean(directory: Path, continued_from: int) -> None:
    """Removes what a kill has left half written or half removed, and torn checkpoints.

    Args:
        directory: where the checkpoints are.
        continued_from: the step of the checkpoint that `restore` gave, -1 for none; those of later
            steps are torn.
    """
    _remove_leftovers(directory)
    for step in steps(directory):
        if step > continued_from:
            _remove(directory / str(step))


def remove_all(directory: Path) -> None:
    """Removes every checkpoint, and the directory if nothing else is in it."""
    clean(directory, -1)
    with contextlib.suppress(OSError):
        directory.rmdir()


def silence_orphans() -> None:
    """For a command: drops what abandoned reads and writes of orbax print when one has failed.

    orbax starts them all at once; when one fails, the others find their event loop closed, and each
    would add a traceback to the one line that we print.
    """
    hook = sys.unraisablehook

    def filtered(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = filtered


def _load(path: Path, like: Tree, best_like: Params) -> Checkpoint:
    # Looked at before orbax does: its parallel reads of a torn checkpoint fail noisily, not at once.
    if json.loads((path / _MANIFEST).read_text()) != _hashes(path):
        raise ValueError("its files are not those that were written")
    wanted = {"state": like, "best_params": best_like}
    names = _as_dict(wanted)
    ocp = _orbax()
    args = ocp.args.Composite(tree=ocp.args.StandardRestore(names), meta=ocp.args.JsonRestore())
    with contextlib.closing(_checkpointer(ocp)) as checkpointer:
        restored = checkpointer.restore(path.absolute(), args=args)
    meta = dict(restored.meta)
    leaves = [restored.tree[name] for name in names]
    for leaf, want in zip(leaves, jax.tree.leaves(wanted), strict=True):
        if leaf.shape != want.shape or leaf.dtype != want.dtype:
            raise ValueError(f"it holds {leaf.dtype}{leaf.shape} for {want.dtype}{want.shape}")
    tree = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
    return Checkpoint(meta.pop("step"), tree["state"], tree["best_params"], meta)


def _remove_leftovers(directory: Path) -> None:
    for mark in (_WRITING, _REMOVED):
        for path in directory.glob(f"*{mark}*"):
            shutil.rmtree(path, ignore_errors=True)


def _orbax() -> ModuleType:
    # Half a second to import: not for a command that ends before it has anything to save.
    import orbax.checkpoint as ocp

    for chatty in ("absl", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    return ocp


def _checkpointer(ocp: ModuleType) -> "Checkpointer":
    # Of several processes each saves and reads for itself, or not at all: orbax must not wait for the others.
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    handler = ocp.CompositeCheckpointHandler(
        "tree", "meta", composite_options=ocp.CompositeOptions(multiprocessing_options=alone)
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _as_dict(tree: Tree) -> dict[str, np.ndarray]:
    """The leaves by name: orbax need not know our tuples, nor that some of them are empty."""
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            leaf = np.zeros(leaf.shape, leaf.dtype)
        named[jax.tree_util.keystr(path, simple=True, separator=".")] = np.asarray(leaf)
    return named


def _hashes(path: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint, by its path below it."""
    return {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != _MANIFEST
    }


def _remove(path: Path) -> None:
    # Renamed first: a kill in the middle of a removal must not leave a torn candidate behind.
    doomed = path.with_name(path.name + _REMOVED)
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    full = os.strerror(errno.ENOSPC)
    if full in text:
        return full  # orbax and tensorstore say so after a long introduction
    return text.splitlines()[0][:200]

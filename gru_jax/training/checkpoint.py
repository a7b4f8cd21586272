"""Checkpoints with orbax: `<directory>/<step>/`, whole or absent, newest first on restore.

The only module that knows orbax.
"""

import contextlib
import hashlib
import logging
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from gru_jax.types import Params

logging.getLogger("absl").setLevel(logging.ERROR)


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
    state: Any
    best_params: Params
    meta: dict[str, Any]


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
    for leaf in jax.tree.leaves(tree):
        if not np.all(np.isfinite(leaf)):
            raise NotFinite(f"step {checkpoint.step}: the state is not finite")
    target = directory / str(checkpoint.step)
    if target.exists():
        # Only a torn one can be here: the run went on from an older step and has come back to this one.
        _remove(target)
    meta = checkpoint.meta | {"step": checkpoint.step, "digest": _digest(tree)}
    directory.mkdir(parents=True, exist_ok=True)
    args = ocp.args.Composite(
        tree=ocp.args.StandardSave(_as_dict(tree)), meta=ocp.args.JsonSave(meta)
    )
    try:
        with contextlib.closing(_checkpointer()) as checkpointer:
            checkpointer.save(target.absolute(), args=args)
    except OSError:
        raise
    except Exception as error:
        # orbax and tensorstore report a full disk with errors of their own, of several types.
        raise OSError(f"checkpoint {target} could not be written: {_first_line(error)}") from error
    for step in steps(directory)[keep:]:
        _remove(directory / str(step))


def restore(directory: Path, like: Any, best_like: Params) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole.

    Args:
        directory: where the checkpoints are.
        like, best_like: pytrees with the shapes of the state and the parameters.

    Returns:
        (checkpoint, or None when there are no candidates; a warning for each one skipped as torn).

    Raises:
        CheckpointError: there are candidates and none can be read.
    """
    warnings = []
    template = _as_dict({"state": like, "best_params": best_like})
    for step in steps(directory):
        try:
            return _load(directory / str(step), template, like, best_like), warnings
        except Exception as error:
            # Whatever a torn file makes orbax raise, the answer is the same: the next older one.
            warnings.append(f"checkpoint {directory / str(step)} is torn, skipped ({_first_line(error)})")
    if warnings:
        raise CheckpointError(
            "\n".join(warnings) + f"\nno checkpoint in {directory} can be read, and a run with checkpoints is"
            " never restarted from step 0 by itself; --fresh starts a new directory"
        )
    return None, []


def clean(directory: Path) -> None:
    """Removes what a kill in the middle of a save or a removal has left."""
    if directory.is_dir():
        for path in directory.iterdir():
            if "orbax-checkpoint-tmp" in path.name or path.name.endswith(".removed"):
                shutil.rmtree(path, ignore_errors=True)


def _load(path: Path, template: Any, like: Any, best_like: Params) -> Checkpoint:
    args = ocp.args.Composite(
        tree=ocp.args.StandardRestore(template), meta=ocp.args.JsonRestore()
    )
    with contextlib.closing(_checkpointer()) as checkpointer:
        restored = checkpointer.restore(path.absolute(), args=args)
    meta = dict(restored.meta)
    leaves = iter(restored.tree.values())
    tree = jax.tree.map(lambda _: next(leaves), {"state": like, "best_params": best_like})
    if meta.pop("digest") != _digest(tree):
        raise ValueError("its arrays differ from those that were saved")
    return Checkpoint(meta.pop("step"), tree["state"], tree["best_params"], meta)


def _checkpointer() -> Any:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler("tree", "meta"))


def _as_dict(tree: Any) -> dict[str, Any]:
    """The leaves under numbered keys: orbax then need not know our tuples, nor that some are empty."""
    leaves = jax.tree.leaves(tree)
    digits = int(math.log10(max(len(leaves), 1))) + 1
    return {f"{i:0{digits}d}": np.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct)
            else np.asarray(leaf) for i, leaf in enumerate(leaves)}


def _digest(tree: Any) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _remove(path: Path) -> None:
    # Renamed first: a kill in the middle of a removal must not leave a torn candidate behind.
    doomed = path.with_name(f"{path.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]

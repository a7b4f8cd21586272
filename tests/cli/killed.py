"""`python killed.py N ARGUMENTS`: gru-jax, killed at the N-th file operation in its run directory (out/)."""

import os
import signal
import sys

from gru_jax.cli import main

count = 0


def kill_at_limit(event: str, args: tuple[object, ...]) -> None:
    global count
    if not event.startswith(("open", "os.", "shutil.")) or not args:
        return
    path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
    if "/out" in path or path.startswith("out"):
        count += 1
        if count == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.addaudithook(kill_at_limit)
    sys.exit(main(sys.argv[2:]))

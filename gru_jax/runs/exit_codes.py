"""What the command's exit codes mean."""

DONE, FAILED, BAD_ARGUMENTS, MISSING, DIVERGED, STOPPED, INTERRUPTED = 0, 1, 2, 3, 4, 75, 130

MEANING = {
    DONE: "done",
    FAILED: "failed",
    BAD_ARGUMENTS: "config error (nothing started)",
    MISSING: "data or package missing",
    DIVERGED: "diverged (the last good checkpoint is kept)",
    STOPPED: "stopped by a signal after saving (run the same command again)",
    INTERRUPTED: "interrupted before there was anything to save",
}

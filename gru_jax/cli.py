"""The command `gru-jax`: run, table, check, plot, list.

Heavy imports stand inside the functions that need them, so that help and config errors come at
once.
"""

import argparse
import contextlib
import difflib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gru_jax import __version__

if TYPE_CHECKING:
    from gru_jax.training.loading import LoadedConfig

OK, FAILED, BAD_CONFIG, MISSING, INTERRUPTED = 0, 1, 2, 3, 130

_EXIT_CODES = (
    "exit codes: 0 done, 1 failed, 2 config error (nothing started), 3 data or package missing,"
    " 4 diverged (the last good checkpoint is kept),"
    " 75 stopped by a signal after saving (run the same command again),"
    " 130 interrupted before the training began"
)

_OVERRIDES_HELP = "values laid over the file's"


class _Parser(argparse.ArgumentParser):
    """argparse that suggests the nearest verb or option."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(BAD_CONFIG, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gru-jax",
        description="Train gated recurrent networks from config files.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gru-jax {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    run = verbs.add_parser("run", help="start a run, or continue it", allow_abbrev=False, epilog=_EXIT_CODES)
    run.add_argument("config", metavar="CONFIG", help="YAML file")
    run.add_argument("overrides", metavar="key.sub=value", nargs="*", default=[], help=_OVERRIDES_HELP)
    run.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="the run's directory (default: runs/<name>/<hash>-s<seed>)",
    )
    again = run.add_mutually_exclusive_group()
    again.add_argument(
        "--fresh",
        action="store_true",
        help="start anew in a numbered directory beside an existing run",
    )
    again.add_argument(
        "--fork",
        action="store_true",
        help="as --fresh, but from the existing run's best parameters",
    )

    table = verbs.add_parser(
        "table",
        help="make a published table: run what is missing, print it",
        allow_abbrev=False,
        epilog=_EXIT_CODES,
    )
    table.add_argument("name", metavar="NAME", help="folder below experiments/, or the path of a table.yaml")
    table.add_argument("--scale", choices=["smoke", "full"], help="in minutes, or as it was published")
    table.add_argument("--format", choices=["md", "tex", "csv"], default="md", help="how it is printed (default: md)")
    table.add_argument("--data-root", metavar="DIR", help="where the data files are")
    table.add_argument("--jobs", metavar="N", type=_jobs, default=1, help="runs at a time (default: 1)")
    table.add_argument("--show", action="store_true", help="print the results there are, run nothing")
    table.add_argument("--rows", metavar="REGEX", help="only the rows in whose label it is found")
    table.add_argument("--seeds", metavar="LIST", help="such as 0-9 or 0,2,5-7, in place of the table's own")

    check = verbs.add_parser("check", help="validate a config and print what it amounts to", allow_abbrev=False)
    check.add_argument("config", metavar="CONFIG", help="YAML file")
    check.add_argument("overrides", metavar="key.sub=value", nargs="*", default=[], help=_OVERRIDES_HELP)

    plot = verbs.add_parser("plot", help="draw the pictures of runs again", allow_abbrev=False)
    plot.add_argument("runs", metavar="RUN_DIR", nargs="+", type=Path, help="directory of a run")
    plot.add_argument(
        "--out",
        metavar="PICTURE",
        type=Path,
        help="also draw the curves of all runs into one picture (.png, .pdf or .svg)",
    )

    verbs.add_parser("list", help="list configs, tasks, models and optimizers", allow_abbrev=False)
    return parser


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1024, got {text!r}")
    return int(text)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    options = [word for word in rest if word.startswith("-")]
    if options or (rest and not hasattr(arguments, "overrides")):
        word = (options or rest)[0]
        known = ["--out", "--fresh", "--fork", "--help"]
        if arguments.verb == "table":
            known = ["--scale", "--format", "--data-root", "--jobs", "--show", "--rows", "--seeds", "--help"]
        words = sys.argv[1:] if argv is None else argv
        near = _as_override(word, words) if hasattr(arguments, "overrides") else []
        near = near or difflib.get_close_matches(word.partition("=")[0], known, n=1)
        parser.error(f"unknown argument {word!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    try:
        str(getattr(arguments, "out", None)).encode()
    except UnicodeEncodeError:
        parser.error(f"--out: {str(arguments.out)!r} is not text in {sys.getfilesystemencoding()}")
    # argparse takes positionals in one block only; overrides may also come after --out DIR.
    if rest:
        arguments.overrides += rest
    return arguments


def _as_override(option: str, words: Sequence[str]) -> list[str]:
    """The overrides that somebody who wrote `--lr 1e-3` may have meant."""
    try:
        from gru_jax.training.config import Config
        from gru_jax.training.messages import full_keys
    except ImportError:
        return []
    key, equals, value = option.lstrip("-").replace("-", "_").partition("=")
    if not equals:
        value = next(iter(words[words.index(option) + 1 :]), "...")
    return [f"{full}={value}" for full in full_keys(Config, key)]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A path or a frame that the terminal's encoding lacks is no reason to stop.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        arguments = _parse(argv)
        verb = {"run": _run, "table": _table, "check": _check, "plot": _plot, "list": _list}[arguments.verb]
        return verb(arguments)
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); Python must not try to flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        _interrupted()


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _interrupted() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _fail("interrupted", INTERRUPTED)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # Not sys.exit: imports cut in the middle can crash the interpreter while it takes itself down.
    os._exit(INTERRUPTED)


def _needs_extra(error: ImportError) -> int:
    fix = "gru-jax[experiments] brings it: pip install '.[experiments]' in a clone"
    return _fail(f"{error.name} is not installed; {fix}", MISSING)


def _load(arguments: argparse.Namespace) -> "LoadedConfig | int":
    """The config, or the exit code after saying what is wrong with it."""
    try:
        from gru_jax.training.loading import ConfigError, load_config
    except ImportError as error:
        return _needs_extra(error)
    try:
        return load_config(arguments.config, arguments.overrides)
    except ConfigError as error:
        return _refuse(error.lines)


def _refuse(lines: Sequence[str]) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    count = len(lines)
    print(f"{count} error{'s' if count > 1 else ''}; nothing was started.", file=sys.stderr)
    return BAD_CONFIG


def _run(arguments: argparse.Namespace) -> int:
    loaded = _load(arguments)
    if isinstance(loaded, int):
        return loaded

    def verb() -> int:
        from gru_jax.training.progress import Reporter
        from gru_jax.training.runner import run

        with Reporter() as reporter:
            return run(
                loaded,
                out=arguments.out,
                fresh=arguments.fresh,
                fork=arguments.fork,
                reporter=reporter,
            )

    return _guarded(verb)


def _guarded(verb: Callable[[], int]) -> int:
    """Calls a verb; every failure that a user can act on becomes a message and an exit code."""
    try:
        import jax

        from gru_jax.data.dataset import DataDamaged, DataMissing
        from gru_jax.training.checkpoint import CheckpointError, silence_orphans
        from gru_jax.training.loading import ConfigError
        from gru_jax.training.run_directory import RunError
    except ImportError as error:
        return _needs_extra(error)
    silence_orphans()
    try:
        return verb()
    except ImportError as error:
        return _needs_extra(error)
    except ConfigError as error:
        return _refuse(error.lines)
    except DataMissing as error:
        return _fail(str(error), MISSING)
    except DataDamaged as error:
        return _fail(f"{error}\nnothing was changed.", FAILED)
    except RunError as error:
        return _fail(f"{error}\nnothing was changed.", error.exit_code)
    except CheckpointError as error:
        return _fail(f"{error}\nnothing was changed.", FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(f"{error}; what was written before is whole", FAILED)
    except jax.errors.JaxRuntimeError as error:
        return _fail(f"the device could not go on: {str(error).splitlines()[0]}", FAILED)


def _table(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.tables.command import Request, make_table

        wanted = ("name", "scale", "format", "data_root", "jobs", "show", "rows", "seeds")
        return make_table(Request(*(getattr(arguments, each) for each in wanted)))

    return _guarded(verb)


def _check(arguments: argparse.Namespace) -> int:
    loaded = _load(arguments)
    if isinstance(loaded, int):
        return loaded

    def verb() -> int:
        from gru_jax.training import yaml12
        from gru_jax.training.experiment import abstract_state, parameter_count
        from gru_jax.training.run_directory import default_path
        from gru_jax.training.runner import prepare

        config, shape = loaded.config, loaded.config.shape
        params = abstract_state(prepare(loaded)).params
        print(yaml12.dump(config.resolved()), end="")
        for note in loaded.notes():
            print(f"# note: {note}")
        print(f"# parameters: {parameter_count(params)}")
        print(f"# steps: {config.total_steps}, {config.steps_per_epoch} an epoch")
        print(f"# examples: {shape.train} train, {shape.valid} validation, {shape.test} test")
        print(f"# run directory: {default_path(config)}")
        return OK

    return _guarded(verb)


def _plot(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.training.pictures import redraw

        for path in redraw(arguments.runs, arguments.out):
            print(path)
        return OK

    return _guarded(verb)


def _list(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.tables.command import listed
        from gru_jax.training.listing import listing

        print(listing(Path("configs"), listed()))
        return OK

    return _guarded(verb)

"""The words of the command line: verbs, their options, and what is said of an unknown one."""

import argparse
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from gru_jax import __version__
from gru_jax.checks import did_you_mean
from gru_jax.cli.completion import answer_the_shell
from gru_jax.cli.help_texts import end_helps
from gru_jax.cli.new import WRITTEN
from gru_jax.config.sections.in_words import short
from gru_jax.runs.exit_codes import BAD_ARGUMENTS

_OVERRIDES_HELP = "values laid over the file's"


CELLS = ("gru", "gru-reset-before", "mgu", "lstm", "tanh")
"""What `tune` knows by name."""


EXPORTED = ("onnx", "torch", "keras", "safetensors", "stablehlo")
PLATFORMS = ("cuda", "rocm", "tpu")
"""What `export` knows by name."""


class _Parser(argparse.ArgumentParser):
    """argparse that suggests the nearest verb, option or choice."""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        # The one place where argparse compares a word with choices, the verbs among them.
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += did_you_mean(value, action.choices or (), before=", ")
            raise

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(BAD_ARGUMENTS, f"{self.prog}: {short(message, 600)}; see {self.prog} --help\n")


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser, and that of each verb."""
    parser = _Parser(
        prog="gru-jax",
        description="Train gated recurrent networks from config files.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gru-jax {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    reader = functools.partial(verbs.add_parser, allow_abbrev=False)

    run = verbs.add_parser("run", help="start a run, or continue it", allow_abbrev=False)
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

    launch = verbs.add_parser(
        "launch",
        help="make one run by several processes of this machine, on its CPU",
        usage="gru-jax launch -n N -- run CONFIG [key.sub=value ...]",
        allow_abbrev=False,
    )
    launch.add_argument("-n", "--processes", metavar="N", type=_jobs, required=True, help="how many processes")

    sweep = verbs.add_parser(
        "sweep",
        help="train a config with every combination of the values in its section sweep",
        allow_abbrev=False,
    )
    sweep.add_argument("config", metavar="CONFIG", help="YAML file with a section sweep")
    sweep.add_argument("overrides", metavar="key.sub=value", nargs="*", default=[], help=_OVERRIDES_HELP)
    sweep.add_argument("--jobs", metavar="N", type=_jobs, default=1, help="runs at a time that cannot be stacked")
    sweep.add_argument("--show", action="store_true", help="print the results there are, run nothing")

    table = verbs.add_parser(
        "table",
        help="make a published table: run what is missing, print it",
        allow_abbrev=False,
    )
    table.add_argument("name", metavar="NAME", help="folder below experiments/, or the path of a table.yaml")
    table.add_argument("--scale", choices=["smoke", "full"], help="in minutes, or as it was published")
    table.add_argument("--format", choices=["md", "tex", "csv"], default="md", help="how it is printed (default: md)")
    table.add_argument("--data-root", metavar="DIR", help="where the data files are")
    table.add_argument("--jobs", metavar="N", type=_jobs, default=1, help="runs at a time (default: 1)")
    table.add_argument("--show", action="store_true", help="print the results there are, run nothing")
    table.add_argument("--rows", metavar="REGEX", help="only the rows in whose label it is found")
    table.add_argument("--seeds", metavar="LIST", help="such as 0-9 or 0,2,5-7, in place of the table's own")
    table.add_argument(
        "--curves",
        metavar="PICTURE",
        type=Path,
        help="also draw the curves of the rows' runs (.png, .pdf or .svg)",
    )
    table.add_argument(
        "--lengths",
        metavar="PICTURE",
        type=Path,
        help="also draw the accuracy of the rows' runs against the length of a sequence",
    )

    again_on = reader("eval", help="evaluate a run's best parameters again")
    again_on.add_argument("run", metavar="RUN_DIR", type=Path, help="directory of a run")
    splits = ["test", "valid", "train"]
    again_on.add_argument("--split", choices=splits, default="test", help="on which data (default: test)")
    again_on.add_argument(
        "--predictions", metavar="CSV", type=Path, help="also write a row for each answer: what was true, what was said"
    )
    again_on.add_argument("--json", action="store_true", help="print one JSON object, with the confusion matrix")
    again_on.add_argument("--data-root", metavar="DIR", help="where the data files are")

    export = reader("export", help="write a run's best parameters in the format of another framework")
    export.add_argument("run", metavar="RUN_DIR", type=Path, help="directory of a run")
    export.add_argument("--to", choices=EXPORTED, required=True, help="the format")
    export.add_argument("--out", metavar="FILE", type=Path, required=True, help="the file; its ending is the format's")
    export.add_argument("--lengths", action="store_true", help="it takes lengths, though the task has none")
    export.add_argument("--scaled", action="store_true", help="it takes numbers that are scaled already")
    export.add_argument(
        "--platforms",
        metavar="LIST",
        type=_platforms,
        default=(),
        help=f"of stablehlo, beside the CPU: {', '.join(PLATFORMS)}, one or several with commas between",
    )
    export.add_argument("--data-root", metavar="DIR", help="where the data files are")

    ahead = reader("forecast", help="forecast what comes after the last value of a series")
    ahead.add_argument("run", metavar="RUN_DIR", type=Path, help="directory of a run of a task of kind series")
    ahead.add_argument("--file", metavar="CSV", help="a file with the same columns (default: that of the run)")
    ahead.add_argument("--out", metavar="CSV", type=Path, help="write it there (default: print it)")
    ahead.add_argument("--plot", metavar="PICTURE", type=Path, help="also draw it (.png, .pdf or .svg)")
    ahead.add_argument("--data-root", metavar="DIR", help="where the data files are")

    data = reader("data", help="say which data files are wanted and found")
    data.add_argument("kind", metavar="KIND", nargs="?", help="kind of a task (default: all that read files)")
    data.add_argument("--data-root", metavar="DIR", help="where the data files are")

    check = reader("check", help="validate a config and print what it amounts to")
    check.add_argument("config", metavar="CONFIG", nargs="?", help="YAML file")
    check.add_argument("overrides", metavar="key.sub=value", nargs="*", default=[], help=_OVERRIDES_HELP)
    check.add_argument("--schema", action="store_true", help="print the JSON schema of configs, for editors")

    plot = reader("plot", help="draw the pictures of runs again")
    plot.add_argument("runs", metavar="RUN_DIR", nargs="+", type=Path, help="directory of a run")
    plot.add_argument(
        "--out",
        metavar="PICTURE",
        type=Path,
        help="also draw the curves of all runs into one picture (.png, .pdf or .svg)",
    )
    plot.add_argument(
        "--x",
        choices=["step", "epoch", "time"],
        help="what the curves of --out are drawn against (default: step and time, one above the other)",
    )
    plot.add_argument(
        "--style", choices=["talk", "paper"], default="talk", help="for a slide, or a column of print (default: talk)"
    )
    plot.add_argument("--format", choices=["png", "svg", "pdf"], default="png", help="of each run's own (default: png)")

    report = reader("report", help="write one HTML file about runs: table, curves, pictures, configs")
    report.add_argument("runs", metavar="RUN_DIR", nargs="+", type=Path, help="directory of a run, or of a sweep")
    report.add_argument("--out", metavar="FILE", type=Path, default=Path("report.html"), help="(default: report.html)")

    new = reader("new", help="write a task, a cell, data or a config that runs, to begin one's own with")
    new.add_argument("what", metavar="WHAT", choices=list(WRITTEN), help=f"one of {', '.join(WRITTEN)}")
    new.add_argument("name", metavar="NAME", help="of the files and the config")
    new.add_argument("--out", metavar="DIR", type=Path, default=Path(), help="where they go (default: here)")

    kernels = reader("build-kernels", help="compile what kernel='cudnn' calls cuDNN by, before its first use")
    kernels.add_argument(
        "--into",
        metavar="DIR",
        type=Path,
        help="where to put it (default: $GRU_JAX_CACHE, or gru_jax among your caches)",
    )
    kernels.add_argument("--force", action="store_true", help="compile it again where there is one")

    tune = reader("tune", help="measure which form of a scan is the fastest on this machine, for method auto to take")
    tune.add_argument(
        "--shapes",
        metavar="T,B,I,H",
        nargs="+",
        type=_shape,
        help="steps, sequences, features and units of each (default: a dozen that are usual)",
    )
    tune.add_argument(
        "--cells",
        metavar="CELL",
        nargs="+",
        choices=CELLS,
        default=["gru"],
        help=f"which (default: gru, whose choices stand for all): {', '.join(CELLS)}",
    )
    tune.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="(default: float32)")
    tune.add_argument(
        "--seconds", metavar="S", type=_seconds, default=90.0, help="after which no new shape is begun (default: 90)"
    )
    tune.add_argument("--out", metavar="FILE", type=Path, help="write it there, for gj.Tuned.load, not into the cache")

    reader("list", help="list configs, tasks, models and optimizers")
    end_helps(parser, verbs.choices)
    return parser, verbs.choices


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if len(sizes) != 4 or not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(
            f"expected four whole numbers T,B,I,H from 1, such as 100,32,64,64, got {text!r}"
        )
    return tuple(map(int, sizes))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return seconds


def _platforms(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in PLATFORMS:
            raise argparse.ArgumentTypeError(f"expected names among {', '.join(PLATFORMS)}, got {name!r}")
    return names


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1024, got {text!r}")
    return int(text)


def _apart(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of `launch`, and those of the command that it starts."""
    if words[:1] != ["launch"]:
        return words, []
    ends = [words.index(word) for word in ("--", "run") if word in words]
    if not ends:
        return words, []
    end = min(ends)
    return words[:end], words[end + (words[end] == "--") :]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of a command line; an unknown one ends the process with exit code 2."""
    parser, verbs = _parser()
    answer_the_shell(parser, verbs)
    words, command = _apart(list(sys.argv[1:] if argv is None else argv))
    arguments, rest = parser.parse_known_args(words)
    arguments.command = command
    options = [word for word in rest if word.startswith("-")]
    if options or (rest and not hasattr(arguments, "overrides")):
        word = (options or rest)[0]
        meant = _as_override(word, words) if hasattr(arguments, "overrides") else []
        known = [option for option in verbs[arguments.verb]._option_string_actions if option.startswith("--")]
        hint = f", did you mean {meant[0]!r}?" if meant else did_you_mean(word.partition("=")[0], known, before=", ")
        parser.error(f"unknown argument {word!r}{hint}")
    if arguments.verb == "plot" and arguments.x is not None and arguments.out is None:
        parser.error("--x is of the picture of all runs; name it with --out PICTURE")
    try:
        str(getattr(arguments, "out", None)).encode()
    except UnicodeEncodeError:
        parser.error(f"--out: {str(arguments.out)!r} is not text in {sys.getfilesystemencoding()}")
    if arguments.verb == "check":
        given = [*filter(None, [arguments.config]), *rest]
        if arguments.schema and given:
            parser.error(f"--schema takes no CONFIG, got {given[0]!r}: there is one schema for all of them")
        if not arguments.schema and not given:
            parser.error("check needs a CONFIG, or --schema")
        # Where an option stood before it.
        if arguments.config is None and rest:
            arguments.config, *rest = rest
    # argparse takes positionals in one block only; overrides may also come after --out DIR.
    if rest:
        arguments.overrides += rest
    return arguments


def _as_override(option: str, words: Sequence[str]) -> list[str]:
    """The overrides that somebody who wrote `--lr 1e-3` may have meant."""
    try:
        from gru_jax.config.config import Config
        from gru_jax.config.error_messages import full_keys
    except ImportError:
        return []
    key, equals, value = option.lstrip("-").replace("-", "_").partition("=")
    if not equals:
        value = next(iter(words[words.index(option) + 1 :]), "...")
    return [f"{full}={value}" for full in full_keys(Config, key)]

"""The verbs of the command `gru-jax`.

Heavy imports stand inside the functions that need them, so that help and config errors come at
once.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gru_jax.cli.arguments import parse
from gru_jax.cli.endings import fail, guarded, interrupted, load, needs_extra
from gru_jax.runs.exit_codes import BAD_ARGUMENTS, DONE, FAILED, MISSING


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A path or a frame that the terminal's encoding lacks is no reason to stop.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        arguments = parse(argv)
        arguments.whole_process = argv is None
        return _VERBS[arguments.verb](arguments)
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); Python must not try to flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        interrupted()


def _run(arguments: argparse.Namespace) -> int:
    loaded = load(arguments)
    if isinstance(loaded, int):
        return loaded

    leave: Callable[[int], None] | None = None

    def verb() -> int:
        from gru_jax.runs import processes
        from gru_jax.runs.runner import run
        from gru_jax.runs.watching.progress import Reporter

        nonlocal leave
        with Reporter() as reporter:
            group = processes.join(loaded.config.distributed, reporter.note)
            leave = group.leave
            again = {"fresh": arguments.fresh, "fork": arguments.fork}
            try:
                return run(loaded, out=arguments.out, **again, reporter=reporter, group=group)
            except (ValueError, RuntimeError):
                # As which of the two jax reports that another process is gone depends on where it is noticed.
                group.hear_of_others()
                raise

    code = guarded(verb)
    if leave is not None:
        # After everything is said: the other processes of the run, if there are any, end with this one.
        leave(code)
    return code


def _launch(arguments: argparse.Namespace) -> int:
    from gru_jax.cli.launch import launch

    return launch(arguments.processes, arguments.command)


def _table(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.tables.command import Request, make_table

        wanted = ("name", "scale", "format", "data_root", "jobs", "show", "rows", "seeds", "curves", "lengths")
        return make_table(Request(*(getattr(arguments, each) for each in wanted)))

    return guarded(verb)


def _sweep(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.sweeps.command import Request, make_sweep

        return make_sweep(Request(arguments.config, arguments.overrides, arguments.jobs, arguments.show))

    return guarded(verb)


def _eval(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.runs import predictions
        from gru_jax.runs.load_trained import evaluated

        def note(text: str) -> None:
            print(f"note: {text}", file=sys.stderr)

        if arguments.predictions is not None:
            predictions.require_place(arguments.predictions)
        found = evaluated(arguments.run, arguments.split, arguments.data_root, note)
        if arguments.predictions is not None:
            predictions.write(arguments.predictions, found.answers, found.dataset, found.config.shape)
        if arguments.json:
            print(json.dumps({"run": str(arguments.run), "split": arguments.split, **found.in_json()}, allow_nan=False))
        else:
            for name, value in found.metrics.items():
                print(f"{name}: {value}")
            if found.verdict:
                print(found.verdict)
        return DONE

    return guarded(verb)


def _export(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.runs.exporting.of_run import export_run

        def note(text: str) -> None:
            print(f"note: {text}", file=sys.stderr)

        names = ("lengths", "scaled", "platforms", "data_root")
        which = {name: getattr(arguments, name) for name in names}
        made = export_run(arguments.run, arguments.out, arguments.to, **which, note=note)
        print(f"max difference {made.difference:.0e} on {made.sequences} {made.what} sequences")
        for path in made.paths:
            print(path)
        return DONE

    return guarded(verb)


def _forecast(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.cli.forecast import forecast

        return forecast(arguments.run, arguments.file, arguments.out, arguments.plot, arguments.data_root)

    return guarded(verb)


def _data(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.cli.data_files import report

        try:
            said = report(arguments.kind, arguments.data_root)
        except ValueError as error:
            return fail(f"{error}; gru-jax list names the kinds", BAD_ARGUMENTS)
        print("\n".join(said.lines))
        if arguments.kind is None:
            return DONE
        return FAILED if said.damaged else MISSING if said.missing else DONE

    return guarded(verb)


def _check(arguments: argparse.Namespace) -> int:
    if arguments.schema:
        return _schema()
    loaded = load(arguments)
    if isinstance(loaded, int):
        return loaded

    def verb() -> int:
        from gru_jax.cli.data_files import missing
        from gru_jax.config import yaml_document
        from gru_jax.runs.estimate import SECONDS, estimates, within
        from gru_jax.runs.on_disk.run_directory import default_path

        config, shape = loaded.config, loaded.config.shape
        said: Iterable[str] = within(SECONDS, estimates(loaded))
        try:
            parameters = next(iter(said))
        except TimeoutError as error:
            parameters, said = f"parameters, memory and time: {error}", ()
        print(yaml_document.dump(config.resolved()), end="")
        for note in loaded.notes():
            print(f"# note: {note}")
        print(f"# {parameters}")
        print(f"# steps: {config.total_steps}, {config.steps_per_epoch} an epoch")
        print(f"# examples: {shape.train} train, {shape.valid} validation, {shape.test} test")
        print(f"# run directory: {default_path(config)}", flush=True)
        try:
            for line in said:
                print(f"# {line}", flush=True)
        except TimeoutError as error:
            print(f"# the rest of memory and time: {error}")
            said = ()
        code = DONE
        for file in missing(config.task, config.data_root):
            code = fail(file, MISSING)
        if said == () and arguments.whole_process:
            sys.stdout.flush()
            # Not sys.exit: what is still being compiled beside cannot be stopped, nor left to Python's own end.
            os._exit(code)
        return code

    return guarded(verb)


def _schema() -> int:
    try:
        from gru_jax.config.schema import config_schema
    except ImportError as error:
        return needs_extra(error)
    print(json.dumps(config_schema(), indent=1))
    return DONE


def _plot(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.runs.pictures import redraw
        from gru_jax.runs.plan import devices_here

        devices_here()
        style, suffix = arguments.style, f".{arguments.format}"
        missed: list[str] = []
        for path in redraw(arguments.runs, arguments.out, arguments.x, style, suffix, missed.append):
            print(path)
        for fact in missed:
            fail(fact, MISSING)
        return MISSING if missed else DONE

    return guarded(verb)


def _report(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.runs.report.contents import write_report

        write_report(arguments.runs, arguments.out)
        print(arguments.out)
        return DONE

    return guarded(verb)


def _new(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.cli.new import write_new

        try:
            paths = write_new(arguments.what, arguments.name, arguments.out)
        except ValueError as error:
            return fail(f"{error}\nnothing was written.", BAD_ARGUMENTS)
        for path in paths:
            print(path)
        print(f"next: gru-jax check {paths[-1]}; gru-jax run {paths[-1]}")
        return DONE

    return guarded(verb)


def _build_kernels(arguments: argparse.Namespace) -> int:
    from gru_jax.scans.engines.cudnn import build, library

    try:
        built = build.build(arguments.into and arguments.into.expanduser(), force=arguments.force)
        # What does not load here is better known now than in the middle of a run.
        library.Library(built.path)
    except build.PartMissing as error:
        return fail(str(error), MISSING)
    except build.BuildError as error:
        return fail(str(error), FAILED)
    print(f"cuDNN {built.toolkit.cudnn}: {'built' if built.fresh else 'there is'} {built.path}")
    if arguments.into is not None:
        print(f"GRU_JAX_CACHE={built.path.parent} lets gru_jax find it")
    return DONE


def _tune(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.cli.tuning import tuned
        from gru_jax.runs.plan import devices_here

        devices_here()
        tuned(arguments.cells, arguments.shapes, arguments.dtype, arguments.seconds, arguments.out)
        return DONE

    return guarded(verb)


def _list(arguments: argparse.Namespace) -> int:
    def verb() -> int:
        from gru_jax.cli.listing import listing
        from gru_jax.tables.command import listed

        print(listing(Path("configs"), listed()))
        return DONE

    return guarded(verb)


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "launch": _launch,
    "sweep": _sweep,
    "table": _table,
    "eval": _eval,
    "export": _export,
    "forecast": _forecast,
    "data": _data,
    "check": _check,
    "plot": _plot,
    "report": _report,
    "new": _new,
    "build-kernels": _build_kernels,
    "tune": _tune,
    "list": _list,
}

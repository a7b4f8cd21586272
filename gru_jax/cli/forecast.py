"""What comes after the last value of a series, in a table and a picture: `gru-jax forecast`."""

import csv
import io
import sys
from pathlib import Path

from gru_jax.runs.exit_codes import DONE
from gru_jax.runs.forecasting import forecasts
from gru_jax.runs.forecasting.coming import coming
from gru_jax.runs.forecasting.pictures import draw_coming
from gru_jax.runs.on_disk.json_files import write_text
from gru_jax.runs.on_disk.run_directory import RunError
from gru_jax.runs.pictures import check_picture


def forecast(run: Path, file: str | None, out: Path | None, plot: Path | None, data_root: str | None) -> int:
    """Writes the table, or prints it, and draws the picture; says which files it wrote.

    Args:
        run: directory of a run.
        file: a CSV file with the same columns; None for that of the run.
        out: where the table goes; None for standard output.
        plot: where the picture goes; None for no picture.
        data_root: where the data files are; None for what the run's config says.
    """
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise RunError(f"{out} cannot be written: {'it is a directory' if out.is_dir() else 'its folder is not there'}")
    if plot is not None:
        check_picture(plot, "--plot")
    name, made = coming(run, file, data_root, lambda text: print(f"note: {text}", file=sys.stderr))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(forecasts.rows(made))
    if out is None:
        sys.stdout.write(text.getvalue())
    else:
        write_text(out, text.getvalue())
        print(out)
    if plot is not None:
        draw_coming(plot, name, made)
        # Where the table is what is printed, nothing else may stand in it.
        print(plot, file=sys.stderr if out is None else sys.stdout)
    return DONE

"""`gru-jax new`: a task, a cell, data with a config, or a config that runs, to begin one's own with."""

import re
import sys
from importlib import resources
from pathlib import Path

from gru_jax.cli import made_data
from gru_jax.runs.on_disk.json_files import write_text

WRITTEN = {
    "task": ("task.py", "task.yaml"),
    "cell": ("cell.py", "cell.yaml"),
    "config": ("config.yaml",),
    "series": ("series.csv", "series.yaml"),
    "sequences": ("sequences.csv", "sequences.yaml"),
}
"""What there is to begin with -> its templates; of data, what `_MADE` makes."""

_MADE = {"series.csv": made_data.series, "sequences.csv": made_data.sequences}


def write_new(what: str, name: str, folder: Path) -> list[Path]:
    """Writes `<name>.yaml`, and the Python file or the data that it names.

    Args:
        what: of `WRITTEN`.
        name: of the files and the config.
        folder: where they go.

    Returns:
        The files; the last one is the config.

    Raises:
        ValueError: the name will not do, or there is such a file already; nothing was written.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(f"NAME: expected a letter, then letters, digits, '_' and '-', such as my_{what}, got {name!r}")
    if WRITTEN[what][0].endswith(".py") and name in {*sys.stdlib_module_names, "gru_jax", "jax", "numpy"}:
        raise ValueError(f"NAME: {name}.py would stand in the way of Python's own {name}; choose another, my_{name}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; --out names a folder")
    templates = {folder / f"{name}{Path(template).suffix}": template for template in WRITTEN[what]}
    taken = [str(path) for path in templates if path.exists() or path.is_symlink()]
    if taken:
        are = "is" if len(taken) == 1 else "are"
        raise ValueError(f"{' and '.join(taken)} {are} there already; choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in templates.items():
        if template in _MADE:
            write_text(path, _MADE[template]())
        else:
            text = resources.files("gru_jax.cli.templates").joinpath(template).read_text(encoding="utf-8")
            write_text(path, text.replace("NAME", name))
    return list(templates)

"""Help, list, check and plot."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .command import PACKAGE_ROOT, command, environment, gru_jax, process, snapshot


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help")])
def test_help(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = gru_jax(*arguments, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "exit codes: 0 done" in " ".join(done.stdout.split())


BAD_USAGE = [
    ((), "the following arguments are required: VERB"),
    (("run",), "the following arguments are required: CONFIG; see"),
    (("run", "config.yaml", "--lr", "1e-3"), "unknown argument '--lr', did you mean 'optim.lr=1e-3'?"),
    (("run", "config.yaml", "--batch-size=16"), "did you mean 'task.batch=16'?"),
    (("run", "config.yaml", "--out", b"\xff"), "is not text in utf-8"),
    (("run", "config.yaml", "--fres"), "did you mean '--fresh'?"),
    (("run", "config.yaml", "--fresh", "--fork"), "not allowed with"),
    (("check", "config.yaml", "--out", "x"), "unknown argument '--out'"),
    (("list", "extra"), "unknown argument 'extra'"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD_USAGE)
def test_bad_usage(arguments: tuple[str | bytes, ...], said: str, folder: Path) -> None:
    refused = gru_jax(*map(os.fsdecode, arguments), cwd=folder)
    assert refused.returncode == 2 and refused.stdout == ""
    assert said in refused.stderr and "Traceback" not in refused.stderr
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_version(tmp_path: Path) -> None:
    done = gru_jax("--version", cwd=tmp_path)
    assert done.returncode == 0 and re.fullmatch(r"gru-jax \d+\.\d+\.\d+\n", done.stdout)


def test_check_prints_what_a_run_would_be(folder: Path) -> None:
    done = gru_jax("check", "config.yaml", "model.hidden=16", cwd=folder)
    assert done.returncode == 0 and done.stderr == ""
    assert "  hidden: 16\n" in done.stdout and "lr: 0.01\n" in done.stdout
    assert f"# parameters: {3 * (8 * 16 + 16 * 16 + 2 * 16) + 16 * 10 + 10}\n" in done.stdout
    assert "# steps: 36, 9 an epoch\n" in done.stdout
    assert re.search(r"# run directory: runs/tiny/[0-9a-f]{8}-s3\n", done.stdout)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    (folder / "resolved.yaml").write_text(done.stdout)
    again = gru_jax("check", "resolved.yaml", cwd=folder)
    # What is measured differs.
    measured = re.compile(r"# (compilation|time): .*\n")
    assert len(measured.findall(done.stdout)) == 2 and "# training step: " in done.stdout
    assert measured.sub("", again.stdout) == measured.sub("", done.stdout)


LATE = [
    ("prepare", 1, "# parameters, memory and time: not estimated within 1 s\n"),
    ("_abstract", 20, "# the rest of memory and time: not estimated within 20 s\n"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("endless", "seconds", "said"), LATE)
def test_check_ends_in_time(endless: str, seconds: int, said: str, folder: Path) -> None:
    """What is still being computed when the time is over neither keeps the process nor makes it fail."""
    code = (
        "import time\n"
        "from gru_jax.runs import estimate\n"
        f"estimate.SECONDS, estimate.{endless} = {seconds}, lambda *_: time.sleep(1000)\n"
        "from gru_jax import cli\n"
        "sys.exit(cli.main())"
    )
    done = process("check", "config.yaml", cwd=folder, before=code)
    assert done.returncode == 0 and done.stderr == ""
    assert said in done.stdout and "# steps: 36, 9 an epoch\n" in done.stdout
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_list_names_configs_and_kinds(tmp_path: Path) -> None:
    done = gru_jax("list", cwd=PACKAGE_ROOT)
    assert done.returncode == 0 and done.stderr == ""
    for name in ("configs/digits/gru.yaml  a GRU of 128 units", "digits:", "gru:", "adam:", "adamw:", "warmup_cosine:"):
        assert name in done.stdout
    elsewhere = gru_jax("list", cwd=tmp_path)
    assert elsewhere.returncode == 0 and "configs: none" in elsewhere.stdout


@pytest.mark.slow
def test_plot_draws_again_and_together(folder: Path) -> None:
    for seed in (1, 2):
        arguments = ("run", "config.yaml", "train.epochs=1", f"seed={seed}", "--out", f"s{seed}")
        assert gru_jax(*arguments, cwd=folder).returncode == 0
    first = snapshot(folder / "s1" / "plots")
    shutil.rmtree(folder / "s1" / "plots")
    done = gru_jax("plot", "s1", "s2", "--out", "both.png", cwd=folder)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.split() == [
        *(f"{run}/plots/{name}.png" for run in ("s1", "s2") for name in ("curves", "gates", "confusion")),
        "both.png",
    ]
    assert snapshot(folder / "s1" / "plots").keys() == first.keys()
    assert (folder / "both.png").read_bytes().startswith(b"\x89PNG")


BAD_PLOTS = [
    (("nowhere",), "nowhere: no such directory"),
    (("config.yaml",), "config.yaml holds no run"),
    ((".",), "holds no run"),
    ((".", "--out", "both.txt"), "both.txt: a picture ends in .png, .pdf or .svg"),
    ((".", "--out", "both.png"), "both.png is a directory"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD_PLOTS)
def test_plot_of_no_run(arguments: tuple[str, ...], said: str, folder: Path) -> None:
    (folder / "both.png").mkdir()
    refused = gru_jax("plot", *arguments, cwd=folder)
    assert refused.returncode == 2 and said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_overrides_may_follow_options(folder: Path) -> None:
    refused = gru_jax(*("run", "config.yaml", "train.epochs=x", "--out", "out", "seed=y"), cwd=folder)
    assert refused.returncode == 2
    assert "train.epochs" in refused.stderr and "seed" in refused.stderr and "2 errors" in refused.stderr


def test_config_errors_come_without_the_heavy_imports(folder: Path) -> None:
    # Not optax, whose signatures say what `optim` takes: 0.2 s beside JAX's 0.9.
    heavy = ("orbax", "matplotlib", "sklearn", "rich.progress")
    code = (
        "import atexit\n"
        f"atexit.register(lambda: print([name for name in {heavy!r} if name in sys.modules]))"
    )
    done = process("check", "config.yaml", "optim.lr=x", cwd=folder, before=code)
    assert done.returncode == 2
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_live_bar_on_a_terminal(folder: Path) -> None:
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        command("run", "config.yaml", "train.epochs=1", "--out", "out"),
        cwd=folder,
        env=environment(TERM="xterm-256color"),
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    stderr = started.stderr.read()
    started.stderr.close()
    assert started.wait(timeout=120) == 0 and stderr == b"", stderr
    text = shown.decode()
    assert "9/9" in text and "steps/s" in text and "test/accuracy" in text

"""One line of ours where a device, a file or a short name is missing, however long what was asked is."""

import shlex
from pathlib import Path

import jax
import pytest

from gru_jax.cli import arguments, commands, main
from gru_jax.cli.listing import listing

CONFIG = """\
schema: 1
name: tiny
task: {kind: digits, view: rows, batch: 128}
model: {kind: gru, hidden: 4}
sweep: {seed: 0-1}
"""
@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    return tmp_path


@pytest.mark.parametrize("verb", commands._VERBS)
def test_every_verb_tells_its_exit_codes_and_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    said = capsys.readouterr().out
    assert "\n\nexit codes: 0 done, " in said
    (example,) = [line.removeprefix("example: ") for line in said.splitlines() if line.startswith("example: ")]
    name, *words = shlex.split(example)
    assert name == "gru-jax" and arguments.parse(words).verb == verb == words[0]


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda': none\nmore")])
@pytest.mark.parametrize("verb", ["run", "sweep", "check", "plot"])
def test_no_device_is_one_line(
    verb: str, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> list[jax.Device]:
        raise error

    monkeypatch.setattr(jax, "devices", none)
    assert main([verb, "config.yaml"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: jax finds no device: ") and second == "nothing was changed."
    assert first.endswith("; leave JAX_PLATFORMS=cpu out, or install the jax that goes with it")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        *(["check", "config.yaml", word + "{}"] for word in ("model.hidden=", "", "+a=", "~", "name=", "model=", "--")),
        *([*words, "{}"] for words in (["eval"], ["plot"], ["data"], ["table"], ["run"], [])),
    ],
)
def test_a_long_argument_is_shortened(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([word.format("x" * 200_000) for word in words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr()
    assert code in (1, 2) and said.out == "" and 50 < len(said.err) < 6000


@pytest.mark.parametrize(
    "task",
    [
        "{kind: forecast, file: x.csv, values: 400}",
        "{kind: polyphonic}",
        "{kind: mnist, half: test}",
        "{kind: characters}",
        "{kind: uea, train: x_TRAIN.ts, test: x_TEST.ts,"
        " sizes: {train: 32, valid: 8, test: 4, time: 9, channels: 1, classes: 2}}",
    ],
)
def test_check_names_the_files_that_are_missing(task: str) -> None:
    from gru_jax.cli.data_files import missing
    from gru_jax.config.loading import load_config

    config = load_config("config.yaml", [f"task={task}"]).config
    said = missing(config.task, config.data_root)
    assert len(said) == (2 if "mnist" in task or "uea" in task else 1)
    assert all("no such data file" in line for line in said)


def test_check_ends_with_code_3_without_its_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gru_jax.runs import estimate

    monkeypatch.setattr(estimate, "estimates", lambda loaded: iter(["parameters: 1"]))
    words = ["check", "config.yaml", "task={kind: forecast, file: x.csv, values: 400}"]
    assert main(words) == 3
    said = capsys.readouterr()
    assert "# parameters: 1" in said.out and said.err.startswith("error: x.csv: no such data file")
    Path("data").mkdir()
    Path("data/x.csv").touch()
    assert main(words) == 0


def test_a_kind_alone_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    from gru_jax.config.config import config_hash
    from gru_jax.config.loading import load_config

    head = "schema: 1\nname: a\n"
    Path("short.yaml").write_text(head + "task: digits\nmodel: mgu\noptim: {kind: sgd, schedule: cosine}\n")
    Path("long.yaml").write_text(
        head + "task: {kind: digits}\nmodel: {kind: mgu}\noptim: {kind: sgd, schedule: {kind: cosine}}\n"
    )
    short, long = (load_config(file).config for file in ("short.yaml", "long.yaml"))
    assert short == long and config_hash(short) == config_hash(long)
    changed = load_config("short.yaml", ["model.hidden=7", "optim.schedule.final=0.5", "task.batch=8"]).config
    assert (changed.model.kind, changed.model.hidden, changed.task.batch) == ("mgu", 7, 8)
    Path("over.yaml").write_text("base: config.yaml\nschema: 1\nmodel: min_gru\n")
    assert load_config("over.yaml").config.model.model_dump()["hidden"] == 64
    assert main(["check", "short.yaml", "model=gru"]) == 2
    assert "did you mean 'model.kind=gru'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu", "config.yaml"], "did you mean 'run'?"),
        (["runn", "config.yaml"], "did you mean 'run'?"),
        (["export", "out", "--to", "onx", "--out", "a.onnx"], "did you mean 'onnx'?"),
        (["eval", "out", "--split", "tst"], "did you mean 'test'?"),
        (["new", "tsk", "mine"], "did you mean 'task'?"),
        (["tune", "--cells", "gur"], "did you mean 'gru'?"),
        (["new", "xyz", "mine"], "(choose from"),
    ],
)
def test_the_nearest_word_is_suggested(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.parse(words)
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert ended.value.code == 2 and said in line and ("did you mean" in line) == ("did you mean" in said)


def test_a_list_begins_with_what_there_is() -> None:
    lines = listing(Path("nowhere")).splitlines()
    assert lines[0] == "tasks:" and lines[-1].startswith("configs: none under nowhere/ here")

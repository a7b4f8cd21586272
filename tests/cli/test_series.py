"""Forecasts of a CSV file from the command: a run with times, holes, a decimal comma, and what is known ahead."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.config.config import Config, changes, config_hash
from gru_jax.config.loading import ConfigError, load_config
from gru_jax.data.dataset import DataMissing
from gru_jax.data.series import table, windows
from gru_jax.runs import estimate
from gru_jax.runs.exporting import of_run
from gru_jax.runs.load_trained import evaluate_run
from tests.test_pages import ROOT, blocks

from .command import gru_jax, result

PAGE = ROOT / "docs" / "guide" / "forecasting.md"

CONFIG = """\
schema: 1
name: load
task:
  kind: series
  file: load.csv
  target: load
  known: [temperature, hour, weekday]
  time: when
  window: 24
  horizon: 12
  missing: gaps
  quantiles: [0.1, 0.5, 0.9]
model: {kind: gru_d, hidden: 4}
optim: {kind: adam, lr: 1e-2}
train: {epochs: 1}
"""


def write(folder: Path, days: int) -> None:
    """Hours of a load that follows the clock, the week and the temperature, in the way of a German meter."""
    rng = np.random.default_rng(0)
    hours = np.arange(24 * days)
    weather = np.repeat(rng.normal(0, 5, days), 24)
    temperature = 10 + weather + 4 * np.sin(2 * np.pi * (hours - 9) / 24)
    week = hours // 24 % 7
    load = 50 + 10 * np.sin(2 * np.pi * (hours - 8) / 24) - 12 * (week >= 5) - weather + rng.normal(size=24 * days)
    times = np.datetime64("2025-01-06T00:00") + hours * np.timedelta64(1, "h")
    lines = [f"{time};{a:.2f};{b:.1f}".replace(".", ",") for time, a, b in zip(times, load, temperature, strict=True)]
    lines[50] = lines[50].split(";")[0] + ";;1,0"
    (folder / "load.csv").write_text("\n".join(["when;load;temperature", *lines[:100], *lines[118:]]))
    (folder / "load.yaml").write_text(CONFIG)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder with load.csv and load.yaml."""
    folder = tmp_path / "series"
    folder.mkdir()
    write(folder, 21)
    return folder


@pytest.mark.parametrize(("more", "now"), [("", 120), ("\n  relative: true", 60)])
def test_an_exported_one_is_fed_by_hand(
    more: str, now: int, series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of the page, on windows with holes."""
    pytest.importorskip("onnxruntime")
    text = CONFIG.replace("kind: gru_d", "kind: gru").replace("\n  missing", f"{more}\n  missing")
    (series / "load.yaml").write_text(text)
    config = load_config(series / "load.yaml").config
    assert config is not None
    data, task = config.task.load(None), config.task
    model, draw = of_run.plain(config), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda p: jnp.asarray(0.6 * draw.normal(size=p.shape), p.dtype), shapes)
    monkeypatch.setattr(of_run, "_best", lambda _: (config, params, data.fingerprint))
    monkeypatch.chdir(tmp_path)
    of_run.export_run("out", "load.onnx", "onnx")
    assert str(tmp_path).encode() not in Path("load.onnx").read_bytes()

    read = table.read_table(windows.read_again(task.file, None), task.arguments()["reading"])
    columns = {"load": read.values[:, 0], "temperature": read.known[:, 0]}
    for place, name in enumerate(f"{word} {what}" for word in ("hour", "weekday") for what in ("sine", "cosine")):
        columns[name] = read.calendar[:, place]
    given: dict[str, Any] = {"columns": columns, "now": now}
    (code,) = (code for _, code in blocks(ROOT / "docs" / "guide" / "leaving.md", {"py"}) if "columns" in code)
    exec(compile(code, "leaving.md", "exec"), given)
    facts, train = data.series, data.train
    (at,) = np.flatnonzero(facts.starts[0] == now)
    np.testing.assert_allclose(given["x"], train.x[at], atol=1e-5)
    assert 0 < (train.x[at] == 0).sum() and np.isnan(facts.values[now - 24 : now]).any()
    wanted = np.asarray(model.apply(params, jnp.asarray(train.x[at][None]), deterministic=True)).reshape(12, 1, 3)
    wanted = wanted * facts.deviation[:, None] + facts.level(np.array([now]))[0, :, None]
    np.testing.assert_allclose(given["forecast"], wanted, rtol=1e-4)


CANNOT = [
    (["nowhere"], 2, "nowhere holds no run"),
    (["out", "--file", "none.csv"], 3, "none.csv: no such data file; looked for"),
    (["out", "--out", "none/next.csv"], 2, "none/next.csv cannot be written: its folder is not there"),
    (["out", "--plot", "next.txt"], 2, "next.txt: a picture ends in .png, .pdf or .svg"),
]


def test_a_run_forecasts_and_is_compared(series: Path) -> None:
    done = gru_jax("run", "load.yaml", "--out", "out", cwd=series)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "504 rows of 1:00:00, 19 with values missing, a season of 24" in done.stdout
    found = result(series / "out")
    season = found["baselines"]["seasonal_naive"]["mae"]
    last = done.stdout.splitlines()[-1]
    assert f"seasonal-naive: MAE {found['test/mae']:.4g} beside {season:.4g}; " in last
    reported = gru_jax("report", "out", "--out", "out.html", cwd=series)
    assert reported.returncode == 0 and f"<p>{last}</p>" in (series / "out.html").read_text()
    assert list(found["baselines"]) == ["seasonal_naive", "linear", "naive"]
    for name in ("mae", "rmse", "mase", "smape", "pinball", "coverage"):
        assert found[f"test/{name}"] >= 0 and f"test/{name}" in done.stdout
    assert len(found["mae_by_horizon"]) == len(found["baselines"]["linear"]["mae_by_horizon"]) == 12
    # Sweeps, tables and reports take what is called so for numbers.
    assert {type(value) for name, value in found.items() if name.startswith("test/")} == {float}
    np.testing.assert_allclose(np.mean(found["mae_by_horizon"]), found["test/mae"])
    for name in ("forecast", "error_by_horizon", "curves"):
        assert (series / "out" / "plots" / f"{name}.png").stat().st_size > 10_000
    # What comes next is told of a newer file, which goes on with what is known ahead.
    refused = gru_jax("forecast", "out", cwd=series)
    assert refused.returncode == 1 and "12 rows to tell after line 487, 0 have 'temperature'; app" in refused.stderr
    ahead = "".join(f"\n2025-01-27T{hour:02}:00;;{'' if hour == 3 else '7,5'}" for hour in range(12))
    (series / "newer.csv").write_text((series / "load.csv").read_text() + ahead)
    told = gru_jax("forecast", "out", "--file", "newer.csv", cwd=series)
    filled = "note: newer.csv: of the 12 rows to tell after line 487, 11 have 'temperature'; the others are filled, as"
    assert told.returncode == 0 and told.stderr == f"{filled} missing: gaps says\n", told.stderr
    written = gru_jax("forecast", "out", "--file", "newer.csv", "--out", "n.csv", "--plot", "next.png", cwd=series)
    assert (written.stdout, written.stderr) == ("n.csv\nnext.png\n", told.stderr)
    assert (series / "n.csv").read_text() == told.stdout
    header, *rows = (line.split(",") for line in told.stdout.splitlines())
    assert header == ["made", "time", "ahead", "column", "true", "q0.1", "q0.5", "q0.9", "seasonal_naive"]
    assert [row[1] for row in rows] == [f"2025-01-27 {hour:02}:00" for hour in range(12)]
    assert all(row[4] == "" and 0 < float(row[6]) < 90 for row in rows)
    assert (series / "next.png").stat().st_size > 10_000
    for words, code, said in CANNOT:
        done = gru_jax("forecast", *words, cwd=series)
        assert done.returncode == code and said in done.stderr, words
    dates = np.datetime64("2025-02-01") + np.arange(40)
    days = [f"{date};{'' if day > 26 else day};1" for day, date in enumerate(dates)]
    (series / "daily.csv").write_text("\n".join(["when;load;temperature", *days]))
    done = gru_jax("forecast", "out", "--file", "daily.csv", cwd=series)
    assert done.returncode == 1 and "daily.csv are 1 day apart, those that out was trained on 1:00:00" in done.stderr
    # The run knows its sizes, and where the file was; found elsewhere by its name, it is the same.
    elsewhere = series / "elsewhere"
    elsewhere.mkdir()
    (series / "load.csv").rename(elsewhere / "load.csv")
    config = load_config(series / "out" / "config.yaml").config
    assert config.shape.train == 353 - 24 - 12 + 1 - 7 and config.task.file == str(series / "load.csv")
    with pytest.raises(DataMissing, match=f"looked for {series}/load.csv and "):
        evaluate_run(series / "out")
    again = gru_jax("eval", "out", "--data-root", elsewhere, "--predictions", "all.csv", cwd=series)
    assert again.returncode == 0 and f"test/mase: {found['test/mase']}\n" in again.stdout, again.stderr
    assert again.stdout.endswith(f"\n{last}\n")
    header, first, *rows = (line.split(",") for line in (series / "all.csv").read_text().splitlines())
    assert header[4:] == ["true", "q0.1", "q0.5", "q0.9", "seasonal_naive", "linear", "naive"]
    assert first[1] == "2025-01-22 19:00" and len(rows) == 90 * 12 - 1


def test_a_config_is_read_with_its_file(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(series / "load.yaml").config
    assert config.task.sizes is not None and config.shape.features == 3 * 6
    assert Config.model_validate(config.resolved()) == config
    like, train = estimate._batch_like(config, 4, config.shape.time), config.task.load(None).train
    assert (like.x.shape[1:], like.y.shape[1:], like.lengths) == (train.x.shape[1:], train.y.shape[1:], None)
    # Where the file lies decides nothing, what is in it does.
    elsewhere = series / "elsewhere"
    elsewhere.mkdir()
    (series / "load.csv").rename(elsewhere / "load.csv")
    moved = load_config(series / "load.yaml", [f"data_root={elsewhere}"]).config
    assert moved.task.file == "load.csv" and config_hash(moved) == config_hash(config)
    assert list(changes(config, moved)) == ["data_root"]
    monkeypatch.setenv("GRU_JAX_DATA", str(elsewhere))
    shorter = load_config(series / "load.yaml", ["task.window=23"]).config
    assert shorter.shape.train == config.shape.train + 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task.file=lode.csv", "task.file: .*lode.csv: no such data file; looked for .*/series/lode.csv and "),
        ("task.target=lode", "=lode': task.target: .* has no column 'lode' .did you mean 'load'.*; its header, parted"),
        ("task.known=[Hour]", "Hour.': task.known: .* no column 'Hour' .'hour' is a word of the calendar"),
        ("task.known=[LOAD, hours]", "task.known: .*'LOAD' .did you mean 'load'.*\n.*'hours' .did you mean 'hour'"),
        ("task.target=[]", "task.target: expected the name of a column, or a list of different ones"),
        ("task.known=[hour, hour]", "task.known: expected a list of different columns, or of hour, weekday"),
        ("task.missing=refuse", "19 of 504 rows have values missing: line 52 .load., no row after line 101"),
        ("task.window=11", "task.window: 11 is shorter than the horizon of 12, whose known values it has to carry"),
        ("task.window=400", "task.window: 400 and horizon 12 leave no window that tells a value in train"),
        ("task.quantiles=[0.1, 0.9]", "task.quantiles: expected null, or numbers between 0 and 1 that rise and"),
        ("task.split=[0.7, 0.2, 0.2]", "task.split: expected three shares that add up to 1"),
        ("task.period=400", "has 353 rows in its training part, and a season of 400; choose a shorter period"),
    ],
)
def test_what_is_wrong_is_said_of_the_config(override: str, said: str, series: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(series / "load.yaml", [override])


@pytest.mark.slow
def test_the_example_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day ahead: the GRU knows the weather ahead and the weekday, and the season before does not."""
    monkeypatch.chdir(tmp_path)
    made, config = (blocks(PAGE, {language})[0][1] for language in ("python", "yaml"))
    exec(made, {})
    Path("load.yaml").write_text(config)
    done = gru_jax("run", "load.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0 and "\nbeats seasonal-naive: MAE " in done.stdout, done.stdout + done.stderr
    found = result(tmp_path / "out")
    assert found["test/mae"] < 0.9 * found["baselines"]["linear"]["mae"] and found["test/mase"] < 0.3
    assert 0.65 < found["test/coverage"] < 0.9

"""The sections of generated tasks: what they refuse, in which words, and the sizes of published protocols."""

from pathlib import Path

import pytest

from gru_jax.config.loading import ConfigError, load_config
from gru_jax.data.dataset import TaskShape


def written(folder: Path, task: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(f"schema: 1\nname: some/run\ntask: {task}\nmodel: {{kind: gru}}\n")
    return path


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        ("{kind: adding}", TaskShape(50_000, 1_000, 1_000, 600, 2, 1, "values")),
        ("{kind: copying}", TaskShape(10_000, 1_000, 1_000, 1_020, 10, 10, "tags", tokens=True)),
        ("{kind: selective_copying}", TaskShape(64_000, 1_000, 1_000, 4_112, 16, 16, "tags", tokens=True)),
        ("{kind: formal, language: parity}", TaskShape(128_000, 1_000, 60 * 512, 40, 2, 2, tokens=True)),
        (
            "{kind: formal, language: modular_arithmetic, test_lengths: [41, 500]}",
            TaskShape(128_000, 1_000, 460 * 512, 39, 8, 5, tokens=True),
        ),
        (
            "{kind: formal, language: modular_arithmetic, train_shortest: 3, test_lengths: [40, 256], ask: true}",
            TaskShape(128_000, 1_000, 217 * 512, 40, 9, 5, tokens=True),
        ),
        ("{kind: group_words}", TaskShape(64_000, 1_000, 1_000, 20, 60, 60, "tags", tokens=True)),
        ("{kind: k_hop}", TaskShape(64_000, 1_000, 10_000, 100, 10, 10, "tags", tokens=True)),
        ("{kind: keep_nth, positions: 32}", TaskShape(64_000, 1_000, 4_000, 100, 160, 128)),
        ("{kind: mqar}", TaskShape(100_000, 3_000, 3_000, 64, 8_192, 8_192, "tags", tokens=True)),
        ("{kind: irregular}", TaskShape(64_000, 2_000, 4_000, 64, 12, 4, "values", gaps=True)),
        ("{kind: irregular, seen: last}", TaskShape(64_000, 2_000, 4_000, 64, 4, 4, "values")),
        ("{kind: listops}", TaskShape(96_000, 2_000, 2_000, 1_999, 15, 10, tokens=True)),
    ],
)
def test_defaults_are_the_published_sizes(tmp_path: Path, task: str, shape: TaskShape) -> None:
    assert load_config(written(tmp_path, task)).config.shape == shape


@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        ("{kind: adding, time: 1}", "task.time: expected a whole number >= 2"),
        ("{kind: adding, marks: halfs}", "task.marks: .*; did you mean 'halves'"),
        ("{kind: selective_copying, length: 4}", "task.memorize: 16 symbols are more than length, 4 steps"),
        ("{kind: formal}", "task.language: is missing"),
        ("{kind: formal, language: parity, test_lengths: 4}", r"task.test_lengths: expected two lengths .*, got 4"),
        ("{kind: formal, language: parity, test_lengths: [4]}", "task.test_lengths: expected two lengths"),
        ("{kind: formal, language: parity, test_lengths: [4, 3]}", "task.test_lengths: expected two lengths"),
        ("{kind: formal, language: parity, test_lengths: [0, 3]}", "task.test_lengths: expected two lengths"),
        ("{kind: formal, language: parity, test_lengths: [1, true]}", "task.test_lengths: expected two lengths"),
        ("{kind: formal, language: parity, train_shortest: 41}", "task.train_shortest: 41 is more than train_l"),
        ("{kind: formal, language: parity, valid_lengths: 4}", r"task.valid_lengths: expected two lengths .*, got 4"),
        ("{kind: group_words, group: A7}", r"task.group: expected a group: C1 to C999 .*, got 'A7'"),
        ("{kind: keep_nth, nth: 101}", "task.nth: 101 is more than time, 100 steps"),
        ("{kind: keep_nth, positions: 3}", "task.positions: "),
        ("{kind: mqar, time: 63}", "task.time: 63 steps are an odd number"),
        ("{kind: mqar, pairs: 17}", "task.pairs: 17 pairs and their queries need 4 steps each, time is 64"),
        ("{kind: mqar, vocab: 64}", "task.vocab: 64 tokens are not more than time, 64"),
        ("{kind: irregular, missing: 1.0}", "task.missing: expected .* < 1"),
        ("{kind: irregular, seen: gap}", "task.seen: .*; did you mean 'gaps'"),
        ("{kind: listops, max_length: 501}", "task.max_length: no length lies between 500 and 501"),
    ],
)
def test_what_cannot_be_generated_is_refused(tmp_path: Path, task: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_config(written(tmp_path, task))

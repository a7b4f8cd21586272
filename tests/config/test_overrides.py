"""`key.sub=value` arguments over a config: what they change, what is said of those that cannot be."""

from pathlib import Path

import pytest

from gru_jax.config.loading import load_config

from .config_files import GOOD, errors, write

OVERRIDES = [
    ("optim.lrr=1", "optim.lrr: unknown key for kind 'sgd'; did you mean 'lr'?"),
    ("lr=1e-3", "lr: unknown key; did you mean 'optim.lr'?"),
    ("learning_rate=1e-3", "learning_rate: unknown key; did you mean 'optim.lr'?"),
    ("every=3", "every: unknown key; did you mean 'optim.schedule.every' or 'checkpoint.every' or 'log.every'?"),
    ("optim.lr=fast", "optim.lr: expected a number > 0, got 'fast'"),
    ("optim.lr=", "optim.lr: expected a number > 0, got nothing"),
    ("optim.kind=adm", "optim.kind: unknown kind 'adm'; did you mean 'adam'?"),
    ("optim={kind: adam, lr: x}", "optim.lr: expected a number > 0, got 'x'"),
    ("optim.lr.x=1", "optim.lr is one value, not a section with keys"),
    ("optim.lr+=1", "'+=' is not supported; write the whole value: optim.lr=..."),
    ("optim.lr+ = 1", "'+=' is not supported; write the whole value: optim.lr=..."),
    ("optim.lr-=1", "'-=' is not supported; write the whole value: optim.lr=..."),
    ("++optim.lr=3", "'+' is not needed; a key that the file leaves out is set as any other: optim.lr=3"),
    ("+optim.lr=3", "'+' is not needed; a key that the file leaves out is set as any other: optim.lr=3"),
    ("~optim.lr", "'~' is not supported; give the key the value that it should have: optim.lr=..."),
    ("optim.lr = 3", "expected no space before '='; write optim.lr=3"),
    ("optim.lr: 3", "expected key.sub=value; did you mean 'optim.lr=3'?"),
    ("model/method=newton", "keys are joined by dots; write model.method=newton"),
    ("task.lengths[0]=3", "a list has no keys; write all of it: task.lengths=[a, b]"),
    ("base=gru.yaml", "base is read before any override; write it in the file"),
    ("optim.lr", "expected key.sub=value"),
    ("optim..lr=1", "expected keys joined by single dots before '=', got 'optim..lr'"),
    ("a\udcff=1", "expected keys joined by single dots before '=', got 'a\\udcff'"),
    ("=1", "expected keys joined by single dots before '=', got ''"),
    ("task.batch=[1", "task.batch: not valid YAML: "),
    ("task.batch={a: 1, a: 2}", "task.batch: key is repeated (first on line 1)"),
    ("name=a: b", "name: expected one value on one line"),
    ("name=!!python/name:os", "name: tag '!!python/name:os' is not allowed"),
    ("model.heads=5", "model.heads: 5 heads do not divide hidden, 16, evenly"),
    ("train.early_stop.patience=0", "train.early_stop.patience: expected a whole number >= 1"),
    ("parallel.strategy=dat", "parallel.strategy: expected one of 'single', 'data', 'pmap', 'time', got 'dat'"),
    ("parallel.parts=2", "parallel.parts: strategy 'single' leaves time whole; choose 'time', or leave parts out"),
    ("task.batch=5000", "task.batch: 5000 is more than the 1266 training examples"),
    (
        "train.early_stop={metric: valid/accuracy, reached: 97}",
        "train.early_stop.reached: an accuracy is at most 1, got 97",
    ),
    ("model.method={kind: sequential, unroll: 9999}", "model.method.unroll: expected a whole number >= 1 and <= 1024"),
    ("model.layers=1000", "model.layers: expected a whole number >= 1 and <= 256, got 1000"),
    ("model.method=nwton", "model.method.kind: unknown kind 'nwton'; did you mean 'newton'?"),
    ("model.method.window=8", "model.method.window: unknown key for kind 'auto'; it is a key of 'newton'"),
    ("method=newton", "method: unknown key; did you mean 'model.method'?"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "error"), OVERRIDES)
def test_bad_override_is_named(override: str, error: str, tmp_path: Path) -> None:
    (line,) = errors(tmp_path, GOOD, override)
    assert line.startswith(f"override {override!r}: {error}")


GOOD_OVERRIDES = {
    "optim.lr=1e-2": ("optim.lr", 1e-2),
    "model.bidirectional=true": ("model.bidirectional", True),
    "checkpoint.every=1 epoch": ("checkpoint.every", "1 epoch"),
    "model.norm=null": ("model.norm", None),
    "optim.schedule={kind: constant}": ("optim.schedule.kind", "constant"),
    "train.early_stop.patience=3": ("train.early_stop.patience", 3),
    "data_root=~/data": ("data_root", "~/data"),
    "train.early_stop={patience: 7}": ("train.early_stop.patience", 7),
}


@pytest.mark.parametrize(("override", "expected"), GOOD_OVERRIDES.items())
def test_override_reaches_the_config(override: str, expected: tuple[str, object], tmp_path: Path) -> None:
    value: object = load_config(write(tmp_path), [override]).config
    for key in expected[0].split("."):
        value = getattr(value, key)
    assert value == expected[1]


def test_new_kind_drops_what_it_does_not_have(tmp_path: Path) -> None:
    config = load_config(write(tmp_path), ["optim.kind=adam"]).config
    assert config.optim.kind == "adam" and config.optim.lr == 1e-3
    config = load_config(write(tmp_path), ["optim.schedule.kind=constant"]).config
    assert config.optim.schedule.kind == "constant"


@pytest.mark.parametrize("order", [1, -1])
def test_new_kind_keeps_what_was_asked_for(order: int, tmp_path: Path) -> None:
    overrides = ["optim.kind=adam", "optim.momentum=0.5"][::order]
    (line,) = errors(tmp_path, GOOD, *overrides)
    assert line.startswith("override 'optim.momentum=0.5': optim.momentum: unknown key for kind 'adam'")


def test_later_override_wins(tmp_path: Path) -> None:
    assert load_config(write(tmp_path), ["seed=1", "seed=2"]).config.seed == 2
    config = load_config(write(tmp_path), ["optim.lr=5", "optim={kind: adam}"]).config
    assert config.optim.lr == 1e-3


NOTES = [
    (["optim.kind=sgd", "seed=1"], GOOD, []),
    (["optim.kind=adam"], GOOD, ["optim.kind=adam keeps optim.schedule=cosine from the file"]),
    (
        ["optim.kind=adam"],
        GOOD.replace("1e-3", "0.5"),
        [
            "optim.kind=adam keeps optim.lr=0.5 from the file; the default of adam is 0.001",
            "optim.kind=adam keeps optim.schedule=cosine from the file",
        ],
    ),
    (["optim.kind=adam", "optim.lr=0.5", "optim.schedule.final=0.2"], GOOD, ["keeps optim.schedule=cosine"]),
    (["optim.lr=0.5", "optim={kind: adam}"], GOOD, []),
]


IDLE = [
    (["model.dropout=0.5"], ["model.dropout=0.5 does nothing: it acts between layers, and there is one"]),
    (["model.dropout=0.5", "model.layers=2"], []),
    (["model.merge=sum"], ["model.merge=sum does nothing: it joins two directions, and there is one"]),
    (["model={kind: tanh, dropout: 0.1, bidirectional: true, merge: mean}"], ["set input_dropout, or more layers"]),
    (["model={kind: min_blocks, dropout: 0.1}"], []),
]
NOTES += [(["optim.kind=sgd", *arguments], GOOD, said) for arguments, said in IDLE]


@pytest.mark.parametrize(("arguments", "text", "said"), NOTES)
def test_values_kept_by_a_new_kind_are_noted(arguments: list[str], text: str, said: list[str], tmp_path: Path) -> None:
    notes = load_config(write(tmp_path, text), arguments).notes()
    assert len(notes) == len(said)
    for note, part in zip(notes, said, strict=True):
        assert part in note


@pytest.mark.parametrize(
    ("arguments", "kind", "lr"),
    [
        (["optim.lr=1e-2"], "adam", 1e-2),
        (["optim.lr=2.0", "optim.kind=sgd"], "sgd", 2.0),
        (["optim.kind=sgd"], "sgd", 0.1),
    ],
)
def test_overrides_of_a_section_that_the_file_leaves_out(
    arguments: list[str], kind: str, lr: float, tmp_path: Path
) -> None:
    start, end = GOOD.index("optim:"), GOOD.index("train:")
    optim = load_config(write(tmp_path, GOOD[:start] + GOOD[end:]), arguments).config.optim
    assert (optim.kind, optim.lr) == (kind, lr)


def test_kind_in_the_place_of_a_section(tmp_path: Path) -> None:
    for name, kind in (("optim", "sgd"), ("optim.schedule", "cosine")):
        (line,) = errors(tmp_path, GOOD, f"{name}={kind}")
        assert line == f"override '{name}={kind}': {name} is a section with keys; did you mean '{name}.kind={kind}'?"

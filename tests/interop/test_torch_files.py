"""Files of torch's world, read and written: every kind, damaged ones, and hostile ones, which run nothing."""

import contextlib
import io
import os
import pickle
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax.interop import torch as ours
from gru_jax.interop.torch import files

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

GIVEN = ours.GRU(3, 2, 2).state_dict()


def tensors(arrays):
    return {name: torch.tensor(array) for name, array in arrays.items()}


def bits(array):
    return np.asarray(array.detach().float() if hasattr(array, "detach") else array).tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_files(tmp_path, kind, dtype):
    theirs = torch.nn.GRU(3, 2, 2, bidirectional=True, dtype=dtype)
    path = tmp_path / "anything.bin"  # the content decides, not the name
    if kind == "safetensors":
        safetensors.save_file(theirs.state_dict(), path)
    else:
        torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    found = ours.read(path)
    assert found["weight_ih_l0"].dtype == str(dtype).removeprefix("torch.")
    expected = theirs.state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert bits(found[name].astype(np.float32)) == bits(tensor), name
    assert ours.load(str(path)).layer_0["forward"]["w_x"][...].dtype == found["weight_ih_l0"].dtype


def test_what_is_saved_torch_reads(tmp_path, monkeypatch):
    rnn = ours.GRU(3, 2, 2)
    ours.save(rnn, tmp_path / "a.safetensors")
    back = torch.nn.GRU(3, 2, 2)
    back.load_state_dict(safetensors.load_file(tmp_path / "a.safetensors"))
    for name, array in rnn.state_dict().items():
        assert bits(array) == bits(back.state_dict()[name])
    ours.save(ours.GRU(3, 2, dtype=jnp.bfloat16), tmp_path / "a.safetensors")
    assert ours.read(tmp_path / "a.safetensors")["weight_ih_l0"].dtype == jnp.bfloat16
    assert os.listdir(tmp_path) == ["a.safetensors"], "nothing is left beside it"
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ours.save(rnn, tmp_path / "a.safetensors")
    assert os.listdir(tmp_path) == ["a.safetensors"], "nor after a failure"
    with pytest.raises(ValueError, match="must end in .safetensors"):
        ours.save(rnn, tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError, match="no folder"):
        ours.save(rnn, tmp_path / "none" / "a.safetensors")


def test_checkpoints_with_more_than_weights(tmp_path):
    weights = tensors(GIVEN)
    optimizer = {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]}
    path = tmp_path / "checkpoint.pt"
    torch.save({"epoch": 3, "model_state_dict": weights, "optimizer_state_dict": optimizer}, path)
    assert set(ours.read(path)) == set(GIVEN)
    torch.save({"model": weights, "ema": weights}, path)
    with pytest.raises(ValueError, match="several entries with weights: 'model', 'ema'; pass key='model'"):
        ours.read(path)
    assert set(ours.read(path, key="ema")) == set(GIVEN)
    with pytest.raises(ValueError, match="no weights under key='mean'; got 'model', 'ema'"):
        ours.read(path, key="mean")
    whole = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    torch.save(whole.state_dict(), path)
    assert ours.read(path)["0.num_batches_tracked"].dtype == np.int64
    for other in ([1, 2], torch.ones(3), {}, {"epoch": 1}):
        torch.save(other, path)
        with pytest.raises(ValueError, match=r"checkpoint.pt ha?o?l?d?s"):
            ours.read(path)


RAN = []


def ran(*_):
    RAN.append(True)


class Hostile:
    def __reduce__(self):
        return ran, ()


class Exec:
    def __reduce__(self):
        return exec, ("import os; os.environ['RAN'] = 'yes'",)


def hostile_zip(payload):
    """A file as torch.save writes it, whose pickle runs code."""
    stream = io.BytesIO()
    torch.save({"weight_ih_l0": torch.ones(2)}, stream)
    changed = io.BytesIO()
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(changed, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            new.writestr(entry, pickle.dumps(payload, 2) if entry.filename.endswith("data.pkl") else old.read(entry))
    return changed.getvalue()


def hostile_legacy(payload):
    """The older form: several pickles one after another, the magic number first."""
    stream = io.BytesIO()
    torch.save({"weight_ih_l0": torch.ones(2)}, stream, _use_new_zipfile_serialization=False)
    parts, rest = [], io.BytesIO(stream.getvalue())
    for _ in range(3):  # the magic number, the protocol, the system
        pickle.load(rest)
    parts.append(stream.getvalue()[: rest.tell()])
    return b"".join([*parts, pickle.dumps(payload, 2), pickle.dumps([], 2)])


@pytest.mark.parametrize("payload", [Hostile, Exec])
@pytest.mark.parametrize(
    "made",
    [
        lambda payload: hostile_zip(payload),
        lambda payload: hostile_zip({"weight_ih_l0": payload}),
        lambda payload: hostile_legacy(payload),
        lambda payload: pickle.dumps(payload, 2),
        lambda payload: pickle.dumps(payload, 4),
        lambda payload: pickle.dumps({"weight_ih_l0": payload}, 2),
    ],
    ids=["zip", "zip, inside", "legacy", "bare pickle", "bare pickle 4", "bare pickle, inside"],
)
def test_a_hostile_file_runs_nothing(tmp_path, made, payload):
    path = tmp_path / "weights.pt"
    path.write_bytes(made(payload()))
    with pytest.raises(ValueError, match=r"weights\.pt"):
        ours.read(path)
    assert not RAN
    assert "RAN" not in os.environ


def test_the_hostile_files_are_hostile(tmp_path):
    """The test above would pass with files that no loader could make run."""
    path = tmp_path / "weights.pt"
    for content in (hostile_zip(Hostile()), hostile_legacy(Hostile()), hostile_zip(Exec())):
        path.write_bytes(content)
        with contextlib.suppress(Exception):  # what the file holds is no state dict
            torch.load(path, weights_only=False)
        assert os.environ.pop("RAN", None) or RAN.pop()


def test_a_whole_module_is_refused_with_advice(tmp_path):
    torch.save(torch.nn.GRU(3, 2), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"torch.nn.modules.rnn.GRU.*torch.save\(module.state_dict\(\), path\)"):
        ours.read(tmp_path / "whole.pt")


def test_damaged_files(tmp_path):
    torch.save(tensors(GIVEN), tmp_path / "good.pt")
    torch.save(tensors(GIVEN), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    safetensors.save_file(tensors(GIVEN), tmp_path / "good.safetensors")
    path = tmp_path / "bad"
    for good in ("good.pt", "legacy.pt", "good.safetensors"):
        content = (tmp_path / good).read_bytes()
        for kept in (1, 9, 40, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:kept])
            with pytest.raises(ValueError, match=r"read: .*bad (is|holds)") as caught:
                ours.read(path)
            assert "\n" not in str(caught.value)
    for content, message in ((b"", "is empty"), (b"\x89PNG\r\n\x1a\n" * 9, "neither"), (b"weights", "neither")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            ours.read(path)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        ours.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.pt"):
        ours.load(tmp_path / "none.pt")


def test_an_old_torch_reads_no_pt_files(tmp_path, monkeypatch):
    torch.save(tensors(GIVEN), tmp_path / "good.pt")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(ImportError, match="torch 2.10 or newer.*got torch 2.9.1"):
        files.read(tmp_path / "good.pt")


def test_missing_packages_are_named(tmp_path, monkeypatch):
    torch.save(tensors(GIVEN), tmp_path / "a.pt")
    ours.save(ours.GRU(3, 2), tmp_path / "a.safetensors")
    for package in ("torch", "safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, package, None)
    for call in (
        lambda: ours.read(tmp_path / "a.pt"),
        lambda: ours.read(tmp_path / "a.safetensors"),
        lambda: ours.save(ours.GRU(3, 2), tmp_path / "b.safetensors"),
    ):
        with pytest.raises(ImportError, match=r"pip install 'gru-jax\[interop\]'"):
            call()


def test_what_is_no_path_and_no_key(tmp_path):
    rnn = ours.GRU(2, 3)
    folder = tmp_path / "weights.safetensors"
    folder.mkdir()
    for call, kind, message in (
        (lambda: ours.save(rnn, None), TypeError, "save: path must be a path of a file; got None"),
        (lambda: ours.save(rnn, folder), IsADirectoryError, "save: .* is a folder; pass the path of a file in it"),
        (lambda: ours.read(3), TypeError, "read: path must be a path of a file; got 3"),
        (lambda: ours.read("weights.pt", key=["ema"]), TypeError, "read: key must be the name of an entry"),
    ):
        with pytest.raises(kind, match=message):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]

"""Archives of NumPy, packed weights, and files that unpack to more than they are."""

import json
import os
import struct
import warnings
import zipfile

import numpy as np
import pytest

from gru_jax.interop import torch as ours

RNN = ours.GRU(3, 2)
GIVEN = RNN.state_dict()


def test_archives_of_numpy_are_read(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, step=np.array(3), **GIVEN)
    assert set(ours.read(path)) == {"step", *GIVEN}
    np.savez_compressed(path, **{f"dec.{name}": array for name, array in GIVEN.items()})
    layer = ours.load(path, prefix="dec.")
    assert (ours.export(layer)["weight_hh_l0"] == GIVEN["weight_hh_l0"]).all()
    with pytest.raises(ValueError, match=r"torch.load: .*weights\.npz: .*another prefix: pass prefix='dec.'"):
        ours.load(path)
    np.savez(path, **GIVEN | {"bias_ih_l0": np.zeros(4)})
    with pytest.raises(ValueError, match=r"torch.load: .*weights\.npz: the state dict does not fit GRU"):
        ours.load(path)


@pytest.mark.parametrize("bad", [np.array([{}], object), None])
def test_archives_of_numpy_that_hold_no_numbers(bad, tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **GIVEN, **({"words": bad} if bad is not None else {}))
    if bad is None:
        content = path.read_bytes()
        path.write_bytes(content.replace(b"descr", b"dezcr"))
    with pytest.raises(ValueError, match=r"read: .*weights.npz (holds|is damaged)") as caught:
        ours.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["archive/data.pkl", "weight.npy"])
def test_zeros_are_not_unpacked(name, tmp_path):
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open(name, "w", force_zip64=True) as entry:
        for _ in range(80):
            entry.write(bytes(2**20))
    with pytest.raises(ValueError, match="weights.pt unpacks to 80 MiB, more than 32 times its .* nothing of it"):
        ours.read(path)


@pytest.mark.parametrize("shape", [[2**62, 2**62, 0], [2**63, 0], [0, 2**40, 2**40]])
def test_shapes_that_numpy_does_not_take(shape, tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "weights.safetensors"
    header = json.dumps({"weight_hh_l0": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match=f"read: {path} (is a damaged .safetensors file|has no weights)"):
        ours.load(path)


@pytest.mark.parametrize("name", ["a.npz", "a.pt"])
def test_archives_of_a_version_that_is_none(name, tmp_path):
    np.savez(tmp_path / "a.npz", weight_ih_l0=np.ones((3, 1)))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(b"PK\1\2") + 6] = 255  # of the directory: the version that is needed to unpack
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"read: .*{name} "):
        ours.read(tmp_path / name)


def test_quantised_modules(tmp_path):
    torch = pytest.importorskip("torch")

    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.out = torch.nn.GRU(3, 4), torch.nn.Linear(4, 2)

    path = tmp_path / "q.pt"
    for kinds, message in (
        ({torch.nn.GRU}, "q.pt holds the packed weights of a quantised module.*before it was quantised"),
        ({torch.nn.Linear}, r"quantised modules in a packed form: 'out._packed_params.dtype'.*or save the rest"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.ao.quantization.quantize_dynamic(Tagger(), kinds, dtype=torch.qint8).state_dict()
            torch.save(made, path)
            with pytest.raises(ValueError, match=message):
                ours.load(path, prefix="gru.")
    tensor = torch.quantize_per_tensor(torch.ones(12, 3), 0.1, 0, torch.qint8)
    torch.save({"weight_ih_l0": tensor}, path)
    with pytest.raises(ValueError, match=r"holds weight_ih_l0 quantised; save its .dequantize\(\)"):
        ours.read(path)


def test_a_saved_file_is_on_the_disk_before_it_replaces_another(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (done.append(name), real(*a))[1])
    ours.save(RNN, tmp_path / "a.safetensors")
    assert done == ["fsync", "replace"]
    assert os.listdir(tmp_path) == ["a.safetensors"]

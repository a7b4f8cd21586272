"""The code on the page about ONNX runs. Its blocks are ```py, not ```python: the latter have to run without onnx."""

import re
from pathlib import Path

import jax
import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "guide" / "onnx.md"
BLOCKS = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_code_on_the_page_runs(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 3
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile("".join(BLOCKS), str(PAGE), "exec"), {})
    assert (tmp_path / "gru.onnx").is_file()

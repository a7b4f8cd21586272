"""A stream's step in a program in C: the same numbers."""

import shutil
import subprocess

import numpy as np
import pytest
from flax import nnx

import gru_jax as gj

MAIN = r"""
#include <stdio.h>
#include "gru.h"

static gru_state one, other;

int main(void) {
    float x[GRU_SEQUENCES * GRU_INPUTS], y[GRU_SEQUENCES * GRU_OUTPUTS];
    gru_init(&one);
    gru_init(&other);
    while (fread(x, sizeof x, 1, stdin) == 1) {
        gru_step(&one, x, y);
        fwrite(y, sizeof y, 1, stdout);
        x[0] = 7;
        gru_step(&other, x, y);
    }
    return 0;
}
"""
COMPILER = shutil.which("gcc") or shutil.which("clang")
NEEDS_C = pytest.mark.skipif(COMPILER is None, reason="there is no compiler of C")


@NEEDS_C
@pytest.mark.parametrize(
    "options, batch",
    [({}, 1), pytest.param({"num_layers": 2, "norm": "layer", "residual": True}, 3, marks=pytest.mark.slow)],
)
def test_the_same_numbers(tmp_path, options, batch):
    layer = gj.nnx.GRU(5, 19, init="torch", rngs=nnx.Rngs(0), **options)
    h0 = np.linspace(-1, 1, 19, dtype=np.float32)
    stream = gj.Stream(layer, h0=(h0, -h0) if options else h0, batch=batch)
    x = np.random.default_rng(0).normal(size=(10, batch, 5)).astype(np.float32)
    stream(x[0])  # what is written starts at the beginning all the same
    stream.export(tmp_path / "gru")
    (tmp_path / "main.c").write_text(MAIN)
    build = [COMPILER, "-std=c99", "-Wall", "-Wextra", "-Werror", "main.c", "gru.o", "-o", "main"]
    subprocess.run(build, cwd=tmp_path, check=True)
    made = subprocess.run([tmp_path / "main"], input=x.tobytes(), capture_output=True, check=True).stdout
    stream.reset()
    expected = np.stack([stream(frame) for frame in x])
    np.testing.assert_array_equal(np.frombuffer(made, np.float32).reshape(expected.shape), expected)


def test_one_sequence_where_nothing_else_is_known(tmp_path):
    written = gj.Stream(gj.nnx.GRU(5, 6, rngs=nnx.Rngs(0))).export(tmp_path / "net")
    assert [path.name for path in written] == ["net.o", "net.h"] and all(path.exists() for path in written)
    assert "#define NET_SEQUENCES 1\n#define NET_INPUTS 5\n#define NET_OUTPUTS 6\n" in written[1].read_text()


@pytest.mark.parametrize("name", ["gru.o", "2nd", "a-b"])
def test_names_that_are_none_in_c(tmp_path, name):
    with pytest.raises(ValueError, match="has to be a name in C"):
        gj.Stream(gj.nnx.GRU(5, 6, rngs=nnx.Rngs(0))).export(tmp_path / name)


def test_nothing_is_written_without_machine_code(tmp_path):
    stream = gj.Stream(gj.nnx.GRU(5, 6, dtype="bfloat16", rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="there is none for parameters in bfloat16"):
        stream.export(tmp_path / "gru")

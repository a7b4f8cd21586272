"""A random key for each sequence: its dropout masks are those that it would have alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax as gj

from .cases import H, I


@pytest.mark.parametrize("time_major", (pytest.param(False, marks=pytest.mark.slow), True))
def test_a_key_for_each_sequence_is_vmap_over_the_sequences(time_major):
    rnn = gj.recurrent(gj.GRU(H), input_dropout=0.3, recurrent_dropout=0.3)
    net = gj.stack(gj.bidirectional(rnn), gj.bidirectional(rnn), dropout=0.4)
    params = net.init(jax.random.key(0), I)
    x, keys = jax.random.normal(jax.random.key(1), (5, 7, I)), jax.random.split(jax.random.key(2), 5)
    alone = jax.vmap(lambda x, key: net.apply(params, x, key=key)[0])(x, keys)
    given = jnp.swapaxes(x, 0, 1) if time_major else x
    together = net.apply(params, given, key=keys, time_major=time_major)[0]
    np.testing.assert_allclose(jnp.swapaxes(together, 0, 1) if time_major else together, alone, atol=1e-6)
    assert np.abs(together - net.apply(params, given, key=keys[0], time_major=time_major)[0]).max() > 1e-2


def test_keys_of_another_batch_are_refused():
    cell = gj.GRU(H)
    params = cell.init(jax.random.key(0), I)
    keys = jax.random.split(jax.random.key(2), 3)
    with pytest.raises(TypeError, match=r"or one for each sequence, \[5\]; got key<fry> of shape \[3\]"):
        gj.scan(cell, params, jnp.ones((5, 7, I)), input_dropout=0.5, key=keys)

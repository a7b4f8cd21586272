"""Parameters of a GRU as cuDNN has them, all in one flat array, and back.

cuDNN keeps, of each part (a direction of a layer), six matrices `[H, I]` and `[H, H]`, r, z, n of the input, then of
the state, and six biases `[H]` in the same order. As documented, the matrices of all parts come before all biases,
without gaps; what counts is where the installed cuDNN says they are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from gru_jax.cells.gru_params import GRUParams
from gru_jax.types import Array


class _Piece(NamedTuple):
    """What lies together in the flat array: the matrices or the biases of some gates, of the input or of the state."""

    start: int
    part: int
    of_state: bool
    is_bias: bool
    gates: tuple[int, int]


def places(input_size: int, hidden_size: int, layers: int = 1, directions: int = 1) -> np.ndarray:
    """Where the documented layout has each matrix and bias.

    Args:
      input_size: I of the first layer; the others read `directions * hidden_size` features.
      hidden_size: H.
      layers: how many.
      directions: 1 or 2.

    Returns:
      `[layers * directions, 6, 2]`: the elements before the matrix, and before the bias, of each gate.

    Example:
      >>> places(3, 2)[0, :, 0].tolist(), places(3, 2)[0, :, 1].tolist()
      ([0, 6, 12, 18, 22, 26], [30, 32, 34, 36, 38, 40])
    """
    parts, H = layers * directions, hidden_size
    features = [input_size if part < directions else directions * H for part in range(parts)]
    sizes = np.array([3 * [H * width] + 3 * [H * H] for width in features])
    matrices = np.cumsum(sizes).reshape(parts, 6) - sizes
    biases = sizes.sum() + H * np.arange(parts * 6).reshape(parts, 6)
    return np.stack([matrices, biases], -1)


def pack(params: Sequence[GRUParams], at: np.ndarray, size: int) -> Array:
    """The flat array of some parts.

    Args:
      params: of each part, w_x `[I, 3H]`, w_h `[H, 3H]`, b_x and b_h `[3H]`, none of them None.
      at: where each piece begins, as `places` has it.
      size: of the whole array, which may end with something else.

    Returns:
      `[size]`, 0 where nothing lies.
    """
    dtype, H = params[0].w_x.dtype, params[0].w_h.shape[0]
    found: list[Array] = []
    end = 0
    for piece in _pieces(at, [p.w_x.shape[0] for p in params], H):
        if piece.start > end:
            found.append(jnp.zeros(piece.start - end, dtype))
        whole = _whole(params[piece.part], piece)
        first, last = piece.gates
        # cuDNN multiplies by matrices that are turned the other way.
        found.append(whole[..., first * H : last * H].T.reshape(-1))
        end = piece.start + found[-1].size
    if size > end:
        found.append(jnp.zeros(size - end, dtype))
    return jnp.concatenate(found)


def unpack(flat: Array, at: np.ndarray, features: Sequence[int], hidden_size: int) -> list[GRUParams]:
    """The inverse of `pack`; of gradients as well, for nothing but order and place changes.

    Args:
      flat: the flat array.
      at: where each piece begins.
      features: what each part reads, I.
      hidden_size: H.

    Returns:
      The parameters of each part.
    """
    blocks: dict[tuple[int, bool, bool], list[tuple[int, Array]]] = {}
    for piece in _pieces(at, features, hidden_size):
        first, last = piece.gates
        rows, width = (last - first) * hidden_size, _width(piece, features, hidden_size)
        block = flat[piece.start : piece.start + rows * width]
        block = block if piece.is_bias else block.reshape(rows, width).T
        blocks.setdefault((piece.part, piece.is_bias, piece.of_state), []).append((first, block))

    def whole(part: int, is_bias: bool, of_state: bool) -> Array:
        in_order = [block for _, block in sorted(blocks[part, is_bias, of_state], key=lambda found: found[0])]
        return in_order[0] if len(in_order) == 1 else jnp.concatenate(in_order, -1)

    kinds = [(is_bias, of_state) for is_bias in (False, True) for of_state in (False, True)]
    return [GRUParams(*(whole(part, *kind) for kind in kinds)) for part in range(len(features))]


def _pieces(at: np.ndarray, features: Sequence[int], hidden_size: int) -> list[_Piece]:
    """All matrices and biases in the order in which they lie; gates that lie one behind the other are one piece."""
    found: list[_Piece] = []
    for part in range(len(features)):
        for is_bias in (False, True):
            for gate in range(6):
                start = int(at[part, gate, int(is_bias)])
                piece = _Piece(start, part, gate >= 3, is_bias, (gate % 3, gate % 3 + 1))
                step = hidden_size * _width(piece, features, hidden_size)
                last = found[-1] if found else piece
                together = last[1:4] == piece[1:4] and last.gates[1] == piece.gates[0]
                if together and last.start + step * (last.gates[1] - last.gates[0]) == start:
                    found[-1] = last._replace(gates=(last.gates[0], piece.gates[1]))
                else:
                    found.append(piece)
    return sorted(found)


def _width(piece: _Piece, features: Sequence[int], hidden_size: int) -> int:
    """The numbers of a piece for each unit of a gate."""
    return 1 if piece.is_bias else hidden_size if piece.of_state else features[piece.part]


def _whole(params: GRUParams, piece: _Piece) -> Array:
    """The parameter that a piece is of."""
    matrix, bias = (params.w_h, params.b_h) if piece.of_state else (params.w_x, params.b_x)
    found = bias if piece.is_bias else matrix
    assert found is not None
    return found

"""Exact symmetry, where the rounding of a formula has none."""

from typing import Any

import jax
import jax.numpy as jnp

from .._typing import Square, Vector

MOST_ROWS = 64


@jax.custom_jvp
def mirror(K: Square, diagonal: Vector) -> Square:
    """K with its lower triangle in place of the upper one, and the given diagonal.

    In a loop over blocks of rows, since a loop reads K from memory: without it XLA fuses what
    computed K into both triangles, evaluates every pair twice, and may round the two differently.
    """
    n = K.shape[0]
    if n < 2:
        return diagonal[:, None] * jnp.eye(n, dtype=K.dtype)
    # At least two steps, or the loop is no loop; the last block may overlap the one before.
    rows = min(-(-n // 2), MOST_ROWS)
    columns = jnp.arange(n)

    def step(block: Any, mirrored: Square) -> Square:
        start = jnp.minimum(block * rows, n - rows)
        own = (start + jnp.arange(rows))[:, None]
        lower = jax.lax.dynamic_slice_in_dim(K, start, rows, 0)
        upper = jax.lax.dynamic_slice_in_dim(K, start, rows, 1).T
        chosen = jnp.where(columns[None, :] < own, lower, upper)
        chosen = jnp.where(columns[None, :] == own, diagonal[None, :], chosen)
        return jax.lax.dynamic_update_slice_in_dim(mirrored, chosen, start, 0)

    result: Square = jax.lax.fori_loop(0, -(-n // rows), step, jnp.zeros_like(K))
    return result


@mirror.defjvp
def _(primals: Any, tangents: Any) -> Any:
    # Derivatives need no exact symmetry, and a loop would cost them dearly in reverse mode.
    dK, ddiagonal = tangents
    n = dK.shape[0]
    triangles = jnp.where(jnp.tri(n, dtype=bool), dK, dK.T)
    return mirror(*primals), jnp.where(jnp.eye(n, dtype=bool), ddiagonal[None, :], triangles)

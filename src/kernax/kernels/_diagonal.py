"""Square matrices with another diagonal.

A value is one pass over the matrix. Its derivative puts the change of the diagonal in place, and
so the transpose reads the diagonal of a cotangent alone: that of the pass would be another one,
over all of it.
"""

from typing import Any

import jax
import jax.numpy as jnp

from .._typing import Square, Vector


@jax.custom_jvp
def with_diagonal(K: Square, diagonal: Vector) -> Square:
    """K with the given diagonal."""
    return jnp.where(_own(K), diagonal[:, None], K)


@with_diagonal.defjvp
def _(primals: Any, tangents: Any) -> Any:
    dK, change = tangents
    return with_diagonal(*primals), jnp.where(_own(dK), 0.0, dK) + _placed(change)


@jax.custom_jvp
def add_to_diagonal(K: Square, values: Vector) -> Square:
    """K + diag(values)."""
    return K + jnp.where(_own(K), values[:, None], 0.0)


@add_to_diagonal.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return add_to_diagonal(*primals), tangents[0] + _placed(tangents[1])


def _own(K: Square) -> Any:
    return jnp.eye(K.shape[0], dtype=bool)


def _placed(values: Vector) -> Square:
    n = values.shape[0]
    at = jnp.arange(n)
    zeros = jnp.zeros((n, n), values.dtype)
    return zeros.at[at, at].add(values, unique_indices=True, indices_are_sorted=True)

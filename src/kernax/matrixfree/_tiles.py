"""Products with a covariance matrix tile by tile: each is used at once, and none is kept.

Derivatives evaluate the tiles again, so that values and gradients need O(n (d + s)) numbers.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..kernels._blocks import differentiated_as

# Pairs in a tile, which should stay in the cache with what is made of it, and most of its columns.
PAIRS, COLUMNS = 1 << 19, 1 << 11

Product = Callable[[Any, Array, Array], Array]  # of a kernel, points and vectors


def tiled_product(kernel: Any, X: Array, Y: Array, V: Array, pairs: int = PAIRS) -> Array:
    """K(X, Y) V for clean points (n, d), (m, d) and vectors (m q, s), to (n p, s).

    ``kernel`` has ``matrix(X, Y)``, of p rows for each point of X and q columns for each of Y.
    """
    n, m = len(X), len(Y)
    p, q = _components(kernel, X, Y)
    if not (n and m):
        return jnp.zeros((n * p, V.shape[1]), V.dtype)
    width = _even(m, max(1, min(COLUMNS, pairs) // q))
    height = _even(n, max(1, pairs // (width * p * q)))
    if width >= m:
        tile = jax.checkpoint(lambda x: _dot(kernel.matrix(x, Y), V))
    else:
        columns, values = _blocks(Y, width), _blocks(V.reshape(m, q, -1), width, fill=0.0)
        part = jax.checkpoint(lambda x, y, v: _dot(kernel.matrix(x, y), v.reshape(-1, V.shape[1])))

        def tile(x: Array) -> Array:
            add = lambda total, block: (total + part(x, *block), None)
            start = jnp.zeros((len(x) * p, V.shape[1]), V.dtype)
            return jax.lax.scan(add, start, (columns, values))[0]

    rows = jax.lax.map(tile, _blocks(X, height))
    return rows.reshape(-1, V.shape[1])[: n * p]


def symmetric_product(kernel: Any, X: Array, V: Array, pairs: int = PAIRS) -> Array:
    """K(X, X) V, of which each tile off the diagonal is evaluated once and used twice."""
    plain = lambda kernel, X, V: tiled_product(kernel, X, X, V, pairs)
    if not pays(kernel, X, pairs):
        return plain(kernel, X, V)
    return with_derivatives_of(plain, partial(share_of_tiles, pairs=pairs))(kernel, X, V)


def pays(kernel: Any, X: Array, pairs: int, shares: int = 1) -> bool:
    """Whether a matrix has so many tiles that to use them twice takes less time."""
    return len(X) > 0 and len(X) > 2 * shares * _side(kernel, X, pairs)


def with_derivatives_of(plain: Product, twice: Product) -> Product:
    """``twice`` with the derivatives of ``plain``: the transpose of a loop over tiles that are used
    twice would write all of X and V for each of them."""

    def product(kernel: Any, X: Array, V: Array) -> Array:
        arrays, static = eqx.partition(kernel, eqx.is_array)
        leaves, treedef = jax.tree.flatten((arrays, X, V))

        def of_leaves(form: Product) -> Callable[..., Array]:
            def applied(*leaves: Array) -> Array:
                arrays, X, V = jax.tree.unflatten(treedef, leaves)
                return form(eqx.combine(arrays, static), X, V)

            return applied

        return differentiated_as(of_leaves(plain), of_leaves(twice))(*leaves)

    return product


def share_of_tiles(
    kernel: Any, X: Array, V: Array, pairs: int = PAIRS, share: Any = 0, shares: int = 1
) -> Array:
    """K(X, X) V from the square tiles on and above the diagonal; or what one of so many ``shares``
    of them has to add to it."""
    side = _aligned(_even(len(X), _side(kernel, X, pairs)), len(X))
    count = -(-len(X) // side)
    q = V.shape[0] // len(X)
    points = _blocks(X, side)
    vectors = _blocks(V.reshape(len(X), q, -1), side, fill=0.0).reshape(count, side * q, -1)
    tiles = np.stack(np.triu_indices(count))
    each = -(-tiles.shape[1] // shares)
    rows, columns = jnp.asarray(np.pad(tiles, ((0, 0), (0, each * shares - tiles.shape[1]))))

    def step(number: Any, total: Array) -> Array:
        tile = number * shares + share
        i, j = rows[tile], columns[tile]
        T = kernel.matrix(points[i], points[j])
        here, there = tile < tiles.shape[1], i != j  # a tile that fills up the last round adds 0
        total = total.at[i].add(jnp.where(here, 1.0, 0.0) * _dot(T, vectors[j]))
        return total.at[j].add(jnp.where(here & there, 1.0, 0.0) * _dot(T.T, vectors[i]))

    total = jax.lax.fori_loop(0, each, step, jnp.zeros_like(vectors))
    return total.reshape(-1, V.shape[1])[: len(V)]


def _side(kernel: Any, X: Array, pairs: int) -> int:
    """Points on the side of a square tile."""
    return max(1, math.isqrt(pairs) // _components(kernel, X, X)[0])


def _dot(K: Array, V: Array) -> Array:
    return jnp.matmul(K, V, precision="highest")


def _components(kernel: Any, X: Array, Y: Array) -> tuple[int, int]:
    form = jax.eval_shape(kernel.matrix, X[:1], Y[:1])
    return form.shape[0], form.shape[1]


def _even(total: int, most: int) -> int:
    """A size of at most ``most`` such that blocks of it have few rows too many."""
    count = -(-total // most)
    return -(-total // count)


def _aligned(side: int, n: int) -> int:
    """A few points more, where rows of a tile would begin within a vector register, or where all
    entries of a column would compete for a few lines of the cache: a quarter of the time."""
    if side >= n:
        return side
    side = -(-side // 8) * 8
    return side + 8 if side % 128 == 0 else side


def _blocks(values: Array, size: int, fill: float | None = None) -> Array:
    """Blocks of rows; what the last lacks is its last row again, or ``fill``."""
    n = len(values)
    lacking = -n % size
    if lacking:
        last = values[-1:] if fill is None else jnp.full_like(values[-1:], fill)
        values = jnp.concatenate([values, jnp.repeat(last, lacking, axis=0)])
    return values.reshape(-1, size, *values.shape[1:])

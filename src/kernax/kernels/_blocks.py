"""Large matrices: derivatives by blocks of rows, and one triangle by square tiles.

The derivative of a matrix in the hyperparameters or points, pulled back, would keep several
matrices of the same size. Here it is computed again for one block of rows after the other, so that
nothing as large as the matrix is kept beyond the cotangent. Values are computed in one pass, or,
where K(X, X) costs more than writing it, tile by tile for one triangle.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from .._padding import Real
from .._typing import Matrix, OtherPoints, Points, Square, Vector
from ._diagonal import with_diagonal
from ._levels import varied
from ._mirror import mirror

# Numbers of pairs in a block of rows, which should stay in the cache with what is made of it.
BLOCK_PAIRS = 1 << 18
TILE = 256


def rectangle(
    kernel: Any, X: Points, Y: OtherPoints, real: Real | None = None, *, mark: bool = False
) -> Matrix:
    """K(X, Y), with derivatives by blocks of rows where it is large.

    Where ``real`` says that rows are padding they are 0, or NaN with ``mark``.
    """

    def whole(kernel: Any, Y: Array, X: Array, *kept: Array) -> Array:
        K: Array = kernel.matrix(X, Y)
        if not kept:
            return K
        return Real(*kept).mark(K) if mark else Real(*kept).keep(K)

    def rows(kernel: Any, Y: Array, columns: Array, x: Array, kept: Array) -> Array:
        return Real(kept, columns).keep(kernel.matrix(x, Y))

    if X.shape[0] * Y.shape[0] < 2 * BLOCK_PAIRS:
        return whole(kernel, Y, X, *(real or ()))
    if real is None:
        return _by_rows(whole, whole, kernel, (Y,), (X,))
    marked = lambda kernel, Y, columns, X, rows: whole(kernel, Y, X, rows, columns)
    return _by_rows(marked, rows, kernel, (Y, real.columns), (X, real.rows))


def triangle(
    kernel: Any, X: Points, diagonal: Vector, real: Vector | None = None, *, mark: bool = False
) -> Square:
    """K(X, X) with the given diagonal, symmetric to the last bit; padding as in `rectangle`,
    but for the diagonal, which is as given."""
    n = X.shape[0]
    real = jnp.ones(n, X.dtype) if real is None else real
    finish = lambda K, row, column: Real(row, column).mark(K) if mark else Real(row, column).keep(K)
    if n < 2 * TILE:
        return with_diagonal(finish(mirror(kernel.matrix(X, X), diagonal), real, real), diagonal)

    def rows(kernel: Any, X: Array, columns: Array, *block: Array) -> Array:
        x, variances, index, kept = block
        own = jnp.arange(n)[None, :] == index[:, None]
        K = jnp.where(own, 0.0, Real(kept, columns).keep(kernel.matrix(x, X)))
        # Put in place, so that the transpose reads the diagonal alone.
        return K.at[jnp.arange(len(x)), index].add(variances, unique_indices=True)

    def whole(kernel: Any, _: Array, columns: Array, *everything: Array) -> Array:
        X, diagonal, _, kept = everything
        return _tiled(kernel, X, diagonal, kept, finish)

    split = (X, diagonal, jnp.arange(n), real)
    return _by_rows(whole, rows, kernel, (X, real), split)


def raised(kernel: Any, X: Points, added: Vector, real: Vector | None = None) -> Square:
    """K(X, X) + diag(added) of a large set, of a kernel whose rounding is symmetric; padding has
    nothing but what is added. Written once, to memory that a factorisation may overwrite.

    The diagonal keeps its place in derivatives: with an inverse as cotangent, it is what the sums
    of the rows are balanced by.
    """
    n = X.shape[0]
    real = jnp.ones(n, X.dtype) if real is None else real

    def rows(kernel: Any, X: Array, columns: Array, *block: Array) -> Array:
        x, own, index, kept = block
        K = Real(kept, columns).keep(kernel.matrix(x, X))
        # Put in place, so that the transpose reads the diagonal alone.
        return K.at[jnp.arange(len(x)), index].add(own, unique_indices=True)

    def whole(kernel: Any, _: Array, columns: Array, *everything: Array) -> Array:
        X, added, _, kept = everything
        return _in_rows(kernel, X, added, kept)

    return _by_rows(whole, rows, kernel, (X, real), (X, added, jnp.arange(n), real))


def _in_rows(kernel: Any, X: Points, added: Vector, real: Vector) -> Square:
    """A block of rows after the other, so that what a block is made of stays in the cache; the
    last one may overlap the one before."""
    n = X.shape[0]
    size = _block_rows(n, n // 2)

    def step(number: Any, K: Square) -> Square:
        start = jnp.minimum(number * size, n - size)
        part = lambda values: jax.lax.dynamic_slice_in_dim(values, start, size)
        rows = Real(part(real), real).keep(kernel.matrix(part(X), X))
        own = jnp.arange(n)[None, :] == start + jnp.arange(size)[:, None]
        rows = rows + jnp.where(own, added[None, :], 0.0)
        return jax.lax.dynamic_update_slice_in_dim(K, rows, start, 0)

    start = varied(jnp.zeros((n, n), jnp.result_type(added)), kernel, X, added, real)
    K: Square = jax.lax.fori_loop(0, -(-n // size), step, start)
    return K


def _tiled(
    kernel: Any, X: Points, diagonal: Vector, real: Vector, finish: Callable[..., Array]
) -> Square:
    """The upper triangle tile by tile, each written to its mirror image too.

    The last row of tiles overlaps the one before; its diagonal tile comes last and settles what
    the overlap holds.
    """
    n = X.shape[0]
    count = -(-n // TILE)
    rows, columns = (jnp.asarray(np.minimum(i * TILE, n - TILE)) for i in np.triu_indices(count))

    def settle(T: Square, variances: Vector) -> Square:
        return with_diagonal(jnp.where(jnp.tri(TILE, dtype=bool), T, T.T), variances)

    def step(number: Any, K: Square) -> Square:
        i, j = rows[number], columns[number]
        part = lambda values, start: jax.lax.dynamic_slice_in_dim(values, start, TILE)
        T = finish(kernel.matrix(part(X, i), part(X, j)), part(real, i), part(real, j))
        # A branch also keeps XLA from evaluating the tile once more for its mirror image.
        T = jax.lax.cond(i == j, settle, lambda T, _: T, T, part(diagonal, i))
        K = jax.lax.dynamic_update_slice(K, T, (i, j))
        return jax.lax.dynamic_update_slice(K, T.T, (j, i))

    start = varied(jnp.zeros((n, n), jnp.result_type(diagonal)), kernel, X, diagonal, real)
    K: Square = jax.lax.fori_loop(0, len(rows), step, start)
    return K


def _by_rows(
    whole: Callable[..., Array],
    rows: Callable[..., Array],
    kernel: Any,
    shared: tuple[Array, ...],
    split: tuple[Array, ...],
) -> Matrix:
    """``whole(kernel, *shared, *split)``, with the derivative of ``rows`` of it, block by block.

    ``rows`` gets the same arguments, but blocks of those in ``split`` along their first axis.
    """
    arrays, static = eqx.partition(kernel, eqx.is_array)
    leaves, treedef = jax.tree.flatten((arrays, shared, split))

    def apply(function: Callable[..., Array], leaves: list[Any]) -> Array:
        arrays, shared, split = jax.tree.unflatten(treedef, leaves)
        return function(eqx.combine(arrays, static), *shared, *split)

    def stacked(*leaves: Array) -> Array:
        at = len(leaves) - len(split)
        function = lambda common, block: apply(rows, [*common, *block])
        return _map_rows(function, list(leaves[:at]), list(leaves[at:]), len(shared[0]))

    return differentiated_as(stacked, lambda *leaves: apply(whole, list(leaves)))(*leaves)


def differentiated_as(
    other: Callable[..., Array], function: Callable[..., Array]
) -> Callable[..., Array]:
    """``function`` of arrays, with the derivatives of another that has the same values."""

    @jax.custom_jvp
    def value(*leaves: Array) -> Array:
        return function(*leaves)

    def rule(primals: Any, tangents: Any) -> Any:
        moving = [not isinstance(tangent, SymbolicZero) for tangent in tangents]
        given = [tangent for tangent, moves in zip(tangents, moving, strict=True) if moves]

        def of_moving(*free: Array) -> Array:
            changed = iter(free)
            pairs = zip(primals, moving, strict=True)
            return other(*(next(changed) if moves else old for old, moves in pairs))

        free = [value for value, moves in zip(primals, moving, strict=True) if moves]
        return value(*primals), jax.jvp(of_moving, free, given)[1]

    value.defjvp(rule, symbolic_zeros=True)
    return value


def _map_rows(function: Any, common: list[Array], split: list[Array], columns: int) -> Matrix:
    """The rows of ``function(common, block)`` over blocks of ``split``, without keeping more."""
    n = split[0].shape[0]
    size = _block_rows(n, columns)
    # Repeated rows at the end, where the size does not divide n, are cut off again.
    index = jnp.minimum(jnp.arange(-(-n // size) * size), n - 1)
    blocks = [
        (values if len(index) == n else values[index]).reshape(-1, size, *values.shape[1:])
        for values in split
    ]
    body = jax.checkpoint(function)
    stacked: Array = jax.lax.map(lambda block: body(common, block), blocks)
    return stacked.reshape(-1, *stacked.shape[2:])[:n]


def _block_rows(n: int, columns: int) -> int:
    """Rows per block: near `BLOCK_PAIRS` entries, and a divisor of n if one is near."""
    most = min(max(1, BLOCK_PAIRS // columns), n)
    return next((size for size in range(most, most // 2, -1) if n % size == 0), most)

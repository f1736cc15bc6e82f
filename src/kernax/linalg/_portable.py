"""Factorisations in JAX alone: what other platforms run, and the fast path of small matrices.

Matrices K (g, n, n), the jitter to try, amounts (g, 3), and right-hand sides y (g, m, n).
Nothing here is differentiated: the rules are in `_dense`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

AT_ONCE = 2**17  # numbers worked on at a time: a megabyte, which a cache holds
TERMS = 4  # rows subtracted in one pass


def library(K: Array, amounts: Array, *y: Array, wanted: str) -> tuple[Array, ...]:
    """By JAX's own Cholesky factorisation and triangular solves."""
    return jax.vmap(lambda *operands: _one(*operands, wanted=wanted))(K, amounts, *y)


def _one(K: Array, amounts: Array, *y: Array, wanted: str) -> tuple[Array, ...]:
    L, jitter = climb(K, amounts)
    pivots = jnp.diagonal(L)
    good = jnp.isfinite(pivots).all()
    mark = lambda x: jnp.where(good, x, jnp.nan)
    if wanted == "factor":
        return mark(L), jitter
    half_log_det = mark(jnp.sum(jnp.log(pivots)))
    whitened = solve(L, y[0].T)
    square = mark(jnp.sum(jnp.square(whitened), axis=0))
    if wanted == "density":
        return half_log_det, square, jitter
    P = solve(L, solve(L, jnp.eye(len(K), dtype=K.dtype)), transpose=True)
    P = jnp.where(jnp.tri(len(K), dtype=bool), P, P.T)
    return half_log_det, square, jitter, mark(solve(L, whitened, transpose=True).T), mark(P)


def climb(K: Array, amounts: Array) -> tuple[Array, Array]:
    """The lower factor of K + c I and c: 0 if that will do, else the least of the amounts.

    NaN in the last place where not even the largest does. A K with Inf or NaN gets no jitter.
    """
    n = K.shape[0]
    eye = jnp.eye(n, dtype=K.dtype)

    def failed(state: tuple[Array, Array, Array]) -> Array:
        step, L, _ = state
        return (step < amounts.shape[0]) & jnp.isnan(L[-1, -1])

    def add_more(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        step, _, _ = state
        c = jnp.where(jnp.isfinite(K).all(), amounts[step], 0.0)
        return step + 1, _cholesky(K + c * eye), c

    start = (jnp.asarray(0), _cholesky(K), jnp.zeros((), K.dtype))
    _, L, c = jax.lax.while_loop(failed, add_more, start)
    return L, c


def _cholesky(K: Array) -> Array:
    # Both triangles are equal by construction: no averaging pass.
    factor: Array = jax.lax.linalg.cholesky(K, symmetrize_input=False)
    return factor


def solve(L: Array, B: Array, *, transpose: bool = False) -> Array:
    """L^-1 B, or L^-T B, for the columns of a matrix."""
    # LAPACK reads columns first: the transpose of L is in its order as it is, L would be copied.
    solution: Array = jax.lax.linalg.triangular_solve(
        L.mT, B, left_side=True, lower=False, transpose_a=not transpose
    )
    return solution


def small(K: Array, amounts: Array, y: Array, wanted: str) -> tuple[Array, ...]:
    """By elimination written out over rows, for many small matrices at a time.

    A call of LAPACK for each costs more than the arithmetic. Here each operation is one pass over
    the rows of as many matrices as a cache holds; an element's result does not depend on how
    many there are, to the bit.
    """
    g, n, _ = K.shape
    width = n + y.shape[1]
    pieces = max(1, -(-g * n * width // AT_ONCE))
    size = -(-g // pieces)
    whole = K, amounts, y
    run: Any = partial(_piece, wanted=wanted)
    if size == g or g == 0:
        return tuple(run(*whole))

    def work(t: Array, results: tuple[Array, ...]) -> tuple[Array, ...]:
        # The last piece overlaps the one before: no copy of everything to pad it.
        start = jnp.minimum(t * size, g - size)
        piece = run(*(jax.lax.dynamic_slice_in_dim(x, start, size) for x in whole))
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(result, new, start, 0)
            for result, new in zip(results, piece, strict=True)
        )

    shapes = jax.eval_shape(run, *whole)
    empty = tuple(jnp.zeros(shape.shape, shape.dtype) for shape in shapes)
    return jax.lax.fori_loop(0, -(-g // size), work, empty)


def _piece(K: Array, amounts: Array, y: Array, wanted: str) -> tuple[Array, ...]:
    g, n, _ = K.shape
    m = y.shape[1]
    finite = jnp.isfinite(K).all(axis=(1, 2))

    def climb(state: Any) -> Any:
        step, c, _, _ = state
        R = _eliminate(K, y, c, wanted == "inverse")
        # A pivot that is not positive makes all that follow NaN; the last may be zero.
        more = ~jnp.isfinite(R[n - 1, :, n - 1]) & finite & (step < amounts.shape[1])
        # Those that have a factor go through it again with the same c, and get the same.
        c = jnp.where(more, amounts[:, jnp.minimum(step, amounts.shape[1] - 1)], c)
        return step + 1, c, more, R

    rows = -(-n // TERMS) * TERMS
    R = jnp.zeros((rows, g, n + m), K.dtype)
    start = (jnp.asarray(0), jnp.zeros(g, K.dtype), jnp.ones(g, bool), R)
    _, c, _, R = jax.lax.while_loop(lambda state: state[2].any(), climb, start)

    inverses = jnp.stack([R[k, :, k] for k in range(n)], axis=1)
    good = (jnp.isfinite(inverses) & (inverses > 0)).all(axis=1)
    # A whole number of vectors: a remainder of fewer may be computed by another logarithm.
    logs = jnp.log(jnp.pad(inverses, ((0, 0), (0, -n % 16)), constant_values=1.0))
    half_log_det = jnp.where(good, 0.0 - jnp.sum(logs, axis=1), jnp.nan)
    z = R[:n, :, n : n + m]
    square = jnp.where(good[:, None], jnp.sum(jnp.square(z), axis=0), jnp.nan)
    if wanted == "density":
        return half_log_det, square, c
    lower = jnp.where(jnp.tri(n, dtype=bool)[:, None, :], R[:n, :, :n], 0.0)
    lower = jax.lax.optimization_barrier(lower)  # or each entry of P would choose again
    P = jnp.zeros((), K.dtype)
    for k in range(n):  # one fused pass, exactly symmetric
        row = lower[k]
        P = row[:, :, None] * row[:, None, :] + P
    P = jnp.where(good[:, None, None], P, jnp.nan)
    a = jnp.where(good[:, None, None], _substitute(R, n, m), jnp.nan)
    return half_log_det, square, c, a, P


def _eliminate(K: Array, y: Array, c: Array, inverse: bool) -> Array:
    """The rows of [L^T, L^-1 y], L L^T = K + c I, with L^-1 where L^T is zero, if it is wanted.

    By columns of L: row k is that of [K + c I, y, I] less the rows above times L[k, :], divided by
    the root of its pivot. L^T is kept to the right of the diagonal, L^-1 on it and to the left.
    Rows come first, then matrices, then the entries of the row.
    """
    (g, n, _), m = K.shape, y.shape[1]
    width = n + m
    entry = jnp.arange(width)[None, :]

    def step(k: Array, R: Array) -> Array:
        row = jnp.concatenate([_at(K, k, 1), _at(y, k, 2)], axis=1)
        row = jnp.where(entry == k, row + c[:, None], jnp.where(entry > k, row, 0.0))

        def subtract(t: Array, row: Array) -> Array:
            for j in range(TERMS):  # rows that are not there yet are zero
                i = TERMS * t + j
                above = _at(R, i, 0)
                known = (entry <= i) | (entry >= k) if inverse else entry >= k
                row = row - jnp.where(known, above * _at(above, k, 1)[:, None], 0.0)
            return row

        row = jax.lax.fori_loop(0, (k + TERMS - 1) // TERMS, subtract, row)
        root = jnp.sqrt(_at(row, k, 1))[:, None]
        row = jnp.where(entry == k, 1.0, row) / root
        return jax.lax.dynamic_update_index_in_dim(R, row, k, 0)

    rows = -(-n // TERMS) * TERMS
    return jax.lax.fori_loop(0, n, step, jnp.zeros((rows, g, width), K.dtype))


def _substitute(R: Array, n: int, m: int) -> Array:
    """L^-T (L^-1 y). By back substitution: times L^-T the residual would be larger."""
    g = R.shape[1]

    def step(i: Array, a: Array) -> Array:
        k = n - 1 - i
        row = _at(R, k, 0)
        known = jnp.sum(row[:, None, :n] * a, axis=2)
        value = (row[:, n : n + m] - known) * _at(row, k, 1)[:, None]
        return jax.lax.dynamic_update_index_in_dim(a, value, k, 2)

    return jax.lax.fori_loop(0, n, step, jnp.zeros((g, m, n), R.dtype))


def _at(x: Any, k: Array, axis: int) -> Array:
    item: Array = jax.lax.dynamic_index_in_dim(x, k, axis, keepdims=False)
    return item

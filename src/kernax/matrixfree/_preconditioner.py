"""A preconditioner: the covariance matrix to low rank, plus its noise.

P = U U' + D. The columns of U are those of a partial Cholesky factorisation whose pivots are drawn
with probability proportional to what is left of the diagonal (Chen, Epperly, Tropp and Webber,
2022, arXiv 2207.06503; as a preconditioner Diaz et al., 2023, arXiv 2304.12465), several at once.
P^-1 and log |P| come from the Cholesky factor of I + B' B, with B = D^-1/2 U. That one is inverted
once: OpenBLAS, which solves with it, leaves its threads in a loop that waits for more, and for some
25 ms they take processors from the product that comes next.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._contract import CovarianceOperator

PIVOTS = 20  # drawn at once


class Preconditioner(eqx.Module):
    """P = D^1/2 (I + B B') D^1/2 for a thin B (n, r)."""

    B: Array
    root: Array  # of D, (n,)
    inner: Array  # the inverse of the lower Cholesky factor of I + B' B

    def solve(self, V: Array) -> Array:
        """P^-1 V."""
        W = V / self.root[:, None]
        inner = self.inner.astype(_widest(V))
        low = _dot(inner.T, _dot(inner, _wide(_dot(self.B.T, W)))).astype(V.dtype)
        return (W - _dot(self.B, low)) / self.root[:, None]

    def sample(self, key: Array, count: int) -> Array:
        """Draws of N(0, P), (n, count)."""
        n, r = self.B.shape
        first, second = jax.random.split(key)
        low = jax.random.normal(first, (r, count), self.B.dtype)
        white = jax.random.normal(second, (n, count), self.B.dtype)
        return self.root[:, None] * (white + _dot(self.B, low))

    def log_determinant(self) -> Array:
        """log |P|."""
        return 2.0 * (jnp.sum(jnp.log(self.root)) - jnp.sum(jnp.log(jnp.diagonal(self.inner))))


def preconditioner(operator: CovarianceOperator, rank: int, key: Array) -> Preconditioner:
    """The preconditioner of that rank; of rank 0 the diagonal alone."""
    noise, diagonal = operator.noise(), operator.diagonal()
    # Without noise, what rounding leaves in its place.
    floor = math.sqrt(jnp.finfo(operator.dtype).eps) * jnp.mean(diagonal)
    if rank <= 0:
        n = operator.size
        return Preconditioner(
            jnp.zeros((n, 0), operator.dtype),
            jnp.sqrt(jnp.maximum(diagonal, floor)),
            jnp.zeros((0, 0), operator.dtype),
        )
    U = _pivoted(operator, min(rank, operator.size), diagonal - noise, key)
    root = jnp.sqrt(jnp.maximum(noise, floor))
    B = U / root[:, None]
    gram = _dot(_wide(B).T, _wide(B)) + jnp.eye(B.shape[1], dtype=_widest(B))
    return Preconditioner(B, root, _inverse(jnp.linalg.cholesky(gram)).astype(B.dtype))


def _pivoted(operator: CovarianceOperator, rank: int, diagonal: Array, key: Array) -> Array:
    """U (n, rank) with U U' near K without its noise."""
    n, dtype = operator.size, operator.dtype
    block = min(PIVOTS, rank)
    rounds = math.ceil(rank / block)
    tiny = jnp.finfo(dtype).tiny
    noise = operator.noise()

    def step(number: Any, found: tuple[Array, Array]) -> tuple[Array, Array]:
        U, left = found
        # The largest of log p + Gumbel noise are a draw without replacement.
        luck = jax.random.gumbel(jax.random.fold_in(key, number), (n,), dtype)
        scores = jnp.where(left > 0, jnp.log(jnp.maximum(left, tiny)) + luck, -jnp.inf)
        pivots = jax.lax.top_k(scores, block)[1]
        own = jnp.arange(n, dtype=pivots.dtype)[:, None] == pivots[None, :]
        K = operator.columns(pivots) - jnp.where(own, noise[pivots][None, :], 0.0)
        rest = K - _dot(U, U[pivots].T)
        corner = rest[pivots]
        shift = 10.0 * block * jnp.finfo(dtype).eps * jnp.maximum(jnp.max(diagonal), tiny)
        L = jnp.linalg.cholesky(0.5 * (corner + corner.T) + shift * jnp.eye(block, dtype=dtype))
        new = _dot(rest, _inverse(L).T)
        # Where nothing is left there is no factor, and nothing to add.
        new = jnp.where(jnp.isfinite(L[-1, -1]), new, 0.0)
        left = jnp.maximum(left - jnp.sum(jnp.square(new), axis=1), 0.0).at[pivots].set(0.0)
        return jax.lax.dynamic_update_slice_in_dim(U, new, number * block, axis=1), left

    start = jnp.zeros((n, rounds * block), dtype), diagonal
    return jax.lax.fori_loop(0, rounds, step, start)[0]


def _inverse(L: Array) -> Array:
    eye = jnp.eye(len(L), dtype=L.dtype)
    return jax.scipy.linalg.solve_triangular(L, eye, lower=True)


def _dot(A: Array, B: Array) -> Array:
    return jnp.matmul(A, B, precision="highest")


def _widest(values: Array) -> Any:
    """64 bits for the small matrix where they are there."""
    return jnp.promote_types(values.dtype, jnp.zeros((), float).dtype)


def _wide(values: Array) -> Array:
    return values.astype(_widest(values))

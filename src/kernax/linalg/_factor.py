"""What a dense factorisation offers to those who hold it: the small contract of a solver.

Callers ask for solutions, determinants and quadratic forms, never for a triangle, so that another
solver may answer in its own way.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .._typing import Scalar, Square, Vector
from ._dense import LOG_2PI, cholesky, whiten


class DenseFactor(eqx.Module):
    """K + jitter = L L', held as it was computed, and the rows that came later.

    With ``cross`` (m, n) and ``last`` (m, m), L is [[first, 0], [cross, last]]: extending it does
    not copy the n^2 numbers of ``first``.
    """

    first: Square
    jitter: Scalar
    cross: Array | None = None
    last: Array | None = None

    @property
    def size(self) -> int:
        """The number of rows of K."""
        return int(self.first.shape[-1] + (0 if self.last is None else self.last.shape[-1]))

    def whiten(self, B: Array) -> Array:
        """R^-1 B for a root R of K: columns with the inner product of K^-1."""
        if self.cross is None or self.last is None:
            return whiten(self.first, B)
        n = self.first.shape[0]
        top = whiten(self.first, B[:n])
        rest = B[n:] - jnp.matmul(self.cross, top, precision="highest")
        return jnp.concatenate([top, whiten(self.last, rest)])

    def solve(self, B: Array) -> Array:
        """K^-1 B, for a vector or the columns of a matrix."""
        return self.unwhiten(self.whiten(B))

    def unwhiten(self, V: Array) -> Array:
        """R'^-1 V: what makes K^-1 B of the whitened B."""
        if self.cross is None or self.last is None:
            return whiten(self.first, V, transpose=True)
        n = self.first.shape[0]
        bottom = whiten(self.last, V[n:], transpose=True)
        rest = V[:n] - jnp.matmul(self.cross.T, bottom, precision="highest")
        return jnp.concatenate([whiten(self.first, rest, transpose=True), bottom])

    def append(self, whitened: Array, B: Array) -> Array:
        """The whitened columns of which ``whitened`` are the first rows, and ``B`` the last."""
        if self.cross is None or self.last is None:
            return self.whiten(B)
        n, m = self.first.shape[0], B.shape[0]
        own = self.last[self.last.shape[0] - m :]
        rows = jnp.concatenate([self.cross[self.cross.shape[0] - m :], own], axis=1)
        known = jnp.matmul(rows[:, : self.size - m], whitened, precision="highest")
        return jnp.concatenate([whitened, whiten(own[:, self.size - m - n :], B - known)])

    def log_determinant(self) -> Scalar:
        """log |K|."""
        half = jnp.sum(jnp.log(jnp.diagonal(self.first)))
        if self.last is not None:
            half = half + jnp.sum(jnp.log(jnp.diagonal(self.last)))
        return 2.0 * half

    def log_density(self, whitened: Array, count: Scalar) -> Scalar:
        """log N(B; 0, K) of ``count`` rows, for a vector or the sum over columns, from R^-1 B.

        NaN where K has no factor, or the density overflows: never -inf.
        """
        columns = whitened.shape[1] if whitened.ndim == 2 else 1
        total = jnp.sum(jnp.square(whitened))
        total = total + columns * (self.log_determinant() + count * LOG_2PI)
        return jnp.where(jnp.isfinite(total), 0.0 - 0.5 * total, jnp.nan)

    def inverse_quadratic(self, B: Array) -> Vector:
        """diag(B' K^-1 B), never negative."""
        return jnp.sum(jnp.square(self.whiten(B)), axis=0)

    def inverse_form(self, B: Array) -> Square:
        """B' K^-1 B, symmetric to the last bit."""
        half = self.whiten(B)
        form = jnp.matmul(half.T, half, precision="highest")
        # The product may round its two triangles differently.
        return jnp.where(jnp.tri(form.shape[0], dtype=bool), form, form.T)

    def inverse_diagonal(self) -> Vector:
        """diag(K^-1)."""
        eye = jnp.eye(self.size, dtype=self.first.dtype)
        return jnp.sum(jnp.square(self.whiten(eye)), axis=0)

    def extend(self, cross: Array, K: Square, count: Scalar, scale: Scalar) -> "DenseFactor":
        """The factorisation with m rows more, in O(n^2 m): their covariance with the old ones
        ``cross`` (n, m), and with one another ``K`` (m, m)."""
        half = self.whiten(cross)
        rest = K - jnp.matmul(half.T, half, precision="highest")
        root, jitter = cholesky(0.5 * (rest + rest.T), count, scale)
        jitter = jnp.maximum(self.jitter, jitter)
        if self.cross is None or self.last is None:
            return DenseFactor(self.first, jitter, half.T, root)
        n, m = self.first.shape[0], root.shape[0]
        upper = jnp.concatenate([self.last, jnp.zeros((self.last.shape[0], m), root.dtype)], axis=1)
        lower = jnp.concatenate([half[n:].T, root], axis=1)
        rows = jnp.concatenate([self.cross, half[:n].T])
        return DenseFactor(self.first, jitter, rows, jnp.concatenate([upper, lower]))


def factorise(K: Square, count: Any, scale: Any) -> DenseFactor:
    """The factorisation of a covariance matrix; all NaN where it has none, even with jitter."""
    return DenseFactor(*cholesky(K, count, scale))

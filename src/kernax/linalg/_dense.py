"""Dense factorisations, and the Gaussian log density with its hand-written derivative.

Jitter (a multiple c of the identity) is added only where the Cholesky factorisation fails without:
c is 1, 10 or 100 times n eps mean(diag), capped at max(sqrt(eps), 10 n eps) mean(diag), reported,
and a constant to every derivative.
"""

import enum
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._typing import Scalar, Square, Vector

LADDER = (1.0, 10.0, 100.0)
LOG_2PI = math.log(2.0 * math.pi)  # a Python number, which takes the dtype of what it meets


class Dense(eqx.Module):
    """Exact inference by a Cholesky factorisation: n^3 / 3 operations, n^2 numbers."""


class Status(enum.IntEnum):
    """How a factorisation went; results carry it as an integer array."""

    OK = 0
    JITTERED = 1
    NOT_PSD = 2
    EMPTY = 3


def jitter_ladder(count: Any, scale: Any, dtype: Any) -> tuple[Array, Array, Array]:
    """The three amounts of jitter for ``count`` points whose variances average ``scale``."""
    eps = jnp.finfo(dtype).eps
    unit = jnp.asarray(count, dtype) * eps
    cap = jnp.maximum(jnp.sqrt(eps).astype(dtype), 10.0 * unit)
    first, second, third = (jnp.minimum(step * unit, cap) * scale for step in LADDER)
    return first, second, third


@jax.custom_jvp
def cholesky(K: Square, count: Scalar, scale: Scalar) -> tuple[Square, Scalar]:
    """The lower factor of K, or of K + c I where K has none, and c.

    ``count`` and ``scale`` are the number of points and their mean variance, which set the size
    of c. All NaN where even the largest c does not help.
    """
    if K.shape[0] == 0:
        return K, jnp.zeros((), K.dtype)
    amounts = jnp.stack(jitter_ladder(count, scale, K.dtype))
    eye = jnp.eye(K.shape[0], dtype=K.dtype)

    def failed(state: tuple[Array, Square, Scalar]) -> Array:
        step, L, _ = state
        return (step < len(LADDER)) & jnp.isnan(L[-1, -1])

    def add_more(state: tuple[Array, Square, Scalar]) -> tuple[Array, Square, Scalar]:
        step, _, _ = state
        c = amounts[step]
        return step + 1, _cholesky(K + c * eye), c

    start = (jnp.asarray(0), _cholesky(K), jnp.zeros((), K.dtype))
    _, L, c = jax.lax.while_loop(failed, add_more, start)
    return L, c


@cholesky.defjvp
def _(primals: Any, tangents: Any) -> Any:
    L, c = cholesky(*primals)
    dK = tangents[0]
    # dL = L Phi(L^-1 dK L^-T), Phi: the lower triangle with half its diagonal (Murray 2016).
    inner = whiten(L, whiten(L, dK).T)
    half = jnp.tril(inner) - 0.5 * jnp.diag(jnp.diag(inner))
    return (L, c), (jnp.matmul(L, half, precision="highest"), jnp.zeros_like(c))


def _cholesky(K: Square) -> Square:
    # Both triangles are equal by construction: no averaging pass.
    factor: Square = jax.lax.linalg.cholesky(K, symmetrize_input=False)
    return factor


def whiten(L: Square, B: Array, *, transpose: bool = False) -> Array:
    """L^-1 B, or L^-T B, for a vector or the columns of a matrix."""
    columns = B if B.ndim == 2 else B[:, None]
    solution = jax.lax.linalg.triangular_solve(
        L, columns, left_side=True, lower=True, transpose_a=transpose
    )
    return solution if B.ndim == 2 else solution[:, 0]


@jax.custom_jvp
def log_density(K: Square, y: Vector, count: Scalar, scale: Scalar) -> tuple[Scalar, Scalar]:
    """log N(y; 0, K) of ``count`` points, and the jitter it took.

    Rows that are not counted must be those of the identity, with y = 0: they change nothing.
    NaN where K is not positive definite.
    """
    L, jitter = cholesky(K, count, scale)
    return _value(L, whiten(L, y), count), jitter


@log_density.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (value, _, _, jitter), (dvalue, _, _, _) = jax.jvp(_with_inverse, primals, tangents)
    return (value, jitter), (dvalue, jnp.zeros_like(jitter))


@jax.custom_jvp
def _with_inverse(
    K: Square, y: Vector, count: Scalar, scale: Scalar
) -> tuple[Scalar, Vector, Square, Scalar]:
    """The log density with a = K^-1 y and P = K^-1: all that its own derivatives need."""
    L, jitter = cholesky(K, count, scale)
    inverse_L = whiten(L, jnp.eye(K.shape[0], dtype=K.dtype))
    P = whiten(L, inverse_L, transpose=True)
    whitened = whiten(L, y)
    return _value(L, whitened, count), whiten(L, whitened, transpose=True), P, jitter


@_with_inverse.defjvp
def _(primals: Any, tangents: Any) -> Any:
    # Closed under differentiation: the outputs are all that the tangents are made of.
    _, a, P, jitter = out = _with_inverse(*primals)
    dK, dy = tangents[0], tangents[1]
    W = 0.5 * (a[:, None] * a[None, :] - P)
    dot = lambda A, B: jnp.matmul(A, B, precision="highest")
    dvalue = jnp.sum(W * dK) - dot(a, dy)
    da = dot(P, dy - dot(dK, a))
    return out, (dvalue, da, -dot(P, dot(dK, P)), jnp.zeros_like(jitter))


def _value(L: Square, whitened: Vector, count: Scalar) -> Scalar:
    log_determinant = 2.0 * jnp.sum(jnp.log(jnp.diagonal(L)))
    total = jnp.sum(jnp.square(whitened)) + log_determinant + count * LOG_2PI
    # An overflow is a failure too: NaN, never -inf.
    return jnp.where(jnp.isfinite(total), 0.0 - 0.5 * total, jnp.nan)


def status_of(value: Scalar, jitter: Scalar, count: Scalar) -> Array:
    """The `Status` of a factorisation whose log determinant or density is ``value``."""
    status = jnp.where(jitter > 0, int(Status.JITTERED), int(Status.OK))
    status = jnp.where(jnp.isnan(value), int(Status.NOT_PSD), status)
    return jnp.where(count == 0, int(Status.EMPTY), status)

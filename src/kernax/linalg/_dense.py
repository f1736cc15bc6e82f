"""Dense factorisations, and the Gaussian log density with its hand-written derivative.

Jitter (a multiple c of the identity) is added only where the Cholesky factorisation fails without:
c is 1, 10 or 100 times n eps mean(diag), capped at max(sqrt(eps), 10 n eps) mean(diag), reported,
and a constant to every derivative.
"""

import enum
import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._typing import Scalar, Square
from . import _portable, _primitive

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


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def cholesky(K: Square, count: Scalar, scale: Scalar, route: str = "auto") -> tuple[Square, Scalar]:
    """The lower factor of K, or of K + c I where K has none, and c.

    ``count`` and ``scale`` are the number of points and their mean variance, which set the size
    of c. NaN where even the largest c does not help. ``route``: as in `_primitive.factor`.
    """
    return _primitive.factor(K, _amounts(K, count, scale), route)


@cholesky.defjvp
def _(route: str, primals: Any, tangents: Any) -> Any:
    L, c = cholesky(*primals, route)
    dK = tangents[0]
    # dL = L Phi(L^-1 dK L^-T), Phi: the lower triangle with half its diagonal (Murray 2016).
    inner = whiten(L, whiten(L, dK).T)
    half = jnp.tril(inner) - 0.5 * jnp.diag(jnp.diag(inner))
    return (L, c), (jnp.matmul(L, half, precision="highest"), jnp.zeros_like(c))


def _amounts(K: Square, count: Scalar, scale: Scalar) -> Array:
    return jnp.stack(jitter_ladder(count, scale, K.dtype))


def whiten(L: Square, B: Array, *, transpose: bool = False) -> Array:
    """L^-1 B, or L^-T B, for a vector or the columns of a matrix."""
    columns = B if B.ndim == 2 else B[:, None]
    solution = _portable.solve(L, columns, transpose=transpose)
    return solution if B.ndim == 2 else solution[:, 0]


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def log_density(
    K: Square, y: Array, count: Scalar, scale: Scalar, route: str = "auto"
) -> tuple[Scalar, Scalar]:
    """log N(y; 0, K) of ``count`` points, and the jitter it took.

    y is (n,), or (n, t) for the sum over its columns. Rows that are not counted must be those of
    the identity, with y = 0: they change nothing. NaN where K is not positive definite.
    ``route``: as in `_primitive.factor`.
    """
    half_log_det, square, jitter = _primitive.density(K, y.T, _amounts(K, count, scale), route)
    return _total(half_log_det, square, count), jitter


@log_density.defjvp
def _(route: str, primals: Any, tangents: Any) -> Any:
    function = partial(_with_inverse, route)
    (value, _, _, jitter), (dvalue, _, _, _) = jax.jvp(function, primals, tangents)
    return (value, jitter), (dvalue, jnp.zeros_like(jitter))


def solve(K: Square, y: Array, count: Scalar, scale: Scalar) -> Array:
    """K^-1 y for y (n,), as the log density has it: with the same jitter and derivatives."""
    return _with_inverse("auto", K, y, count, scale)[1]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _with_inverse(
    route: str, K: Square, y: Array, count: Scalar, scale: Scalar
) -> tuple[Scalar, Array, Square, Scalar]:
    """The log density with a = K^-1 y and P = K^-1: all that its own derivatives need."""
    amounts = _amounts(K, count, scale)
    half_log_det, square, jitter, a, P = _primitive.inverse(K, y.T, amounts, route)
    return _total(half_log_det, square, count), a.T, P, jitter


@_with_inverse.defjvp
def _(route: str, primals: Any, tangents: Any) -> Any:
    # Closed under differentiation: the outputs are all that the tangents are made of.
    _, a, P, jitter = out = _with_inverse(route, *primals)
    dK, dy = tangents[0], tangents[1]
    dot = lambda A, B: jnp.matmul(A, B, precision="highest")
    # One matrix, which reverse mode hands on times a number.
    W = 0.5 * (a[:, None] * a[None, :] - P if a.ndim == 1 else dot(a, a.T) - a.shape[1] * P)
    dvalue = jnp.sum(W * dK) - jnp.sum(a * dy)
    da = dot(P, dy - dot(dK, a))
    return out, (dvalue, da, -dot(P, dot(dK, P)), jnp.zeros_like(jitter))


def _total(half_log_det: Scalar, square: Array, count: Scalar) -> Scalar:
    total = jnp.sum(square) + square.size * (2.0 * half_log_det + count * LOG_2PI)
    # An overflow is a failure too: NaN, never -inf.
    return jnp.where(jnp.isfinite(total), 0.0 - 0.5 * total, jnp.nan)


def status_of(value: Scalar, jitter: Scalar, count: Scalar) -> Array:
    """The `Status` of a factorisation whose log determinant or density is ``value``."""
    status = jnp.where(jitter > 0, int(Status.JITTERED), int(Status.OK))
    status = jnp.where(jnp.isnan(value), int(Status.NOT_PSD), status)
    return jnp.where(count == 0, int(Status.EMPTY), status)

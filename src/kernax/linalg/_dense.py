"""Dense factorisations, and the Gaussian log density.

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
from . import _derivatives as _derivatives  # the rules of what follows
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


def cholesky(K: Square, count: Scalar, scale: Scalar, route: str = "auto") -> tuple[Square, Scalar]:
    """The lower factor of K, or of K + c I where K has none, and c.

    ``count`` and ``scale`` are the number of points and their mean variance, which set the size
    of c. NaN where even the largest c does not help. ``route``: as in `_primitive.factor`.
    """
    return _primitive.factor(K, _amounts(K, count, scale), route)


def _amounts(K: Square, count: Scalar, scale: Scalar) -> Array:
    return jax.lax.stop_gradient(jnp.stack(jitter_ladder(count, scale, K.dtype)))


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
    K, y, count, scale = primals
    found = _primitive.slopes(K, y.T, _amounts(K, count, scale), route)
    half_log_det, square, jitter, a, W = found
    slope = jnp.sum(W * tangents[0]) - jnp.sum(a.T * tangents[1])
    return (_total(half_log_det, square, count), jitter), (slope, jnp.zeros_like(jitter))


def solve(K: Square, y: Array, count: Scalar, scale: Scalar) -> Array:
    """K^-1 y for y (n,), as the log density has it: with the same jitter and derivatives."""
    return _primitive.inverse(K, y, _amounts(K, count, scale))[3]


def _total(half_log_det: Scalar, square: Array, count: Scalar) -> Scalar:
    total = jnp.sum(square) + square.size * (2.0 * half_log_det + count * LOG_2PI)
    # An overflow is a failure too: NaN, never -inf.
    return jnp.where(jnp.isfinite(total), 0.0 - 0.5 * total, jnp.nan)


def status_of(value: Scalar, jitter: Scalar, count: Scalar) -> Array:
    """The `Status` of a factorisation whose log determinant or density is ``value``."""
    status = jnp.where(jitter > 0, int(Status.JITTERED), int(Status.OK))
    status = jnp.where(jnp.isnan(value), int(Status.NOT_PSD), status)
    return jnp.where(count == 0, int(Status.EMPTY), status)

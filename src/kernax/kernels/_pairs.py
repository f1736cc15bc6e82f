"""Sums over coordinates for one pair of points or for all pairs, from one formula.

Everything here takes two points (d,) and gives a scalar, or two sets (n, d), (m, d) and gives
(n, m). Sums are written out coordinate by coordinate: XLA then makes one elementwise pass out of
a Gram matrix, exactly symmetric, without an (n, m, d) temporary.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._errors import ShapeError
from .._inputs import common_dtype
from .._nodes import INSIDE, Stacked
from .._typing import Matrix, OtherPointOrPoints, PointOrPoints, Points

MOST_UNROLLED = 64  # beyond, compiling the written-out sum takes longer than it saves


def pair_sum(
    term: Callable[[Array, Array], Array],
    x: PointOrPoints,
    y: OtherPointOrPoints,
    factor: Array | None = None,
) -> Array:
    """sum_j term(factor_j x_j, factor_j y_j) for two points, or for all pairs of two sets.

    ``term`` gets arrays that broadcast against each other: one coordinate, or, where there are
    more than `MOST_UNROLLED`, all of them on the last axis.
    """
    d = x.shape[-1]
    if y.shape[-1] != d:
        raise ShapeError(
            f"`x1` has dimension {d} and `x2` has dimension {y.shape[-1]}, expected the same. "
            "Fix: pass points with the same number of columns."
        )
    if x.ndim == 2 and d <= MOST_UNROLLED:
        ones = jnp.ones((), x.dtype) if factor is None else factor
        factors = jnp.broadcast_to(ones, (d,))
        x = x if factor is None else factors[None, :] * x
        return unrolled(term, x, _coordinates(y, factors))
    if factor is not None:
        factor = jnp.broadcast_to(factor, (1,) * (x.ndim - 1) + (d,))
        x, y = factor * x, factor * y
    if x.ndim == 2:
        return jnp.sum(term(x[:, None, :], y[None, :, :]), axis=-1)
    if d > MOST_UNROLLED:
        return jnp.sum(term(x, y), axis=-1)
    return functools.reduce(jnp.add, [term(x[j], y[j]) for j in range(d)])


def unrolled(term: Callable[[Array, Array], Array], x: Points, coordinates: Array) -> Matrix:
    """sum_j term(x_j, y_j) for all pairs of x (n, d) and y, whose ``coordinates`` are (d, m)."""
    column = lambda j: jax.lax.slice_in_dim(x, j, j + 1, axis=1)
    row = lambda j: jax.lax.slice_in_dim(coordinates, j, j + 1)
    return functools.reduce(jnp.add, [term(column(j), row(j)) for j in range(x.shape[1])])


def _coordinates(x: Points, factors: Array) -> Array:
    """The scaled coordinates as rows, (d, n), for factors that are powers of two.

    A product with diag(factors) is exact, and is the one form of a scaled transpose that XLA does
    not fuse into the pairs, where each of the n m of them would read x with a stride, and do all
    again that was done with it before. A single column gets one of zeros at its side, without which
    the product would be a plain one.
    """
    diagonal = jnp.diag(factors)
    if len(factors) == 1:
        diagonal, x = (jnp.pad(values, ((0, 0), (0, 1))) for values in (diagonal, x))
    return jax.lax.dot_general(diagonal, x, (((1,), (1,)), ((), ())), precision="highest")


def in_one_dtype(*values: Any) -> list[Any]:
    """Points and hyperparameters as arrays of one floating dtype.

    The driver sees to that before; whoever calls ``pairwise`` directly may not have.
    """
    if any(isinstance(value, Stacked) for value in values):
        raise ShapeError(INSIDE)
    arrays = [jnp.asarray(value) for value in values]
    dtype = common_dtype(*(value for value in values if hasattr(value, "dtype")))
    return [array.astype(dtype) for array in arrays]


def per_term(values: Array) -> Iterator[Callable[[Array], Array]]:
    """One value per dimension (d,), in the form that the terms of `pair_sum` want them.

    Each item, called with what a term computes, gives that coordinate's value, or for long sums
    all values along the last axis.
    """
    if values.shape[0] <= MOST_UNROLLED:
        return iter([lambda _, value=value: value for value in values])
    return iter([lambda term: values.reshape((1,) * (term.ndim - 1) + (-1,))])


def inner_product(x: PointOrPoints, y: OtherPointOrPoints) -> Array:
    """x . y; a matrix product where that is the faster way."""
    if x.ndim == 2 and x.shape[-1] > MOST_UNROLLED:
        return jnp.matmul(x, y.T, precision="highest")
    return pair_sum(lambda a, b: a * b, x, y)


def check_per_dimension(value: Array, d: int, name: str) -> None:
    """`ShapeError` unless ``value`` is a scalar or has one entry per dimension."""
    shape = jnp.shape(value)
    if len(shape) > 1 or (len(shape) == 1 and shape[0] != d):
        raise ShapeError(
            f"`{name}` has shape {shape}, but the points have dimension {d}. "
            f"Fix: pass one value, or {d} values, one per dimension."
        )


def check_single(**values: Array) -> None:
    """`ShapeError` unless each hyperparameter is one value; more would broadcast over pairs."""
    for name, value in values.items():
        if jnp.ndim(value):
            raise ShapeError(
                f"`{name}` has shape {jnp.shape(value)}, expected one value. "
                "Fix: pass one number, or use BatchKernel for one per element."
            )

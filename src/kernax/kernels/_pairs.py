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
from .._typing import OtherPointOrPoints, PointOrPoints, Points

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
    factors = jnp.broadcast_to(jnp.ones((), x.dtype) if factor is None else factor, (d,))
    if d > MOST_UNROLLED:
        if x.ndim == 1:
            return jnp.sum(term(factors * x, factors * y), axis=-1)
        x, y = factors[None, :] * x, factors[None, :] * y
        return jnp.sum(term(x[:, None, :], y[None, :, :]), axis=-1)
    if x.ndim == 1:
        parts = [term(factors[j] * x[j], factors[j] * y[j]) for j in range(d)]
    else:
        Y = _coordinates(y, factors)
        parts = [term((factors[j] * x[:, j])[:, None], Y[j][None, :]) for j in range(d)]
    return functools.reduce(jnp.add, parts)


def _coordinates(x: Points, factors: Array) -> Array:
    """The scaled coordinates as rows, (d, n), for factors that are powers of two.

    A product with diag(factors) is exact, and is the one form of a scaled transpose that XLA does
    not fuse into the pairs, where each of the n m of them would read x with a stride.
    """
    return jax.lax.dot_general(jnp.diag(factors), x, (((1,), (1,)), ((), ())), precision="highest")


def in_one_dtype(*values: Any) -> list[Any]:
    """Points and hyperparameters as arrays of one floating dtype.

    The driver sees to that before; whoever calls ``pairwise`` directly may not have.
    """
    arrays = [jnp.asarray(value) for value in values]
    dtype = common_dtype(*(value for value in values if hasattr(value, "dtype")))
    return [array.astype(dtype) for array in arrays]


def squared_distance(x: PointOrPoints, y: OtherPointOrPoints, length_scale: Array | float) -> Array:
    """|(x - y) / length_scale|^2, for a scalar length-scale or one per dimension.

    Differences come first and scaling after, since x / l - y / l loses digits far from the
    origin; but the square of a difference overflows where the scaled one does not. Multiplying
    the inputs by a power of two close to 1 / l is exact and avoids both; what is left of l,
    between 1 and 2, is divided out after. The cap keeps 0 * inf out of every derivative.
    """
    x, y, scale = in_one_dtype(x, y, length_scale)
    check_per_dimension(scale, x.shape[-1], "length_scale")
    power = inverse_power_of_two(scale)
    rest = 1.0 / (scale * power)
    weight = rest * rest
    cap = jnp.asarray(jnp.finfo(x.dtype).max / 8, x.dtype)
    if scale.ndim == 0:
        total = pair_sum(lambda a, b: jnp.square(a - b), x, y, power)
        return jnp.minimum(total, cap) * weight
    weights = per_term(weight)

    def term(a: Array, b: Array) -> Array:
        square = jnp.minimum(jnp.square(a - b), cap)
        return square * next(weights)(square)

    total = pair_sum(term, x, y, power)
    return jnp.minimum(total, cap)


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


def inverse_power_of_two(value: Array) -> Array:
    """1 / 2^e with 2^e <= value < 2^(e+1): an exact factor, constant to derivatives."""
    info = jnp.finfo(value.dtype)
    integer = jnp.dtype(f"int{info.bits}")
    exponent_bits = (2**info.nexp - 1) << info.nmant
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(value), integer)
    power = jax.lax.bitcast_convert_type(bits & jnp.asarray(exponent_bits, integer), value.dtype)
    return 1.0 / power


def check_per_dimension(value: Array, d: int, name: str) -> None:
    """`ShapeError` unless ``value`` is a scalar or has one entry per dimension."""
    shape = jnp.shape(value)
    if len(shape) > 1 or (len(shape) == 1 and shape[0] != d):
        raise ShapeError(
            f"`{name}` has shape {shape}, but the points have dimension {d}. "
            f"Fix: pass one value, or {d} values, one per dimension."
        )

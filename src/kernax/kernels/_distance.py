"""Scaled squared distances, between two points or for all pairs of two sets."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._typing import Matrix, OtherPointOrPoints, OtherPoints, PointOrPoints, Points
from ._pairs import (
    MOST_UNROLLED,
    check_per_dimension,
    in_one_dtype,
    pair_sum,
    per_term,
    unrolled,
)

# Numbers of pairs between which a matrix of distances of its own pays: with fewer nothing is
# gained, with more the matrix leaves the cache.
FEWEST_PAIRS, MOST_PAIRS = 1 << 14, 1 << 22


def squared_distance(
    x: PointOrPoints, y: OtherPointOrPoints, length_scale: Any, *, times: float = 1.0
) -> Array:
    """times |(x - y) / length_scale|^2, for a scalar length-scale or one per dimension.

    Differences come first and scaling after, since x / l - y / l loses digits far from the
    origin; but the square of a difference overflows where the scaled one does not. Multiplying
    the inputs by a power of two close to 1 / l is exact and avoids both; what is left of l,
    between 1 and 2, is divided out after.
    """
    x, y, scale = in_one_dtype(x, y, length_scale)
    d = x.shape[-1]
    check_per_dimension(scale, d, "length_scale")
    power = inverse_power_of_two(scale)
    rest = 1.0 / (scale * power)
    weight = times * rest * rest
    if x.ndim == 2 and d == y.shape[-1] <= MOST_UNROLLED:
        pairs = x.shape[0] * y.shape[0]
        if FEWEST_PAIRS <= pairs <= MOST_PAIRS:
            powers = jnp.broadcast_to(power, (1, d))
            return _in_memory(powers * x, powers * y, weight)
    return _weighted(lambda term: pair_sum(term, x, y, power), weight)


def inverse_power_of_two(value: Array) -> Array:
    """1 / 2^e with 2^e <= value < 2^(e+1): an exact factor, constant to derivatives."""
    info = jnp.finfo(value.dtype)
    integer = jnp.dtype(f"int{info.bits}")
    exponent_bits = (2**info.nexp - 1) << info.nmant
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(value), integer)
    power = jax.lax.bitcast_convert_type(bits & jnp.asarray(exponent_bits, integer), value.dtype)
    return 1.0 / power


@jax.custom_jvp
def _in_memory(x: Points, y: OtherPoints, weight: Array) -> Matrix:
    """Weighted squared distances as a matrix of their own.

    A transcendental function of a matrix that is in memory takes half the time of one that XLA
    fuses with the pairs, where vectors are shorter. Only a branch keeps the two apart; this one
    is never taken the other way, except where a hyperparameter is NaN and so is the result.
    """

    def compute(x: Points, coordinates: Array, weight: Array) -> Matrix:
        return _weighted(lambda term: unrolled(term, x, coordinates), weight)

    def invalid(x: Points, coordinates: Array, weight: Array) -> Matrix:
        return jnp.full((x.shape[0], coordinates.shape[1]), jnp.nan, x.dtype)

    known = jnp.all(~jnp.isnan(weight))
    s: Matrix = jax.lax.cond(known, compute, invalid, x, y.T, weight)
    return s


@_in_memory.defjvp
def _(primals: Any, tangents: Any) -> Any:
    # Plainly, so that no branch has to hand its residuals to the derivative.
    plain = lambda x, y, w: _weighted(lambda term: pair_sum(term, x, y), w)
    return _in_memory(*primals), jax.jvp(plain, primals, tangents)[1]


def _weighted(total: Callable[[Any], Array], weight: Array) -> Array:
    """``total`` of the squared differences, with one weight for all or one per dimension.

    The cap keeps 0 * inf out of every derivative.
    """
    cap = jnp.asarray(jnp.finfo(weight.dtype).max / 8, weight.dtype)
    if weight.ndim == 0:
        return jnp.minimum(total(lambda a, b: jnp.square(a - b)), cap) * weight
    weights = per_term(weight)

    def term(a: Array, b: Array) -> Array:
        square = jnp.minimum(jnp.square(a - b), cap)
        return square * next(weights)(square)

    return jnp.minimum(total(term), cap)

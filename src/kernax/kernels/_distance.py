"""Scaled squared distances, between two points or for all pairs of two sets."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._typing import Matrix, OtherPointOrPoints, OtherPoints, PointOrPoints, Points
from ._levels import varied
from ._pairs import (
    MOST_UNROLLED,
    check_per_dimension,
    in_one_dtype,
    pair_sum,
    per_term,
    unrolled,
)
from ._thin import columns, row_sums, thin_product, thin_rule

# Numbers of pairs between which a matrix of distances of its own pays: with fewer nothing is
# gained, with more the matrix leaves the cache. With fewer, derivatives are taken plainly too.
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
    if x.ndim == 2 and d == y.shape[-1] and x.shape[0] * y.shape[0] >= FEWEST_PAIRS:
        powers = jnp.broadcast_to(power, (1, d))
        return _all_pairs(powers * x, powers * y, weight)
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
def _all_pairs(x: Points, y: OtherPoints, weight: Array) -> Matrix:
    """Weighted squared distances of all pairs.

    A transcendental function of a matrix that is in memory takes half the time of one that XLA
    fuses with the pairs, where vectors are shorter. Only a branch keeps the two apart; this one
    is never taken the other way, which XLA does not know of a number that may be NaN.
    """
    if x.shape[0] * y.shape[0] > MOST_PAIRS or x.shape[1] > MOST_UNROLLED:
        return _differences(x, y, weight, capped=False)

    def compute(x: Points, coordinates: Array, weight: Array) -> Matrix:
        return _weighted(lambda term: unrolled(term, x, coordinates), weight, capped=False)

    def invalid(x: Points, coordinates: Array, weight: Array) -> Matrix:
        # Of an operand, so that it differs over the same axes of a mesh as what is computed.
        return jnp.broadcast_to(jnp.nan * x[:1, :1], (x.shape[0], coordinates.shape[1]))

    # What a branch is given differs over the same axes of a mesh, or a batch of branches does not.
    x, y, weight = (varied(value, x, y, weight) for value in (x, y, weight))
    first = x[0, 0]
    always = (first == first) | (first != first)
    s: Matrix = jax.lax.cond(always, compute, invalid, x, y.T, weight)
    return s


_all_pairs.defjvp(
    thin_rule(
        lambda *arguments: _all_pairs(*arguments),
        lambda *arguments: _differences(*arguments),
        lambda *arguments: _product_tangent(*arguments),
        # No more than half of the digits may cancel.
        lambda x, y, weight: jnp.maximum(_reach(x, y, weight), _reach(y, y, weight)),
    ),
    symbolic_zeros=True,
)


def _product_tangent(
    x: Points, y: OtherPoints, weight: Array, dx: Any, dy: Any, dweight: Any
) -> Matrix:
    """The derivative of sum_c w_c (x_c - y_c)^2 as a product of thin matrices.

    Its transpose, the derivative of a weighted sum of the pairs, is a product too and needs no
    pass over the pairs for each coordinate. Squares cancel, but no more than half of the digits
    where the points are near, in weighted distance, to the middle of them all.
    """
    center = jax.lax.stop_gradient(_middle(y))
    x, y = x - center, y - center
    w = jnp.broadcast_to(weight, x.shape[1:])[None, :]
    tangent = jnp.zeros((), x.dtype)
    if dx is not None or dweight is not None:
        # Of x^2 - 2 x y + y^2 times its weight: what multiplies 1, y and y^2.
        constant, linear, square = jnp.zeros_like(x[:, :1]), jnp.zeros_like(x), jnp.zeros_like(x)
        if dweight is not None:
            dw = jnp.broadcast_to(dweight, x.shape[1:])[None, :]
            constant, linear = constant + row_sums(dw * x * x), linear - 2.0 * dw * x
            square = square + dw
        if dx is not None:
            constant, linear = constant + row_sums(2.0 * w * x * dx), linear - 2.0 * w * dx
        tangent = thin_product(
            columns(constant, linear, square), columns(jnp.ones_like(y[:, :1]), y, y * y)
        )
    if dy is not None:
        right = columns(row_sums(2.0 * w * y * dy), -2.0 * dy)
        tangent = tangent + thin_product(columns(jnp.ones_like(x[:, :1]), w * x), right)
    return tangent


def _reach(x: Points, y: OtherPoints, weight: Array) -> Array:
    """The largest weighted squared distance of a coordinate of x from the middle of y."""
    weights = jnp.broadcast_to(jnp.abs(weight), (1, x.shape[1]))
    return jnp.max(weights * jnp.square(x - _middle(y)))


def _middle(y: OtherPoints) -> Array:
    return 0.5 * (jnp.min(y, axis=0, keepdims=True) + jnp.max(y, axis=0, keepdims=True))


def _differences(x: Points, y: OtherPoints, weight: Array, *, capped: bool = True) -> Matrix:
    return _weighted(lambda term: pair_sum(term, x, y), weight, capped=capped)


def _weighted(total: Callable[[Any], Array], weight: Array, *, capped: bool = True) -> Array:
    """``total`` of the squared differences, with one weight for all or one per dimension.

    The cap keeps 0 * inf out of every derivative; of a value alone it is enough at the end.
    """
    cap = jnp.asarray(jnp.finfo(weight.dtype).max / 8, weight.dtype)
    if weight.ndim == 0:
        return jnp.minimum(total(lambda a, b: jnp.square(a - b)), cap) * weight
    weights = per_term(weight)

    def term(a: Array, b: Array) -> Array:
        square = jnp.square(a - b)
        square = jnp.minimum(square, cap) if capped else square
        return square * next(weights)(square)

    return jnp.minimum(total(term), cap)

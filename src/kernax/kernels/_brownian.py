"""Brownian motion and fractional Brownian motion, of points of any dimension."""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._parameters import interval, positive
from .._typing import (
    Matrix,
    OtherPointOrPoints,
    OtherPoints,
    Parameter,
    Point,
    PointOrPoints,
    Points,
    Scalar,
)
from ._base import AbstractKernel, ScaledInputsKernel
from ._dot_product import (
    facing,
    per_coordinate,
    reciprocal_size,
    squared_norm,
    unit_and_norm,
)
from ._pairs import (
    MOST_UNROLLED,
    check_single,
    in_one_dtype,
    inner_product,
    pair_sum,
    per_term,
)


class _MotionKernel(AbstractKernel):
    """Base of the kernels that start from 0, and that know their formula at x / l and y / l."""

    differentiability: ClassVar[float] = 0

    @abc.abstractmethod
    def scaled(self, x: PointOrPoints, y: OtherPointOrPoints, length_scales: Array) -> Array:
        """The formula at x / l and y / l, for two points or for all pairs of two sets."""

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """The formula."""
        return self.scaled(x, y, jnp.ones((), x.dtype))

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self.scaled(X, Y, jnp.ones((), X.dtype))

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        return _ScaledMotionKernel(self, length_scales)


class _ScaledMotionKernel(ScaledInputsKernel):
    """Length-scales for a kernel that takes differences before it divides them."""

    inner_kernel: _MotionKernel

    def pairwise(self, x: Point, y: Point) -> Scalar:
        return self.inner_kernel.scaled(x, y, self.scales)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self.inner_kernel.scaled(X, Y, self.scales)


class BrownianKernel(_MotionKernel):
    """Brownian motion from 0, in d > 1 that of Levy.

    k(x, y) = variance (norm(x) + norm(y) - norm(x - y)) / 2

    with Euclidean norms: variance min(x, y) for x, y >= 0, and 0 for x, y on both sides of 0.
    Positive definite in every dimension, 0 at the origin, not differentiable: where a norm has a
    kink, at coincident points and at 0, the gradient is the mean of the one-sided slopes. Levy
    (1965), Processus stochastiques et mouvement brownien.
    """

    variance: Parameter = positive(1.0)
    symmetric_rounding: ClassVar[bool] = True

    def scaled(self, x: PointOrPoints, y: OtherPointOrPoints, length_scales: Array) -> Array:
        """The formula at x / l and y / l."""
        x, y, scales, variance = in_one_dtype(x, y, length_scales, self.variance)
        check_single(variance=variance)
        weights = 1.0 / scales
        return variance * _brownian(per_coordinate(x, weights), per_coordinate(y, weights))


class FractionalBrownianKernel(_MotionKernel):
    """Fractional Brownian motion from 0: increments correlated over all distances.

    k(x, y) = variance (norm(x)^(2 hurst) + norm(y)^(2 hurst) - norm(x - y)^(2 hurst)) / 2

    with Euclidean norms and 0 < ``hurst`` < 1: rough below 1/2, Brownian motion at 1/2, persistent
    above. Positive definite in every dimension, 0 at the origin, not mean-square differentiable:
    at coincident points and at 0 the gradient of a norm's power is taken as 0, by symmetry, also
    where ``hurst`` < 1/2 makes the slopes infinite. Mandelbrot and Van Ness (1968).
    """

    hurst: Parameter = interval(0.0, 1.0, 0.5)
    variance: Parameter = positive(1.0)

    def scaled(self, x: PointOrPoints, y: OtherPointOrPoints, length_scales: Array) -> Array:
        """The formula at x / l and y / l; a small ``hurst`` magnifies what a difference loses."""
        x, y, scales, hurst, variance = in_one_dtype(x, y, length_scales, self.hurst, self.variance)
        check_single(hurst=hurst, variance=variance)
        return variance * _fractional(x, y, 1.0 / scales, hurst)


@jax.custom_jvp
def _brownian(x: PointOrPoints, y: OtherPointOrPoints) -> Array:
    """(|x| + |y| - |x - y|) / 2 without its cancellation, which is all there is where |x| << |y|.

    It is (|x| |y| + x . y) / (|x| + |y| + |x - y|), here in terms of the larger norm, the ratio of
    the two, and the difference of the directions.
    """
    if x.shape[-1] == 1:
        a, b = facing(x[..., 0], y[..., 0])
        same_side = lambda a, b: jnp.minimum(jnp.maximum(a, 0.0), jnp.maximum(b, 0.0))
        return same_side(a, b) + same_side(-a, -b)
    (u, x_norm), (v, y_norm) = unit_and_norm(x), unit_and_norm(y)
    smaller, inverse = _least_and_inverse(x_norm, y_norm)
    ratio = smaller * inverse
    turn = pair_sum(lambda a, b: jnp.square(a - b), u, v)
    apart = jnp.sqrt(jnp.square(1.0 - ratio) + ratio * turn)
    return smaller * jnp.maximum(2.0 - 0.5 * turn, 0.0) / (1.0 + ratio + apart)


@_brownian.defjvp
def _(primals: Any, tangents: Any) -> Any:
    one = jnp.ones((), primals[0].dtype)
    plain = lambda x, y: _plain(x, y, one, 0.5 * one)
    return _brownian(*primals), jax.jvp(plain, primals, tangents)[1]


@jax.custom_jvp
def _fractional(x: PointOrPoints, y: OtherPointOrPoints, weights: Array, hurst: Array) -> Array:
    """(|wx|^2H + |wy|^2H - |w(x-y)|^2H) / 2 without its cancellation where |wx| << |wy|.

    With a <= b the norms and c that of the difference, b^2H - c^2H = -b^2H expm1(H log(c^2 / b^2)).
    """
    (u, x_norm), (v, y_norm) = (unit_and_norm(per_coordinate(points, weights)) for points in (x, y))
    smaller, inverse = _least_and_inverse(x_norm, y_norm)
    ratio = smaller * inverse
    # c^2 / b^2: by the cosine 1 + q, exact where c is near b; by differences where c is small.
    q = ratio * (ratio - 2.0 * inner_product(u, v))
    near = q < -0.5
    square = jnp.where(near, _squared_difference(x, y, weights, inverse), 1.0 + q)
    # log1p(q) as log(1 + q) and what 1 + q has lost: XLA's own loses digits below -0.3.
    lost = jnp.where(near, 0.0, (q - (square - 1.0)) / square)
    powers = facing(_power(x_norm, 2.0 * hurst), _power(y_norm, 2.0 * hurst))
    less = -jnp.expm1(hurst * (jnp.log(square) + lost))
    return 0.5 * (jnp.minimum(*powers) + jnp.maximum(*powers) * less)


@_fractional.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return _fractional(*primals), jax.jvp(_plain, primals, tangents)[1]


def _plain(x: PointOrPoints, y: OtherPointOrPoints, weights: Array, hurst: Array) -> Array:
    """The formula as it is written, for derivatives, which keep their digits here.

    Squares are those of points scaled by constants, so that none under- or overflows.
    """
    z = per_coordinate(x, weights), per_coordinate(y, weights)
    factors = [reciprocal_size(points) for points in z]
    sizes = [_power(1.0 / factor, 2.0 * hurst) for factor in factors]
    own = [
        _power(squared_norm(points * factor[..., None]), hurst) * size
        for points, factor, size in zip(z, factors, sizes, strict=True)
    ]
    factor, size = jnp.minimum(*facing(*factors)), jnp.maximum(*facing(*sizes))
    apart = _power(_squared_difference(x, y, weights, factor), hurst) * size
    return 0.5 * (jnp.add(*facing(*own)) - apart)


def _power(base: Array, exponent: Array) -> Array:
    """base^exponent, 0 at 0, where its derivatives are 0 too: the mean of the one-sided slopes."""
    apart = base > 0
    return jnp.where(apart, jnp.power(jnp.where(apart, base, 1.0), exponent), 0.0)


def _squared_difference(
    x: PointOrPoints, y: OtherPointOrPoints, weights: Array, factor: Array
) -> Array:
    """|factor w (x - y)|^2, for a factor of each pair."""
    factor = factor[..., None] if x.shape[-1] > MOST_UNROLLED else factor
    each = per_term(jnp.broadcast_to(weights, x.shape[-1:]))

    def term(a: Array, b: Array) -> Array:
        difference = a - b
        return jnp.square(difference * next(each)(difference) * factor)

    return pair_sum(term, x, y)


def _least_and_inverse(p: Array, q: Array) -> tuple[Array, Array]:
    """For each pair the smaller of two norms, and one over the larger."""
    p, q = facing(p, q)
    return jnp.minimum(p, q), 1.0 / jnp.maximum(jnp.maximum(p, q), jnp.finfo(p.dtype).tiny)

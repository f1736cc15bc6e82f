"""Kernels of the inner product."""

import functools
import operator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._errors import ParameterError
from .._parameters import non_negative, positive, real
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
from ._base import AbstractKernel
from ._distance import inverse_power_of_two
from ._pairs import (
    MOST_UNROLLED,
    check_per_dimension,
    check_single,
    in_one_dtype,
    inner_product,
)


class LinearKernel(AbstractKernel):
    """Bayesian linear regression through ``offset``.

    k(x, y) = variance (x - offset) . (y - offset)

    ``offset``: one value, or one per dimension. Positive semi-definite, and zero at the offset.
    Rasmussen and Williams (2006), section 2.1.
    """

    variance: Parameter = positive(1.0)
    offset: Parameter = real(0.0)

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """variance (x - offset) . (y - offset)."""
        return self._evaluate(x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self._evaluate(X, Y)

    def _evaluate(self, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        x, y, variance, offset = in_one_dtype(x, y, self.variance, self.offset)
        check_single(variance=variance)
        check_per_dimension(offset, x.shape[-1], "offset")
        offset = jnp.broadcast_to(offset, (x.shape[-1],))
        offset = offset if x.ndim == 1 else offset[None, :]
        return variance * inner_product(x - offset, y - offset)


class PolynomialKernel(AbstractKernel):
    """Bayesian regression on all monomials up to a degree.

    k(x, y) = (gamma x . y + constant)^degree

    ``degree`` is a whole number >= 1 and part of the structure, never fitted; ``gamma`` > 0 and
    ``constant`` >= 0 are single values (``constant`` = 0 leaves the monomials of that very degree).
    Raises `ParameterError` for another degree: the kernel would be no covariance. A relative error
    of the base counts ``degree`` times: centre inputs far from 0. Rasmussen and Williams (2006),
    section 4.2.2.
    """

    degree: int = eqx.field(static=True, default=2, converter=lambda value: _as_degree(value))
    gamma: Parameter = positive(1.0)
    constant: Parameter = non_negative(1.0)

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """(gamma x . y + constant)^degree."""
        return self._evaluate(x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self._evaluate(X, Y)

    def _evaluate(self, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        return jax.lax.integer_pow(_affine(x, y, self.gamma, self.constant), self.degree)


class SigmoidKernel(AbstractKernel):
    """The hyperbolic tangent of an inner product, customary in support vector machines.

    k(x, y) = tanh(gamma x . y + constant)

    Indefinite, whatever its hyperparameters (Smola, Ovari and Williamson 2001): its ``sign()`` is
    0, and a Gaussian process refuses it with `NotPSDError`. `ArcCosineKernel` is the covariance of
    a neural network. ``gamma`` > 0 and ``constant`` are single values.
    """

    gamma: Parameter = positive(1.0)
    constant: Parameter = real(1.0)

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """tanh(gamma x . y + constant)."""
        return self._evaluate(x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self._evaluate(X, Y)

    def sign(self) -> int:
        return 0

    def _evaluate(self, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        return jnp.tanh(_affine(x, y, self.gamma, self.constant))


def _affine(x: PointOrPoints, y: OtherPointOrPoints, gamma: Any, constant: Any) -> Array:
    x, y, gamma, constant = in_one_dtype(x, y, gamma, constant)
    check_single(gamma=gamma, constant=constant)
    return gamma * inner_product(x, y) + constant


def whole_number(value: Any) -> int | None:
    """An integer as a plain one; None for anything else."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def unit_and_norm(x: PointOrPoints) -> tuple[Array, Array]:
    """The directions x / |x| and the norms |x| of points, 0 and 0 for a point at 0.

    From coordinates divided by a power of two near the largest, so that no square over- or
    underflows.
    """
    scale = reciprocal_size(x)[..., None]
    scaled = x * scale
    square = squared_norm(scaled)[..., None]
    apart = square > 0
    root = jnp.sqrt(jnp.where(apart, square, 1.0))
    return scaled / root, (jnp.where(apart, root, 0.0) / scale)[..., 0]


def squared_norm(x: PointOrPoints) -> Array:
    """|x|^2 of each point, the same to the last bit whatever points come with it.

    XLA rounds a reduction differently where it fits whole vectors.
    """
    if x.shape[-1] > MOST_UNROLLED:
        return jnp.sum(jnp.square(x), axis=-1)
    return functools.reduce(jnp.add, [jnp.square(x[..., j]) for j in range(x.shape[-1])])


def reciprocal_size(x: PointOrPoints) -> Array:
    """An exact factor for each point that takes its largest coordinate to between 1 and 2.

    Constant to derivatives. For a point at 0 it is large, so that the smaller of two factors is
    that of the larger point.
    """
    largest = jnp.max(jnp.abs(x), axis=-1)
    return inverse_power_of_two(jnp.maximum(largest, jnp.finfo(x.dtype).tiny))


def per_coordinate(points: PointOrPoints, weights: Array) -> Array:
    """Each coordinate times its weight, one for all or one per dimension."""
    row = jnp.broadcast_to(weights, points.shape[-1:])
    return points * row.reshape((1,) * (points.ndim - 1) + (-1,))


def facing(p: Array, q: Array) -> tuple[Array, Array]:
    """A value for each point of two sets, broadcasting over the pairs; of two points, as it is."""
    return (p, q) if p.ndim == 0 else (p[:, None], q[None, :])


def _as_degree(value: Any) -> int:
    degree = whole_number(value)
    if degree is None or degree < 1:
        raise ParameterError(
            f"PolynomialKernel: `degree` is {value!r}; degree must be an int >= 1. "
            "Fix: pass a whole number, for instance 2."
        )
    return degree

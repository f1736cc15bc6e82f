"""Kernels of similarity: of counts and fingerprints, and of categories."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from .._module import with_fields
from .._parameters import positive
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
from ._dot_product import facing, reciprocal_size
from ._pairs import MOST_UNROLLED, check_per_dimension, in_one_dtype, pair_sum, per_term


class TanimotoKernel(AbstractKernel):
    """The share of what two points have in common, customary for molecular fingerprints.

    k(x, y) = x . y / (x . x + y . y - x . y)

    Of two sets, given as zeros and ones, it is the size of the intersection over that of the
    union (Jaccard). Positive definite on real points of any dimension: with c = x . y it is the
    integral over t > 0 of exp(-t |x|^2) exp(-t |y|^2) c exp(t c). Two points at 0 have 1, one of
    them 0; there it jumps, so that no process of it is differentiable. No hyperparameters, and no
    unit: common factors cancel. Ralaivola, Swamidass, Saigo and Baldi (2005).
    """

    differentiability: ClassVar[float] = 0

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """x . y / (x . x + y . y - x . y)."""
        return self._evaluate(x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self._evaluate(X, Y)

    def _evaluate(self, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        x, y = in_one_dtype(x, y)
        # The larger point of a pair takes coordinates near 1, so that no square underflows.
        factor = jnp.minimum(*facing(reciprocal_size(x), reciprocal_size(y)))
        factor = factor[..., None] if x.shape[-1] > MOST_UNROLLED else factor
        common = pair_sum(lambda a, b: (a * factor) * (b * factor), x, y)
        # By the difference nothing cancels, and x = y gives exactly 1.
        total = common + pair_sum(lambda a, b: jnp.square((a - b) * factor), x, y)
        apart = total > 0
        return jnp.where(apart, common / jnp.where(apart, total, 1.0), 1.0)


class HammingKernel(AbstractKernel):
    """Categories, coded as numbers: what counts is which columns differ, not by how much.

    k(x, y) = exp(-sum_j [x_j != y_j] / length_scale)

    ``length_scale``: one value, or one per dimension. A product of kernels of one column each,
    1 where two categories agree and exp(-1 / length_scale) where they do not, and so positive
    definite. In an `ARDKernel` the length-scales weigh the columns; codes are compared as they
    are. It jumps, so its derivatives in the points are 0 and say nothing. Couto (2005); Hutter and
    others (2014) for the weights.
    """

    length_scale: Parameter = positive(1.0)
    stationary: ClassVar[bool] = True
    symmetric_rounding: ClassVar[bool] = True
    differentiability: ClassVar[float] = 0

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """exp(-sum_j [x_j != y_j] / length_scale)."""
        return self._evaluate(x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self._evaluate(X, Y)

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        # Quotients of different codes may round to the same number.
        return with_fields(self, length_scale=self.length_scale * length_scales)

    def _evaluate(self, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        x, y, scale = in_one_dtype(x, y, self.length_scale)
        check_per_dimension(scale, x.shape[-1], "length_scale")
        # The derivative of a plain 1 / l squares l, which may underflow.
        power = inverse_power_of_two(scale)
        rate = power * (1.0 / (scale * power))
        if rate.ndim == 0:
            return jnp.exp(-rate * pair_sum(lambda a, b: (a != b).astype(x.dtype), x, y))
        rates = per_term(rate)

        def term(a: Array, b: Array) -> Array:
            differ = a != b
            return jnp.where(differ, next(rates)(differ), 0.0)

        return jnp.exp(-pair_sum(term, x, y))

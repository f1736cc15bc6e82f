"""Kernels of the inner product."""

import jax.numpy as jnp
from jaxtyping import Array

from .._parameters import positive, real
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
from ._pairs import check_per_dimension, in_one_dtype, inner_product


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
        check_per_dimension(offset, x.shape[-1], "offset")
        offset = jnp.broadcast_to(offset, (x.shape[-1],))
        offset = offset if x.ndim == 1 else offset[None, :]
        return variance * inner_product(x - offset, y - offset)

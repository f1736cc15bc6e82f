"""Kernels that hardly look at their inputs: a constant, and white noise."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from .._parameters import positive
from .._typing import Matrix, OtherPoints, Parameter, Point, Points, Scalar
from ._base import AbstractKernel
from ._pairs import check_single


class ConstantKernel(AbstractKernel):
    """One random level for all points; also what a scalar in a formula becomes.

    k(x, y) = value, > 0

    A traced ``value`` is taken as it is, whatever its sign.
    """

    value: Parameter = positive(1.0, guarded=False)
    stationary: ClassVar[bool] = True
    symmetric_rounding: ClassVar[bool] = True

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """The value."""
        check_single(value=self.value)
        return self.value

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        check_single(value=self.value)
        return jnp.broadcast_to(self.value, (X.shape[0], Y.shape[0]))

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        return self


class WhiteNoiseKernel(AbstractKernel):
    """Independent noise of the given variance on each observation.

    k(x, y) = variance for an observation with itself, 0 for two different ones

    White noise belongs to the observation, not to the value of x: it is on the diagonal of
    ``gram(X)`` and in ``diagonal(X)``, and nowhere else. Two observations at one place have
    different noise, cross-covariances have none, and neither has ``pairwise``.
    """

    variance: Parameter = positive(1.0)
    stationary: ClassVar[bool] = True
    symmetric_rounding: ClassVar[bool] = True

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """0: two different observations share no noise, even at the same place."""
        check_single(variance=self.variance)
        return jnp.zeros_like(self.variance)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        check_single(variance=self.variance)
        return jnp.zeros((X.shape[0], Y.shape[0]), self.variance.dtype)

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        return self

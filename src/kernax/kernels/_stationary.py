"""Kernels of the scaled distance: k(x, y) = profile(|x - y|^2 / length_scale^2).

A new one is a class line, its fields, and a profile. ``length_scale`` is one value, or one per
dimension.
"""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from .._module import with_fields
from .._parameters import positive
from .._typing import Matrix, OtherPoints, Parameter, Point, Points, Scalar
from ._base import AbstractKernel
from ._distance import squared_distance
from ._pairs import check_single


class StationaryKernel(AbstractKernel):
    """Base of the kernels that are a ``profile`` of the scaled squared Euclidean distance."""

    length_scale: Parameter = positive(1.0)
    stationary: ClassVar[bool] = True
    symmetric_rounding: ClassVar[bool] = True

    @abc.abstractmethod
    def profile(self, s: Array) -> Array:
        """The covariance at squared scaled distance ``s`` >= 0, elementwise; 1 at ``s`` = 0.

        Its derivative in ``s`` must be right at 0 too: derivatives of the kernel at coincident
        points follow from it.
        """

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """profile(|x - y|^2 / length_scale^2)."""
        return self.profile(squared_distance(x, y, self.length_scale))

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self.profile(squared_distance(X, Y, self.length_scale))

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        # Into the length-scale rather than into the inputs, whose quotients would lose digits.
        return with_fields(self, length_scale=self.length_scale * length_scales)


class SEKernel(StationaryKernel):
    """Squared exponential, also called RBF or Gaussian.

    k(x, y) = exp(-r^2 / 2),  r = |x - y| / length_scale.

    Infinitely differentiable. Rasmussen and Williams (2006), equation 4.9.
    """

    def profile(self, s: Array) -> Array:
        return jnp.exp(-0.5 * s)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        if type(self).profile is not SEKernel.profile:  # a subclass with another one
            return super().matrix(X, Y)
        # With nothing but a sign left before it, the exponential gets XLA's longest vectors.
        return jnp.exp(-squared_distance(X, Y, self.length_scale, times=0.5))


RBFKernel = SEKernel


class RationalQuadraticKernel(StationaryKernel):
    """A scale mixture of squared exponentials.

    k(x, y) = (1 + r^2 / (2 alpha))^-alpha,  r = |x - y| / length_scale,

    evaluated as exp(-alpha log1p(r^2 / (2 alpha))), which keeps its digits as ``alpha`` grows and
    tends to the squared exponential. Rasmussen and Williams (2006), equation 4.19.
    """

    alpha: Parameter = positive(1.0)

    def profile(self, s: Array) -> Array:
        check_single(alpha=self.alpha)
        return _mixture(s, self.alpha)


@jax.custom_jvp
def _mixture(s: Array, alpha: Array) -> Array:
    """(1 + s / (2 alpha))^-alpha."""
    return jnp.exp(-alpha * jnp.log1p(s / (2.0 * alpha)))


def _slopes_of_mixture(primals: Any, tangents: Any) -> Any:
    (s, alpha), (ds, dalpha) = primals, tangents
    q = s / (2.0 * alpha)
    logs = jnp.log1p(q)
    value = jnp.exp(-alpha * logs)
    # Both slopes read the two: without the barrier XLA evaluates the functions for each.
    logs, value = jax.lax.optimization_barrier((logs, value))
    rest = 1.0 / (1.0 + q)
    tangent = jnp.zeros_like(s)
    if not isinstance(ds, SymbolicZero):
        tangent = tangent - 0.5 * value * rest * ds
    if not isinstance(dalpha, SymbolicZero):
        tangent = tangent - value * (logs - q * rest) * dalpha
    return value, tangent


_mixture.defjvp(_slopes_of_mixture, symbolic_zeros=True)

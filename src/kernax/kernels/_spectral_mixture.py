"""Kernels made of plane waves: one, and a mixture with Gaussian envelopes."""

import functools
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from .._errors import ShapeError
from .._module import Parameterised, field_values, with_fields
from .._nodes import Stacked
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
from ._cycles import check_same_dimension, cycles, differences, fraction, total, wave
from ._distance import squared_distance
from ._pairs import check_per_dimension, in_one_dtype
from ._periodic import remainder


class CosineKernel(AbstractKernel):
    """One plane wave of random phase.

    k(x, y) = cos(2 pi sum_j (x_j - y_j) / period)

    A single wave, with frequency 1 / period along each dimension, so that it is positive
    semi-definite, of rank two, in any dimension (a cosine of the Euclidean distance is not for
    d > 1). ``period``: one value, or one per dimension. Whole periods are taken off exactly: far
    from the origin no digit is lost. Stationary, smooth; its spectrum is a line.
    """

    period: Parameter = positive(1.0)
    stationary: ClassVar[bool] = True
    symmetric_rounding: ClassVar[bool] = True

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """The formula, for points and for sets of points alike."""
        return self._evaluate(x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self._evaluate(X, Y)

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        return with_fields(self, period=self.period * length_scales)

    def _evaluate(self, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        x, y, period = in_one_dtype(x, y, self.period)
        check_same_dimension(x, y)
        return wave(differences(phase(x, period), phase(y, period)))


def phase(points: Array, period: Array) -> Array:
    """The cycles of the wave of a `CosineKernel` at each point, whole ones taken off."""
    d = points.shape[-1]
    check_per_dimension(period, d, "period")
    periods = jnp.broadcast_to(period, (d,) if points.ndim == 1 else (1, d))
    found: Array = total(fraction(remainder(points, periods) / periods))
    return found


class SpectralMixtureKernel(AbstractKernel):
    """Plane waves with Gaussian envelopes: any spectral density, as a mixture of q Gaussians.

    k(x, y) = sum_q weights_q exp(-2 pi^2 sum_j (x_j - y_j)^2 scales_qj^2)
    cos(2 pi sum_j (x_j - y_j) means_qj)

    ``weights`` (q,), > 0, sum to the variance; ``means`` and ``scales`` (q, d) are the means and
    standard deviations of the frequencies, in cycles per unit of x; (q,) is read as (q, 1).
    ``means`` may be zero or negative: a row and its negative are the same wave, but the signs
    within a row say in which direction it runs. A zero mean is a stationary point of every
    likelihood, so start fits elsewhere. Raises `ShapeError` for shapes that do not fit each other,
    or the points. Wilson and Adams (2013), equation 12, with one wave per component.
    """

    weights: Parameter = positive((1.0,))
    means: Parameter = real((1.0,))
    scales: Parameter = positive((1.0,))
    stationary: ClassVar[bool] = True

    def __check_init__(self) -> None:
        Parameterised.__check_init__(self)  # lists become arrays there
        values = list(field_values(self).values())
        if any(isinstance(value, Stacked) for value in values):
            return  # batched, and checked before
        weights, means, scales = (value.shape for value in values)
        rows = {shape[:1] for shape in (weights, means, scales)}
        columns = {shape[1:] or (1,) for shape in (means, scales)}
        if (
            len(weights) != 1
            or len(rows) > 1
            or len(columns) > 1
            or max(len(means), len(scales)) > 2
        ):
            raise ShapeError(
                f"SpectralMixtureKernel: `weights` has shape {weights}, `means` {means} and "
                f"`scales` {scales}, expected (q,), (q, d) and (q, d). "
                "Fix: pass one weight, and one row of means and of scales, per component."
            )

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """The formula, for points and for sets of points alike."""
        return self._evaluate(x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self._evaluate(X, Y)

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        means, scales = self.components(length_scales.shape[0])
        means, scales = means / length_scales[None, :], scales / length_scales[None, :]
        return with_fields(self, means=means, scales=scales)

    def components(self, d: int) -> tuple[Array, Array]:
        """``means`` and ``scales`` as (q, d); `ShapeError` where they are for another d."""
        means, scales = (
            value[:, None] if value.ndim == 1 else value for value in (self.means, self.scales)
        )
        if means.shape[-1] != d:
            raise ShapeError(
                f"`means` has shape {self.means.shape} and `scales` {self.scales.shape}, but the "
                f"points have dimension {d}. Fix: pass arrays of shape "
                f"({self.weights.shape[0]}, {d})."
            )
        return means, scales

    def _evaluate(self, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        check_same_dimension(x, y)
        means, scales = self.components(x.shape[-1])
        x, y, weights, means, scales = in_one_dtype(x, y, self.weights, means, scales)

        def component(weight: Array, mean: Array, scale: Array) -> Array:
            s = squared_distance(x, y, 1.0 / (2.0 * jnp.pi * scale))
            phases = differences(_phase(x, mean), _phase(y, mean))
            return weight * (jnp.exp(-0.5 * s) * wave(phases))

        # Written out, so that all components are one pass over the pairs.
        parts = [component(*each) for each in zip(weights, means, scales, strict=True)]
        return functools.reduce(jnp.add, parts)


def _phase(points: Array, frequency: Array) -> Array:
    """The cycles of a plane wave at each point: per point and not per pair, and exact far away."""
    each: Any = cycles(points, frequency if points.ndim == 1 else frequency[None, :])
    return total(each)

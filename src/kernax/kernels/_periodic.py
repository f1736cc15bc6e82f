"""The periodic kernel."""

from typing import Any, ClassVar

import jax
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
from ._cycles import sine
from ._distance import FEWEST_PAIRS, inverse_power_of_two
from ._pairs import check_per_dimension, in_one_dtype, pair_sum, per_term
from ._thin import columns, row_sums, thin_product, thin_rule


class PeriodicKernel(AbstractKernel):
    """Periodic functions, in every dimension.

    k(x, y) = exp(-2 sum_j sin^2(pi (x_j - y_j) / period) / length_scale^2)

    The sum over dimensions is inside, a product of one-dimensional kernels, so that it is
    positive definite in any dimension (a sine of the Euclidean distance is not). ``length_scale``
    and ``period``: one value, or one per dimension. MacKay (1998), Introduction to Gaussian
    processes, equation 47.
    """

    length_scale: Parameter = positive(1.0)
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
        d = x.shape[-1]
        x, y, length_scale, period = in_one_dtype(x, y, self.length_scale, self.period)
        check_per_dimension(length_scale, d, "length_scale")
        check_per_dimension(period, d, "period")
        length_scale, period = (jnp.broadcast_to(value, (d,)) for value in (length_scale, period))
        large = x.ndim == 2 and d == y.shape[-1] and x.shape[0] * y.shape[0] >= FEWEST_PAIRS
        return jnp.exp(-2.0 * (_all_pairs if large else _squares)(x, y, length_scale, period))


def _squares(x: PointOrPoints, y: OtherPointOrPoints, length_scale: Array, period: Array) -> Array:
    """sum_j sin^2(pi (x_j - y_j) / period_j) / length_scale_j^2, all per dimension."""
    # An exact power of two near 1 / length_scale, and the rest: neither overflows.
    power = inverse_power_of_two(length_scale)
    weight = jnp.square(1.0 / (length_scale * power))
    cap = jnp.asarray(jnp.finfo(x.dtype).max / 8, x.dtype)
    rows = period if x.ndim == 1 else period[None, :]
    periods, powers, weights = per_term(period), per_term(power), per_term(weight)

    def term(a: Array, b: Array) -> Array:
        difference = a - b
        p, q = next(periods)(difference), next(powers)(difference)
        phase = (difference - p * jnp.round(difference / p)) / p
        square = jnp.minimum(jnp.square(sine(phase) * q), cap)
        return square * next(weights)(difference)

    return jnp.minimum(pair_sum(term, remainder(x, rows), remainder(y, rows)), cap)


@jax.custom_jvp
def _all_pairs(x: Points, y: OtherPoints, length_scale: Array, period: Array) -> Matrix:
    return _squares(x, y, length_scale, period)


def _product_tangent(
    x: Points, y: OtherPoints, length_scale: Array, period: Array,
    dx: Any, dy: Any, dlength_scale: Any, dperiod: Any,
) -> Matrix:  # fmt: skip
    """The derivative by sin and cos of each point: sin^2(a - b) = (1 - cos 2a cos 2b - ...) / 2."""
    w, p = (1.0 / jnp.square(length_scale))[None, :], period[None, :]
    cos_sin = lambda z: (f(2.0 * jnp.pi * (remainder(z, p) / p)) for f in (jnp.cos, jnp.sin))
    (cos_x, sin_x), (cos_y, sin_y) = cos_sin(x), cos_sin(y)
    slope, tangent = jnp.pi * w / p, jnp.zeros((), x.dtype)
    if dy is not None:
        right = columns(slope * dy * cos_y, slope * dy * sin_y)
        tangent = tangent - thin_product(columns(sin_x, -cos_x), right)
    # What multiplies 1, cos y, sin y, y cos y and y sin y.
    one, zero = jnp.ones_like(y[:, :1]), jnp.zeros_like(x)
    parts: list[Array] = [zero[:, :1], zero, zero, zero, zero]
    if dlength_scale is not None:
        half = -w * (dlength_scale / length_scale)[None, :]
        change = (row_sums(jnp.broadcast_to(half, x.shape)), -half * cos_x, -half * sin_x)
        parts = [*(a + b for a, b in zip(parts, change, strict=False)), *parts[3:]]
    if dx is not None:
        parts[1], parts[2] = parts[1] + slope * dx * sin_x, parts[2] - slope * dx * cos_x
    if dperiod is not None:
        center = jax.lax.stop_gradient(jnp.mean(y, axis=0, keepdims=True))
        x, y = x - center, y - center
        by = slope * (dperiod / period)[None, :]
        turn = (-by * x * sin_x, by * x * cos_x, by * sin_x, -by * cos_x)
        parts = [parts[0], *(a + b for a, b in zip(parts[1:], turn, strict=True))]
    right = columns(one, cos_y, sin_y, y * cos_y, y * sin_y)
    return tangent + thin_product(columns(*parts), right)


_all_pairs.defjvp(
    thin_rule(
        lambda *arguments: _all_pairs(*arguments),
        lambda *arguments: _squares(*arguments),
        lambda *arguments: _product_tangent(*arguments),
        lambda x, y, length_scale, period: jnp.max(1.0 / jnp.square(length_scale)),
    ),
    symbolic_zeros=True,
)


@jax.custom_jvp
def remainder(x: Array, period: Array) -> Array:
    """x minus the whole periods in it, exactly: far from 0 no digit of the phase is lost."""
    return jax.lax.rem(*jnp.broadcast_arrays(x, period))


@remainder.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> Any:
    x, period = primals
    dx, dperiod = tangents
    value = remainder(x, period)
    # The count that goes with this remainder; rounding x / period alone can be one off.
    count = jax.lax.stop_gradient(jnp.round((x - value) / period))
    return value, dx - count * dperiod

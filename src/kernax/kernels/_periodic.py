"""The periodic kernel."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._module import field_values, rebuild_fields
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
from ._pairs import check_per_dimension, in_one_dtype, pair_sum, per_term


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
        values = field_values(self) | {"period": self.period * length_scales}
        kernel: AbstractKernel = rebuild_fields(type(self), values)
        return kernel

    def _evaluate(self, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        d = x.shape[-1]
        x, y, length_scale, period = in_one_dtype(x, y, self.length_scale, self.period)
        check_per_dimension(length_scale, d, "length_scale")
        check_per_dimension(period, d, "period")
        period = jnp.broadcast_to(period, (d,))
        # An exact power of two near 1 / length_scale, and the rest: neither overflows.
        power = inverse_power_of_two(length_scale)
        weight = jnp.square(1.0 / (length_scale * power))
        power, weight = (jnp.broadcast_to(value, (d,)) for value in (power, weight))
        cap = jnp.asarray(jnp.finfo(x.dtype).max / 8, x.dtype)
        rows = period if x.ndim == 1 else period[None, :]
        periods, powers, weights = per_term(period), per_term(power), per_term(weight)

        def term(a: Array, b: Array) -> Array:
            difference = a - b
            p, q = next(periods)(difference), next(powers)(difference)
            phase = (difference - p * jnp.round(difference / p)) / p
            square = jnp.minimum(jnp.square(jnp.sin(jnp.pi * phase) * q), cap)
            return square * next(weights)(difference)

        total = pair_sum(term, remainder(x, rows), remainder(y, rows))
        return jnp.exp(-2.0 * jnp.minimum(total, cap))


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
